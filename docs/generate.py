"""Which parts of docs/ are made from the code: `./dev docs` writes them, a test compares."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sidecar.core.states import STATE_NAMES, STEPS
from sidecar.sources.schema import markdown

DOCS: Final = Path(__file__).parent


def pages() -> dict[Path, str]:
    """Return each page that is made, wholly or in part, and what it should hold now.

    Raises:
        ValueError: a page has lost its markers.
    """
    life = DOCS / "life-of-a-request.md"
    return {
        DOCS / "configuration.md": markdown(),
        life: between(life.read_text(), "states", state_diagram(STATE_NAMES, STEPS)),
    }


def state_diagram(names: Sequence[str], steps: Sequence[int]) -> str:
    """Return the Mermaid drawing of a state machine.

    It begins in state 0; `steps[state]` has a bit for each state one step away, and a state without
    any is an end.
    """
    arrows = [f"[*] --> {names[0]}"]
    for start, bits in enumerate(steps):
        arrows += [
            f"{names[start]} --> {name}" for end, name in enumerate(names) if bits >> end & 1
        ]
        if not bits:
            arrows.append(f"{names[start]} --> [*]")
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {a}" for a in arrows), "```"])


def between(page: str, name: str, text: str) -> str:
    """Return `page` with `text` between its markers `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: there is not exactly one pair of them.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if page.count(first) != 1 or page.count(last) != 1 or page.index(first) > page.index(last):
        raise ValueError(f"expected {first.strip()} and {last.strip()} once each, in this order")
    return f"{page.partition(first)[0]}{first}{text}\n{last}{page.partition(last)[2]}"


def main() -> None:
    """Write what is made."""
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
