"""A mean over examples against one varied setting, or its difference from a control."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from analysis import encoding, style
from analysis.arrays import MeasuredArray, arrays, caption, conditions, kinds, left_out, mean_over, select
from analysis.options import SETTING, FigureOptions
from analysis.paired import of_difference
from analysis.results import ReportError, Results, is_number, recipe_labels, sentence, short_names, show
from analysis.stats import Floats

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 8
"""More lines than this are not told apart: each recipe is then a point of its own."""
DODGE = 4.0
"""Points (1/72 inch) between the bars of neighbouring lines."""


class Options(FigureOptions):
    """The options of `effects`."""

    y: str = Field("persistence", description="row column to draw")
    along: str = Field("radius", description="row column of the ladder that is averaged over")
    radius: float | None = Field(None, description="use this point of the ladder instead of the average")
    kind: str | None = Field(None, description="kind of noise; by default the first in the rows")
    x: str | None = Field(
        None,
        description="varied setting on the horizontal axis; by default the first numeric one",
        json_schema_extra=SETTING,
    )
    against: str | None = Field(
        None,
        description="varied setting: draw the differences, by example and seed, from the recipe in which it has the "
        "value `control`",
        json_schema_extra=SETTING,
    )
    control: str | float | bool | None = Field(None, description="value of `against`; by default its first")


def needs(options: Options) -> list[str]:
    """The row columns it takes. Without a ladder, one number an example is taken as it is."""
    return [
        "id",
        options.y,
        *(["kind"] if options.kind is not None else []),
        *([options.along] if options.radius is not None else []),
    ]


def uses(options: Options) -> list[str]:
    """The column of the ladder."""
    return [options.along]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each point.

    The columns are `what` (mean, seed), `condition`, `line`, `recipe`, `x`, `mean`, `low`, `high`,
    ..., `seed`.
    """
    kind = options.kind or kinds(results)[0]
    rows = select(results, options, kind=kind)
    differing = [name for name in results.varied if len(results.values(name)) > 1]
    if options.x is not None and options.x not in differing:
        raise ReportError(
            f"x: {options.x} does not differ between the recipes; {', '.join(differing) or 'nothing'} does"
        )
    x = options.x or next((name for name in differing if results.is_numeric(name)), differing[0] if differing else None)
    controls = _controls(results, options, x)
    compared = {results.setting_of(recipe, options.against) for recipe in controls} if options.against else set()
    others = [name for name in differing if name != x and (name != options.against or len(compared) > 1)]
    lines = _lines(results, others)
    singles: dict[str, dict[str, MeasuredArray]] = {}
    for recipe in results.recipes:
        of_recipe = rows[rows["recipe"] == recipe]
        if not of_recipe.empty:
            found = arrays(of_recipe, options.y, options.along, bounds=results.bounds(options.y))
            singles[recipe] = {condition: mean_over(cube, options.radius) for condition, cube in found.items()}
    parts = []
    for recipe, of_conditions in singles.items():
        if options.against and controls.get(recipe) not in singles:
            continue
        for condition, single in of_conditions.items():
            if options.against:
                single = _minus(results, single, singles[controls[recipe]][condition])
            estimate = single.estimate(options)
            if estimate.n[0] == 0:
                continue
            where: dict[str, str | float] = {
                "condition": condition,
                "line": lines[recipe],
                "recipe": recipe,
                "x": _place(results, recipe, x, condition),
            }
            parts.append(pd.DataFrame({"what": "mean", **where, **estimate.columns(), "seed": ""}))
            parts.append(_seeds(results, single.values[:, :, 0], single.trials, where))
    if not parts:
        raise ReportError(f"no example has {options.y} at every {options.along}")
    frame = pd.concat(parts, ignore_index=True)
    if x is None:
        frame["condition"] = ""  # nothing varies: the conditions are what is compared
    order = {name: place for place, name in enumerate(conditions(rows))}
    frame = frame.sort_values("condition", key=lambda names: names.map(lambda name: order.get(name, 0)), kind="stable")
    frame = frame.reset_index(drop=True)
    frame.attrs = _attributes(results, options, frame, x, others, kind)
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel for each condition: means with bars, and the seeds as faint points.

    Means are joined along a numeric setting.
    """
    with style.paper():
        frame = frame.assign(condition=encoding.or_empty(frame["condition"]), line=encoding.or_empty(frame["line"]))
        present = list(dict.fromkeys(frame["condition"]))
        lines = list(dict.fromkeys(frame["line"]))
        numeric = pd.api.types.is_numeric_dtype(frame["x"])
        places = list(dict.fromkeys(frame["x"]))
        width = style.COLUMN if len(present) == 1 else style.DOUBLE
        height = 2.5 + style.legend_height(width, [str(name) for name in lines])
        figure, axes = style.panels(1, len(present), width=width, height=height, sharex=True)
        handles: dict[str, Artist] = {}
        room = width / len(present) - 0.5  # inches of a panel
        dodge = min(DODGE, 40 * room / max(1, len(places) * len(lines)))
        for ax, condition in zip(axes[0], present, strict=True):
            for place, name in enumerate(lines):
                here = frame[(frame["condition"] == condition) & (frame["line"] == name)]
                here = here.assign(x=here["x"] if numeric else [places.index(value) for value in here["x"]])
                how = style.look(place, len(lines))
                if not numeric or not frame.attrs.get("joined", True):
                    how["linestyle"] = ""
                handles[name] = _points(ax, here, how, dodge * (place - (len(lines) - 1) / 2))
            if options.against:
                ax.axhline(0, color="black", linewidth=0.6, zorder=1)
            ax.set_title(condition)
            ax.set_xlabel(style.wrap(frame.attrs.get("x", options.x or ""), room + 0.2))
            ax.margins(x=0.05 + dodge * len(lines) / (144 * max(room, 0.5)))  # for the points that were moved sideways
            if numeric:
                style.number_axis(ax, frame["x"].unique())
            else:
                style.name_axis(ax, [str(name) for name in places])
        axes[0, 0].set_ylabel(style.wrap(frame.attrs.get("mean", options.y), 1.7))
        if lines != [""]:
            style.legend(figure, list(handles.values()), [str(name) for name in handles])
    return figure


def _points(ax: Axes, here: pd.DataFrame, how: style.Look, shift: float) -> Artist:
    """One line: means with bars, seeds behind them, all moved sideways by `shift` points."""
    from matplotlib.transforms import ScaledTranslation

    aside = ax.transData + ScaledTranslation(shift / 72, 0, ax.figure.dpi_scale_trans)
    seeds = here[here["what"] == "seed"]
    if (here["seeds"] > 1).any():
        faint: style.Look = {"color": how["color"], "alpha": 0.5, "markersize": 2.2, "markeredgewidth": 0}
        beside = aside + ScaledTranslation(-2.2 / 72, 0, ax.figure.dpi_scale_trans)
        ax.plot(seeds["x"], seeds["mean"], how["marker"], transform=beside, **faint)
    means = here[here["what"] == "mean"].sort_values("x")
    ax.vlines(means["x"], means["low"], means["high"], color=how["color"], linewidth=0.9, transform=aside)
    (drawn,) = ax.plot(means["x"], means["mean"], transform=aside, markeredgecolor="white", markeredgewidth=0.4, **how)
    ax.update_datalim(np.column_stack([np.tile(means["x"], 2), np.concatenate([means["low"], means["high"]])]))
    ax.autoscale_view()
    return drawn


def _lines(results: Results, others: list[str]) -> dict[str, str]:
    """The line that each recipe lies on; one unnamed line where there would be too many."""
    recipes = results.recipes
    settings = pd.DataFrame({name: [results.setting_of(recipe, name) for recipe in recipes] for name in others})
    settings.index = pd.Index(recipes)
    labels, different = recipe_labels(settings, fallback="")
    return dict(zip(recipes, labels if len(different) <= MANY else [""] * len(recipes), strict=True))


def _controls(results: Results, options: Options, x: str | None) -> dict[str, str]:
    """For each recipe the one that is the same but for `against`, which has the value `control`.

    Raises:
        ReportError: the setting does not differ between recipes, or is the horizontal axis, or
            never has that value.
    """
    if options.against is None:
        return {}
    values = results.values(options.against) if options.against in results.varied else []
    if len(values) < 2 or options.against == x:
        reason = "is the horizontal axis" if options.against == x else "does not differ between the recipes"
        raise ReportError(f"against: {options.against} {reason}")
    wanted = values[0] if options.control is None else options.control
    if wanted not in values:
        raise ReportError(f"control: {options.against} is never {show(wanted)}; it is {', '.join(map(show, values))}")
    others = [name for name in results.varied if name != options.against]
    places = {recipe: tuple(results.setting_of(recipe, name) for name in others) for recipe in results.recipes}
    isolated = [recipe for recipe in results.recipes if results.setting_of(recipe, options.against) == wanted]
    control = {places[recipe]: recipe for recipe in isolated}
    compared = [recipe for recipe in results.recipes if recipe not in isolated]
    return {recipe: control[places[recipe]] for recipe in compared if places[recipe] in control}


def _minus(results: Results, single: MeasuredArray, control: MeasuredArray) -> MeasuredArray:
    """The differences by example and seed; NaN where either was not measured."""
    first, second = (
        pd.DataFrame(cube.values[:, :, 0], index=_seed_names(results, cube.trials), columns=cube.ids)
        for cube in (single, control)
    )
    differences = first - second.reindex(index=first.index, columns=first.columns)
    values = differences.to_numpy()[:, :, None]
    return MeasuredArray(values, single.trials, single.ids, single.points, of_difference(single.bounds))


def _seed_names(results: Results, trials: NDArray[np.object_]) -> list[str]:
    """What each trial's seed is called. Where nothing repeats recipes they have one trial each."""
    if not results.replicates:
        return [""] * len(trials)
    by_trial = results.trials.set_index("trial")
    return [str(by_trial.at[trial, f"config.{results.replicates}"]) for trial in trials]


def _place(results: Results, recipe: str, x: str | None, condition: str) -> str | float:
    if x is None:
        return condition or recipe
    value = results.setting_of(recipe, x)
    return float(value) if results.is_numeric(x) and is_number(value) else show(value)


def _seeds(
    results: Results, values: Floats, trials: NDArray[np.object_], where: Mapping[str, str | float]
) -> pd.DataFrame:
    """The mean of each seed, (S, N) -> one line a seed."""
    known = np.isfinite(values)
    n = known.sum(1)
    means = np.where(known, values, 0).sum(1) / np.maximum(n, 1)
    seeds = _seed_names(results, trials) if results.replicates else trials
    frame = pd.DataFrame(
        {"what": "seed", **where, "mean": means, "low": np.nan, "high": np.nan, "n": n, "seeds": len(trials)}
    )
    return frame.assign(seed=seeds)[n > 0]


def _attributes(
    results: Results,
    options: Options,
    frame: pd.DataFrame,
    x: str | None,
    others: list[str],
    kind: str | None,
) -> dict[Hashable, str | bool]:
    y = results.column_label(options.y)
    along = results.column_label(options.along, kind)
    if options.along not in results.rows:
        label, how = y, ""
    elif options.radius is not None:
        label, how = f"{options.y} at {options.along} {options.radius:.3g}", f" at {along} {options.radius:.3g}"
    else:
        label = f"mean {options.y} over the {options.along} ladder"
        how = f", averaged over the {options.along} ladder (normalised area under the curve)"
    of = results.setting_label(x) if x else "condition"
    if options.against:
        control = show(results.values(options.against)[0] if options.control is None else options.control)
        label = f"{label if options.along in results.rows else options.y}: difference from {control}"
        how += f", minus that of the same recipe with {results.setting_label(options.against)} {control}, by example and seed"
    means = frame[frame["what"] == "mean"]
    hidden = bool(others) and list(means["line"].unique()) == [""]
    words = [
        f"{sentence(y)}{how}, against {of}{f'; measured with {kind} noise' if kind else ''}.",
        "Faint points: single seeds." if means["seeds"].max() > 1 else "",
        f"Not told apart: {', '.join(short_names(others))}." if hidden else "",
        left_out(results, options),
        caption(means, options, "Bars"),
    ]
    return {
        "caption": " ".join(filter(None, words)),
        "x": results.setting_label(x) if x else "",
        "mean": label,
        "joined": not hidden,  # a line through recipes that differ in other ways too would claim too much
    }
