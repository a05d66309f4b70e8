"""Finds modules of the user's own that hide ours.

A `tasks.py` in the working folder is imported in place of our `tasks`.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "tasks", "analysis")


def shadow() -> str | None:
    """Says what hides one of our packages, and what to do; None where nothing does."""
    for name in PACKAGES:
        found = PathFinder.find_spec(name, sys.path)
        if found is None or found.origin is None:  # a folder without __init__.py hides nothing
            continue
        file = Path(found.origin).resolve()
        if HOME not in file.parents:
            place = file.parent if file.name == "__init__.py" else file
            return f"{place} hides the {name} of inputscape; run in another folder, or rename it"
    return None
