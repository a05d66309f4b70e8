"""What a task says of its row columns: words with a unit, and what figures need to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self


class Column(str):
    """A row column in words, with its unit. A plain text does where nothing else is to be said.

    Args:
        words: what it is, as on an axis.
        values: of a column of words: what stands in it, in the order in which figures show it. The
            others are compared with the first.
        by_kind: other words for some kinds of noise (the column `kind`), whose unit is another.

    >>> Column("centre of the noise", values=("genuine", "random")).values
    ('genuine', 'random')
    """

    values: tuple[str, ...]
    by_kind: Mapping[str, str]

    def __new__(
        cls, words: str, *, values: Sequence[str] = (), by_kind: Mapping[str, str] = MappingProxyType({})
    ) -> Self:
        column = super().__new__(cls, words)
        column.values, column.by_kind = tuple(values), by_kind
        return column


EXAMPLE = {
    "id": "example (index in the split)",
    "label": "true class",
    "predicted": "class predicted at the image",
    "correct": "image is classified correctly",
}
"""Columns of every task that asks one classifier about single images; `rows.example_columns` has their values."""
