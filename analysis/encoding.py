"""The visual channels of a figure: which setting is the colour, which the panel, which the dash."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import style
from analysis.results import ReportError, Results, Value, is_number, short_names, show

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 4
"""At most so many columns of panels, and so many dashes."""
CROWD = 10
"""More lines than this in a panel are drawn thin, with faint bands."""
LISTED = 8
"""At most so many colours in the legend."""


@dataclass(frozen=True)
class Encoding:
    """Which settings each channel shows.

    Attributes:
        colour: the settings that the colour shows; none of them: the recipe as a whole.
        column: the setting with a panel for each of its values.
        dashes: the settings that the dash shows.
        hidden: the settings that no channel shows.
    """

    colour: tuple[str, ...] = ()
    column: str | None = None
    dashes: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def of(self, results: Results, recipe: str) -> dict[str, Value]:
        """The columns `recipe`, `colour`, `column` and `dash` of a recipe's lines."""
        if len(self.colour) == 1:
            value = results.setting_of(recipe, self.colour[0])
            colour: str | float = float(value) if is_number(value) else show(value)
        else:
            colour = words(results, recipe, self.colour) or ("" if self.column else recipe)
        column = words(results, recipe, (self.column,) if self.column else ())
        return {"recipe": recipe, "colour": colour, "column": column, "dash": words(results, recipe, self.dashes)}

    def title(self, results: Results) -> str:
        """The legend's title, where the colour tells one setting."""
        return results.setting_label(self.colour[0]) if len(self.colour) == 1 else ""

    def hidden_words(self) -> str:
        """A sentence on what no channel shows, or no words."""
        return f"Not told apart: {', '.join(short_names(self.hidden))}." if self.hidden else ""


def assign_channels(results: Results, by: str | None = None) -> Encoding:
    """Colour for one setting, by default the first numeric one; panels and dashes for others.

    Only settings with few values get panels or dashes.

    Raises:
        ReportError: `by` does not differ between the recipes.
    """
    settings = differing(results, by)
    colour = by or next((name for name in settings if results.is_numeric(name)), settings[0] if settings else None)
    others = sorted((name for name in settings if name != colour), key=results.is_numeric)
    column = next((name for name in others if len(results.values(name)) <= FEW), None)
    return with_dashes(results, settings, colour, column)


def differing(results: Results, by: str | None) -> list[str]:
    """The settings in which the finished recipes differ.

    Raises:
        ReportError: `by` is not among them.
    """
    settings = [name for name in results.varied if len(results.values(name)) > 1]
    if by is not None and by not in settings:
        raise ReportError(f"by: {by} does not differ between the recipes; {', '.join(settings) or 'nothing'} does")
    return settings


def with_dashes(results: Results, settings: list[str], colour: str | None, column: str | None) -> Encoding:
    """Dashes for the settings that neither colour nor panels show, while their values are few."""
    dashes: list[str] = []
    for name in sorted((name for name in settings if name not in (colour, column)), key=results.is_numeric):
        if np.prod([len(results.values(other)) for other in [*dashes, name]]) <= FEW:
            dashes.append(name)
    hidden = tuple(name for name in settings if name not in (colour, column, *dashes))
    return Encoding((colour,) if colour else (), column, tuple(dashes), hidden)


def words(results: Results, recipe: str, settings: tuple[str, ...]) -> str:
    """The values of some settings in a recipe: a word as it is, a number with its name."""
    values = [results.setting_of(recipe, name) for name in settings]
    names = short_names(settings)
    return ", ".join(
        show(value) if isinstance(value, str) else f"{name} {show(value)}"
        for name, value in zip(names, values, strict=True)
    )


def colours(frame: pd.DataFrame) -> tuple[list[Hashable], bool]:
    """The different colour values in order, and whether they are numbers."""
    values = list(dict.fromkeys(frame["colour"]))
    numbers = [value for value in values if isinstance(value, float | int)]
    numeric = len(values) > 1 and len(numbers) == len(values)
    return [*(sorted(numbers) if numeric else values)], numeric


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as it was before it went through a CSV: empty words in place of missing ones."""
    return frame.assign(**{name: or_empty(frame[name]) for name in ("colour", "column", "dash")})


def or_empty(values: pd.Series) -> pd.Series:
    """A column of words with empty ones in place of missing ones.

    From a CSV, a column of empty words alone comes back as numbers that are all NaN.

    >>> or_empty(pd.Series([float("nan")])).tolist()
    ['']
    """
    return values.astype(object).where(values.notna(), "")


def _listed(order: Sequence[Hashable]) -> list[Hashable]:
    step = np.unique(np.linspace(0, len(order) - 1, min(len(order), LISTED)).round().astype(int))
    return [order[place] for place in step] if len(order) > 1 else []


def legend_height(width: float, order: Sequence[Hashable], others: Sequence[str]) -> float:
    """About how many inches the legend of colours and of other words takes after its first line."""
    return style.legend_height(width, [*map(show, _listed(order)), *(others if len(others) > 1 else ())])


@dataclass(frozen=True)
class Layout:
    """A figure with a panel for each value of a setting, and what its lines are told apart by."""

    figure: Figure
    panels: list[tuple[str, Axes]]
    order: list[Hashable]
    numeric: bool
    dashes: list[str]
    width: float


def layout(frame: pd.DataFrame) -> Layout:
    """Panels side by side for the lines of a frame that `named` has passed.

    With `own_x` in its attributes, each panel has its own horizontal axis.
    """
    columns, dashes = (list(dict.fromkeys(frame[name])) for name in ("column", "dash"))
    width = style.COLUMN if len(columns) == 1 else style.DOUBLE
    order, numeric = colours(frame)
    height = 2.6 + legend_height(width, order, dashes)
    own = bool(frame.attrs.get("own_x"))
    figure, axes = style.panels(1, len(columns), width=width, height=height, sharey=True, sharex=not own)
    return Layout(figure, list(zip(columns, axes[0], strict=True)), order, numeric, dashes, width / len(columns))


def legend(
    figure: Figure,
    handles: Mapping[Hashable, Artist],
    order: Sequence[Hashable],
    dashes: Sequence[str],
    title: str | None,
    more: Mapping[str, Artist] | None = None,
) -> None:
    """The legend of colours, dashes and `more`. Of many colours only some are listed."""
    from matplotlib.lines import Line2D

    listed = _listed(order)
    drawn = [handles[colour] for colour in listed]
    labels = [show(colour) for colour in listed]
    if len(dashes) > 1:
        drawn += [
            Line2D([], [], color=style.GREY, linestyle=style.DASHES[place % len(style.DASHES)])
            for place in range(len(dashes))
        ]
        labels += dashes
    drawn += list((more or {}).values())
    labels += list(more or {})
    style.legend(figure, drawn, labels, title if listed else None)
