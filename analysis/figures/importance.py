"""How much of an objective's variance over the searched space each setting explains.

The method is fANOVA (Hutter et al., 2014), by Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis import style
from analysis.options import FigureOptions
from analysis.points import left_out, no_search, points
from analysis.results import ReportError, Results
from engine.store.records import SweepRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TAKES_IMPORTANCE = True
"""The run of a sweep computes the importances where a figure that says this is drawn."""
FEW = "needs five complete points or more, with different values"
UNKNOWN = "the sweep has computed no importances; name importance among its figures, and run it again"


class Options(FigureOptions):
    """The options of `importance`. The level of its intervals was chosen when the search ended."""


def why_not_sweep(sweep: SweepRecord, options: Options) -> str | None:
    """Why a sweep cannot be drawn, or None."""
    if reason := no_search(sweep):
        return reason
    return FEW if sweep.importance == () else None


def needs(options: Options) -> list[str]:
    """No row column: the engine computes the importances when a search ends."""
    return []


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each objective and setting, the largest first.

    The columns are `objective`, `x` (setting), `mean`, `low`, `high`, `n` (points), `seeds`.
    """
    found = results.sweep.importance
    if not found:
        raise ReportError(UNKNOWN if found is None else f"it {FEW}")
    frame = pd.DataFrame([one.model_dump() for one in found])
    frame["x"] = frame["setting"].map(results.setting_label)
    order = frame.groupby("setting")["mean"].mean().rank(ascending=False)
    frame = frame.sort_values("setting", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    resamples = int(frame["resamples"].min())
    every = points(results, options.level)
    words = [
        "Share of an objective's variance over the searched space that each setting explains alone or by its "
        "interactions, as far as the points that are done tell it (fANOVA, Hutter et al., 2014; seeds averaged); "
        f"n = {int(frame['n'].max())} points.",
        left_out(every),
        "What makes a training fall behind early may look less important than it is, since such points were stopped."
        if (every["status"] == "stopped early").any()
        else "",
        f"Dots: of all these points; bars: 95 % percentile intervals of {resamples} resamples of them, in which a dot "
        "need not lie.",
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": "",
        "mean": "importance",
    }
    return frame[["objective", "setting", "x", "mean", "low", "high", "n", "seeds", "resamples"]]


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """A panel for each objective: settings down, importances across."""
    with style.paper():
        names = list(dict.fromkeys(frame["x"]))
        present = list(dict.fromkeys(frame["objective"]))
        width = style.COLUMN if len(present) == 1 else style.DOUBLE
        figure, axes = style.panels(
            1, len(present), width=width, height=0.9 + 0.22 * len(names), sharey=True, sharex=True
        )
        for ax, objective in zip(axes[0], present, strict=True):
            here = frame[frame["objective"] == objective]
            places = [names.index(name) for name in here["x"]]
            ax.hlines(places, here["low"], here["high"], color=style.COLOURS[0], linewidth=0.9)
            ax.plot(here["mean"], places, "o", color=style.COLOURS[0])
            ax.set_title(objective)
            ax.set_xlabel(frame.attrs.get("mean", "importance"))
            ax.set_xlim(left=0)
        axes[0, 0].set_yticks(range(len(names)), [style.wrap(name, 1.6) for name in names])
        axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure
