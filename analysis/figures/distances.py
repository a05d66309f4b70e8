"""How far an image must be moved: the smallest perturbations that an attack finds.

An attack that searches for the smallest perturbation knows its length. An attack within a radius,
run along a ladder of radii, knows only between which two of them it lies: the last that failed and
the first that succeeded. Of such brackets the distribution is known at the radii, and in between
only that it lies between its values there (interval-censored data; Turnbull, 1976).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import attacks, encoding, style
from analysis.arrays import MeasuredArray, arrays, caption, select
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results
from analysis.stats import SHARE, Floats

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDS = ["distance_low", "distance_high"]
"""Between which lengths the smallest perturbation lies.

Rows of earlier versions lack them: `found` then tells brackets.
"""
EVERYWHERE, AT_RADII = "everywhere", "at the radii"
HATCHED = "known at the radii alone"
HATCHES = ("////", "\\\\\\\\", "||||", "----", "....", "xxxx")


class Options(FigureOptions):
    """The options of `distances`."""

    by: str | None = Field(
        None,
        description="varied setting that the colour tells; by default the attack where attacks differ, else the recipe",
        json_schema_extra=SETTING,
    )
    points: int = Field(80, ge=2, description="at how many distances a curve is drawn at most")


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "correct", "radius", "found"]


def uses(options: Options) -> list[str]:
    """The ends of brackets, which earlier versions did not measure."""
    return ENDS


def why_not_rows(columns: set[str]) -> str | None:
    """Why rows around several centres are not meant."""
    return attacks.refuse_conditions(columns)


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each curve and distance.

    The columns are `recipe`, `colour`, `column`, `dash`, `known`, `x`, `mean`, `low`, `high`, `n`,
    `seeds`. `mean` is the share of correctly classified examples whose smallest perturbation, as
    the attack finds it, is at most `x`: an empirical distribution function up to the largest
    radius. Where `known` says "everywhere" it is a step function. Where it says "at the radii" each
    smallest perturbation lies in a bracket, and the share between two lines lies between their
    `mean`.
    """
    rows = select(results, options)
    rows = rows[rows["correct"].to_numpy(bool)]
    channels = attacks.lines(results, options.by or attacks.name_that_differs(results))
    parts, missed = [], []
    for recipe in results.recipes:
        of_recipe = rows[rows["recipe"] == recipe]
        if of_recipe.empty:
            continue
        ladder = _by_radius(of_recipe)
        missed.append(1 - float(np.nanmean(np.fmax.reduce(ladder.values, axis=2))))
        if missed[-1] == 1:
            continue
        exact = _by_length(of_recipe, ladder.points[-1], options.points)
        estimate = (exact or ladder).estimate(options)
        labels = {**channels.of(results, recipe), "known": EVERYWHERE if exact else AT_RADII}
        parts.append(pd.DataFrame({**labels, "x": (exact or ladder).points, **estimate.columns()}))
    if not parts:
        raise ReportError("no search found anything")
    frame = pd.concat(parts, ignore_index=True)
    shares = [f"{100 * share:.3g}" for share in (min(missed), max(missed))]
    none = f"{shares[0]} %" if len(set(shares)) == 1 else f"{shares[0]} to {shares[1]} %, by recipe"
    words = [
        "Share of the correctly classified examples for which the attack finds an adversarial image at most that far "
        "away. There may be nearer ones than it finds: what it finds is an upper bound of the smallest perturbation, so "
        "the share is a lower bound.",
        "Points: attacks within a radius. Their smallest perturbations are known as brackets, from the last radius at "
        "which they fail to the first at which they succeed. So the share is known at the radii; in between it is only "
        "known to lie between its values there (hatched, unless curves are many)."
        if (frame["known"] == AT_RADII).any()
        else "",
        "Lines: attacks that search for the smallest perturbation itself."
        if (frame["known"] == EVERYWHERE).any()
        else "",
        f"Not fooled within the largest radius: {none}.",
        attacks.subsets(rows),
        channels.hidden_words(),
        caption(frame, options, "Bands and bars" if frame["known"].nunique() > 1 else _marks(frame)),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": attacks.length_label(results, "distance"),
        "mean": "share of examples fooled",
        "colour": channels.title(results),
        "own_x": attacks.is_norm(channels.column),
    }
    return frame


def _marks(frame: pd.DataFrame) -> str:
    return "Bars" if frame["known"].iloc[0] == AT_RADII else "Bands"


def _by_radius(rows: pd.DataFrame) -> MeasuredArray:
    """Whether each example is fooled within each radius or a smaller one; within 0 none is."""
    cube = arrays(rows, "found", by=None)[""]
    known = np.isfinite(cube.values)
    fooled = np.maximum.accumulate(np.where(known, cube.values, 0), axis=2)
    nowhere = np.where(known.any(axis=2, keepdims=True), 0.0, np.nan)
    values = np.concatenate([nowhere, np.where(known, fooled, np.nan)], axis=2)
    return replace(cube, values=values, points=np.concatenate([[0.0], cube.points]))


def _by_length(rows: pd.DataFrame, end: float, points: int) -> MeasuredArray | None:
    """Whether each example is fooled within each of some lengths up to `end`.

    None where the lengths are not all known.
    """
    if not set(ENDS) <= set(rows):
        return None
    low, high = rows[ENDS].to_numpy(float).T
    found = rows["found"].to_numpy(bool)
    if (low != high)[found].any():  # brackets, or not known
        return None
    far = rows[["trial", "id"]].assign(length=np.where(found, high, np.inf))
    length = far.groupby(["trial", "id"], observed=True)["length"].min().unstack("id")  # (S, N)
    smallest = length.to_numpy(float)
    grid = _grid(smallest[np.isfinite(smallest)], end, points)
    values = np.where(np.isnan(smallest)[:, :, None], np.nan, smallest[:, :, None] <= grid)
    return MeasuredArray(values, length.index.to_numpy(object), length.columns.to_numpy(), grid, SHARE)


def _grid(distances: Floats, end: float, points: int) -> Floats:
    """0, at most so many of the distances, evenly chosen in their order, and the end."""
    known = np.unique(distances)
    if len(known) > points:
        known = np.unique(np.quantile(distances, np.linspace(0, 1, points), method="inverted_cdf"))
    return np.unique(np.concatenate([[0.0], known, [end]]))


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel, or one for each value of a setting.

    What is known everywhere is drawn as steps with bands, what is known at the radii as points with
    bars amid hatched areas.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    with style.paper():
        frame = encoding.named(frame)
        laid = encoding.layout(frame)
        order, dashes = laid.order, laid.dashes
        bracketed = frame["known"] == AT_RADII
        crowded = {column: here["recipe"].nunique() > encoding.CROWD for column, here in frame.groupby("column")}
        hatched = bool((bracketed & ~frame["column"].map(crowded)).any())
        lines = list(dict.fromkeys(frame.loc[frame["known"] == EVERYWHERE, "colour"]))
        if hatched:  # the legend has one entry more
            width, height = laid.figure.get_size_inches()
            others = (dashes, [*dashes, HATCHED])
            before, after = (encoding.legend_height(width, order, labels) for labels in others)
            laid.figure.set_figheight(height + after - before)
        handles: dict[Hashable, Artist] = {}
        for column, ax in laid.panels:
            here = frame[frame["column"] == column]
            for (_, colour, dash), line in here.groupby(["recipe", "colour", "dash"], sort=False):
                place = order.index(colour)
                how = style.look(place, len(order), laid.numeric)
                if colour in lines and not laid.numeric:
                    how["linestyle"] = style.DASHES[lines.index(colour) % len(style.DASHES)]
                if len(dashes) > 1:
                    place = dashes.index(str(dash))
                    how |= _of_dash(place)
                if (line["known"] == AT_RADII).all():
                    drawn = _brackets(ax, line, how, None if crowded[column] else HATCHES[place % len(HATCHES)])
                else:
                    drawn = _steps(ax, line, how, crowded[column])
                handles.setdefault(colour, drawn)
            ax.set_title(column)
            ax.set_xlim(left=0)
            ax.set_xlabel(style.wrap(frame.attrs.get("x", "distance"), laid.width - 0.5))
            ax.set_ylim(-0.03, 1.03)
        laid.panels[0][1].set_ylabel(frame.attrs.get("mean", "share of examples fooled"))
        more: dict[str, Artist] = {}
        if len(dashes) > 1:
            for place, dash in enumerate(dashes):
                grey: style.Look = {"color": style.GREY, **_of_dash(place)}
                if not bracketed.any():
                    grey["marker"] = ""
                more[dash] = Line2D([], [], **grey)
        if hatched:
            more[HATCHED] = Patch(facecolor="none", edgecolor=style.GREY, hatch="////", linewidth=0)
        encoding.legend(laid.figure, handles, order, [], frame.attrs.get("colour") or None, more)
    return laid.figure


def _of_dash(place: int) -> style.Look:
    """The look of what the dash tells. Brackets have no line, so their marker tells it too."""
    return {
        "linestyle": style.DASHES[place % len(style.DASHES)],
        "marker": style.MARKERS[place % len(style.MARKERS)],
    }


def _steps(ax: Axes, line: pd.DataFrame, how: style.Look, crowded: bool) -> Artist:
    low, high = line["low"].to_numpy(float), line["high"].to_numpy(float)
    alpha = 0.03 if crowded else 0.12
    ax.fill_between(line["x"], low, high, step="post", color=how["color"], alpha=alpha, linewidth=0)
    plain: style.Look = {**how, "marker": "", "linewidth": 0.8 if crowded else 1.2}
    return ax.step(line["x"], line["mean"], where="post", **plain)[0]


def _brackets(ax: Axes, line: pd.DataFrame, how: style.Look, hatch: str | None) -> Artist:
    x, mean = line["x"].to_numpy(float), line["mean"].to_numpy(float)
    ax.fill_between(
        x,
        mean,
        np.append(mean[1:], mean[-1]),
        step="post",
        hatch=hatch,
        facecolor="none",
        edgecolor=how["color"],
        linewidth=0,
        alpha=0.4,
    )
    ax.vlines(x, line["low"], line["high"], color=how["color"], linewidth=0.8)
    hollow: style.Look = {  # equal ones stay seen
        **how,
        "linestyle": "",
        "markersize": 5,
        "markerfacecolor": "none",
        "zorder": 3,
    }
    return ax.plot(x, mean, **hollow)[0]
