"""Pictures and notes that tasks and makers of artifacts leave: one PNG file each, and its words."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image
from pydantic import JsonValue

from engine.store.naming import unfit_name
from engine.store.store import Store
from tasks.parts.artifacts.common.kind import Attachment


def write_attachments(store: Store, folder: str, left: Mapping[str, Attachment]) -> dict[str, dict[str, JsonValue]]:
    """Writes tiles to `attachments/<name>.png` in a folder; returns the notes by name.

    Raises:
        ValueError: a name cannot be that of a file.
    """
    for name, attachment in left.items():
        if (unfit := unfit_name(name)) is not None:
            raise ValueError(f"the attachment {name!r} {unfit}")
        if attachment.tiles is not None:
            store.write(f"{folder}/attachments/{name}.png", sheet(attachment))
    return {name: dict(attachment.notes) for name, attachment in left.items()}


def sheet(attachment: Attachment) -> bytes:
    """The tiles of an attachment side by side, in one PNG file."""
    assert attachment.tiles is not None
    tiles = np.concatenate(np.concatenate(attachment.tiles, axis=1), axis=1)  # (R H, n W, 3)
    buffer = io.BytesIO()
    Image.fromarray(tiles).save(buffer, "PNG")
    return buffer.getvalue()
