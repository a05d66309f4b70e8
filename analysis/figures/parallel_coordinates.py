"""Every point of a search as a line across its settings and objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.options import OBJECTIVE, FigureOptions
from analysis.points import left_out, no_search, objectives, points
from analysis.results import ReportError, Results, in_order, is_number, plain, show
from analysis.stats import Floats
from engine.store.records import SweepRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Options(FigureOptions):
    """The options of `parallel_coordinates`."""

    by: str | None = Field(
        None, description="objective that the colour tells; by default the first", json_schema_extra=OBJECTIVE
    )


def why_not_sweep(sweep: SweepRecord, options: Options) -> str | None:
    """Why a sweep cannot be drawn, or None."""
    return no_search(sweep)


def needs(options: Options) -> list[str]:
    """No row column: it draws the trials' settings and scalars."""
    return []


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each point and axis; the best point last.

    The columns are `point`, `status`, `axis`, `x` (its place), `value` (as text), `mean` (its
    height from 0 to 1), `colour` (rank of the objective among the points that are done, 0 the
    worst, 1 the best), `n` (seeds), `seeds`.
    """
    modes = objectives(results.sweep)
    by = options.by or next(iter(modes))
    if by not in modes:
        raise ReportError(f"by: {by} is no objective; there are {', '.join(modes)}")
    every = points(results, options.level)
    there = every[every["status"] != "failed"].reset_index(drop=True)
    if not (there["status"] == "done").any():
        raise ReportError("no point has all of its trials done")
    rank = there[by].rank(ascending=modes[by] == "max", method="average")
    colour = (rank - 1) / max(1, rank.count() - 1)
    parts = []
    for place, axis in enumerate([*results.varied, *modes]):
        log = results.sweep.search.get(axis) == "loguniform"
        parts.append(
            pd.DataFrame(
                {
                    "point": there["recipe"].astype(str),
                    "status": there["status"],
                    "axis": axis.replace("_", " ") if axis in modes else results.setting_label(axis),
                    "x": place,
                    "value": [show(plain(value)) for value in there[axis]],
                    "mean": _heights(there[axis], log, outcome=axis in modes),
                    **{"low": np.nan, "high": np.nan},
                    "colour": colour,
                    **{"n": there["seeds"], "seeds": there["seeds"]},
                }
            )
        )
    frame = pd.concat(parts).dropna(subset="mean")
    frame = frame.sort_values(["colour", "point", "x"], na_position="first", ignore_index=True)
    ended = there["status"].value_counts()
    stopped = int(ended.get("stopped early", 0))
    seeds = int(there["seeds"].max())
    words = [
        f"The points of the search, n = {int(ended['done'])}, each a line across its settings"
        f" and its {'objectives' if len(modes) > 1 else 'objective'}{' (means over seeds)' if seeds > 1 else ''}.",
        f"Colour: rank by {by} ({modes[by]}), dark is best.",
        f"Grey, dotted: {stopped} stopped early, without an outcome." if stopped else "",
        left_out(every, ["failed"]),
        "No intervals: the lines are the points themselves.",
    ]
    frame.attrs = {"caption": " ".join(filter(None, words)), "x": "", "mean": ""}
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """An upright axis for each setting and objective, with the values at its ends, or all words."""
    from matplotlib import colormaps

    with style.paper():
        axis_names = frame.drop_duplicates("x").sort_values("x")
        count = len(axis_names)
        figure, axes = style.panels(1, 1, width=style.DOUBLE if count > 3 else style.COLUMN, height=2.9)
        ax = axes[0, 0]
        for _, line in frame.groupby("point", sort=False):
            colour = line["colour"].iloc[0]
            how: style.Look = {"color": style.GREY, "linestyle": ":", "linewidth": 0.8, "alpha": 0.7}
            if np.isfinite(colour):
                how = {"color": colormaps["viridis"](0.9 * (1 - colour)), "linewidth": 0.7 + 0.9 * colour}
            ax.plot(line["x"], line["mean"], **how)
        for place in axis_names["x"].astype(float):
            group = frame[frame["x"] == place]
            ax.axvline(place, color="black", linewidth=0.6, zorder=0)
            ends = group.drop_duplicates("value").sort_values("mean")
            words = not all(_is_number(str(value)) for value in ends["value"])
            for _, end in (ends if words and len(ends) <= 6 else ends.iloc[[0, -1]]).iterrows():
                ax.annotate(
                    str(end["value"])[:18],
                    (place, end["mean"]),
                    xytext=(2, 0),
                    textcoords="offset points",
                    fontsize=6,
                    va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
                )
        width = (style.DOUBLE if count > 3 else style.COLUMN) / (count + 1)
        ax.set_xticks(list(axis_names["x"]), [style.wrap(str(name), width) for name in axis_names["axis"]])
        ax.set_xlim(-0.2, count - 0.6)
        ax.set_ylim(-0.05, 1.05)
        ax.set_yticks([])
        for side in ax.spines.values():
            side.set_visible(False)
    return figure


def _heights(values: pd.Series, log: bool, outcome: bool) -> Floats:
    """Where values lie between the smallest (0) and the largest (1).

    Words lie in their order of appearance, before numbers among them.

    Only an outcome can be missing (NaN): the null of a setting is one of its values, and so a word.
    """
    known = [plain(value) for value in values]
    if all(is_number(value) or (outcome and value is None) for value in known):
        numbers = np.array([np.nan if value is None else float(value) for value in known])
        numbers = np.log(numbers) if log else numbers
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        return (numbers - low) / (high - low) if high > low else np.where(np.isnan(numbers), np.nan, 0.5)
    order = sorted(in_order(values), key=lambda value: (1, float(value)) if is_number(value) else (0, 0.0))
    return np.array([order.index(value) / max(1, len(order) - 1) for value in known])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
