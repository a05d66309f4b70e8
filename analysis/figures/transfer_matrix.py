"""Which network is fooled by images found at which: a matrix of source x target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.arrays import spread
from analysis.networks import COLUMNS, by_example, controls, count, jointly, networks, sources, transfers
from analysis.options import FigureOptions
from analysis.results import ReportError, Results
from analysis.stats import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JOINT = "all others, jointly"
"""The row that holds, for each network, the joint attack that it was held out of."""
EVERY, RIGHT = "all examples", "right before, and found at the source"
WIDE = 8
"""Matrices of more networks than this lie below each other."""
MANY = 16
"""Of more networks than this the intervals are in the table of numbers alone."""

DARKEST = 1.3
"""The share that would have the darkest colour of the scale."""


class Options(FigureOptions):
    """The options of `transfer_matrix`."""

    recipe: str | None = Field(None, description="recipe, by its label; by default the first")


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return list(COLUMNS)


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each cell.

    The columns are `panel`, `source`, `x` (the target), `same`, `mean`, `low`, `high`, `n`,
    `seeds`. `mean` is the share of examples whose image, found at the source, the target
    misclassifies, with its Wilson interval.
    """
    rows = transfers(results, options, options.recipe)
    targets = networks(rows)
    known = sources(rows)
    joint = jointly(rows)
    at_random = controls(rows)
    shown = [name for name in known if name not in joint and name not in at_random]
    shown += [JOINT] * bool(joint) + at_random
    right = rows["target_correct"] == 1
    # a random step needs no source that is right and finds nothing
    right &= rows["source"].isin(at_random) | ((rows["source_correct"] == 1) & rows["found"])
    several = rows["source"].isin(joint)
    rows = rows.assign(row=rows["source"].where(~several, JOINT), right=right)[~several | rows["held_out"]]
    lines = []
    for panel, of_panel in ((EVERY, rows), (RIGHT, rows[rows["right"]])):
        cells = dict(list(of_panel.groupby(["row", "target"], sort=False)))
        for source in shown:
            for target in targets:
                cell = cells.get((source, target))
                if cell is None:
                    continue
                k, n = count(by_example(cell, "fooled"))
                if n == 0:
                    continue
                low, high = wilson(k, n, options.level)
                where = {"panel": panel, "source": source, "x": target, "same": source == target}
                numbers = {"mean": k / n, "low": float(low), "high": float(high), "n": n}
                lines.append({**where, **numbers, "seeds": cell["trial"].nunique()})
    if not lines:
        raise ReportError("no images were tried on any network")
    frame = pd.DataFrame(lines)
    every, chosen = (frame.loc[frame["panel"] == panel, "n"] for panel in (EVERY, RIGHT))
    words = [
        "Share of images (%) found at the source (rows) that the target (columns) misclassifies; framed: the source "
        "itself.",
        f"First: all examples, those that the target misclassifies unmoved included (n = "
        f"{spread(every.min(), every.max(), 'example')} a cell).",
        "Second: only examples that source and target classify correctly unmoved and for which the search at the "
        f"source succeeded (n = {spread(chosen.min(), chosen.max(), 'example')} a cell)."
        if len(chosen)
        else "Nothing is left of the examples that source and target got right.",
        f"{JOINT}: one image against all other networks, the target held out." if joint else "",
        *(
            f"{name}: moved as far in a random direction; in the second matrix where the target is right unmoved."
            for name in at_random
        ),
        f"Below each share: its {100 * options.level:g} % Wilson interval over examples of these networks"
        f"{' (seeds averaged within an example)' if frame['seeds'].max() > 1 else ''}.",
        "The intervals are in the table of numbers." if len(targets) > MANY else "",
    ]
    frame.attrs = {"caption": " ".join(filter(None, words)), "x": "target", "mean": "share fooled", "y": "source"}
    return frame


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """Two matrices on one scale, side by side; those of many networks lie below each other."""
    with style.paper():
        present = list(dict.fromkeys(frame["panel"]))
        targets = list(dict.fromkeys(frame["x"]))
        rows = list(dict.fromkeys(frame["source"]))
        stacked = len(targets) > WIDE or len(present) == 1
        across = 1 if stacked else len(present)
        label = 0.055 * max(map(len, rows)) + 0.35
        width = style.DOUBLE if across > 1 or len(targets) > 4 else style.COLUMN
        cell = (width - label) / (len(targets) * across)
        tall = min(max(cell * 0.75, 0.22), 0.36)
        height = tall * len(rows) + 0.045 * max(map(len, targets)) + 0.55
        figure, axes = style.panels(len(present) // across, across, width=width, height=height)
        for place, (ax, panel) in enumerate(zip(axes.flat, present, strict=True)):
            here = frame[frame["panel"] == panel]
            _matrix(ax, here, rows, targets, cell, intervals=len(targets) <= MANY)
            ax.set_title(f"{panel} (%)")
            first, last = place % across == 0, place >= len(present) - across
            ax.set_yticks(range(len(rows)), rows if first else [""] * len(rows))
            ax.set_ylabel(frame.attrs.get("y", "source") if first else "")
            ax.set_xlabel(frame.attrs.get("x", "target") if last else "")
            if not last:
                ax.set_xticklabels([])
    return figure


def _matrix(ax: Axes, here: pd.DataFrame, rows: list[str], targets: list[str], cell: float, intervals: bool) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    place = {name: at for at, name in enumerate(rows)}, {name: at for at, name in enumerate(targets)}
    share = np.full((len(rows), len(targets)), np.nan)
    for _, line in here.iterrows():
        share[place[0][line["source"]], place[1][line["x"]]] = line["mean"]
    colours = colormaps["Blues"].with_extremes(bad="#eeeeee")
    ax.imshow(share, cmap=colours, vmin=0, vmax=DARKEST, aspect="auto")
    size = float(np.clip(cell * 15, 4.5, 7))
    for _, line in here.iterrows():
        down, across = place[0][line["source"]], place[1][line["x"]]
        ink = _ink(colours(line["mean"] / DARKEST))
        va: Literal["bottom", "center"] = "bottom" if intervals else "center"
        ax.text(across, down, _percent(line["mean"]), va=va, ha="center", fontsize=size, color=ink)
        if intervals:
            words = f"{_percent(line['low'])}\u2013{_percent(line['high'])}"
            ax.text(across, down + 0.06, words, va="top", ha="center", fontsize=max(4.2, size - 2), color=ink)
        if line["same"]:
            corner, orange = (across - 0.5, down - 0.5), style.COLOURS[1]
            box = Rectangle(corner, 1, 1, clip_on=False, fill=False, edgecolor=orange, linewidth=1.6, zorder=3)
            ax.add_patch(box)
    for edge in range(1, len(rows)):
        ax.axhline(edge - 0.5, color="white", linewidth=0.8)
        if rows[edge] not in targets and rows[edge - 1] in targets:  # where the single networks end
            ax.axhspan(edge - 0.5, edge - 0.38, color="white", linewidth=0)
    for edge in range(1, len(targets)):
        ax.axvline(edge - 0.5, color="white", linewidth=0.8)
    ax.set_xticks(range(len(targets)), targets, rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _ink(colour: Sequence[float]) -> str:
    """Black or white, whichever stands out more on a colour (relative luminance, WCAG 2).

    >>> _ink((1.0, 1.0, 1.0)), _ink((0.0, 0.2, 0.5))
    ('black', 'white')
    """
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < 0.18 else "black"


def _percent(share: float) -> str:
    """A share in hundredths.

    >>> _percent(0.634), _percent(0.0)
    ('63', '0')
    """
    return f"{100 * share:.0f}"
