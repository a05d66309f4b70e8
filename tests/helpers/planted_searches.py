"""Rows as the tasks `adversarial_search` and `transfer` leave them, with planted answers.

Searches: linear models, whose smallest perturbation is the margin. An attack finds it `slack` times
as far away, a random direction crosses the boundary only much farther out. The strongest attack,
apgd, goes on to the end of each radius, so that the points that it finds are farther away than
those of weaker ones; fmn searches for the smallest perturbation itself.

Transfer: networks that agree the more, the more alike they are, and the less the flatter the source
is around the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from linear_sweeps import margins

SLACK = {"pgd": 1.25, "apgd": 1.0, "square": 1.6, "fmn": 1.1}
LADDER = (0.02, 0.05, 0.1, 0.2, 0.3)
RANDOM_SLACK = 6.0
NAMES = ("convnet, seed 0", "convnet, seed 1", "convnet, seed 2", "mlp, seed 0", "mlp, seed 1", "mlp, seed 2")
SEARCH_COLUMNS = {
    "radius": "radius of the attack (pixel units)",
    "distance": "norm of the perturbation (pixel units)",
    "found": "search succeeded",
}


def smallest(point: Mapping[str, Any], examples: int) -> Any:
    """How far away each example's adversarial image is found, if the ladder reaches that far."""
    return SLACK[str(point.get("attack.name", "apgd"))] * margins(point, examples)


def searched(point: Mapping[str, Any], examples: int = 40, ladder: Sequence[float] = LADDER) -> pd.DataFrame:
    """One row an example and radius; every seventh example is misclassified to begin with."""
    ids = np.arange(examples)
    far = smallest(point, examples)
    name = point.get("attack.name", "apgd")
    black_box = name == "square"
    rungs = np.array([0.0, *ladder, np.nan])
    place = np.searchsorted(ladder, far)  # the first radius that succeeds
    ends = {
        "distance": np.where(far > ladder[-1], ladder[-1], rungs[place + 1] if name == "apgd" else far),
        "distance_low": far if name == "fmn" else rungs[place],
        "distance_high": far
        if name == "fmn"
        else rungs[place + 1]
        if name == "apgd"
        else np.where(far > ladder[-1], np.nan, far),
    }
    parts = []
    for radius in ladder:
        found = far <= radius
        steps = np.where(far <= ladder[-1], 10 + 400 * far.round(2), 200).round()
        parts.append(
            pd.DataFrame(
                {
                    "id": ids,
                    "label": ids % 10,
                    "predicted": np.where(ids % 7 == 3, (ids + 1) % 10, ids % 10),
                    "correct": ids % 7 != 3,
                    "radius": radius,
                    "found": found,
                    **ends,
                    "steps": steps,
                    "forwards": steps * (5 if black_box else 1) + 1,
                    "backwards": np.zeros(examples) if black_box else steps,
                    "loss_start": 0.1,
                    "loss_end": 1.0,
                    "verified": True,
                    "fooled_random": RANDOM_SLACK * margins(point, examples) <= radius,
                    "fooled_black_box": np.nan,
                    "unseen": np.nan,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def transferred(
    point: Mapping[str, Any], examples: int = 60, names: Sequence[str] = NAMES, joint: bool = True, random: bool = True
) -> pd.DataFrame:
    """One row an example, source and target."""
    rng = np.random.default_rng(int(point.get("recipe.seed", 0)))
    ids = np.arange(examples)
    ease = rng.random(examples)
    correct = {name: rng.random(examples) > 0.05 for name in names}
    sources = [*names, *([f"all but {name}" for name in names] if joint else []), *(["random"] if random else [])]
    parts = []
    for source in sources:
        several, control = source.startswith("all but "), source == "random"
        flatness = np.clip(0.5 + 0.35 * rng.normal(size=examples), 0, 1).round(2)
        found = np.ones(examples, bool) if control else rng.random(examples) > (0.25 if several else 0.06)
        right = np.all(list(correct.values()), axis=0) if several or control else correct[source]
        columns = {}
        for target in names:
            kin = target.split(", seed")[0] == source.split(", seed")[0]
            inside = target == source or (several and source != f"all but {target}")
            chance = 0.02 if control else (0.75 if several else 0.55 if kin else 0.3) + 0.25 * (ease - 0.5)
            chance = chance - (0 if control else 0.3 * (flatness - 0.5))
            fooled = rng.random(examples) < chance
            columns[target] = np.where(correct[target], found if inside else fooled, True).astype(bool)
        shared = np.sum(list(columns.values()), axis=0)
        for target in names:
            parts.append(
                pd.DataFrame(
                    {
                        "id": ids,
                        "label": ids % 10,
                        "source": source,
                        "target": target,
                        "joint": several,
                        "held_out": target != source if not several else source == f"all but {target}",
                        "source_correct": right,
                        "target_correct": correct[target],
                        "found": found,
                        "distance": 0.1,
                        "fooled": columns[target],
                        "flatness": np.nan if control else flatness,
                        "shared": shared,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
