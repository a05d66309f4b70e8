"""Names of stored things: hashes of their content, names that a folder may have, and row parts."""

from __future__ import annotations

import hashlib
import json

FORMAT = 3
"""Part of every hash; raised when the stored files, or the meaning of their numbers, change."""
LONGEST = 255
"""Most bytes in a name on common file systems."""


def content_hash(content: object) -> str:
    """The hash of content that JSON can hold, in 16 hexadecimal digits.

    The order of keys in mappings does not matter.

    >>> content_hash({"a": 1, "b": [0.1, None]}) == content_hash({"b": [0.1, None], "a": 1})
    True
    """
    text = json.dumps([FORMAT, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unfit_name(name: str) -> str | None:
    """Why no folder of results can have a name, in words that follow it; None where one can.

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


def is_part(name: str) -> bool:
    """Whether a name is that of a row part."""
    return name.startswith("part-") and name.endswith(".parquet")
