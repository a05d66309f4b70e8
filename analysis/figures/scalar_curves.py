"""The trials' scalars against one varied setting: quality of autoencoders by bottleneck."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from analysis import encoding, style, summary
from analysis.arrays import caption
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results, sentence, show
from engine.store.records import SweepRecord

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTEAD = True
MANY = 6
"""More panels side by side than this are too narrow."""


class Options(FigureOptions):
    """The options of `scalar_curves`."""

    y: list[str] = Field(
        default=[], max_length=6, description="the trials' scalars, a row of panels each; by default the first"
    )
    x: str | None = Field(
        default=None,
        description="varied setting on the horizontal axis; by default the first numeric one",
        json_schema_extra=SETTING,
    )
    by: str | None = Field(
        default=None,
        description="varied setting that the colour tells; by default the first other one",
        json_schema_extra=SETTING,
    )
    column: str | None = Field(
        default=None,
        description="varied setting with a panel for each of its values; by default the next other one",
        json_schema_extra=SETTING,
    )
    reference: str | float | bool | None = Field(
        default=None, description="value of `by` that the others are compared with, drawn in grey"
    )


def why_not_sweep(sweep: SweepRecord, options: Options) -> str | None:
    """Why a sweep cannot be drawn, or None."""
    return "needs a setting that varies, and none does" if sweep.varied == () else None


def needs(options: Options) -> list[str]:
    """No row column: the scalars are those that trials report."""
    return []


def compute(results: Results, options: Options) -> pd.DataFrame:
    """One line a recipe and scalar.

    The columns are `scalar`, `column`, `line`, `recipe`, `x`, `mean`, `low`, `high`, `n`, `seeds`.
    """
    x, by, column = _settings(results, options)
    known = summary.scalars(results)
    wanted = options.y or known[:1]
    if absent := [name for name in wanted if name not in known]:
        raise ReportError(f"y: no trial reports {absent[0]}; they report {', '.join(known)}")
    done = results.trials[results.trials["status"] == "done"]
    parts = []
    for recipe in results.recipes:
        trials = done[done["recipe"] == recipe]
        where = {
            "recipe": recipe,
            "column": f"{results.setting_label(column)} {show(results.setting_of(recipe, column))}" if column else "",
            "line": show(results.setting_of(recipe, by)) if by else "",
            "x": results.setting_of(recipe, x),
        }
        for scalar in wanted:
            estimate = summary.estimate(results, trials, scalar, options.level)
            if estimate.seeds[0]:
                parts.append(pd.DataFrame({"scalar": scalar, **where, **estimate.columns()}))
    if not parts:
        raise ReportError(f"no trial has a value of {', '.join(wanted)}")
    frame = pd.concat(parts, ignore_index=True)
    reference = None if options.reference is None else show(options.reference)
    lines = list(dict.fromkeys(frame["line"]))
    if reference is not None and reference not in lines:
        raise ReportError(f"reference: {by} is never {reference}; it is {', '.join(lines)}")
    others = [name for name in _differing(results) if name not in (x, by, column)]
    words = [
        f"{sentence(' and '.join(name.replace('_', ' ') for name in wanted))} against {results.setting_label(x)}.",
        f"Grey: {reference}, for comparison." if reference else "",
        f"Not told apart: {', '.join(others)}." if others else "",
        caption(frame, options, "Bars"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": results.setting_label(x),
        "line": results.setting_label(by) if by else "",
        "reference": reference or "",
        "shares": [name for name in wanted if results.bounds(name) is not None],
    }
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """Means with bars, joined: a row of panels for each scalar, a column for each setting."""
    with style.paper():
        frame = frame.assign(column=encoding.or_empty(frame["column"]), line=encoding.or_empty(frame["line"]))
        columns, lines, scalars = (list(dict.fromkeys(frame[name])) for name in ("column", "line", "scalar"))
        numeric = pd.api.types.is_numeric_dtype(frame["x"])
        places = list(dict.fromkeys(frame["x"]))
        reference = frame.attrs.get("reference") or None
        coloured = [name for name in lines if name != reference]
        width = style.COLUMN if len(columns) == 1 else style.DOUBLE
        height = 2.0 + style.legend_height(width, [str(name) for name in lines]) / len(scalars)
        figure, axes = style.panels(len(scalars), len(columns), width=width, height=height, sharex=True, sharey="row")
        handles: dict[str, Artist] = {}
        for row, scalar in zip(axes, scalars, strict=True):
            for ax, column in zip(row, columns, strict=True):
                of_panel = frame[(frame["scalar"] == scalar) & (frame["column"] == column)]
                for name in lines:
                    here = of_panel[of_panel["line"] == name]
                    here = here.assign(x=here["x"] if numeric else [places.index(value) for value in here["x"]])
                    if name == reference:
                        how: style.Look = {"color": style.GREY, "linestyle": ":", "marker": "s"}
                    else:
                        how = style.look(coloured.index(name), len(coloured))
                    handles[name] = _line(ax, here.sort_values("x"), how)
                if numeric:
                    style.number_axis(ax, frame["x"].unique())
                else:
                    style.name_axis(ax, [str(place) for place in places])
            row[0].set_ylabel(style.wrap(sentence(scalar.replace("_", " ")).rstrip("."), 1.7))
        for ax, column in zip(axes[0], columns, strict=True):
            ax.set_title(column)
        for ax in axes[-1]:
            ax.set_xlabel(style.wrap(frame.attrs.get("x", options.x or ""), width / len(columns) - 0.3))
        if lines != [""]:
            title = frame.attrs.get("line") or None
            style.legend(figure, list(handles.values()), [str(name) for name in handles], title)
    return figure


def _line(ax: Axes, here: pd.DataFrame, how: style.Look) -> Artist:
    """Means with bars, joined."""
    ax.vlines(here["x"], here["low"], here["high"], color=how["color"], linewidth=0.9)
    (drawn,) = ax.plot(here["x"], here["mean"], markeredgecolor="white", markeredgewidth=0.4, **how)
    return drawn


def _differing(results: Results) -> list[str]:
    return [name for name in results.varied if len(results.values(name)) > 1]


def _settings(results: Results, options: Options) -> tuple[str, str | None, str | None]:
    """The settings along the horizontal axis, of the colours and of the panels."""
    differing = _differing(results)
    for option in ("x", "by", "column"):
        name = getattr(options, option)
        if name is not None and name not in differing:
            there = ", ".join(differing) or "nothing"
            raise ReportError(f"{option}: {name} does not differ between the recipes; {there} does")
    named = [options.x, options.by, options.column]
    left = [name for name in differing if name not in named]
    x = options.x or next((name for name in left if results.is_numeric(name)), left[0] if left else None)
    if x is None:
        raise ReportError("nothing differs between the recipes")
    left = [name for name in left if name != x]
    by = options.by or (left.pop(0) if left else None)
    few = [name for name in left if len(results.values(name)) <= MANY]
    return x, by, options.column or (few[0] if few else None)
