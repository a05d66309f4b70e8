"""What a task says of the columns of its rows: words with a unit, and what figures need to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self


class Column(str):
    """A column of rows in words, with its unit. A plain text will do where there is no more to say.

    Args:
        words: what it is, as on an axis.
        values: the values of a column of words, in the order in which figures show them. Figures
            compare the others with the first.
        by_kind: other words for some kinds of noise (the column `kind`), which have another unit.

    >>> Column("centre of the noise", values=("genuine", "random")).values
    ('genuine', 'random')
    """

    values: tuple[str, ...]
    by_kind: Mapping[str, str]

    def __new__(
        cls, words: str, *, values: Sequence[str] = (), by_kind: Mapping[str, str] = MappingProxyType({})
    ) -> Self:
        """A text cannot be changed once it is made, so what belongs to it is set here."""
        column = super().__new__(cls, words)
        column.values, column.by_kind = tuple(values), by_kind
        return column


EXAMPLE = {
    "id": "example (index in the split)",
    "label": "true class",
    "predicted": "class predicted at the image",
    "correct": "image is classified correctly",
}
"""Columns of a task that asks one classifier about single images, as in `rows.example_columns`."""
