"""What the tests of the packaging share: one Debian for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging import debian


@pytest.fixture(scope="package")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a Debian with systemd and Python in it. Not to be written to."""
    reason = debian.missing("mmdebstrap", "apt-config")
    if reason:
        pytest.skip(reason)
    with debian.workplace(tmp_path_factory.mktemp("debian") / "work") as directory:
        yield debian.make_tree(directory)
