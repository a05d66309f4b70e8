"""Pictures of examples that trials have left (`attachments/<name>.png`), with words below each.

A picture is a grid of tiles: a column is an example, a row shows one thing of all of them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd
from PIL import Image

from analysis.results import Results, Value, plain, sentence, show
from engine.store.records import Pictures, TrialRecord

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


class Gallery(TypedDict):
    """A picture on the page.

    Attributes:
        title: what the trial calls it.
        recipe: whose first seed has left it.
        seed: that seed; None where nothing repeats recipes.
        image: the framed tiles, a PNG file in base 64.
        names: of the rows of tiles.
        columns: number of examples.
        rows: each line of words below the picture, with its name.
        caption: what is shown.
    """

    title: str
    recipe: str
    seed: Value
    image: str
    names: tuple[str, ...]
    columns: int
    rows: list[tuple[str, list[str]]]
    caption: str


def galleries(
    results: Results, records: Mapping[str, TrialRecord], read: Callable[[str, str], bytes | None]
) -> list[Gallery]:
    """The pictures of each recipe's first seed, for the first `PICTURES` recipes.

    Args:
        results: of the sweep.
        records: what each trial says of itself, by trial.
        read: gives a file of a trial by its name, None where there is none.
    """
    found: list[Gallery] = []
    shown = 0
    for recipe, trials in by_recipe(results):
        of_recipe = []
        for trial in trials["trial"]:
            record = records.get(trial, TrialRecord())
            for name, one in record.pictures.items():
                sheet = read(trial, f"attachments/{name}.png")
                if sheet is not None:
                    of_recipe.append(_gallery(results, name, recipe, seed_of(results, trials, trial), one, sheet))
            if of_recipe:
                break
        found += of_recipe
        shown += bool(of_recipe)
        if shown == PICTURES:
            break
    return found


def seed_of(results: Results, trials: pd.DataFrame, trial: str) -> Value:
    """A trial's seed; None where nothing repeats recipes."""
    if not results.replicates:
        return None
    return plain(trials.loc[trials["trial"] == trial, f"config.{results.replicates}"].iloc[0])


def _gallery(results: Results, name: str, recipe: str, seed: Value, one: Pictures, sheet: bytes) -> Gallery:
    def word(row: str, value: object) -> str:
        if row in one.classes and isinstance(value, int):
            return results.class_name(value)
        return show(value)

    names = list(dict.fromkeys(row for column in one.columns for row in column))
    return {
        "title": sentence(name.replace("_", " ")).rstrip("."),
        "recipe": recipe,
        "seed": seed,
        "image": base64.b64encode(framed(sheet, one.marks)).decode(),
        "names": one.rows,
        "columns": len(one.columns),
        "rows": [(row, [word(row, column.get(row, "")) for column in one.columns]) for row in names],
        "caption": one.caption,
    }


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


def by_recipe(results: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each recipe with its trials that are done, first seeds first.

    The last epoch of a trial that was stopped is not the recipe's.
    """
    trials = results.trials[results.trials["status"] == "done"]
    if results.replicates:
        trials = trials.sort_values(f"config.{results.replicates}", kind="stable")
    for recipe in trials["recipe"].cat.categories:
        yield str(recipe), trials[trials["recipe"] == recipe]
