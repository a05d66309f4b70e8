"""Reliability diagram: how often a classifier is right, by how sure it is (Guo et al., 2017)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import encoding, style
from analysis.arrays import arrays, caption, conditions, select
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results
from analysis.stats import SHARE
from tasks.parts.measures.calibration import BINS, bin_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

SINGLE = ("clean", "corruption")
"""Conditions drawn where none are named: there each confidence is of one prediction, no mean."""


class Options(FigureOptions):
    """The options of `calibration`."""

    conditions: list[str] | None = Field(
        None, description="conditions, a panel each; by default clean and corruption where there are any"
    )
    bins: int = Field(BINS, ge=1, le=100, description="bins of equal width")
    least: int = Field(10, ge=1, description="leave out bins with fewer examples")
    recipes: list[str] | None = Field(None, description="recipes to draw, by their labels; all of them by default")
    by: str | None = Field(
        None,
        description="varied setting that the colour tells; by default the first numeric one",
        json_schema_extra=SETTING,
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "condition", "accuracy", "confidence"]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each recipe, condition and bin.

    The columns are `condition`, `recipe`, `colour`, `column`, `dash`, `bin`, `x`, `mean`, ...,
    `share`. `x` is the mean confidence in the bin, `mean` the accuracy, `share` the part of the
    rows that lie in it. An example may lie in different bins under different seeds.
    """
    present = conditions(results.rows)
    wanted = options.conditions or [name for name in SINGLE if name in present] or present
    channels = encoding.assign_channels(results, options.by)
    parts, dropped = [], False
    for condition in wanted:
        rows = select(results, options, condition=condition)
        rows = rows.assign(bin=bin_of(rows["confidence"], options.bins))
        for recipe in [results.named(name) for name in options.recipes or results.recipes]:
            of_recipe = rows[rows["recipe"] == recipe]
            if of_recipe.empty:
                continue
            right = arrays(of_recipe, "accuracy", along="bin", by=None, bounds=SHARE)[""]
            sure = arrays(of_recipe, "confidence", along="bin", by=None)[""]
            estimate = right.estimate(options)
            share = of_recipe["bin"].value_counts(normalize=True).reindex(right.points).to_numpy()
            place = {"bin": right.points.astype(int), "x": np.nanmean(sure.values, axis=(0, 1)), "share": share}
            part = pd.DataFrame({"condition": condition, **channels.of(results, recipe), **place, **estimate.columns()})
            dropped |= bool((part["n"] < options.least).any())
            parts.append(part[part["n"] >= options.least])
    frame = pd.concat(parts, ignore_index=True)
    if frame.empty:
        raise ReportError(f"no bin has {options.least} examples; see least")
    many = frame["recipe"].nunique() > encoding.CROWD
    words = [
        f"Accuracy against mean confidence in {options.bins} bins of equal width. On the dotted line a classifier is right as often as it "
        "says; below it, it is overconfident.",
        f"Bins with fewer than {options.least} examples are left out." if dropped else "",
        channels.hidden_words(),
        caption(frame, options, "Intervals (in the table of numbers)" if many else "Bands"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": "confidence",
        "mean": "accuracy",
        "colour": channels.title(results),
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel for each condition."""
    with style.paper():
        frame = encoding.named(frame)
        frame["dash"] = frame["column"].str.cat(frame["dash"], sep=", ").str.strip(", ")
        present = list(dict.fromkeys(frame["condition"]))
        order, numeric = encoding.colours(frame)
        dashes = list(dict.fromkeys(frame["dash"]))
        width = style.COLUMN if len(present) == 1 else style.DOUBLE
        height = 2.7 + encoding.legend_height(width, order, dashes)
        figure, axes = style.panels(1, len(present), width=width, height=height, sharex=True, sharey=True)
        crowded = frame["recipe"].nunique() > encoding.FEW
        many = frame["recipe"].nunique() > encoding.CROWD
        handles: dict[Hashable, Artist] = {}
        for ax, condition in zip(axes[0], present, strict=True):
            ax.plot([0, 1], [0, 1], linestyle=":", color=style.GREY, linewidth=0.8, zorder=1)
            for (_, colour, dash), line in frame[frame["condition"] == condition].groupby(
                ["recipe", "colour", "dash"], sort=False
            ):
                how = style.look(order.index(colour), len(order), numeric)
                if len(dashes) > 1:
                    how["linestyle"] = style.DASHES[dashes.index(dash) % len(style.DASHES)]
                if crowded:
                    how |= {"markersize": 2.2, "linewidth": 0.8}
                alpha = 0.0 if many else 0.06 if crowded else 0.14
                style.curve(ax, line["x"], line["mean"], line["low"], line["high"], how, alpha=alpha)
                handles.setdefault(colour, ax.lines[-1])
            ax.set_title(condition)
            ax.set_xlabel(frame.attrs.get("x", "confidence"))
        low = 0.0 if min(frame["x"].min(), frame["mean"].min()) < 0.3 else 0.25
        axes[0, 0].set_xlim(low - 0.02, 1.02)
        axes[0, 0].set_ylim(-0.03, 1.03)
        axes[0, 0].set_ylabel(frame.attrs.get("mean", "accuracy"))
        encoding.legend(figure, handles, order, dashes, frame.attrs.get("colour") or None)
    return figure
