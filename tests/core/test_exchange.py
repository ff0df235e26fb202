"""The table of an exchange's states is one whole."""

from sidecar.core.states import ROUTING, STATE_NAMES, STEPS


def reached(start: int) -> set[int]:
    """Return the states that can follow `start`, itself included."""
    found = {start}
    todo = [start]
    while todo:
        steps = STEPS[todo.pop()]
        new = {end for end in range(steps.bit_length()) if steps >> end & 1} - found
        found |= new
        todo += new
    return found


def test_every_state_can_be_reached_and_leads_to_the_only_end() -> None:
    ends = [state for state, steps in enumerate(STEPS) if not steps]

    assert len(STATE_NAMES) == len(STEPS)
    assert reached(ROUTING) == set(range(len(STEPS)))
    assert len(ends) == 1
    assert all(ends[0] in reached(state) for state in range(len(STEPS)))
