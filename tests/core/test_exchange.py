"""The states of an exchange, and that the document draws what the table says."""

from pathlib import Path

from sidecar.core.exchange import STATE_NAMES, STEPS

ROOT = Path(__file__).parents[2]


def test_the_document_draws_the_table() -> None:
    text = (ROOT / "docs" / "life-of-a-request.md").read_text()
    drawn = text.partition("<!-- states -->")[2].partition("<!-- /states -->")[0]
    arrows = [
        f"{STATE_NAMES[start]} --> {STATE_NAMES[end]}"
        for start, steps in enumerate(STEPS)
        for end in range(len(STATE_NAMES))
        if steps >> end & 1
    ]
    found = [line.strip() for line in drawn.splitlines() if "-->" in line and "*" not in line]
    assert found == arrows
