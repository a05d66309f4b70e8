"""The console script `inputscape`: runs `engine.sweep` from any folder."""

from __future__ import annotations

import os
import sys

from engine import shadows, terminal


def main() -> int:
    """Runs a sweep; returns the exit status.

    Modules of the user's own are found in the working folder.
    """
    terminal.prepare()  # the imports below take seconds
    sys.path.insert(0, os.getcwd())
    if (hidden := shadows.shadow()) is not None:
        terminal.say(hidden)
        return 2

    from engine import sweep

    return terminal.command(sweep.main)
