"""The difference of each recipe from a baseline, by example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from analysis import encoding, style
from analysis.arrays import MeasuredArray, arrays, caption, conditions, kinds, left_out, mean_over, select
from analysis.options import FigureOptions
from analysis.paired import of_difference
from analysis.results import ReportError, Results, sentence, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 5
"""More recipes than this take two columns of a paper."""
LONGEST = 40
"""Letters of a recipe's name at the axis; the table of numbers has it whole."""
FRAME = ["condition", "recipe", "x", "mean", "low", "high", "n", "seeds"]


class Options(FigureOptions):
    """The options of `differences`."""

    y: str = Field("persistence", description="row column to draw")
    along: str = Field("radius", description="row column of the ladder that is averaged over")
    kind: str | None = Field(None, description="kind of noise; by default the first in the rows")
    baseline: str | None = Field(
        None, description="recipe, by its label; by default the one from which the others differ in the fewest settings"
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "condition", options.y, *(["kind"] if options.kind is not None else [])]


def uses(options: Options) -> list[str]:
    """The column of the ladder; without it, one number an example is taken as it is."""
    return [options.along]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each recipe and condition.

    `x` says in what the recipe differs from the baseline, `mean` by how much its column does.
    Differences are between the same examples under the same seeds. With one recipe, its means are
    all there is.
    """
    kind = options.kind or kinds(results)[0]
    rows = select(results, options, kind=kind)
    baseline = results.named(options.baseline) if options.baseline else _central(results)
    others = [recipe for recipe in results.recipes if recipe != baseline]
    bounds = results.bounds(options.y)
    means = {recipe: _by_condition(results, rows, recipe, options) for recipe in results.recipes}
    parts = []
    for condition in conditions(rows):
        base = means[baseline].get(condition)
        for recipe in others or [baseline]:
            single = means[recipe].get(condition)
            if single is None or base is None:
                continue
            values, trials = single
            if others:
                values = values - base[0].reindex(index=values.index, columns=values.columns)
            between = of_difference(bounds) if others else bounds
            cube = MeasuredArray(values.to_numpy()[:, :, None], trials, values.columns.to_numpy(), np.zeros(1), between)
            estimate = cube.estimate(options)
            where = {"condition": condition, "recipe": recipe, "x": _said(results, recipe, baseline) or recipe}
            parts.append(pd.DataFrame({**where, **estimate.columns()}))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=FRAME)
    frame = frame.loc[frame["n"] > 0, FRAME].reset_index(drop=True)
    if frame.empty:
        raise ReportError(f"no example has {options.y} under two recipes")
    y = results.column_label(options.y)
    over = f", averaged over the {options.along} ladder" if options.along in rows else ""
    words = [
        f"{sentence(y)}{over}: each recipe minus {baseline}, by example and seed."
        if others
        else f"{sentence(y)}{over}, of the only recipe.",
        left_out(results, options).replace(
            "there, recipes are compared on different subsets", "two recipes are compared on what is left of both"
        ),
        caption(frame, options, "Bars"),
    ]
    name = options.y.replace("_", " ")
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": "what differs" if others else "recipe",
        "mean": f"difference in {name}" if others else name,
        "zero": bool(others),
    }
    return frame


def _by_condition(
    results: Results, rows: pd.DataFrame, recipe: str, options: Options
) -> dict[str, tuple[pd.DataFrame, NDArray[np.object_]]]:
    """By condition: one number a seed and example, and the trials in the order of the seeds."""
    of_recipe = rows[rows["recipe"] == recipe]
    if of_recipe.empty:
        return {}
    seeds = results.trials.set_index("trial")[f"config.{results.replicates}"] if results.replicates else None
    found = {}
    for condition, cube in arrays(of_recipe, options.y, options.along).items():
        single = mean_over(cube)
        index = ["" if seeds is None else str(seeds[trial]) for trial in single.trials]
        found[condition] = pd.DataFrame(single.values[:, :, 0], index=index, columns=single.ids), single.trials
    return found


def _central(results: Results) -> str:
    """The recipe with the fewest differences from the others, the first of several."""
    settings = {recipe: [results.setting_of(recipe, name) for name in results.varied] for recipe in results.recipes}

    def differences(recipe: str) -> int:
        mine = settings[recipe]
        return sum(a != b for other in settings.values() for a, b in zip(mine, other, strict=True))

    return min(results.recipes, key=differences)


def _said(results: Results, recipe: str, baseline: str) -> str:
    """In what a recipe differs from another: a word speaks for itself, a number needs its name."""
    words = []
    for name in results.varied:
        value = results.setting_of(recipe, name)
        if value != results.setting_of(baseline, name):
            label = results.setting_label(name).partition(" (")[0]  # without the unit
            words.append(show(value) if isinstance(value, str) else f"{label} {show(value)}")
    return ", ".join(words)


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel for each condition, below each other: a point a recipe with its interval."""
    with style.paper():
        present = list(dict.fromkeys(encoding.or_empty(frame["condition"])))
        places = list(dict.fromkeys(frame["x"]))
        width = style.COLUMN if len(places) <= FEW else style.DOUBLE
        figure, axes = style.panels(len(present), 1, width=width, height=1.5, sharex=True)
        figure.set_figheight(1.3 * len(present) + 0.6 + min(1.6, 0.035 * max(map(len, places))))
        for ax, condition in zip(axes[:, 0], present, strict=True):
            here = frame[encoding.or_empty(frame["condition"]) == condition]
            x = [places.index(place) for place in here["x"]]
            if frame.attrs.get("zero", True):
                ax.axhline(0, color="black", linewidth=0.6, zorder=1)
            ax.vlines(x, here["low"], here["high"], color=style.COLOURS[0], linewidth=0.9)
            ax.plot(x, here["mean"], "o", color=style.COLOURS[0], markeredgecolor="white", markeredgewidth=0.4)
            ax.set_title(condition)
            ax.set_ylabel(style.wrap(frame.attrs.get("mean", options.y), 0.9))
        style.name_axis(axes[-1, 0], [place if len(place) <= LONGEST else f"{place[:LONGEST]}..." for place in places])
        axes[-1, 0].set_xlabel(frame.attrs.get("x", ""))
    return figure
