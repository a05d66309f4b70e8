"""What adversarial augmentation does to some training images, as tiles of a picture.

A column is an example, a row shows one thing of all of them: in pixels the images, the moved images
and the differences; for a hidden layer the images, and below them the training images whose
representations in that layer are nearest to the moved one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tasks.parts.data import load as data
from tasks.parts.models.classifier import Classifier
from tasks.parts.training.augmented_examples import Examples, examples_of
from tasks.parts.training.recipes import Recipe

Mark = Literal["changed", "own"] | None
"""What is remarkable about a tile: another class than the image's, or the image itself."""
Notes = dict[str, object]
"""JSON-able words and numbers about the tiles, see `of`."""


def of(recipe: Recipe, model: Classifier, train: data.Split, count: int = 8) -> tuple[np.ndarray, Notes] | None:
    """What the recipe's augmentation does at its full epsilon, in tiles with notes.

    None where `examples_of` gives no examples.

    Args:
        recipe: with adversarial augmentation.
        model: trained by the recipe; its mode and device stay as they are.
        train: the whole training split.
        count: columns at most.

    Returns:
        Tiles (R, n, H, W, 3), uint8, a row for each thing shown and a column for each example. And
        notes: `space`, `rows` (the name of each), `marks` (R, n), `largest` (the difference that is
        black or white, in pixels), and `columns`, for each example `id`, `label`, `predicted`,
        `moved_to` (classes by number), `margin_before`, `margin_after` and, of a hidden layer,
        `distance`, `neighbours`, `neighbour_labels` and `distances`, see `Examples`.
    """
    found = examples_of(recipe, model, train, count)
    if found is None:
        return None
    notes: Notes = {"space": recipe.adversarial_augmentation.space}
    rows = _in_pixels(found, notes) if found.moved is not None else _by_neighbours(found, train, notes)
    notes["columns"] = [_column(found, i) for i in range(len(found.ids))]
    return np.stack([[_colours(image) for image in images] for images in rows]), notes


def _in_pixels(found: Examples, notes: Notes) -> list[np.ndarray]:
    """The images of each row, (n, C, H, W) in [0, 1]."""
    assert found.moved is not None
    difference = found.moved - found.images
    largest = float(np.abs(difference).max())
    plain: list[Mark] = [None] * len(found.ids)
    changed = [
        "changed" if after != before else None for before, after in zip(found.predicted, found.moved_to, strict=True)
    ]
    notes |= {"rows": ["training image", "moved", "difference"], "largest": largest, "marks": [plain, changed, plain]}
    return [found.images, found.moved, 0.5 + difference / (2 * largest or 1.0)]


def _by_neighbours(found: Examples, train: data.Split, notes: Notes) -> list[np.ndarray]:
    """The images of each row, (n, C, H, W) in [0, 1]."""
    assert found.neighbours is not None
    assert found.neighbour_labels is not None
    ranks = ["nearest", "2nd nearest", "3rd nearest", *(f"{rank}th nearest" for rank in range(4, 21))]
    rows = [found.images]
    marks: list[list[Mark]] = [[None] * len(found.ids)]
    for near, labels in zip(found.neighbours.T, found.neighbour_labels.T, strict=True):
        rows.append(data.take(train, near)[0].cpu().numpy())
        pairs = zip(near, found.ids, labels, found.labels, strict=True)
        marks.append(
            ["own" if other == own else "changed" if its != label else None for other, own, its, label in pairs]
        )
    notes |= {"rows": ["training image", *ranks[: found.neighbours.shape[1]]], "marks": marks}
    return rows


def _column(found: Examples, i: int) -> Notes:
    column: Notes = {
        "id": int(found.ids[i]),
        "label": int(found.labels[i]),
        "predicted": int(found.predicted[i]),
        "moved_to": int(found.moved_to[i]),
        "margin_before": float(found.margin_before[i]),
        "margin_after": float(found.margin_after[i]),
    }
    for name in ("distance", "neighbours", "neighbour_labels", "distances"):
        values = getattr(found, name)
        if values is not None:
            column[name] = values[i].tolist()
    return column


def _colours(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) in [0, 1] as RGB (H, W, 3), uint8."""
    colours = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
