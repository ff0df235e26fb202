"""Can the package run on the Debian that the other tests of this room are made on?"""

from pathlib import Path

from tests.packaging import debian


def test_it_has_a_python_that_is_new_enough(tree: Path) -> None:
    said = debian.run(
        "chroot", tree, "python3", "-c", "import sys; print(*sys.version_info[:2])", seconds=20
    )

    assert said.returncode == 0, said.stdout
    assert tuple(map(int, said.stdout.split())) >= (3, 11)
