"""A program that is run and says by its exit code whether all is well."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from sidecar.agent.process import Watched

LINGER: Final = 1.0  # seconds that the kernel may take to end a program that was killed
LAST_WORDS: Final = 400  # octets of standard error that are kept, the last ones


async def run(argv: Sequence[str], environ: Mapping[str, str], timeout: float) -> str:  # noqa: ASYNC109 - seconds for the program, and the text says so
    """Run `argv`; return why it failed, empty if it did not.

    After `timeout` seconds, or when cancelled, it is killed with all it has started.
    """
    try:
        # A session of its own, so that what it starts can be ended with it.
        child = subprocess.Popen(  # noqa: S603, ASYNC220 - the operator's words; does not wait
            list(argv),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return f"{argv[0]} cannot be run: {error.strerror}"
    assert child.stderr is not None
    process = Watched(child.pid, child)
    pipe = child.stderr.fileno()
    os.set_blocking(pipe, False)
    words = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        """Take what there is; a program must not stand still because nobody reads."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(pipe, 65536)
            if not data:
                loop.remove_reader(pipe)
            words.extend(data)
            del words[:-LAST_WORDS]

    loop.add_reader(pipe, read)
    try:
        async with asyncio.timeout(timeout):
            await process.ended.wait()
        read()  # what was said last
    except TimeoutError:
        return f"{argv[0]} did not end within {timeout:g} s"
    finally:
        if not process.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await process.ended.wait()
        loop.remove_reader(pipe)
        child.stderr.close()
    if child.returncode == 0:
        return ""
    lines = words.decode(errors="replace").strip().splitlines()
    code = child.returncode
    how = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
    return f"{how}: {lines[-1]}" if lines else how
