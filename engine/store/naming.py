"""Names of what is stored: the hash of what decides it, and which names a folder may have."""

from __future__ import annotations

import hashlib
import json

FORMAT = 3
"""Enters every hash: counted up when what is stored, or what a stored number means, changes."""
LONGEST = 255
"""Bytes in a name at most: no common file system takes more."""


def content_hash(content: object) -> str:
    """Sixteen hexadecimal digits that identify JSON-able content, whatever the order of its mappings' keys.

    >>> content_hash({"a": 1, "b": [0.1, None]}) == content_hash({"b": [0.1, None], "a": 1})
    True
    """
    text = json.dumps([FORMAT, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unfit_name(name: str) -> str | None:
    """Why a name cannot be that of a folder of results, in words that follow it; None where it can.

    >>> unfit_name("größe 2"), unfit_name("..")
    (None, 'begins with a dot')
    """
    if not name or name.startswith("."):
        return "begins with a dot" if name else "is empty"
    if "/" in name or "\\" in name:
        return "has a slash"
    if not name.isprintable():
        return "has characters that cannot be printed"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return None
