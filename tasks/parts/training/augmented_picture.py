"""What adversarial augmentation does to some training images, as one picture.

A column is an example, a row shows one thing of all of them: in pixels the images, the moved images and the differences; for a hidden
layer the images, and below them the training images whose representations in that layer are nearest to the moved one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.parts.data import load as data
from tasks.parts.models.classifier import Classifier
from tasks.parts.training.augmented_examples import Examples, examples_of
from tasks.parts.training.recipes import Recipe

TILE = 96
"""Images are magnified, by a whole number, up to this many pixels; wider ones are left as they are."""
FRAME, GAP = 4, 4
"""Widths in pixels of the frame of an image and of the white around it."""
WHITE, BLUE, ORANGE = (255, 255, 255), (0, 114, 178), (213, 94, 0)
"""Frames: orange for another class, blue for the image itself, which the colour-blind tell apart (Okabe and Ito, 2008)."""

Told = dict[str, Any]
"""JSON-able words and numbers about a picture, see `of`."""


def of(recipe: Recipe, model: Classifier, train: data.Split, count: int = 8) -> tuple[np.ndarray, Told] | None:
    """The picture of what the recipe's augmentation, at its full epsilon, does; None where `examples_of` gives no examples.

    Args:
        model: trained by the recipe; its mode and device stay as they are.
        train: the whole training split.
        count: columns at most.

    Returns:
        RGB (H, W, 3), uint8, all columns of one width and all rows of one height; and what it shows: `space`, `rows` (the name of each),
        `largest` (the difference that is black or white, in pixels), and `columns`, for each example `id`, `label`, `predicted`,
        `moved_to` (classes by number), `margin_before`, `margin_after` and, of a hidden layer, `distance`, `neighbours`,
        `neighbour_labels` and `distances`, see `Examples`.
    """
    found = examples_of(recipe, model, train, count)
    if found is None:
        return None
    told: Told = {"space": recipe.adversarial_augmentation.space}
    if found.moved is not None:
        rows, frames = _in_pixels(found, told)
    else:
        rows, frames = _by_neighbours(found, train, told)
    told["columns"] = [_column(found, i) for i in range(len(found.ids))]
    lines = [
        np.concatenate([_tile(image, colour) for image, colour in zip(images, colours, strict=True)], axis=1)
        for images, colours in zip(rows, frames, strict=True)
    ]
    return np.concatenate(lines), told


def _in_pixels(found: Examples, told: Told) -> tuple[list[np.ndarray], list[list[tuple[int, int, int]]]]:
    """The images of each row (n, C, H, W) in [0, 1], and their frames."""
    assert found.moved is not None
    difference = found.moved - found.images
    largest = float(np.abs(difference).max())
    told |= {"rows": ["training image", "moved", "difference"], "largest": largest}
    changed = [
        ORANGE if after != before else WHITE for before, after in zip(found.predicted, found.moved_to, strict=True)
    ]
    plain = [WHITE] * len(found.ids)
    return [found.images, found.moved, 0.5 + difference / (2 * largest or 1.0)], [plain, changed, plain]


def _by_neighbours(
    found: Examples, train: data.Split, told: Told
) -> tuple[list[np.ndarray], list[list[tuple[int, int, int]]]]:
    """The images of each row (n, C, H, W) in [0, 1], and their frames."""
    assert found.neighbours is not None
    assert found.neighbour_labels is not None
    ranks = ["nearest", "2nd nearest", "3rd nearest", *(f"{rank}th nearest" for rank in range(4, 21))]
    told["rows"] = ["training image", *ranks[: found.neighbours.shape[1]]]
    rows, frames = [found.images], [[WHITE] * len(found.ids)]
    for near, labels in zip(found.neighbours.T, found.neighbour_labels.T, strict=True):
        rows.append(data.take(train, near)[0].cpu().numpy())
        frames.append(
            [
                BLUE if other == own else ORANGE if its != label else WHITE
                for other, own, its, label in zip(near, found.ids, labels, found.labels, strict=True)
            ]
        )
    return rows, frames


def _column(found: Examples, i: int) -> Told:
    column: Told = {
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


def _tile(image: np.ndarray, frame: tuple[int, int, int]) -> np.ndarray:
    """An image (C, H, W) in [0, 1] as RGB (H', W', 3), uint8, magnified, with its frame and white around it."""
    colours = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    pixels = np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    times = max(1, TILE // max(pixels.shape[:2]))
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    sides = ((FRAME, FRAME), (FRAME, FRAME))
    framed = np.stack([np.pad(pixels[..., i], sides, constant_values=frame[i]) for i in range(3)], axis=2)
    return np.pad(framed, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)
