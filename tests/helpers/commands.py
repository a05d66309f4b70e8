"""Sweeps in processes of their own: how one is started, waited for, and killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).parents[2]
HELPERS = Path(__file__).parent
# As python -m engine.sweep; what a shell runs in the background, tests perhaps, ignores SIGINT.
LISTENING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("engine.sweep", run_name="__main__", alter_sys=True)
"""


def environment(*folders: Path, **changes: str) -> dict[str, str]:
    """This process's environment, with the project and the tests' own tasks to import from."""
    paths = os.pathsep.join(map(str, (PROJECT, HELPERS, *folders)))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **changes}


def started(*arguments: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own, and in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", LISTENING, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a process has said, once it has ended with that status."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == status, said
    return said


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits until a condition holds, while the process runs."""
    for _ in range(2400):
        if condition():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("waited too long")
