"""The rows of `transfer`: images found at a source (a network, several at once, or a random step), tried on every network."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.cube import select
from analysis.options import FigureOptions
from analysis.results import ReportError, Results

RANDOM = "random"
"""The source of images that were moved as far in a random direction."""
ALL_BUT = "all but "
"""How the source of a joint search begins that left networks out: `all but convnet seed 0`."""
JOINT = "all others, jointly"
"""The row that holds, for each network, the joint search on the networks that it was held out of."""
COLUMNS = ("id", "source", "target", "joint", "source_correct", "target_correct", "found", "fooled")


def held_out(source: str, target: str) -> bool:
    """Whether a joint search left a network out, by its name or by what its name begins with.

    >>> held_out("all but a seed 0", "a seed 0"), held_out("all but a", "a seed 1"), held_out("all but a", "ab seed 1")
    (True, True, False)
    """
    if not source.startswith(ALL_BUT):
        return False
    names = source.removeprefix(ALL_BUT).split(", ")
    return any(target == name or target.startswith(f"{name} ") for name in names)


def transfers(results: Results, options: FigureOptions, recipe: str | None) -> pd.DataFrame:
    """The rows of one recipe, by default the first, with `trial` and plain names.

    Raises:
        ReportError: there is no such recipe, or it has no rows.
    """
    rows = select(results, options.model_copy(update={"only_correct": False}), recipe=results.named(recipe))
    words = {name: rows[name].astype(str) for name in ("trial", "source", "target")}
    flags = {name: rows[name].fillna(False).to_numpy(bool) for name in ("joint", "found")}
    numbers = {name: pd.to_numeric(rows[name], errors="coerce").astype(float) for name in ("fooled", "target_correct")}
    source_correct = pd.to_numeric(rows["source_correct"], errors="coerce").astype(float)
    return rows.assign(**words, **flags, **numbers, source_correct=source_correct).reset_index(drop=True)


def networks(rows: pd.DataFrame) -> list[str]:
    """The networks, in order of appearance as targets."""
    return list(dict.fromkeys(rows["target"]))


def sources(rows: pd.DataFrame) -> list[str]:
    """The sources in the order in which they are shown: networks, what was searched jointly, the random control.

    Raises:
        ReportError: there are none.
    """
    there = list(dict.fromkeys(rows["source"]))
    joint = set(rows.loc[rows["joint"], "source"])
    known = networks(rows)
    single = [name for name in known if name in there]
    single += [name for name in there if name not in (*single, *joint, RANDOM)]
    several = [name for name in there if name in joint and name != RANDOM]
    order = [*single, *several, *([RANDOM] if RANDOM in there else [])]
    if not order:
        raise ReportError("no images were tried on any network")
    return order


def by_example(rows: pd.DataFrame, column: str) -> pd.Series:
    """One number an example: the mean over its rows."""
    values = rows[["id", column]].dropna()
    return values.groupby("id", observed=True)[column].mean()


def count(values: pd.Series) -> tuple[float, int]:
    """Successes and trials of shares by example, for the interval of a proportion."""
    return float(np.clip(values.sum(), 0, len(values))), len(values)
