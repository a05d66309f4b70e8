"""The same images under several conditions: mean curves, and the differences by example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.arrays import arrays, caption, conditions, kinds, select
from analysis.options import FigureOptions
from analysis.paired import paired_difference
from analysis.results import Results, sentence
from analysis.stats import crossed_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FRAME = ["kind", "what", "condition", "x", "mean", "low", "high", "n", "seeds", "p_holm"]


class Options(FigureOptions):
    """The options of `conditions`."""

    y: str = Field("persistence", description="row column to draw")
    along: str = Field("radius", description="row column of the horizontal axis")
    kind: str | None = Field(None, description="kind of noise; by default one column of panels for each")
    recipe: str | None = Field(None, description="recipe, by its label; by default the first")


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "condition", options.along, options.y, *(["kind"] if options.kind is not None else [])]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each curve and point.

    The columns are `FRAME`; `what` is a mean or a difference. All conditions are compared on the
    same examples: an example counts where every condition of it was measured.
    """
    recipe = results.named(options.recipe)
    parts: list[pd.DataFrame] = []
    examples: set[int] = set()
    for kind in kinds(results) if options.kind is None else [options.kind]:
        rows = select(results, options, kind=kind, recipe=recipe)
        examples.update(rows["id"].unique())
        bounds = results.bounds(options.y)
        found = arrays(rows, options.y, options.along, bounds=bounds)
        curves = {name: cube.values for name, cube in found.items()}
        points = next(iter(found.values())).points
        common = np.all([np.isfinite(values) for values in curves.values()], axis=0)  # (S, N, R)
        if common.any():
            curves = {name: np.where(common, values, np.nan) for name, values in curves.items()}
        labels = {"kind": kind or "", "x": points}
        for name, values in curves.items():
            estimate = crossed_mean(values, level=options.level, bounds=bounds)
            parts.append(
                pd.DataFrame({**labels, "what": "mean", "condition": name, **estimate.columns(), "p_holm": np.nan})
            )
        base = results.baseline
        if base not in curves:
            continue
        for name in [name for name in curves if name != base]:
            estimate, test = paired_difference(curves[base], curves[name], level=options.level, bounds=bounds)
            parts.append(
                pd.DataFrame(
                    {**labels, "what": "difference", "condition": name, **estimate.columns(), "p_holm": test.p_holm}
                )
            )
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.loc[frame["n"] > 0, FRAME].reset_index(drop=True)
    frame.attrs = {
        "caption": _caption(results, options, frame, recipe, len(examples)),
        "x": {kind: results.column_label(options.along, kind) for kind in dict.fromkeys(frame["kind"])},
        "mean": results.column_label(options.y),
        "difference": f"{results.baseline} minus other",
    }
    return frame


def _caption(results: Results, options: Options, frame: pd.DataFrame, recipe: str, examples: int) -> str:
    present = conditions(frame)
    words = [f"{sentence(results.column_label(options.y))} around {', '.join(present)} centres: {recipe}."]
    if (frame["what"] == "difference").any():
        words.append(f"Below: {results.baseline} minus the other, by example.")
        words.append(
            "Filled markers: Holm-corrected Wilcoxon signed-rank test (seeds averaged within an example) below 0.05."
        )
        used = int(frame["n"].max())
        if used < examples:
            words.append(
                f"All curves are of the {used} of {examples} examples that were measured under every condition."
            )
    else:
        words.append("There is nothing to compare: only one condition was measured.")
    return " ".join([*words, caption(frame, options, "Bands")])


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One column of panels for each kind of noise: means above, differences below."""
    with style.paper():
        columns = list(dict.fromkeys(frame["kind"]))
        paired = bool((frame["what"] == "difference").any())
        width = style.COLUMN if len(columns) == 1 else style.DOUBLE
        figure, axes = style.panels(1 + paired, len(columns), width=width, height=2.1, sharex="col", sharey="row")
        present = list(dict.fromkeys(frame.loc[frame["what"] == "mean", "condition"]))
        handles = {}
        for column, kind in enumerate(columns):
            of_kind = frame[frame["kind"] == kind]
            for what, ax in zip(("mean", "difference"), axes[:, column], strict=False):
                for name, line in of_kind[of_kind["what"] == what].groupby("condition", sort=False):
                    how = style.look(present.index(name), len(present))
                    style.curve(ax, line["x"], line["mean"], line["low"], line["high"], how)
                    if what == "mean":
                        handles[str(name)] = ax.lines[-1]
                        continue
                    open_ = line[~(line["p_holm"] < 0.05)]
                    ax.plot(
                        open_["x"], open_["mean"], how["marker"], color=how["color"], markerfacecolor="white", zorder=4
                    )
            style.number_axis(axes[-1, column], of_kind["x"].unique())
            labels = frame.attrs.get("x")
            axes[-1, column].set_xlabel(labels[kind] if isinstance(labels, dict) else options.along)
            if len(columns) > 1:
                axes[0, column].set_title(f"{kind} noise")
        style.probability_axis(axes[0, 0], frame.loc[frame["what"] == "mean", "mean"])
        axes[0, 0].set_ylabel(style.wrap(frame.attrs.get("mean", options.y), 1.6))
        if paired:
            axes[1, 0].set_ylabel(frame.attrs.get("difference", "difference"))
            for ax in axes[1]:
                ax.axhline(0, color="black", linewidth=0.6, zorder=1)
        if present != [""]:
            style.legend(figure, list(handles.values()), list(handles))
    return figure
