"""What adversarial augmentation does to the training images: numbers, and pictures.

Numbers are over seeds, pictures one a recipe. Both are of what trials say of themselves
(`trial.json`): the last of `epochs`, and `augmentation` among the `attachments`, which tells of the
tiles in `attachments/augmentation.png`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from analysis.results import Results, Value, plain
from analysis.stats import SHARE, over_seeds
from engine.store.records import Augmentation, TrialRecord

MEASURES = {
    "augmented": "share of examples augmented",
    "label_changed": "share whose predicted class changes",
    "margin_before": "margin before",
    "margin_after": "margin after",
}
"""What an epoch says of the augmentation, in words."""
Records = Mapping[str, TrialRecord]

TILE = 96
"""Images are magnified, by a whole number, up to so many pixels; wider ones stay as they are."""
FRAME, GAP = 4, 4
"""Widths in pixels of the frame of an image and of the white around it."""
FRAMES = {None: (255, 255, 255), "own": (0, 114, 178), "changed": (213, 94, 0)}
"""Orange for another class, blue for the image itself: the colour-blind tell them apart.

The colours are those of Okabe and Ito (2008).
"""
PICTURES = 12
"""More of them make the page long and tell little; those of all trials are in their folders."""


@dataclass(frozen=True)
class Picture:
    """Some training images with what the augmentation makes of them, and the words below.

    Attributes:
        recipe: its label; `seed` is that of the trial.
        seed: None where nothing repeats a recipe.
        space: in which images are moved; `hidden` where that is not the pixels.
        hidden: whether the images are moved in a hidden layer.
        largest: the largest change of a pixel, where known.
        image: the PNG file in base 64.
        names: of the rows of tiles.
        columns: how many images there are.
        changed: of how many the predicted class changes.
        differs: of each image, whether its predicted class changes.
        rows: each line of words below the picture, with its name.
    """

    recipe: str
    seed: Value
    space: str
    hidden: bool
    largest: float | None
    image: str
    names: tuple[str, ...]
    columns: int
    changed: int
    differs: list[bool]
    rows: list[tuple[str, list[str]]]


def effects(results: Results, records: Records) -> list[dict[str, str | float]]:
    """What the augmentation does in each recipe that has it.

    The numbers are of the last epoch of the finished trials. A line has the name `recipe`, how many
    `seeds`, and of each measure the mean over seeds with the ends of its interval. A measure that
    no seed has is NaN.
    """
    found = []
    for recipe, trials in _recipes(results):
        last = [records[trial].epochs[-1] for trial in trials["trial"] if trial in records and records[trial].epochs]
        last = [epoch for epoch in last if "augmented" in epoch]
        if not last:
            continue
        line: dict[str, str | float] = {"recipe": recipe, "seeds": len(last)}
        for name in MEASURES:
            values = [float(epoch.get(name, float("nan"))) for epoch in last]
            one = over_seeds(values, bounds=None if name.startswith("margin") else SHARE)
            line[name], line[f"{name}.low"], line[f"{name}.high"] = one.mean[0], one.low[0], one.high[0]
        found.append(line)
    return found


def pictures(results: Results, records: Records, read: Callable[[str, str], bytes | None]) -> list[Picture]:
    """One picture a recipe, that of its first seed, for the first `PICTURES` recipes.

    `read` gives a file of a trial by its name, None where there is none.
    """
    found = []
    for recipe, trials in _recipes(results):
        for trial in trials["trial"]:
            shown = records[trial].augmentation if trial in records else None
            image = _picture_of(shown, trial, read) if shown is not None else None
            if shown is not None and image is not None:
                seed = None
                if results.replicates:
                    seed = plain(trials.loc[trials["trial"] == trial, f"config.{results.replicates}"].iloc[0])
                found.append(_picture(results, recipe, seed, shown, image))
                break
        if len(found) == PICTURES:
            break
    return found


def _picture_of(shown: Augmentation, trial: str, read: Callable[[str, str], bytes | None]) -> bytes | None:
    """A trial's picture with its frames."""
    if not shown.marks:  # of an earlier version, whose picture has its frames already
        return read(trial, "augmented.png")
    sheet = read(trial, "attachments/augmentation.png")
    return None if sheet is None else framed(sheet, shown.marks)


def framed(sheet: bytes, marks: Sequence[Sequence[str | None]]) -> bytes:
    """The tiles of a sheet, magnified, each in the frame of its mark (`FRAMES`) amid white.

    Args:
        sheet: a PNG file of R rows of n tiles of one size, without gaps.
        marks: (R, n).
    """
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
    height, width = pixels.shape[0] // len(marks), pixels.shape[1] // len(marks[0])
    times = max(1, TILE // max(height, width))
    edge = FRAME + GAP
    tall, wide = times * height + 2 * edge, times * width + 2 * edge
    drawn = np.full((tall * len(marks), wide * len(marks[0]), 3), 255, np.uint8)
    for row, line in enumerate(marks):
        for column, mark in enumerate(line):
            tile = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
            place = drawn[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
            place[GAP:-GAP, GAP:-GAP] = FRAMES[mark]
            place[edge:-edge, edge:-edge] = tile.repeat(times, axis=0).repeat(times, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    return buffer.getvalue()


def _recipes(results: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each recipe with its trials that are done, first seeds first.

    The last epoch of a trial that was stopped is not the recipe's.
    """
    trials = results.trials[results.trials["status"] == "done"]
    if results.replicates:
        trials = trials.sort_values(f"config.{results.replicates}", kind="stable")
    for recipe in trials["recipe"].cat.categories:
        yield str(recipe), trials[trials["recipe"] == recipe]


def _picture(results: Results, recipe: str, seed: Value, shown: Augmentation, image: bytes) -> Picture:
    columns, name = shown.columns, results.class_name
    hidden = shown.space != "pixel"
    differs = [column.moved_to != column.predicted for column in columns]
    rows = [
        ("true class", [name(column.label) for column in columns]),
        ("predicted before", [name(column.predicted) for column in columns]),
        ("predicted after", [name(column.moved_to) for column in columns]),
        ("margin before", [f"{column.margin_before:.2f}" for column in columns]),
        ("margin after", [f"{column.margin_after:.2f}" for column in columns]),
    ]
    if hidden:
        rows += [
            ("moved by", [f"{column.distance:.2f}" for column in columns]),
            ("distance to nearest", [f"{column.distances[0]:.2f}" for column in columns]),
            ("classes of nearest", [", ".join(map(name, column.neighbour_labels)) for column in columns]),
        ]
    return Picture(
        recipe=recipe,
        seed=seed,
        space=shown.space,
        hidden=hidden,
        largest=shown.largest,
        image=base64.b64encode(image).decode(),
        names=shown.rows,
        columns=len(columns),
        changed=sum(differs),
        differs=differs,
        rows=rows,
    )
