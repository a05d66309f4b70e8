"""Rows of images that were found at a source and tried on every network.

A source is a network, several at once (jointly), or a control: images that were moved as far
without looking at any network.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.arrays import select
from analysis.options import FigureOptions
from analysis.results import ReportError, Results

COLUMNS = ("id", "source", "target", "joint", "held_out", "source_correct", "target_correct", "found", "fooled")
"""What such rows have."""


def transfers(results: Results, options: FigureOptions, recipe: str | None) -> pd.DataFrame:
    """The rows of one recipe, by default the first, with plain types.

    Raises:
        ReportError: there is no such recipe, or it has no rows.
    """
    rows = select(results, options.model_copy(update={"only_correct": False}), recipe=results.named(recipe))
    words = {name: rows[name].astype(str) for name in ("trial", "source", "target")}
    flags = {name: rows[name].fillna(False).to_numpy(bool) for name in ("joint", "held_out", "found")}
    numbers = {name: pd.to_numeric(rows[name], errors="coerce").astype(float) for name in ("fooled", "target_correct")}
    source_correct = pd.to_numeric(rows["source_correct"], errors="coerce").astype(float)
    return rows.assign(**words, **flags, **numbers, source_correct=source_correct).reset_index(drop=True)


def networks(rows: pd.DataFrame) -> list[str]:
    """The networks, in order of appearance as targets."""
    return list(dict.fromkeys(rows["target"]))


def sources(rows: pd.DataFrame) -> list[str]:
    """The sources in the order in which they are shown: networks, those attacked jointly, controls.

    Raises:
        ReportError: there are none.
    """
    there = list(dict.fromkeys(rows["source"]))
    joint = set(rows.loc[rows["joint"], "source"])
    single = [name for name in networks(rows) if name in there]
    order = [*single, *(name for name in there if name in joint), *controls(rows)]
    if not order:
        raise ReportError("no images were tried on any network")
    return order


def controls(rows: pd.DataFrame) -> list[str]:
    """The sources that are no network, nor several: images that were moved as far at random."""
    alone = rows.loc[~rows["joint"], "source"]
    return list(dict.fromkeys(alone[~alone.isin(networks(rows))]))


def jointly(rows: pd.DataFrame) -> set[str]:
    """The sources that are several networks, of which some other network was held out."""
    return set(rows.loc[rows["joint"] & rows["held_out"], "source"])


def by_example(rows: pd.DataFrame, column: str) -> pd.Series:
    """One number an example: the mean over its rows."""
    values = rows[["id", column]].dropna()
    return values.groupby("id", observed=True)[column].mean()


def count(values: pd.Series) -> tuple[float, int]:
    """Successes and trials of shares by example, for the interval of a proportion."""
    return float(np.clip(values.sum(), 0, len(values))), len(values)
