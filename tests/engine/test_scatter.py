"""Chunks, and work in this process; work over Ray has whole runs for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.scatter import Here, chunks


@given(st.lists(st.integers(0, 10**6), max_size=300), st.integers(1, 400))
def test_chunks_are_even_and_hold_every_id_once_in_order(ids: list[int], size: int) -> None:
    parts = chunks(ids, size)
    assert [example for part in parts for example in part] == ids
    sizes = [len(part) for part in parts]
    assert all(0 < length <= size for length in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(parts) == (len(ids) + size - 1) // size  # no more than are needed


def test_chunks_of_any_sequence() -> None:
    assert chunks(range(5), 2) == [[0, 1], [2, 3], [4]]
    assert chunks((), 3) == []


def test_here_scatters_one_piece_after_the_other_and_only_when_asked() -> None:
    called = []

    def twice(piece: int, factor: int, shared: list[int]) -> int:
        called.append(piece)
        return factor * piece + shared[0]

    here = Here()
    results = here.scatter(twice, iter([3, 1, 2]), 2, here.put([100]))
    assert called == []
    assert next(results) == (3, 106)
    assert called == [3]
    assert list(results) == [(1, 102), (2, 104)]


def test_here_streams_what_a_generator_yields() -> None:
    def count(upto: int) -> Iterator[int]:
        yield from range(upto)

    stream: Iterator[Any] = Here().stream(count, 3)
    assert list(stream) == [0, 1, 2]
