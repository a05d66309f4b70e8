"""What adversarial augmentation does to the training images: numbers, and pictures.

Numbers are over seeds, pictures one a recipe. Both are of what trials say of themselves
(`trial.json`): the last of `epochs`, and `augmentation` among the `attachments`, which tells of the
tiles in `attachments/augmentation.png`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from analysis.galleries import PICTURES, by_recipe, framed, seed_of
from analysis.results import Results, Value
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
    for recipe, trials in by_recipe(results):
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
    for recipe, trials in by_recipe(results):
        for trial in trials["trial"]:
            shown = records[trial].augmentation if trial in records else None
            image = _picture_of(shown, trial, read) if shown is not None else None
            if shown is not None and image is not None:
                found.append(_picture(results, recipe, seed_of(results, trials, trial), shown, image))
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
