"""Who may connect at all: whole identities, whole trust domains."""

import pytest

from sidecar.filters.allow_peers import AllowPeers, Settings
from tests.core.asking import ask
from tests.core.harness import Harness

OURS = "spiffe://our.org/ns/shop/sa/web"
THEIRS = "spiffe://their.org/x"


@pytest.mark.parametrize(
    ("peers", "anonymous", "expected"),
    [
        ((), False, {OURS}),
        ((), True, {OURS, ""}),
        ((THEIRS,), False, {THEIRS}),
        (("spiffe://their.org/*",), False, {THEIRS, "spiffe://their.org/y/z"}),
        (("spiffe://their.org/*", OURS), False, {OURS, THEIRS, "spiffe://their.org/y/z"}),
    ],
)
def test_a_caller_must_be_listed_or_of_a_listed_domain(
    peers: tuple[str, ...], anonymous: bool, expected: set[str]
) -> None:
    everyone = (OURS, THEIRS, "spiffe://their.org/y/z", "spiffe://their.org.evil/x", "")
    found = set()
    for identity in everyone:
        stop = AllowPeers(Settings(peers, "our.org", anonymous))
        harness = Harness(filters=(stop,), role="inbound")
        harness.connects_at_once = True
        asked = ask(harness, identity=identity) if identity else ask(harness)
        if not asked.is_answered:
            found.add(identity)
    assert found == expected
