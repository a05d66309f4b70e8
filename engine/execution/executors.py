"""Executors do the work: one over a Ray cluster, one in this process.

Both have the same three methods and give the same results. Ray's tasks are spread over the nodes. A
trial never has more than two of them under way for each slot of the cluster, so that scheduler and
object store hold a bounded amount however many examples there are. An iteration that is abandoned
cancels what it has started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.remote_function import RemoteFunction

Piece = TypeVar("Piece")
Result = TypeVar("Result")

LOOK_AGAIN = 10.0
"""Seconds after which the size of the cluster is looked up again: nodes join and leave."""

PATIENCE = 5.0
"""Seconds that a worker has to leave a training that is cancelled, before its process is ended.

A worker that leaves takes the next task. One that is ended has to be replaced, and the new one has
to load torch.
"""


def chunks(ids: Sequence[int], size: int) -> list[list[int]]:
    """Splits ids into consecutive chunks of at most `size`, of nearly equal length.

    >>> chunks([1, 2, 3, 4, 5], 4)
    [[1, 2, 3], [4, 5]]
    """
    count = -(-len(ids) // size)
    base, longer = divmod(len(ids), count) if count else (0, 0)
    sizes = [base + (number < longer) for number in range(count)]
    rest = iter(ids)
    return [list(islice(rest, length)) for length in sizes]


class LocalExecutor:
    """Does the work in this process, one piece after the other.

    It serves debugging, tests and machines without Ray.
    """

    slots = 1

    def put(self, value: object) -> object:
        """The value itself."""
        return value

    def stream(self, function: Callable[..., Iterator[Result]], *arguments: object) -> Generator[Result]:
        """What the generator yields, as it comes."""
        yield from function(*arguments)

    def scatter(
        self, function: Callable[..., Result], pieces: Iterable[Piece], *arguments: object
    ) -> Iterator[tuple[Piece, Result]]:
        """`function(piece, *arguments)` for each piece, as pairs of piece and result."""
        for piece in pieces:
            yield piece, function(piece, *arguments)


@dataclass(frozen=True)
class RayExecutor:
    """Does the work as Ray remote tasks.

    Attributes:
        cpus, gpus: what each task gets; a fraction of a GPU lets several tasks share one.
        retries: how often a task is started again after its worker died.
    """

    cpus: float = 1
    gpus: float = 0
    retries: int = 3

    @property
    def slots(self) -> int:
        """How many tasks run at once on the cluster as it is now."""
        import ray

        total = ray.cluster_resources()
        slots = total.get("CPU", 0) / self.cpus
        if self.gpus:
            slots = min(slots, total.get("GPU", 0) / self.gpus)
        return max(1, int(slots))

    def put(self, value: object) -> object:
        """Shares a value; it travels once to each node, however many tasks there use it."""
        import ray

        return ray.put(value)

    def stream(self, function: Callable[..., Iterator[Result]], *arguments: object) -> Generator[Result]:
        """What a remote generator yields, as it comes."""
        import ray

        results = self._remote(function, num_returns="streaming").remote(*arguments)
        finished = False
        try:
            for reference in results:
                yield ray.get(reference)
            finished = True
        finally:
            if not finished:
                ray.cancel(results)
                gone, _ = ray.wait([results.completed()], timeout=PATIENCE, fetch_local=False)
                if not gone:
                    ray.cancel(results, force=True)

    def scatter(
        self, function: Callable[..., Result], pieces: Iterable[Piece], *arguments: object
    ) -> Iterator[tuple[Piece, Result]]:
        """`function(piece, *arguments)` for each piece, as pairs of piece and result.

        They come in the order in which they are done. Arguments that came from `put` arrive as
        their values.
        """
        import ray

        remote = self._remote(function)
        waiting = iter(pieces)
        running: dict[ObjectRef, Piece] = {}
        limit, looked = 2 * self.slots, time.monotonic()
        try:
            while True:
                for piece in islice(waiting, max(0, limit - len(running))):
                    running[remote.remote(piece, *arguments)] = piece
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_AGAIN)
                for reference in done:
                    result = ray.get(reference)
                    yield running.pop(reference), result
                if time.monotonic() - looked > LOOK_AGAIN:
                    limit, looked = 2 * self.slots, time.monotonic()
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _remote(self, function: Callable[..., object], **options: object) -> RemoteFunction:
        import ray

        return ray.remote(function).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=self.retries,
            scheduling_strategy="SPREAD",
            **options,
        )
