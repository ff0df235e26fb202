"""What processes cost, as the harness reads it."""

import os
import subprocess
import sys
import time

from benchmarks.load.processes import cpu, family

BUSY = """
import subprocess, sys, time
work = "import time\\nwhile time.process_time() < 0.2: pass\\nprint('done', flush=True); input()"
subprocess.run([sys.executable, "-c", work])
"""


def test_cpu_counts_children_and_is_finer_than_a_tick() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"done\n"

        assert len(family(started.pid)) == 2
        spent = cpu([started.pid])

        started.communicate(b"\n")
    assert 0.2 <= spent < 5


def test_cpu_of_ourselves_moves_by_what_we_spend() -> None:
    before, begin = cpu([os.getpid()]), time.process_time()
    while time.process_time() - begin < 0.005:
        pass

    assert 0.005 <= cpu([os.getpid()]) - before < 1
