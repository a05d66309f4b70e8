"""One trial from start to end: make what it needs, scatter its examples, keep the rows, sum them up, report.

Everything finished is in the store before the next step begins, so a trial that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import platform
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from engine.board import Board
from engine.plan import Artifact, Planned, exists, missing
from engine.scatter import Here, OverRay, chunks
from engine.spec import Spec
from engine.store import Store, content_hash, parts_of, read_parts
from engine.work import Made, State, Surroundings, measure, train
from tasks.parts.decoded import locked

Log = Callable[[Mapping[str, float]], None]
"""Takes the metrics of an epoch."""
Report = Callable[[dict[str, Any]], None]
"""Takes what a trial says of its progress: `phase`, `done`, `of`, and, when training, the epoch's metrics."""


@dataclass(frozen=True)
class Job:
    """What every trial of a run shares."""

    task: str
    sweep: str
    store: Store
    hands: Here | OverRay
    around: Surroundings
    chunk: int | None
    metric: str | None

    @staticmethod
    def of(spec: Spec, store: Store, hands: Here | OverRay, around: Surroundings) -> Job:
        objective = spec.sweep.objective
        return Job(
            spec.task.__name__,
            spec.name,
            store,
            hands,
            around,
            spec.sweep.resources.chunk,
            objective.metric if objective else None,
        )


def run(planned: Planned, job: Job, report: Report) -> dict[str, Any]:
    """Runs a trial and stores its `trial.json`, also when it fails; returns that record."""
    started = time.time()
    record: dict[str, Any] = {
        "trial": planned.key,
        "task": job.task,
        "point": planned.trial.point,
        "config": planned.trial.config.model_dump(mode="json"),
        "versions": versions(),
        "started": started,
    }
    try:
        record["summary"] = _run(planned, job, report)
        record["status"] = "done"
    except Exception as error:
        record["status"] = "failed"
        record["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
        record["traceback"] = traceback.format_exc()
    record["devices"] = devices(planned, job.store)
    record["seconds"] = time.time() - started
    job.store.write_json(f"{planned.folder}/trial.json", record)
    return record


def _run(planned: Planned, job: Job, report: Report) -> dict[str, float | None]:
    config, store = planned.trial.config, job.store
    with _board(job, planned) as board:
        made: dict[str, Made] = {}
        shared = []
        for name, artifact in planned.needs.items():
            tag = "training" if len(planned.needs) == 1 else f"training/{name}"
            of, state = make(artifact, job, partial(board.epoch, prefix=tag), report)
            made[name] = of
            shared.append(job.hands.put(state))

        todo = missing(planned, store)
        size = job.chunk or chunk_size(len(planned.ids), job.hands.slots)
        done = len(planned.ids) - len(todo)
        report({"phase": "measuring", "done": done, "of": len(planned.ids)})
        pieces = chunks(todo, size)
        for piece, rows in job.hands.scatter(measure, pieces, job.task, config, job.around, made, *shared):
            store.write_table(f"{planned.folder}/rows/{part_name(piece)}", rows)
            done += len(piece)
            report({"phase": "measuring", "done": done, "of": len(planned.ids)})

        rows = read_rows(planned, store)
        if rows.empty:
            raise ValueError("no example was left to measure: each one is misclassified, or was left out")
        summary = importlib.import_module(job.task).summarise(config, rows)
        unknown = [name for name, value in summary.items() if not np.isfinite(value)]
        if job.metric is not None and (job.metric not in summary or job.metric in unknown):
            raise ValueError(
                f"the objective {job.metric} is missing or not a number; the trial reports {', '.join(summary)}"
            )
        board.curves(rows)
        board.hyperparameters(planned.trial.point, {n: v for n, v in summary.items() if n not in unknown})
    return {name: (None if name in unknown else value) for name, value in summary.items()}


def chunk_size(examples: int, slots: int) -> int:
    """Examples in a chunk: four chunks for every slot, within 8 and 64, so that slots end together and a loss costs little."""
    return max(8, min(64, -(-examples // (4 * slots))))


def part_name(ids: list[int]) -> str:
    """A name for the rows of some examples that no other set of examples has."""
    digest = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:8]
    return f"part-{ids[0]:08d}-{digest}.parquet"


def read_rows(planned: Planned, store: Store) -> pd.DataFrame:
    """All rows of a trial, in the order of the examples' ids.

    Raises:
        RuntimeError: an example is missing, since something deleted rows while the trial ran.
    """
    rows, covered = read_parts(store, f"{planned.folder}/rows")
    lost = set(planned.ids) - covered
    if lost:
        raise RuntimeError(f"the rows of {len(lost)} examples have disappeared while the trial ran; run it again")
    frame = rows.to_pandas()
    return frame if frame.empty else frame.sort_values("id", kind="stable", ignore_index=True)


def devices(planned: Planned, store: Store) -> list[str]:
    """Names of the devices that measured the trial's rows."""
    folder = f"{planned.folder}/rows"
    return sorted({store.read_schema(path).metadata[b"device"].decode() for path, _ in parts_of(store, folder)})


def make(artifact: Artifact, job: Job, log: Log, report: Report) -> tuple[Made, State]:
    """The artifact from the store, or made now; where several trials want it at once, one makes it and the others wait."""
    with locked(f"making-{content_hash(job.store.location(artifact.folder))}"):
        if not exists(artifact, job.store):
            _train(artifact, job, log, report)
        else:
            for epoch in job.store.read_json(f"{artifact.folder}/artifact.json")["history"]:
                log(epoch)
        about = job.store.read_json(f"{artifact.folder}/artifact.json")
    weights = torch.load(
        io.BytesIO(job.store.read(f"{artifact.folder}/weights.pt")), map_location="cpu", weights_only=True
    )
    of = Made(artifact.key, artifact.recipe, tuple(about["shape"]), about["classes"])
    return of, {name: value.numpy() for name, value in weights.items()}


def _train(artifact: Artifact, job: Job, log: Log, report: Report) -> None:
    started, history = time.time(), []
    final: dict[str, Any] = {}
    report({"phase": "training", "done": 0, "of": artifact.recipe.epochs})
    for message in job.hands.stream(train, artifact.recipe, job.around):
        if "epoch" in message:
            history.append(message["epoch"])
            log(message["epoch"])
            report({"phase": "training", "done": len(history), "of": artifact.recipe.epochs, **message["epoch"]})
        else:
            final = message
    buffer = io.BytesIO()
    torch.save({name: torch.tensor(value) for name, value in final["state"].items()}, buffer)
    job.store.write(f"{artifact.folder}/weights.pt", buffer.getvalue())
    job.store.write_json(
        f"{artifact.folder}/artifact.json",
        {
            "kind": artifact.kind,
            "recipe": artifact.recipe.model_dump(mode="json"),
            "shape": final["shape"],
            "classes": final["classes"],
            "test": final["test"],
            "history": history,
            "seconds": time.time() - started,
            "device": final["device"],
            "versions": versions(),
        },
    )


@contextmanager
def _board(job: Job, planned: Planned) -> Iterator[Board]:
    """The trial's TensorBoard log, begun anew; written elsewhere first where the store is no local folder."""
    place = f"{job.sweep}/tensorboard/{log_name(planned)}"
    job.store.delete(place)
    if job.store.folder is not None:
        board = Board(job.store.folder / place)
        try:
            yield board
        finally:
            board.close()
        return
    folder = Path(tempfile.mkdtemp(prefix="inputscape-board-"))
    board = Board(folder)
    try:
        yield board
    finally:
        board.close()
        job.store.copy_in(folder, place)
        shutil.rmtree(folder)


def log_name(planned: Planned) -> str:
    """A trial's folder in the TensorBoard log: what varies, readable, and enough of the hash to be unique."""
    words = "".join(c if c.isalnum() or c in "=.-" else "_" for c in planned.trial.label)
    return f"{words[:80]}-{planned.key[:6]}"


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
