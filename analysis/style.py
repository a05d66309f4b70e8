"""How a figure looks: for a paper's column, readable in grey and by the colour-blind, no ornament.

Figures are made without pyplot, so nothing here is global: `paper()` sets Matplotlib's settings for
a `with` block.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = str | tuple[float, float, float, float]
Dash = Literal["-", ":", ""] | tuple[float, tuple[float, ...]]
"""A line style: its name, or an offset with the lengths of dashes and gaps, in points."""


class Look(TypedDict, total=False):
    """How a line is drawn, in Matplotlib's own words."""

    color: Colour
    marker: str
    linestyle: Dash
    linewidth: float
    markersize: float
    markerfacecolor: Colour
    markeredgewidth: float
    alpha: float
    zorder: float


COLUMN = 3.4
DOUBLE = 7.0
"""Widths of one and of two columns of a paper, in inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C7A00", "#5B3A8E")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008).

Two are replaced: yellow, which is too pale for lines, and black, which is kept for means.
"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))
GREY = "#6b6b6b"
HARD = "\N{NO-BREAK SPACE}"

RC = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "pdf.fonttype": 42,  # text stays text
    "ps.fonttype": 42,
    "figure.dpi": 100,
    "savefig.dpi": 220,
    "text.parse_math": False,  # a class may be called $
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
}


def paper() -> AbstractContextManager[None]:
    """The settings of every figure, within a `with` block."""
    from matplotlib import rc_context

    return rc_context(cast(Any, RC))  # its keys are literals to Matplotlib


Shared = Literal["none", "all", "row", "col"]


def panels(
    rows: int,
    columns: int,
    *,
    width: float,
    height: float,
    sharex: bool | Shared = False,
    sharey: bool | Shared = False,
) -> tuple[Figure, NDArray[Any]]:
    """A figure of `rows` x `columns` panels, and its axes as a 2-D array.

    Args:
        rows: of panels.
        columns: of panels.
        width: of the figure, in inches.
        height: of each panel, in inches.
        sharex: which panels have a common horizontal axis, as Matplotlib has it.
        sharey: which have a common vertical axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)


def save(figure: Figure, form: str) -> bytes:
    """A figure as the content of a file of this form ("png" or "pdf").

    The same figure gives the same bytes.
    """
    buffer = io.BytesIO()
    with paper():
        figure.savefig(buffer, format=form, metadata={"CreationDate": None} if form == "pdf" else {"Software": None})
    return buffer.getvalue()


def colours(count: int, numeric: bool) -> list[Colour]:
    """Colours for `count` things: light to dark for numbers, as different as can be for names."""
    if not numeric:
        return [COLOURS[place % len(COLOURS)] for place in range(count)]
    from matplotlib import colormaps

    return [colormaps["viridis"](place) for place in np.linspace(0.88, 0.0, count)] if count > 1 else [COLOURS[0]]


def look(place: int, count: int, numeric: bool = False) -> Look:
    """Colour, marker and dash of the `place`-th of `count` lines."""
    dash = "-" if numeric else DASHES[place % len(DASHES)]
    return {"color": colours(count, numeric)[place], "marker": MARKERS[place % len(MARKERS)], "linestyle": dash}


def curve(
    ax: Axes, x: ArrayLike, mean: ArrayLike, low: ArrayLike, high: ArrayLike, how: Look, *, alpha: float = 0.16
) -> None:
    """A line with its band.

    The edges of markers are white, so that they stand out where lines cross.

    Args:
        ax: the panel.
        x: (N,) where the points lie.
        mean: (N,) their heights.
        low: (N,) the lower edge of the band.
        high: (N,) its upper edge.
        how: of the line; the band has its colour.
        alpha: how opaque the band is, from 0 to 1.
    """
    line: Look = {"markeredgewidth": 0.4, **how}
    ax.plot(x, mean, markeredgecolor="white", **line)
    ax.fill_between(x, np.asarray(low, float), np.asarray(high, float), color=how["color"], alpha=alpha, linewidth=0)


def probability_axis(ax: Axes, values: ArrayLike) -> None:
    """Limits of a vertical axis of shares or probabilities.

    They reach up to 1, and from 0 where values come near it. Of other values, and of small ones
    alone, the limits are Matplotlib's choice.
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known) or known.min() < 0 or known.max() > 1 or known.max() < 0.5:
        return
    low = 0.0 if known.min() < 0.3 else min(np.floor(known.min() * 10) / 10, 0.9)
    ax.set_ylim(low - 0.03 * (1 - low), 1 + 0.03 * (1 - low))


def number_axis(ax: Axes, values: ArrayLike) -> None:
    """A horizontal axis of numbers, with ticks at the values.

    It is logarithmic where the values span a factor of 30 or more.
    """
    from matplotlib.ticker import NullLocator

    points = np.unique(np.asarray(values, float))
    positive = points[points > 0]
    wide = len(positive) > 2 and positive[-1] >= 30 * positive[0] and points[0] >= 0
    if wide and points[0] > 0:
        ax.set_xscale("log")
    elif wide:
        ax.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    ax.xaxis.set_minor_locator(NullLocator())
    if not wide and len(points) > 5:
        return  # round numbers, as Matplotlib chooses them
    if wide and len(points) > 12:
        decades = 10.0 ** np.arange(np.floor(np.log10(positive[0])), np.ceil(np.log10(positive[-1])) + 1)
        points = np.concatenate([points[points == 0], decades[(decades >= positive[0]) & (decades <= positive[-1])]])
    places = np.sign(points) * (0.6 + np.log10(np.maximum(points / positive[0], 1))) if wide else points
    ticks = _apart(points, places, _width(ax))
    ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])


def name_axis(ax: Axes, names: Sequence[str]) -> None:
    """An axis with one place for each name; long names are written aslant."""
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_xticks(range(len(names)), names)
    if len(names) * max(map(_inches, names)) > _width(ax):
        ax.tick_params("x", rotation=30)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _width(ax: Axes) -> float:
    """About how many inches wide a panel is."""
    figure = ax.get_figure(root=True)
    return float(ax.get_position().width * figure.get_figwidth()) if figure else COLUMN


def _inches(label: str) -> float:
    """About how much room a tick's label takes, with the space beside it."""
    return 0.065 * len(label) + 0.08


def _apart(points: NDArray[np.float64], places: NDArray[np.float64], width: float) -> list[float]:
    """Those of the points whose labels would not touch.

    They are the first, then each that is far enough from the one before.
    """
    kept: list[int] = []
    scale = width / max(places[-1] - places[0], 1e-300)
    for here in range(len(points)):
        room = _inches(f"{points[here]:.3g}")
        if not kept or (places[here] - places[kept[-1]]) * scale >= room:
            kept.append(here)
    return [float(points[here]) for here in kept]


def wrap(label: str, inches: float) -> str:
    """An axis label broken into lines that fit along an axis of that length.

    A unit in brackets stays together if it is short.

    >>> print(wrap("training-noise radius (pixel units)", 2))
    training-noise radius
    (pixel units)
    """
    room = max(12, int(inches * 15))
    together = re.sub(
        r"\([^()]*\)", lambda unit: unit[0].replace(" ", HARD) if len(unit[0]) <= room else unit[0], label
    )
    return textwrap.fill(together, room).replace(HARD, " ")


def legend_columns(width: float, labels: Sequence[str]) -> int:
    """In how many columns a legend lies in a figure of that many inches."""
    return max(1, min(len(labels), int(width * 72 / (32 + 3.8 * max(map(len, labels))))))


def legend_height(width: float, labels: Sequence[str]) -> float:
    """About how many inches the lines of a legend take after the first."""
    return 0.15 * (-(-len(labels) // legend_columns(width, labels)) - 1) if labels else 0.0


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], title: str | None = None) -> None:
    """A legend outside the panels, in as many columns as the figure's width holds."""
    if not handles:
        return
    columns = legend_columns(figure.get_figwidth(), labels)
    figure.legend(handles, labels, title=title or "", ncols=columns, loc="outside lower center")
