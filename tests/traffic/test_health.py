"""Thresholds: how many answers in a row turn a verdict."""

import pytest

from sidecar.traffic.health import Verdict


@pytest.mark.parametrize(
    ("begin", "answers", "verdicts"),
    [
        # `+` is a good answer or verdict, `-` a bad one; three bad ones turn it, two good ones.
        (None, "+--+---+-++", "++++++----+"),
        (None, "-+-++", "----+"),
        (None, "-++---", "--+++-"),
        (True, "--+---", "+++++-"),
        (False, "+", "+"),  # the first answer of a check that has only taken a state over
        (False, "-++", "--+"),
    ],
)
def test_it_takes_a_row_of_answers_to_turn_a_verdict(
    begin: bool | None, answers: str, verdicts: str
) -> None:
    verdict = Verdict(2, 3, begin)
    assert verdict.healthy is begin
    found = ""
    for answer in answers:
        verdict.add(good=answer == "+")
        found += "+" if verdict.healthy else "-"

    assert found == verdicts
