"""What one kind of accuracy costs of another: clean against attacked, a point a recipe."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from analysis import encoding, style
from analysis.arrays import arrays, caption, conditions, counted, select
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Options(FigureOptions):
    """The options of `tradeoff`."""

    y: str = Field("accuracy", description="row column to draw, under both conditions")
    across: str | None = Field(None, description="condition of the horizontal axis; by default the first")
    up: str | None = Field(
        None, description="condition of the vertical axis; by default attack, or where there is none the last one"
    )
    by: str | None = Field(
        None,
        description="varied setting that the colour tells; by default the first numeric one",
        json_schema_extra=SETTING,
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes: those of a task that does several things to the same images."""
    return ["id", "condition", "strength", options.y]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each recipe.

    The columns are `recipe`, `colour`, `column`, `dash`, `x`, `x_low`, `x_high`, `mean`, `low`,
    `high`, `n`, `seeds`.

    Both numbers are means over examples, their copies, the ladder of the condition and seeds.
    """
    present = conditions(results.rows)
    across = options.across or present[0]
    others = [name for name in present if name != across]
    up = options.up or ("attack" if "attack" in others else others[-1] if others else None)
    if up is None:
        raise ReportError(f"up: there is no condition besides {across}")
    channels = encoding.assign_channels(results, options.by)
    flat, steep = (select(results, options, condition=name) for name in (across, up))
    parts = []
    for recipe in results.recipes:
        both = [rows[rows["recipe"] == recipe] for rows in (flat, steep)]
        if any(rows.empty for rows in both):
            continue
        bounds = results.bounds(options.y)
        x, y = (arrays(rows, options.y, along="", by=None, bounds=bounds)[""].estimate(options) for rows in both)
        place = {"x": x.mean, "x_low": x.low, "x_high": x.high}
        parts.append(pd.DataFrame({**channels.of(results, recipe), **place, **y.columns()}))
    if not parts:
        raise ReportError(f"no recipe was measured under both {across} and {up}")
    frame = pd.concat(parts, ignore_index=True)
    label = options.y.replace("_", " ")
    words = [
        f"{counted(len(frame), 'recipe').capitalize()}: {label} ({up}) against {label} ({across}), means over "
        "examples and seeds.",
        channels.hidden_words(),
        caption(frame, options, "Bars both ways"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": f"{label} ({across})",
        "mean": f"{label} ({up})",
        "colour": channels.title(results),
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel, or one for each value of a setting, on common axes."""
    from matplotlib.lines import Line2D

    with style.paper():
        frame = encoding.named(frame)
        columns = list(dict.fromkeys(frame["column"]))
        width = style.COLUMN if len(columns) == 1 else style.DOUBLE
        order, numeric = encoding.colours(frame)
        groups = list(dict.fromkeys(frame["dash"]))
        height = 2.6 + encoding.legend_height(width, order, groups)
        figure, axes = style.panels(1, len(columns), width=width, height=height, sharex=True, sharey=True)
        handles: dict[Hashable, Artist] = {}
        crowded = len(frame) / len(columns) > encoding.CROWD
        for ax, column in zip(axes[0], columns, strict=True):
            for _, point in frame[frame["column"] == column].iterrows():
                how = style.look(order.index(point["colour"]), len(order), numeric)
                if len(groups) > 1 or numeric:
                    how["marker"] = style.MARKERS[groups.index(point["dash"]) % len(style.MARKERS)]
                handles.setdefault(point["colour"], _point(ax, point, how, crowded))
            ax.set_title(column)
            ax.set_xlabel(frame.attrs.get("x", options.across or ""))
        axes[0, 0].set_ylabel(style.wrap(frame.attrs.get("mean", options.y), height - 0.7))
        more = {
            group: Line2D([], [], color=style.GREY, linestyle="", marker=style.MARKERS[place % len(style.MARKERS)])
            for place, group in enumerate(groups)
            if len(groups) > 1
        }
        encoding.legend(figure, handles, order, [], frame.attrs.get("colour") or None, more)
    return figure


def _point(ax: Axes, point: pd.Series, how: style.Look, crowded: bool) -> Artist:
    """A marker with its interval along either axis."""
    thin: style.Look = {"color": how["color"], "linewidth": 0.4 if crowded else 0.9, "alpha": 0.5 if crowded else 1.0}
    ax.plot([point["x_low"], point["x_high"]], [point["mean"]] * 2, **thin)
    ax.plot([point["x"]] * 2, [point["low"], point["high"]], **thin)
    look: style.Look = {**how, "linestyle": "", "markersize": 4.5, "markeredgewidth": 0.4, "zorder": 4}
    return ax.plot([point["x"]], [point["mean"]], markeredgecolor="white", **look)[0]
