"""Every recipe's mean curve, in a row of panels for each condition."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from analysis import encoding, style
from analysis.arrays import arrays, caption, conditions, counted, kinds, left_out, select
from analysis.encoding import FEW, LISTED
from analysis.options import SETTING, FigureOptions
from analysis.results import Results, sentence

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


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
    """The numbers that are drawn: one line for each curve and point.

    The columns are `condition`, `recipe`, `colour`, `column`, `dash`, `x`, `mean`, `low`, `high`,
    ...
    """
    kind = options.kind or kinds(results)[0]
    rows = select(results, options, kind=kind)
    channels = encoding.assign_channels(results, options.by)
    parts = []
    for recipe in results.recipes:
        of_recipe = rows[rows["recipe"] == recipe]
        if of_recipe.empty:
            continue
        tells = channels.of(results, recipe)
        for condition, cube in arrays(of_recipe, options.y, options.along, bounds=results.bounds(options.y)).items():
            estimate = cube.estimate(options)
            parts.append(pd.DataFrame({"condition": condition, **tells, "x": cube.points, **estimate.columns()}))
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["n"] > 0]
    order = {name: place for place, name in enumerate(conditions(rows))}
    frame = frame.sort_values("condition", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    y = sentence(results.column_label(options.y))
    count = counted(frame["recipe"].nunique(), "recipe")
    words = [
        f"{y} against {results.column_label(options.along, kind)} for "
        f"{count}{f', measured with {kind} noise' if kind else ''}; each curve is the mean over examples and seeds.",
        channels.hidden_words(),
        left_out(results, options),
        caption(frame, options, "Bands"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": results.column_label(options.along, kind),
        "mean": results.column_label(options.y),
        "colour": channels.title(results),
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """A grid of small panels on common axes."""
    with style.paper():
        frame = frame.assign(**{name: encoding.or_empty(frame[name]) for name in ("condition", "column", "dash")})
        present = list(dict.fromkeys(frame["condition"]))
        columns = list(dict.fromkeys(frame["column"]))
        if columns == [""]:  # conditions side by side use the width better than below each other
            grid = [[(condition, "") for condition in present]]
        else:
            grid = [[(condition, column) for column in columns] for condition in present]
        width = style.COLUMN if len(grid[0]) == 1 else style.DOUBLE
        height = 2.5 if len(grid) == 1 else 1.55
        figure, axes = style.panels(len(grid), len(grid[0]), width=width, height=height, sharex=True, sharey=True)
        colours, numeric = encoding.colours(frame)
        dashes = list(dict.fromkeys(frame["dash"]))
        handles: dict[Hashable, Artist] = {}
        for ax, (condition, column) in zip(axes.flat, [cell for line in grid for cell in line], strict=True):
            here = frame[(frame["condition"] == condition) & (frame["column"] == column)]
            for (_, colour, dash), line in here.groupby(["recipe", "colour", "dash"], sort=False):
                how = style.look(colours.index(colour), len(colours), numeric)
                if len(dashes) > 1:
                    how["linestyle"] = style.DASHES[dashes.index(dash) % len(style.DASHES)]
                if len(colours) > LISTED:
                    how["marker"] = ""
                alpha = 0.14 if len(colours) * len(dashes) <= FEW else 0.08
                style.curve(ax, line["x"], line["mean"], line["low"], line["high"], how, alpha=alpha)
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
        encoding.legend(figure, handles, colours, dashes, frame.attrs.get("colour") or None)
    return figure
