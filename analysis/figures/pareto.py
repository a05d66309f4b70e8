"""Two objectives of a search against each other: every point, the Pareto front marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.arrays import caption
from analysis.options import OBJECTIVE, FigureOptions
from analysis.points import done, front, left_out, objectives, points
from analysis.results import ReportError, Results
from engine.store.records import SweepRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Options(FigureOptions):
    """The options of `pareto`."""

    x: str | None = Field(
        None,
        description="objective on the horizontal axis; by default the first that is not y",
        json_schema_extra=OBJECTIVE,
    )
    y: str | None = Field(
        None,
        description="objective on the vertical axis; by default the first that is not x",
        json_schema_extra=OBJECTIVE,
    )


def why_not_sweep(sweep: SweepRecord, options: Options) -> str | None:
    """Why a sweep cannot be drawn, or None."""
    if len(objectives(sweep)) < 2:
        return "needs two objectives or more"
    return (
        f"x and y are both {options.x}; one of them must be another objective"
        if options.x and options.x == options.y
        else None
    )


def needs(options: Options) -> list[str]:
    """No row column: it draws the trials' scalars."""
    return []


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each point; those of the front come last, in order.

    The columns are `recipe`, `x`, `x_low`, `x_high`, `mean`, `low`, `high`, `front`, `n`, `seeds`.
    """
    modes = objectives(results.sweep)
    if reason := why_not_sweep(results.sweep, options):
        raise ReportError(reason)
    x = options.x or next(name for name in modes if name != options.y)
    y = options.y or next(name for name in modes if name != x)
    for option, name in (("x", x), ("y", y)):
        if name not in modes:
            raise ReportError(f"{option}: {name} is no objective; there are {', '.join(modes)}")
    every = points(results, options.level)
    there = done(every)
    signs = np.array([1 if mode == "max" else -1 for mode in modes.values()])
    frame = pd.DataFrame(
        {
            "recipe": there["recipe"].astype(str),
            **{"x": there[x], "x_low": there[f"{x}.low"], "x_high": there[f"{x}.high"]},
            **{"mean": there[y], "low": there[f"{y}.low"], "high": there[f"{y}.high"]},
            "front": front(there[list(modes)].to_numpy(float) * signs),
            **{"n": there[[f"{x}.n", f"{y}.n"]].max(axis=1), "seeds": there["seeds"]},
        }
    )
    frame = frame.sort_values(["front", "x", "mean"], ignore_index=True)
    others = [name for name in modes if name not in (x, y)]
    count = int(frame["front"].sum())
    words = [
        f"{y} ({modes[y]}) against {x} ({modes[x]}) of the points that are done; n = {len(frame)} points.",
        left_out(every),
        f"Filled: the Pareto front ({count}), than which no point is better in one objective and as good in the others"
        + (f", {', '.join(others)} among them." if others else "."),
        caption(frame, options, "Bars"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": x.replace("_", " "),
        "mean": y.replace("_", " "),
        "joined": not others,
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """Open grey points, and the front filled and joined."""
    with style.paper():
        figure, axes = style.panels(1, 1, width=style.COLUMN, height=2.6)
        ax = axes[0, 0]
        looks: list[tuple[bool, style.Look]] = [
            (False, {"color": style.GREY, "alpha": 0.8}),
            (True, {"color": style.COLOURS[0]}),
        ]
        for chosen, how in looks:
            here = frame[frame["front"].astype(bool) == chosen]
            ax.vlines(here["x"], here["low"], here["high"], linewidth=0.8, **how)
            ax.hlines(here["mean"], here["x_low"], here["x_high"], linewidth=0.8, **how)
            joined = chosen and frame.attrs.get("joined", True)
            label = "Pareto front" if chosen else "dominated"
            filled = how["color"] if chosen else "white"
            ax.plot(
                here["x"],
                here["mean"],
                marker="o",
                linestyle="-" if joined else "",
                markerfacecolor=filled,
                label=label,
                zorder=3 if chosen else 2,
                **how,
            )
        ax.locator_params(axis="x", nbins=5)
        ax.set_xlabel(frame.attrs.get("x", options.x or ""))
        ax.set_ylabel(style.wrap(frame.attrs.get("mean", options.y or ""), 2.4))
        handles, labels = ax.get_legend_handles_labels()
        style.legend(figure, handles, labels)
    return figure
