"""Chunks, work in this process, and how work over Ray is given up.

What that work makes is tested by whole runs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution import executors
from engine.execution.executors import LocalExecutor, RayExecutor, chunks


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

    here = LocalExecutor()
    results = here.scatter(twice, iter([3, 1, 2]), 2, here.put([100]))
    assert called == []
    assert next(results) == (3, 106)
    assert called == [3]
    assert list(results) == [(1, 102), (2, 104)]


def test_here_streams_what_a_generator_yields() -> None:
    def count(upto: int) -> Iterator[int]:
        yield from range(upto)

    stream: Iterator[int] = LocalExecutor().stream(count, 3)
    assert list(stream) == [0, 1, 2]


@pytest.fixture
def over_ray() -> Iterator[RayExecutor]:
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield RayExecutor()
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.cluster
def test_a_stream_that_is_given_up_leaves_its_worker_to_the_next(
    over_ray: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped training costs no new process, which would have to load torch.

    One that does not leave is ended.
    """

    # A worker cannot import a file of tests: what is nested here travels to it.
    def forever() -> Iterator[int]:
        while True:
            yield os.getpid()
            time.sleep(0.05)

    def stubborn(asleep: Path) -> Iterator[int]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # which is how a task is asked to leave
        yield os.getpid()
        asleep.touch()
        time.sleep(60)

    monkeypatch.setattr(executors, "PATIENCE", 60)
    first = over_ray.stream(forever)
    worker = next(first)
    first.close()
    second = over_ray.stream(forever)
    assert next(second) == worker  # on the only core: so the first is not running any more
    second.close()

    monkeypatch.setattr(executors, "PATIENCE", 0.5)
    third = over_ray.stream(stubborn, tmp_path / "asleep")
    worker = next(third)
    while not (tmp_path / "asleep").exists():
        time.sleep(0.05)
    third.close()
    last = over_ray.stream(forever)
    assert next(last) != worker
    last.close()
