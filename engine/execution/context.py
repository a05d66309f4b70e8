"""What the trials of a run share, and the loop that measures their missing examples."""

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
    """What every trial of a run shares.

    Attributes:
        task: the name of the task's module.
        page: the sweep's folder of reports and of the TensorBoard log.
        store: of all results.
        executor: does the work.
        context: of the workers.
        chunk: examples in a chunk, as the sweep says; None where it does not.
        metrics: the objectives.
    """

    task: str
    page: str
    store: Store
    executor: LocalExecutor | RayExecutor
    context: RunContext
    chunk: int | None
    metrics: tuple[str, ...] = ()

    @staticmethod
    def of(spec: Spec, store: Store, executor: LocalExecutor | RayExecutor, context: RunContext) -> Job:
        """The job of a sweep."""
        metrics = tuple(objective.metric for objective in spec.sweep.objectives)
        return Job(spec.task.__name__, spec.page, store, executor, context, spec.sweep.resources.chunk, metrics)


class Stopped(Exception):
    """Early stopping ends the trial, which keeps the epochs that its training has reached."""

    def __init__(self, epochs: Sequence[Epoch]):
        super().__init__(f"stopped after epoch {len(epochs)}")
        self.epochs = list(epochs)


class Unreported(ValueError):
    """The scalars that the trial reports lack an objective."""

    def __init__(self, metric: str, reports: Sequence[str]):
        super().__init__(f"the objective {metric} is missing; the trial reports {', '.join(reports)}")
        self.metric, self.reports = metric, list(reports)


def judged(planned: Planned, report: Report, stops: Callable[[str, Epoch, int], bool]) -> Report:
    """A report that ends the trial when early stopping ends the training of its classifier.

    All events are passed on. A training that was over before the trial began takes part in the
    comparison and is not stopped: nothing would be gained.

    Raises:
        Stopped: by the report of the training's last epoch.
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
    """How many examples a chunk has: four chunks for every slot, between 8 and 64 examples.

    So the slots end at about the same time, and losing a worker costs little.
    """
    return max(8, min(64, -(-examples // (4 * slots))))


def part_name(ids: Sequence[int]) -> str:
    """The file name of the rows of some examples; no other examples share it."""
    digest = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:8]
    return f"part-{ids[0]:08d}-{digest}.parquet"


def devices(folder: str, store: Store) -> list[str]:
    """The names of the devices that made the rows in a folder."""
    parts = [store.read_schema(path).metadata for path, _ in parts_of(store, f"{folder}/rows")]
    return sorted({about[b"device"].decode() for about in parts if b"device" in about})


@cache
def versions() -> dict[str, str | None]:
    """The versions of Python, of the main libraries and of this project."""
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
