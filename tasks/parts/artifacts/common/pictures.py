"""Pictures of examples: tiles in a grid, and words below each column.

A column is an example, a row shows one thing of all of them, such as the image and its
reconstruction. A task or an artifact kind leaves them as an `Attachment`; the report draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.artifacts.common.kind import Attachment

Mark = Literal["changed", "own"] | None
"""The frame of a tile: `changed` for another class than the image's, `own` for the image itself."""
Word = str | int | float


def pictures(
    rows: Mapping[str, Tensor],
    columns: Sequence[Mapping[str, Word]],
    *,
    caption: str,
    classes: Sequence[str] = (),
    marks: Mapping[str, Sequence[Mark]] | None = None,
) -> Attachment:
    """Images of n examples, in rows.

    Args:
        rows: name of each row, and its images (n, C, H, W) in [0, 1]; of one, two or three
            channels.
        columns: the words and numbers below each example, by name; the same names for all.
        caption: what is shown, in whole sentences.
        classes: names in `columns` whose values are numbers of classes.
        marks: rows in which tiles have frames, and the frame of each.
    """
    tiles = torch.stack([_colours(images) for images in rows.values()])  # (R, n, H, W, 3)
    framed = [list((marks or {}).get(name, [None] * len(columns))) for name in rows]
    notes = {
        "rows": list(rows),
        "columns": [dict(column) for column in columns],
        "classes": list(classes),
        "caption": caption,
        "marks": framed,
    }
    return Attachment(tiles.cpu().numpy(), notes)


def difference(moved: Tensor, images: Tensor) -> tuple[Tensor, float]:
    """Differences (n, C, H, W) as images, magnified alike: grey is none.

    Args:
        moved: (n, C, H, W).
        images: (n, C, H, W).

    Returns:
        The images, and the difference that is white; as much less is black.
    """
    apart = (moved - images).float()
    largest = float(apart.abs().max()) if apart.numel() else 0.0
    return 0.5 + apart / (2 * largest or 1.0), largest


def scale(largest: float) -> str:
    """What grey, white and black of a `difference` mean, as a sentence.

    >>> scale(0.25)
    'Differences are magnified: grey is none, white is 0.25 more and black as much less.'
    """
    return f"Differences are magnified: grey is none, white is {largest:.3g} more and black as much less."


def _colours(images: Tensor) -> Tensor:
    """Images (n, C, H, W) in [0, 1] as RGB (n, H, W, 3), uint8.

    Of other than three channels the first is shown, in grey.
    """
    images = images.detach().float()
    images = images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)
    return images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
