"""What an attack costs and what it finds: passes an example, against the share that is fooled."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import attacks, encoding, style
from analysis.arrays import arrays, caption, select
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results, show
from analysis.stats import Floats

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {"forwards": "forward passes an example", "backwards": "backward passes an example"}


class Options(FigureOptions):
    """The options of `search_cost`."""

    radius: float | None = Field(
        None,
        description="success within this radius of the ladder; by default the one at which the share is nearest to a "
        "half",
    )
    by: str | None = Field(
        None,
        description="varied setting that the colour tells; by default the recipe, or the attack where many vary",
        json_schema_extra=SETTING,
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "correct", "radius", "found", *COSTS]


def why_not_rows(columns: set[str]) -> str | None:
    """Why rows around several centres are not meant."""
    return attacks.refuse_conditions(columns)


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each recipe and kind of pass.

    The columns are `what` (forwards, backwards), `recipe`, `colour`, `column`, `dash`, `x`, ...
    `x`, `x_low` and `x_high` are the median and the quartiles of the passes over correctly
    classified examples (what a whole attack took, all radii together); `mean`, `low` and `high` the
    share of these that it fooled, with its interval.
    """
    rows = select(results, options)
    rows = rows[rows["correct"].to_numpy(bool)]
    channels = attacks.lines(results, options.by)
    radii = _radii(rows, options.radius)
    parts = []
    for recipe in results.recipes:
        of_recipe = rows[rows["recipe"] == recipe]
        if of_recipe.empty:
            continue
        reached = of_recipe[of_recipe["radius"].to_numpy(float) == radii[recipe]]
        estimate = arrays(reached, "found", along="", by=None)[""].estimate(options)
        spent = of_recipe.groupby(["trial", "id"], observed=True)[list(COSTS)].max()
        for what in COSTS:
            low, median, high = np.quantile(spent[what].to_numpy(float), (0.25, 0.5, 0.75))
            costs = {"x": median, "x_low": low, "x_high": high}
            parts.append(pd.DataFrame({"what": what, **channels.of(results, recipe), **costs, **estimate.columns()}))
    if not parts:
        raise ReportError("no example is classified correctly")
    frame = pd.concat(parts, ignore_index=True).sort_values("what", ascending=False, kind="stable", ignore_index=True)
    one = show(next(iter(radii.values()))) if len(set(radii.values())) == 1 else "of each ladder"
    chosen = "" if options.radius is not None else ", the one at which this share is nearest to a half"
    words = [
        f"Share of the correctly classified examples that the search fooled within the radius {one}{chosen}; against the "
        "passes through the network that it took for an example (all radii together).",
        "Along the horizontal axis: median and quartiles over examples and seeds, which is their spread and no interval "
        "of confidence.",
        attacks.subsets(rows),
        channels.hidden_words(),
        caption(frame, options, "Vertical bars"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": COSTS,
        "mean": "share of examples fooled",
        "colour": channels.title(results),
    }
    return frame


def _radii(rows: pd.DataFrame, wanted: float | None) -> dict[Hashable, float]:
    """By recipe the wanted radius, or that at which the share fooled is nearest to a half.

    The share is over all recipes with the same ladder. Where all or none are fooled nothing tells
    attacks apart.
    """
    share = rows.groupby(["recipe", "radius"], observed=True)["found"].mean().unstack("radius")
    ladders = {recipe: tuple(line.dropna().index.astype(float)) for recipe, line in share.iterrows()}
    chosen: dict[Hashable, float] = {}
    for ladder in dict.fromkeys(ladders.values()):
        recipes = [recipe for recipe, own in ladders.items() if own == ladder]
        if wanted is None:
            place = int(np.abs(share.loc[recipes, list(ladder)].mean().to_numpy() - 0.5).argmin())
        else:
            place = int(np.abs(np.array(ladder) - wanted).argmin())
            if not np.isclose(ladder[place], wanted, rtol=1e-3, atol=1e-9):
                there = ", ".join(f"{radius:.3g}" for radius in ladder)
                raise ReportError(f"radius {wanted:g} was not searched; there are {there}")
        chosen |= dict.fromkeys(recipes, ladder[place])
    return chosen


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel for each kind of pass: a point a recipe, with its quartiles and its interval."""
    from matplotlib.lines import Line2D

    with style.paper():
        frame = encoding.named(frame)
        whats = [
            what for what in dict.fromkeys(frame["what"]) if (frame.loc[frame["what"] == what, "x_high"] > 0).any()
        ]
        whats = whats or list(dict.fromkeys(frame["what"]))[:1]
        width = style.COLUMN if len(whats) == 1 else style.DOUBLE
        order, numeric = encoding.colours(frame)
        groups = list(dict.fromkeys(frame["column"].str.cat(frame["dash"], sep=", ").str.strip(", ")))
        if frame.groupby("colour")["recipe"].nunique().max() == 1:
            groups = []  # the colour tells all
        height = 2.6 + encoding.legend_height(width, order, groups)
        figure, axes = style.panels(1, len(whats), width=width, height=height, sharey=True)
        wide = any(_wide(frame[frame["what"] == what]) for what in whats)
        handles: dict[Hashable, Artist] = {}
        for ax, what in zip(axes[0], whats, strict=True):
            here = frame[frame["what"] == what]
            for _, point in here.iterrows():
                how = style.look(order.index(point["colour"]), len(order), numeric)
                if len(groups) > 1:
                    group = f"{point['column']}, {point['dash']}".strip(", ")
                    how["marker"] = style.MARKERS[groups.index(group) % len(style.MARKERS)]
                drawn = _point(ax, point, how)
                handles.setdefault(point["colour"], drawn)
            _cost_axis(ax, here, wide)
            labels = frame.attrs.get("x")
            ax.set_xlabel(labels[what] if isinstance(labels, dict) else what)
        style.probability_axis(axes[0, 0], frame[["low", "mean", "high"]])
        axes[0, 0].set_ylabel(frame.attrs.get("mean", "share of examples fooled"))
        more = {}
        if len(groups) > 1:
            for place, group in enumerate(groups):
                marker = style.MARKERS[place % len(style.MARKERS)]
                more[group] = Line2D([], [], color=style.GREY, linestyle="", marker=marker, markerfacecolor="none")
        encoding.legend(figure, handles, order, [], frame.attrs.get("colour") or None, more)
    return figure


def _point(ax: Axes, point: pd.Series, how: style.Look) -> Artist:
    thin: style.Look = {"color": how["color"], "linewidth": 0.9}
    ax.plot([point["x_low"], point["x_high"]], [point["mean"]] * 2, **thin)
    ax.plot([point["x"]] * 2, [point["low"], point["high"]], **thin)
    hollow: style.Look = {  # equal ones stay seen
        **how,
        "linestyle": "",
        "markersize": 5,
        "markerfacecolor": "none",
        "markeredgewidth": 1.2,
        "zorder": 4,
    }
    return ax.plot([point["x"]], [point["mean"]], **hollow)[0]


def _costs(here: pd.DataFrame) -> Floats:
    return here[["x_low", "x", "x_high"]].to_numpy(float).ravel()


def _wide(here: pd.DataFrame) -> bool:
    """Whether the costs span a factor of 10."""
    positive = _costs(here)[_costs(here) > 0]
    return bool(len(positive)) and positive.max() >= 10 * positive.min()


def _cost_axis(ax: Axes, here: pd.DataFrame, wide: bool) -> None:
    """Logarithmic where costs span much in any panel, with 0 on it where an attack takes none."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator

    ends = _costs(here)
    positive = ends[ends > 0]
    if not wide or not len(positive):
        ax.set_xlim(left=-0.04 * max(ends.max(), 1) if (ends == 0).any() else 0)
        return
    if len(positive) < len(ends):
        threshold = float(10 ** np.floor(np.log10(positive.min())))
        ax.set_xscale("symlog", linthresh=threshold, linscale=0.5)
        ax.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=threshold))
        ax.set_xlim(left=-0.3 * threshold)
    else:
        ax.set_xscale("log")
        decades = np.log10(positive.max() / positive.min())
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
