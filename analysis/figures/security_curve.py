"""Robust accuracy against the radius of the attack, beside a random step of the same length."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import attacks, encoding, style
from analysis.arrays import arrays, caption, counted, select
from analysis.options import SETTING, FigureOptions
from analysis.results import Results
from analysis.stats import SHARE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


class Options(FigureOptions):
    """The options of `security_curve`."""

    found: str = Field("found", description="row column that tells whether the attack succeeded within the radius")
    random: str | None = Field("fooled_random", description="row column of the random control; null to draw none")
    by: str | None = Field(
        None,
        description="varied setting that the colour tells; by default the recipe, or the attack where many vary",
        json_schema_extra=SETTING,
    )


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "correct", "radius", options.found, *([options.random] if options.random is not None else [])]


def why_not_rows(columns: set[str]) -> str | None:
    """Why rows around several centres are not meant."""
    return attacks.refuse_conditions(columns)


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each curve and radius.

    The columns are `what` (search, random), `recipe`, `colour`, `column`, `dash`, `x`, `mean`, ...
    An example is robust at a radius where its image is classified correctly and no perturbation of
    at most that radius was found. At radius 0 that is the accuracy.
    """
    rows = select(results, options)
    channels = attacks.lines(results, options.by)
    parts = []
    for recipe in results.recipes:
        of_recipe = rows[rows["recipe"] == recipe]
        if of_recipe.empty:
            continue
        for what, column in (("search", options.found), ("random", options.random)):
            if column is None:
                continue
            robust = attacks.standing(of_recipe, column)
            if not np.isfinite(robust["robust"]).any():  # a control that was not tried
                continue
            cube = arrays(robust, "robust", by=None, bounds=SHARE)[""]
            estimate = cube.estimate(options)
            labels = {"what": what, **channels.of(results, recipe), "x": cube.points}
            parts.append(pd.DataFrame({**labels, **estimate.columns()}))
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["n"] > 0].reset_index(drop=True)
    control = bool((frame["what"] == "random").any())
    words = [
        f"Robust accuracy of {counted(frame['recipe'].nunique(), 'recipe')}: share of examples that are classified "
        "correctly and for which the search found no adversarial image within the radius. At radius 0: accuracy.",
        "Dotted: the same share when the image is moved as far as the radius in one random direction (its intervals are "
        "in the table of numbers)."
        if control
        else "",
        channels.hidden_words(),
        caption(frame, options, "Bands"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": attacks.length_label(results, "radius"),
        "mean": "robust accuracy",
        "colour": channels.title(results),
        "own_x": attacks.is_norm(channels.column),
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel, or one for each value of a setting.

    Attacks have bands, the random control is a thin dotted line.
    """
    from matplotlib.lines import Line2D

    with style.paper():
        frame = encoding.named(frame)
        laid = encoding.layout(frame)
        order, dashes = laid.order, laid.dashes
        own = bool(frame.attrs.get("own_x"))
        handles: dict[Hashable, Artist] = {}
        for column, ax in laid.panels:
            here = frame[frame["column"] == column]
            crowded = here["recipe"].nunique() > encoding.CROWD
            for (what, _, colour, dash), line in here.groupby(["what", "recipe", "colour", "dash"], sort=False):
                how = style.look(order.index(colour), len(order), laid.numeric)
                if what == "random":
                    ax.plot(
                        line["x"], line["mean"], color=how["color"], linestyle=":", linewidth=0.5 if crowded else 0.8
                    )
                    continue
                if len(dashes) > 1:
                    how["linestyle"] = style.DASHES[dashes.index(str(dash)) % len(style.DASHES)]
                if crowded:
                    how |= {"marker": "", "linewidth": 0.8}
                alpha = 0.03 if crowded else 0.14 if here["recipe"].nunique() <= encoding.FEW else 0.08
                style.curve(ax, line["x"], line["mean"], line["low"], line["high"], how, alpha=alpha)
                handles.setdefault(colour, ax.lines[-1])
            ax.set_title(column)
            style.number_axis(ax, here["x"].unique() if own else frame["x"].unique())
            ax.set_xlabel(style.wrap(frame.attrs.get("x", "radius"), laid.width - 0.5))
            ax.set_ylim(-0.03, 1.03)
        laid.panels[0][1].set_ylabel(frame.attrs.get("mean", "robust accuracy"))
        control = Line2D([], [], color=style.GREY, linestyle=":", linewidth=0.8)
        more = {"random direction": control} if (frame["what"] == "random").any() else {}
        encoding.legend(laid.figure, handles, order, dashes, frame.attrs.get("colour") or None, more)
    return laid.figure
