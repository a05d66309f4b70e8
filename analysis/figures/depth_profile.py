"""Whose neighbours moved images have at each stage of a classifier, before and after moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import encoding, style
from analysis.arrays import arrays, caption, counted, select
from analysis.options import FigureOptions
from analysis.results import ReportError, Results, sentence

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FRAME = ["panel", "move", "x", "depth", "mean", "low", "high", "n", "seeds"]
MANY = 4
"""More recipes than this would not fit side by side."""
DODGE = 0.07
"""How far apart, in stages, the points of neighbouring lines lie."""


class Options(FigureOptions):
    """The options of `depth_profile`."""

    y: str = Field("new_class", description="row column to draw, such as new_class, old_class or true_class")
    recipe: str | None = Field(
        None, description=f"recipe, by its label; by default a panel for each, of the first {MANY} at most"
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "move", "stage", "depth", "found", "correct", options.y]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each recipe, move and stage, in order of depth.

    All moves of a recipe are compared on the same examples: where the options ask for those that
    were found, an example counts where it was correct and every move of it was found.
    """
    recipes = results.recipes[:MANY] if options.recipe is None else [results.named(options.recipe)]
    parts: list[pd.DataFrame] = []
    kept: list[int] = []
    there: list[int] = []
    for recipe in recipes:
        rows = select(results, options, recipe=recipe)
        there.append(rows["id"].nunique())
        if options.only_found:
            rows = rows[_all_found(rows)]
        kept.append(rows["id"].nunique())
        if rows.empty:
            continue
        names = rows.drop_duplicates("depth").set_index("depth")["stage"].astype(str)
        for move, found in arrays(rows, options.y, "depth", by="move", bounds=results.bounds(options.y)).items():
            where = {"panel": recipe if len(recipes) > 1 else "", "move": move, "depth": found.points.astype(int)}
            x = [_named(names[depth]) for depth in found.points]
            parts.append(pd.DataFrame({**where, "x": x, **found.estimate(options).columns()}))
    if not parts:
        raise ReportError("no example was correct and moved by every move")
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.loc[frame["n"] > 0, FRAME].reset_index(drop=True)
    frame.attrs = {
        "caption": _caption(results, options, frame, recipes, kept, there),
        "x": "stage, by depth",
        "mean": results.column_label(options.y),
    }
    return frame


def _all_found(rows: pd.DataFrame) -> pd.Series:
    """Whether each row is of an image that was correct and that every move moved as it should."""
    held = rows["found"].astype(bool) & rows["correct"].astype(bool)
    return held.groupby([rows["trial"], rows["id"]], observed=True).transform("all")


def _named(stage: str) -> str:
    return "pixels" if stage == "0" else stage


def _caption(
    results: Results, options: Options, frame: pd.DataFrame, recipes: list[str], kept: list[int], there: list[int]
) -> str:
    words = [f"{sentence(results.column_label(options.y))}, at each stage: {'; '.join(recipes)}."]
    if len(recipes) < len(results.recipes) and options.recipe is None:
        words.append(f"Only {len(recipes)} of {len(results.recipes)} recipes are drawn.")
    if options.only_found:
        how_many = f"{min(kept)}" if min(kept) == max(kept) else f"{min(kept)} to {max(kept)}"
        words.append(
            f"Counted are images that were correct and that every move moved as it should: {how_many} of"
            f" {counted(max(there), 'example')}, under one seed at least."
        )
    return " ".join([*words, caption(frame, options, "Bars")])


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """A panel for each recipe: a line for each move, with bars, over the stages by depth."""
    with style.paper():
        frame = frame.assign(panel=encoding.or_empty(frame["panel"]))
        panels, moves = (list(dict.fromkeys(frame[name])) for name in ("panel", "move"))
        width = style.COLUMN if len(panels) == 1 else style.DOUBLE
        figure, axes = style.panels(1, len(panels), width=width, height=2.6, sharey=True)
        handles: dict[str, Artist] = {}
        for ax, panel in zip(axes[0], panels, strict=True):
            of_panel = frame[frame["panel"] == panel]
            depths = np.unique(of_panel["depth"])
            names = of_panel.drop_duplicates("depth").set_index("depth")["x"].astype(str)
            for place, move in enumerate(moves):
                here = of_panel[of_panel["move"] == move]
                how = style.look(place, len(moves))
                x = np.searchsorted(depths, here["depth"]) + DODGE * (place - (len(moves) - 1) / 2)
                ax.vlines(x, here["low"], here["high"], color=how["color"], linewidth=0.9)
                (handles[str(move)],) = ax.plot(x, here["mean"], markeredgecolor="white", markeredgewidth=0.4, **how)
            style.name_axis(ax, [names[depth] for depth in depths])
            ax.set_title(style.wrap(str(panel), width / len(panels) - 0.4))
            ax.set_xlabel(style.wrap(frame.attrs.get("x", "stage"), width / len(panels) - 0.3))
        style.probability_axis(axes[0, 0], frame["mean"])
        axes[0, 0].set_ylabel(style.wrap(frame.attrs.get("mean", options.y), 2.0))
        style.legend(figure, list(handles.values()), list(handles))
    return figure
