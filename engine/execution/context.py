"""What the trials of a run share, and how examples of theirs that are missing are worked off."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow as pa

from engine.execution.events import Event, Report, StepEnded
from engine.execution.executors import LocalExecutor, RayExecutor, chunks
from engine.execution.workers import RunContext
from engine.plan.plan import Planned, missing
from engine.store.records import Epoch
from engine.store.row_parts import parts_of
from engine.store.store import Store
from engine.sweepfile.load import Spec

Log = Callable[[Epoch], None]
"""Takes the metrics of an epoch."""


@dataclass(frozen=True)
class Job:
    """What every trial of a run shares."""

    task: str
    page: str
    """The folder of the TensorBoard log, among others."""
    store: Store
    executor: LocalExecutor | RayExecutor
    context: RunContext
    chunk: int | None
    metrics: tuple[str, ...] = ()
    """The objectives."""

    @staticmethod
    def of(spec: Spec, store: Store, executor: LocalExecutor | RayExecutor, context: RunContext) -> Job:
        metrics = tuple(objective.metric for objective in spec.sweep.objectives)
        return Job(spec.task.__name__, spec.page, store, executor, context, spec.sweep.resources.chunk, metrics)


class Stopped(Exception):
    """A scheduler stops the trial; it keeps the epochs that its training has reached."""

    def __init__(self, epochs: Sequence[Epoch]):
        super().__init__(f"stopped after epoch {len(epochs)}")
        self.epochs = list(epochs)


class Unreported(ValueError):
    """The trial's scalars, `reports`, lack an objective."""

    def __init__(self, metric: str, reports: Sequence[str]):
        super().__init__(f"the objective {metric} is missing; the trial reports {', '.join(reports)}")
        self.metric, self.reports = metric, list(reports)


def judged(planned: Planned, report: Report, stops: Callable[[str, Epoch, int], bool]) -> Report:
    """Passes reports on; ends the trial where the scheduler stops the training of its classifier.

    A training that was over before the trial began is compared with, and nothing is gained by stopping it.

    Raises:
        Stopped: from the report of the epoch that is the last.
    """
    artifacts = {need.key for need in planned.needs.values()}
    epochs: list[Epoch] = []

    def passed_on(event: Event) -> None:
        report(event)
        if isinstance(event, StepEnded) and event.artifact in artifacts:
            epochs.append(event.numbers)
            if stops(event.artifact, event.numbers, event.total) and not event.before:
                raise Stopped(epochs)

    return passed_on


def complete(
    folder: str,
    ids: Sequence[int],
    job: Job,
    report: Callable[[int, int], None],
    function: Callable[..., pa.Table],
    *arguments: object,
) -> None:
    """Measures the examples that the rows in a folder lack, and stores the rows chunk by chunk.

    Args:
        folder: of the trial or artifact; the rows are in its `rows`.
        ids: all examples whose rows are wanted.
        job: what the trials of the run share.
        report: takes how many examples are done, and how many there are.
        function: from a chunk of ids, and `arguments`, to a table of rows.
        arguments: the same for each chunk.
    """
    todo = missing(folder, ids, job.store, mend=True)
    size = job.chunk or chunk_size(len(ids), job.executor.slots)
    done = len(ids) - len(todo)
    report(done, len(ids))
    for piece, rows in job.executor.scatter(function, chunks(todo, size), *arguments):
        job.store.write_table(f"{folder}/rows/{part_name(piece)}", rows)
        done += len(piece)
        report(done, len(ids))


def chunk_size(examples: int, slots: int) -> int:
    """Examples in a chunk: four chunks for every slot, within 8 and 64, so that slots end together and a loss costs little."""
    return max(8, min(64, -(-examples // (4 * slots))))


def part_name(ids: Sequence[int]) -> str:
    """A name for the rows of some examples that no other set of examples has."""
    digest = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:8]
    return f"part-{ids[0]:08d}-{digest}.parquet"


def devices(folder: str, store: Store) -> list[str]:
    """Names of the devices that made the rows in a folder."""
    parts = [store.read_schema(path).metadata for path, _ in parts_of(store, f"{folder}/rows")]
    return sorted({about[b"device"].decode() for about in parts if b"device" in about})


@cache
def versions() -> dict[str, str | None]:
    """What the numbers were made with."""
    packages = {name: _version(name) for name in ("inputscape", "torch", "torchvision", "ray", "numpy")}
    return {"python": platform.python_version(), **packages, "commit": _commit()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        called = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return called.stdout.strip()
