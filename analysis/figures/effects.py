"""One number for flatness against one varied setting: how does the training noise change it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.cube import caption, conditions, cubes, kinds, left_out, mean_over, select
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results, recipe_labels, sentence, short_names, show

if TYPE_CHECKING:
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


def needs(options: Options) -> list[str]:
    """The row columns it takes; without the column of the ladder, one number an example is taken as it is."""
    return [
        "id",
        options.y,
        *(["kind"] if options.kind is not None else []),
        *([options.along] if options.radius is not None else []),
    ]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """One line a point: `what` (mean, seed), `condition`, `line`, `recipe`, `x`, `mean`, `low`, `high`, ..., `seed`."""
    kind = options.kind or kinds(results)[0]
    rows = select(results, options, kind=kind)
    differing = [name for name in results.varied if len(results.values(name)) > 1]
    if options.x is not None and options.x not in differing:
        raise ReportError(
            f"x: {options.x} does not differ between the recipes; {', '.join(differing) or 'nothing'} does"
        )
    x = options.x or next((name for name in differing if results.is_numeric(name)), differing[0] if differing else None)
    others = [name for name in differing if name != x]
    lines = _lines(results, others)
    parts, resampled = [], set()
    for recipe in results.recipes:
        of_recipe = rows[rows["recipe"] == recipe]
        if of_recipe.empty:
            continue
        for condition, cube in cubes(of_recipe, options.y, options.along).items():
            single = mean_over(cube, options.radius)
            estimate = single.estimate(options)
            if estimate.n[0] == 0:
                continue
            resampled.add(estimate.resampled)
            where: dict[str, Any] = {
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
    frame.attrs = _attributes(results, options, frame, x, others, resampled, kind)
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel for each condition: means with bars, joined along a numeric setting, and the seeds as faint points."""
    with style.paper():
        frame = frame.assign(condition=frame["condition"].fillna(""), line=frame["line"].fillna(""))
        present = list(dict.fromkeys(frame["condition"]))
        lines = list(dict.fromkeys(frame["line"]))
        numeric = pd.api.types.is_numeric_dtype(frame["x"])
        places = list(dict.fromkeys(frame["x"]))
        width = style.COLUMN if len(present) == 1 else style.DOUBLE
        figure, axes = style.panels(1, len(present), width=width, height=2.5, sharex=True)
        handles: dict[str, Any] = {}
        for ax, condition in zip(axes[0], present, strict=True):
            for place, name in enumerate(lines):
                here = frame[(frame["condition"] == condition) & (frame["line"] == name)]
                here = here.assign(x=here["x"] if numeric else [places.index(value) for value in here["x"]])
                how = style.look(place, len(lines))
                if not numeric or not frame.attrs.get("joined", True):
                    how["linestyle"] = ""
                handles[name] = _points(ax, here, how, DODGE * (place - (len(lines) - 1) / 2))
            ax.set_title(condition)
            ax.set_xlabel(frame.attrs.get("x", options.x or ""))
            if numeric:
                style.number_axis(ax, frame["x"].unique())
            else:
                style.name_axis(ax, [str(name) for name in places])
        axes[0, 0].set_ylabel(style.wrap(frame.attrs.get("mean", options.y), 1.7))
        if lines != [""]:
            style.legend(figure, list(handles.values()), [str(name) for name in handles])
    return figure


def _points(ax: Axes, here: pd.DataFrame, how: dict[str, Any], shift: float) -> Any:
    """One line: its means with bars, and the seeds behind them, all moved sideways by `shift` points."""
    from matplotlib.transforms import ScaledTranslation

    aside = ax.transData + ScaledTranslation(shift / 72, 0, ax.figure.dpi_scale_trans)
    seeds = here[here["what"] == "seed"]
    if (here["seeds"] > 1).any():
        faint = {"color": how["color"], "alpha": 0.5, "markersize": 2.2, "markeredgewidth": 0}
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


def _place(results: Results, recipe: str, x: str | None, condition: str) -> Any:
    if x is None:
        return condition or recipe
    value = results.setting_of(recipe, x)
    return float(value) if results.is_numeric(x) else show(value)


def _seeds(results: Results, values: Any, trials: Any, where: dict[str, Any]) -> pd.DataFrame:
    """The mean of each seed, (S, N) -> one line a seed."""
    known = np.isfinite(values)
    n = known.sum(1)
    means = np.where(known, values, 0).sum(1) / np.maximum(n, 1)
    by_trial = results.trials.set_index("trial")
    seeds = [
        str(by_trial.at[trial, f"config.{results.replicates}"]) if results.replicates else trial for trial in trials
    ]
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
    resampled: set[str],
    kind: str | None,
) -> Mapping[Any, Any]:
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
    means = frame[frame["what"] == "mean"]
    hidden = bool(others) and list(means["line"].unique()) == [""]
    words = [
        f"{sentence(y)}{how}, against {of}{f'; measured with {kind} noise' if kind else ''}.",
        "Faint points: single seeds." if means["seeds"].max() > 1 else "",
        f"Not told apart: {', '.join(short_names(others))}." if hidden else "",
        left_out(results, options),
        caption(means, options, resampled, "Bars"),
    ]
    return {
        "caption": " ".join(filter(None, words)),
        "x": results.setting_label(x) if x else "",
        "mean": label,
        "joined": not hidden,  # a line through recipes that differ in other ways too would claim too much
    }
