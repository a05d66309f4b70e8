"""Every recipe's mean curve: one row of panels for each condition, colour and columns for what the sweep varies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.cube import caption, conditions, counted, cubes, kinds, select
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results, is_number, sentence, short_names, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 4
"""At most so many columns of panels, and so many dashes."""
LISTED = 8
"""At most so many colours in the legend."""


class Options(FigureOptions):
    """The options of `recipes`."""

    y: str = Field("persistence", description="row column to draw")
    along: str = Field("radius", description="row column of the horizontal axis")
    kind: str | None = Field(None, description="kind of noise; by default the first in the rows")
    by: str | None = Field(
        None,
        description="varied setting that the colour tells; by default the first numeric one",
        json_schema_extra=SETTING,
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", options.along, options.y, *(["kind"] if options.kind is not None else [])]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """One line a curve and point: `condition`, `recipe`, `colour`, `column`, `dash`, `x`, `mean`, `low`, `high`, ..."""
    kind = options.kind or kinds(results)[0]
    rows = select(results, options, kind=kind)
    by, column, dashes = _roles(results, options.by)
    parts, resampled = [], set()
    for recipe in results.recipes:
        of_recipe = rows[rows["recipe"] == recipe]
        if of_recipe.empty:
            continue
        tells = {
            "recipe": recipe,
            "colour": _value(results.setting_of(recipe, by)) if by else recipe,
            "column": _words(results, recipe, [column] if column else []),
            "dash": _words(results, recipe, dashes),
        }
        for condition, cube in cubes(of_recipe, options.y, options.along).items():
            estimate = cube.estimate(options)
            resampled.add(estimate.resampled)
            parts.append(pd.DataFrame({"condition": condition, **tells, "x": cube.points, **estimate.columns()}))
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["n"] > 0]
    order = {name: place for place, name in enumerate(conditions(rows))}
    frame = frame.sort_values("condition", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    hidden = [name for name in _differing(results) if name not in (by, column, *dashes)]
    y = sentence(results.column_label(options.y))
    count = counted(frame["recipe"].nunique(), "recipe")
    words = [
        f"{y} against {results.column_label(options.along, kind)} for "
        f"{count}{f', measured with {kind} noise' if kind else ''}; each curve is the mean over examples and seeds.",
        f"Not told apart: {', '.join(short_names(hidden))}." if hidden else "",
        caption(frame, options, resampled, "Bands"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": results.column_label(options.along, kind),
        "mean": results.column_label(options.y),
        "colour": results.setting_label(by) if by else "",
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """A grid of small panels on common axes."""
    with style.paper():
        present = list(dict.fromkeys(frame["condition"].fillna("")))
        columns = list(dict.fromkeys(frame["column"].fillna("")))
        if columns == [""]:  # conditions side by side use the width better than below each other
            grid = [[(condition, "") for condition in present]]
        else:
            grid = [[(condition, column) for column in columns] for condition in present]
        width = style.COLUMN if len(grid[0]) == 1 else style.DOUBLE
        height = 2.5 if len(grid) == 1 else 1.55
        figure, axes = style.panels(len(grid), len(grid[0]), width=width, height=height, sharex=True, sharey=True)
        colours, numeric = _colours(frame)
        dashes = list(dict.fromkeys(frame["dash"].fillna("")))
        handles: dict[Any, Any] = {}
        for ax, (condition, column) in zip(axes.flat, [cell for line in grid for cell in line], strict=True):
            here = frame[(frame["condition"].fillna("") == condition) & (frame["column"].fillna("") == column)]
            for (_, colour, dash), line in here.fillna({"dash": ""}).groupby(["recipe", "colour", "dash"], sort=False):
                how = style.look(colours.index(colour), len(colours), numeric)
                if len(dashes) > 1:
                    how["linestyle"] = style.DASHES[dashes.index(dash) % len(style.DASHES)]
                if len(colours) > LISTED:
                    how["marker"] = ""
                alpha = 0.14 if len(colours) * len(dashes) <= FEW else 0.08
                style.curve(ax, line["x"], line["mean"], line["low"], line["high"], alpha=alpha, **how)
                handles.setdefault(colour, ax.lines[-1])
            ax.set_title(", ".join(filter(None, (condition, column))))
        for ax in axes[-1]:
            style.number_axis(ax, frame["x"].unique())
            ax.set_xlabel(frame.attrs.get("x", options.along))
        label = frame.attrs.get("mean", options.y)
        if len(grid) > 1:
            figure.supylabel(label, fontsize=style.RC["axes.labelsize"])
        else:
            axes[0, 0].set_ylabel(style.wrap(label, 1.7))
        style.probability_axis(axes[0, 0], frame["mean"])
        _legend(figure, handles, colours, dashes, frame.attrs.get("colour") or None)
    return figure


def _roles(results: Results, by: str | None) -> tuple[str | None, str | None, list[str]]:
    """Which varied setting is told by colour, which by columns of panels, and which by dashes."""
    settings = _differing(results)
    if by is not None and by not in settings:
        raise ReportError(f"by: {by} does not differ between the recipes; {', '.join(settings) or 'nothing'} does")
    colour = by or next((name for name in settings if results.is_numeric(name)), settings[0] if settings else None)
    others = sorted((name for name in settings if name != colour), key=results.is_numeric)
    column = next((name for name in others if len(results.values(name)) <= FEW), None)
    dashes: list[str] = []
    for name in others:
        if name != column and np.prod([len(results.values(other)) for other in [*dashes, name]]) <= FEW:
            dashes.append(name)
    return colour, column, dashes


def _differing(results: Results) -> list[str]:
    return [name for name in results.varied if len(results.values(name)) > 1]


def _value(value: Any) -> Any:
    return float(value) if is_number(value) else show(value)


def _words(results: Results, recipe: str, settings: list[str]) -> str:
    values = [results.setting_of(recipe, name) for name in settings]
    names = short_names(settings)
    return ", ".join(
        show(value) if isinstance(value, str) else f"{name} {show(value)}"
        for name, value in zip(names, values, strict=True)
    )


def _colours(frame: pd.DataFrame) -> tuple[list[Any], bool]:
    """The different colour values in order, and whether they are numbers."""
    values = list(dict.fromkeys(frame["colour"]))
    numeric = len(values) > 1 and all(isinstance(value, float | int) for value in values)
    return (sorted(values) if numeric else values), numeric


def _legend(figure: Figure, handles: dict[Any, Any], colours: list[Any], dashes: list[str], title: str | None) -> None:
    from matplotlib.lines import Line2D

    step = np.unique(np.linspace(0, len(colours) - 1, min(len(colours), LISTED)).round().astype(int))
    listed = [colours[place] for place in step]
    lines = [handles[colour] for colour in listed]
    words = [show(colour) for colour in listed]
    if len(dashes) > 1:
        lines += [
            Line2D([], [], color=style.GREY, linestyle=style.DASHES[place % len(style.DASHES)])
            for place in range(len(dashes))
        ]
        words += dashes
    if len(words) > 1:
        style.legend(figure, lines, words, title)
