"""What adversarial augmentation does to the training images: its numbers over seeds, and a picture a recipe.

Both are of what trials say of themselves (`trial.json`): the last of `epochs`, and `augmentation` among the `attachments`, which tells
of the tiles in `attachments/augmentation.png`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from analysis.results import Results, is_number, plain
from analysis.stats import SHARE, over_seeds

MEASURES = {
    "augmented": "share of examples augmented",
    "label_changed": "share whose predicted class changes",
    "margin_before": "margin before",
    "margin_after": "margin after",
}
"""What an epoch says of the augmentation, in words."""
Records = Mapping[str, Mapping[str, Any]]


TILE = 96
"""Images are magnified, by a whole number, up to this many pixels; wider ones are left as they are."""
FRAME, GAP = 4, 4
"""Widths in pixels of the frame of an image and of the white around it."""
FRAMES = {None: (255, 255, 255), "own": (0, 114, 178), "changed": (213, 94, 0)}
"""Orange for another class, blue for the image itself, which the colour-blind tell apart (Okabe and Ito, 2008)."""
PICTURES = 12
"""More of them make the page long and tell little; those of all trials are in their folders."""


def effects(results: Results, records: Records) -> list[dict[str, Any]]:
    """For each recipe with augmentation its name, `seeds`, and of each measure the mean over seeds with the ends of its interval.

    Of the last epoch of the trials that are done. A measure that no seed has is NaN.
    """
    found = []
    for recipe, trials in _recipes(results):
        last = [epochs[-1] for epochs in (records.get(trial, {}).get("epochs") for trial in trials["trial"]) if epochs]
        last = [epoch for epoch in last if is_number(epoch.get("augmented"))]
        if not last:
            continue
        line: dict[str, Any] = {"recipe": recipe, "seeds": len(last)}
        for name in MEASURES:
            values = [float(epoch[name]) if is_number(epoch.get(name)) else float("nan") for epoch in last]
            one = over_seeds(values, bounds=None if name.startswith("margin") else SHARE)
            line[name], line[f"{name}.low"], line[f"{name}.high"] = one.mean[0], one.low[0], one.high[0]
        found.append(line)
    return found


def pictures(results: Results, records: Records, read: Callable[[str, str], bytes | None]) -> list[dict[str, Any]]:
    """One picture a recipe, that of its first seed, with its words; of the first `PICTURES` recipes.

    Args:
        read: a file of a trial, None where it has none.
    """
    found = []
    for recipe, trials in _recipes(results):
        for trial in trials["trial"]:
            told, image = _of_trial(trial, records.get(trial, {}), read)
            if told is not None and image is not None:
                seed = (
                    plain(trials.loc[trials["trial"] == trial, f"config.{results.replicates}"].iloc[0])
                    if (results.replicates)
                    else None
                )
                found.append(_picture(results, recipe, seed, told, image))
                break
        if len(found) == PICTURES:
            break
    return found


def _of_trial(
    trial: str, record: Mapping[str, Any], read: Callable[[str, str], bytes | None]
) -> tuple[Mapping[str, Any] | None, bytes | None]:
    """What a trial tells of its picture, and the picture with its frames; None and None where it has none."""
    notes = (record.get("attachments") or {}).get("augmentation")
    if isinstance(notes, Mapping):
        sheet = read(trial, "attachments/augmentation.png")
        return notes, None if sheet is None else framed(sheet, notes["marks"])
    told = record.get("augmented")  # of an earlier version, whose picture has its frames already
    return (told, read(trial, "augmented.png")) if isinstance(told, Mapping) else (None, None)


def framed(sheet: bytes, marks: list[list[str | None]]) -> bytes:
    """The tiles of a sheet, magnified, each in the frame of its mark (`FRAMES`) and with white around it.

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
    """Each recipe with its trials that are done, first seeds first: where others were stopped, their last epoch is not the recipe's."""
    trials = results.trials[results.trials["status"] == "done"]
    if results.replicates:
        trials = trials.sort_values(f"config.{results.replicates}", kind="stable")
    for recipe in trials["recipe"].cat.categories:
        yield str(recipe), trials[trials["recipe"] == recipe]


def _picture(results: Results, recipe: str, seed: Any, told: Mapping[str, Any], image: bytes) -> dict[str, Any]:
    columns = list(told["columns"])
    hidden = told["space"] != "pixel"
    changed = sum(column["moved_to"] != column["predicted"] for column in columns)
    rows = [("true class", [results.class_name(column["label"]) for column in columns])]
    rows.append(("predicted before", [results.class_name(column["predicted"]) for column in columns]))
    rows.append(("predicted after", [results.class_name(column["moved_to"]) for column in columns]))
    rows.append(("margin before", [f"{column['margin_before']:.2f}" for column in columns]))
    rows.append(("margin after", [f"{column['margin_after']:.2f}" for column in columns]))
    if hidden:
        rows.append(("moved by", [f"{column['distance']:.2f}" for column in columns]))
        rows.append(("distance to nearest", [f"{column['distances'][0]:.2f}" for column in columns]))
        rows.append(
            ("classes of nearest", [", ".join(map(results.class_name, one["neighbour_labels"])) for one in columns])
        )
    return {
        "recipe": recipe,
        "seed": seed,
        "space": told["space"],
        "hidden": hidden,
        "largest": told.get("largest"),
        "image": base64.b64encode(image).decode(),
        "names": list(told["rows"]),
        "columns": len(columns),
        "changed": changed,
        "differs": [column["moved_to"] != column["predicted"] for column in columns],
        "rows": rows,
    }
