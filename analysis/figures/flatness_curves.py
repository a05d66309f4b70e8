"""How fast a network's answer fades with the noise: single examples, class averages, all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import special

from analysis import style
from analysis.arrays import MeasuredArray, arrays, caption, conditions, counted, kinds, select
from analysis.options import FigureOptions
from analysis.results import Results, sentence
from analysis.stats import SHARE, Estimate, Floats, wilson

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


class Options(FigureOptions):
    """The options of `flatness_curves`."""

    y: str = Field("p_true", description="row column to draw")
    along: str = Field("radius", description="row column of the horizontal axis")
    kind: str | None = Field(None, description="kind of noise; by default the first in the rows")
    condition: str | None = Field(None, description="condition; by default the first")
    recipe: str | None = Field(None, description="recipe, by its label; by default the first")
    examples: int = Field(60, ge=0, description="how many single examples are drawn")
    classes: int = Field(
        10, ge=0, description="how many class averages are drawn; of more classes, those with the lowest and highest"
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    named = [column for column in ("kind", "condition") if getattr(options, column) is not None]
    return ["id", "label", options.along, options.y, *named]


def uses(options: Options) -> list[str]:
    """What tells how sure a single example's number is: a standard error, or a count of samples."""
    return [f"{options.y}_se", "samples"]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each curve and point.

    The columns are `level` (example, class, all), `name`, `x`, `mean`, `low`, `high`, `n`, `seeds`.
    """
    kind = options.kind or kinds(results)[0]
    recipe = results.named(options.recipe)
    rows = select(results, options, kind=kind, recipe=recipe)
    condition = options.condition or conditions(rows)[0]
    rows = select(results, options, kind=kind, recipe=recipe, condition=condition or None)
    whole = arrays(rows, options.y, options.along, by=None, bounds=results.bounds(options.y))[""]
    overall = whole.estimate(options)
    labels = rows.drop_duplicates("id").set_index("id")["label"].reindex(whole.ids).to_numpy()
    parts = [_examples(rows, whole, options)]
    averages = {}
    for label in np.unique(labels):
        here = labels == label
        cube = MeasuredArray(whole.values[:, here], whole.trials, whole.ids[here], whole.points, whole.bounds)
        averages[results.class_name(int(label))] = cube.estimate(options)
    for name in _chosen(averages, options.classes):
        parts.append(_frame("class", name, whole.points, averages[name]))
    parts.append(_frame("all", "all examples", whole.points, overall))
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    shown = frame.loc[frame["level"] == "example", "name"].nunique()
    about = [
        f"{recipe}",
        *([f"{condition} centres"] if condition else []),
        *([f"measured with {kind} noise"] if kind else []),
    ]
    y = sentence(results.column_label(options.y))
    words = [
        f"{y} against {results.column_label(options.along, kind)}: {', '.join(about)}.",
        f"Left: {counted(shown, 'single example')}, evenly chosen in the order of their average, and the mean of all.",
        f"Right: means by class ({counted(len(averages), 'class').replace('classs', 'classes')}"
        + (
            f", of which the {options.classes} with the lowest and highest means are drawn"
            if len(averages) > options.classes
            else ""
        )
        + ") and of all.",
        caption(frame[frame["level"] == "all"], options, "Bands"),
    ]
    frame.attrs = {
        "caption": " ".join(words),
        "x": results.column_label(options.along, kind),
        "mean": results.column_label(options.y),
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """Two panels: single examples under the mean of all, and the class averages."""
    with style.paper():
        figure, axes = style.panels(1, 2, width=style.DOUBLE, height=2.9, sharey=True, sharex=True)
        left, right = axes[0]
        handles: dict[str, Artist] = {}
        everything = frame[frame["level"] == "all"]
        for ax in (left, right):
            band = (everything["x"], everything["mean"], everything["low"], everything["high"])
            style.curve(ax, *band, {"color": "black", "linewidth": 2, "zorder": 5}, alpha=0.3)
            ax.set_xlabel(frame.attrs.get("x", options.along))
            style.number_axis(ax, frame["x"].unique())
        handles["mean of all"] = left.lines[-1]
        for _, line in frame[frame["level"] == "example"].groupby("name", sort=False):
            (drawn,) = left.plot(line["x"], line["mean"], color=style.GREY, linewidth=0.5, alpha=0.45)
            handles["single example"] = drawn
        classes = list(dict.fromkeys(frame.loc[frame["level"] == "class", "name"]))
        for place, name in enumerate(classes):
            line = frame[(frame["level"] == "class") & (frame["name"] == name)]
            how: style.Look = {**style.look(place, len(classes)), "marker": "", "linewidth": 1.1}
            alpha = 0.12 if len(classes) < 5 else 0.06
            style.curve(right, line["x"], line["mean"], line["low"], line["high"], how, alpha=alpha)
            handles[str(name)] = right.lines[-1]
        style.probability_axis(left, frame["mean"])
        left.set_ylabel(style.wrap(frame.attrs.get("mean", options.y), 2))
        left.set_title("single examples")
        right.set_title("means by class")
        style.legend(figure, list(handles.values()), list(handles))
    return figure


def _frame(level: str, name: str, x: Floats, estimate: Estimate) -> pd.DataFrame:
    numbers = {"x": x, "mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    return pd.DataFrame({"level": level, "name": name, **numbers, "n": estimate.n, "seeds": estimate.seeds})


def _chosen(averages: dict[str, Estimate], count: int) -> list[str]:
    """All classes where they are few; of many, those with the lowest and the highest averages."""
    if len(averages) <= count:
        return list(averages)
    ranked = sorted(averages, key=lambda name: float(np.nanmean(averages[name].mean)))
    picked = set(ranked[: count - count // 2] + ranked[len(ranked) - count // 2 :])
    return [name for name in averages if name in picked]


def _examples(rows: pd.DataFrame, cube: MeasuredArray, options: Options) -> pd.DataFrame:
    """Single examples, averaged over seeds.

    Each has the interval of its own noise samples where the rows know it.
    """
    with np.errstate(invalid="ignore"):
        known = np.isfinite(cube.values)
        means = np.where(known, cube.values, 0).sum(0) / known.sum(0)  # (N, R)
        complete = np.flatnonzero(np.isfinite(means).all(1))
    if len(complete) == 0 or options.examples == 0:
        return pd.DataFrame()
    ranked = complete[np.argsort(means[complete].mean(1), kind="stable")]
    picked = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(options.examples, len(ranked))).round().astype(int))]
    kept = rows[rows["id"].isin(cube.ids[picked])]
    chosen = MeasuredArray(cube.values[:, picked], cube.trials, cube.ids[picked], cube.points, cube.bounds)
    low, high = _sampling(kept, chosen, options)
    size = len(cube.points)
    order = np.argsort(np.argsort(cube.ids[picked]))  # arrays of `kept` have their ids ascending
    return pd.DataFrame(
        {
            "level": "example",
            "name": np.repeat(cube.ids[picked], size).astype(str),
            "x": np.tile(cube.points, len(picked)),
            "mean": means[picked].ravel(),
            "low": low[order].ravel(),
            "high": high[order].ravel(),
            "n": 1,
            "seeds": known[:, picked].sum(0).ravel(),
        }
    )


def _sampling(rows: pd.DataFrame, cube: MeasuredArray, options: Options) -> tuple[Floats, Floats]:
    """The ends of the intervals of noise samples, (N, R), ids ascending; NaN where not known."""
    mean = arrays(rows, options.y, options.along, by=None)[""].values
    seeds = np.isfinite(mean).sum(0)
    if f"{options.y}_se" in rows:
        variance = arrays(rows.assign(square=rows[f"{options.y}_se"] ** 2), "square", options.along, by=None)[""].values
        half = special.ndtri(0.5 + options.level / 2) * np.sqrt(np.nansum(variance, 0)) / seeds
        centre = np.nansum(mean, 0) / seeds
        return centre - half, centre + half
    of_samples = cube.bounds == SHARE and not pd.api.types.is_bool_dtype(rows[options.y])
    if "samples" in rows and of_samples:  # a share without a standard error is one of the samples
        samples = np.nan_to_num(arrays(rows, "samples", options.along, by=None)[""].values)
        low, high = wilson(np.nansum(mean * samples, 0).round(), samples.sum(0), options.level)
        centre = np.nansum(mean, 0) / seeds  # without noise nothing is sampled
        return np.where(cube.points == 0, centre, low), np.where(cube.points == 0, centre, high)
    empty = np.full(cube.values.shape[1:], np.nan)
    return empty, empty
