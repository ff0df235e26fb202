"""Whose is a unix socket's path: ours, or the service manager's that passed it to us?"""

import os
import socket
from pathlib import Path

import pytest

from sidecar.agent import sockets


@pytest.mark.parametrize("passed", [False, True])
def test_only_our_own_path_is_removed(tmp_path: Path, passed: bool) -> None:
    path = tmp_path / "app.sock"
    address = f"unix:{path}"
    ours = sockets.bind(address)
    held = sockets.Passed(fileno=os.dup(ours.fileno()))

    sockets.close(address, held if passed else ours)

    assert path.exists() is passed
    held.close()
    ours.close()


def test_sockets_passed_to_another_process_are_not_taken() -> None:
    assert sockets.passed({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == {}


@pytest.mark.parametrize(
    ("family", "host", "form"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"), (socket.AF_INET6, "::1", "[::1]:{}")],
)
def test_a_socket_is_called_what_the_configuration_calls_it(
    family: socket.AddressFamily, host: str, form: str
) -> None:
    with socket.socket(family) as sock:
        sock.bind((host, 0))

        assert sockets.name_of(sock) == form.format(sock.getsockname()[1])
