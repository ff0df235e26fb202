"""What docs/ draws and lists is what the code says."""

import re
from pathlib import Path

import pytest

from docs.generate import DOCS, between, pages, state_diagram
from sidecar.core.states import STATE_NAMES

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_holds_what_the_code_says(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run ./dev docs"


def test_the_page_explains_every_state_and_no_other() -> None:
    text = (DOCS / "life-of-a-request.md").read_text().partition("<!-- /states -->")[2]

    assert re.findall(r"`([A-Z_]+)`:", text) == list(STATE_NAMES)


def test_a_table_is_drawn_with_all_its_arrows_and_no_other() -> None:
    drawn = state_diagram(("OPEN", "HALF", "SHUT"), (0b110, 0b111, 0))

    assert drawn.splitlines() == [
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> OPEN",
        "    OPEN --> HALF",
        "    OPEN --> SHUT",
        "    HALF --> OPEN",
        "    HALF --> HALF",
        "    HALF --> SHUT",
        "    SHUT --> [*]",
        "```",
    ]


def test_only_what_stands_between_the_markers_changes() -> None:
    page = "before\n<!-- a -->\nold\n<!-- /a -->\nbehind\n"

    made = between(page, "a", "new")

    assert made == "before\n<!-- a -->\nnew\n<!-- /a -->\nbehind\n"
    assert between(made, "a", "new") == made


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<!-- a -->\n",
        "<!-- /a -->\n<!-- a -->\n",
        "<!-- a -->\n<!-- a -->\n<!-- /a -->\n",
        "<!-- a -->\n<!-- /a -->\n<!-- /a -->\n",
    ],
)
def test_a_page_without_its_pair_of_markers_is_told(page: str) -> None:
    with pytest.raises(ValueError, match="once each, in this order"):
        between(page, "a", "new")
