"""Runs one trial from start to end.

It makes what the trial needs, measures its examples, keeps the rows, sums them up and reports.
Everything finished is in the store before the next step begins, so a trial that was killed goes on
where it stopped.
"""

from __future__ import annotations

import importlib
import math
import reprlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import NoneType
from typing import TypeVar

import numpy as np
import pandas as pd
from pydantic import JsonValue

from engine.execution.artifacts import ArtifactRecord, handed, make_all, record_of
from engine.execution.attachments import sheet, write_attachments
from engine.execution.context import Job, Stopped, Unreported, complete, devices, versions
from engine.execution.events import Measuring, Report
from engine.execution.tensorboard import Board, live
from engine.execution.workers import measure, show
from engine.plan.plan import Planned, exists
from engine.store.damaged import Damaged
from engine.store.records import Epoch, TrialRecord, write_trial
from engine.store.row_parts import read_parts
from engine.store.scores import FILE, by_example
from engine.store.store import Store
from tasks.parts.contract import hook
from tasks.parts.finite import NotFinite
from tasks.parts.own_code import survived
from tasks.parts.settings import UserError

Result = TypeVar("Result")

SHOWN = 8
"""Examples of which a task leaves pictures."""


def run(planned: Planned, job: Job, report: Report) -> TrialRecord:
    """Runs a trial, and stores and returns its record, also when it fails.

    The record (`trial.json`) of an earlier run is deleted first: a trial that is killed has none.
    """
    started = time.time()
    job.store.delete(f"{planned.folder}/trial.json")
    fields: dict[str, object] = {
        "trial": planned.key,
        "task": job.task,
        "point": planned.trial.point,
        "config": planned.trial.config.model_dump(mode="json"),
        "versions": versions(),
        "started": started,
    }
    left: dict[str, dict[str, JsonValue]] = {}
    try:
        fields |= _run(planned, job, report, left) | {"status": "done"}
    except Stopped as stopped:
        fields |= {"status": "stopped", "epochs": stopped.epochs}
    except Exception as error:
        fields |= {"status": "failed", "error": _line(error), "traceback": traceback.format_exc()}
        fields |= {"unreported": error.metric, "reports": error.reports} if isinstance(error, Unreported) else {}
    try:
        about = _about(planned, job.store)
    except Exception:  # a store that fails now must not cost the trial its record
        about = ArtifactRecord()
    fields.setdefault("epochs", about.history)
    fields["attachments"] = {**about.attachments, **left}
    fields["devices"] = devices(planned.folder, job.store)
    fields["seconds"] = time.time() - started
    record = TrialRecord.model_validate(fields)
    write_trial(job.store, planned.folder, record)
    return record


def _line(error: Exception) -> str:
    """What went wrong, in one line.

    The kind of error is left out where its words were written for users.
    """
    cause = getattr(error, "cause", None)  # of what Ray makes of an error in a worker
    error = cause if isinstance(cause, Exception) else error
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an error of the user's own that cannot even say what it is
        lines = []
    if lines and isinstance(error, (NotFinite, UserError, Damaged)):
        return lines[-1]
    return ": ".join([type(error).__name__, *lines[-1:]])


def _run(planned: Planned, job: Job, report: Report, left: dict[str, dict[str, JsonValue]]) -> dict[str, object]:
    """Makes what the trial needs, and measures its examples.

    The notes of the pictures that the task leaves go into `left`.

    Returns fields of the record: `summary`; `infinite`, the signs of the scalars that are infinite;
    `checks`; and `parts`, the files of rows with their sizes in bytes.
    """
    config, store = planned.trial.config, job.store
    task = importlib.import_module(job.task)
    with live(store, job.page, log_name(planned)) as board:
        given = (job.task, config, job.context, *_mended(store, partial(_made, planned, job, board, report)))
        for name, file in attachments(planned, store).items():
            picture = store.read(file)
            store.write(f"{planned.folder}/attachments/{name}.png", picture)
            board.image(name, picture)

        def examples_are_there(done: int, total: int) -> None:
            report(Measuring(done, total))

        def measured() -> pd.DataFrame:
            complete(planned.folder, planned.ids, job, examples_are_there, measure, *given)
            return read_rows(planned, store)

        rows = _mended(store, measured)
        if rows.empty:
            raise ValueError("no example was left to measure: each one is misclassified, or was left out")
        with survived("summarise"):
            summary = scalars(task.summarise(config, rows))
            means = hook(task, "scores")(config, rows)
            table = by_example(task, config, rows, planned.ids, list(summary), means)
        store.write_table(f"{planned.folder}/{FILE}", table)
        left |= _shown(planned, job, board, given)
        finite = {name: value for name, value in summary.items() if math.isfinite(value)}
        for metric in job.metrics:
            if metric not in summary:
                raise Unreported(metric, list(summary))
            if metric not in finite:
                what = "infinite" if math.isinf(summary[metric]) else "not a number"
                raise ValueError(f"the objective {metric} is {what}; the trial reports {', '.join(summary)}")
        outcome: dict[str, object] = {"summary": {name: finite.get(name) for name in summary}}
        if infinite := {name: str(value) for name, value in summary.items() if math.isinf(value)}:
            outcome["infinite"] = infinite  # JSON has no word for it
        with survived("checks"):
            outcome["checks"] = _checks(hook(task, "checks")(config, rows))
    return outcome | {"parts": store.sizes(f"{planned.folder}/rows")}


def _shown(planned: Planned, job: Job, board: Board, given: Sequence[object]) -> dict[str, dict[str, JsonValue]]:
    """Writes the pictures of a few examples that the task leaves; returns their notes by name."""
    if not hasattr(importlib.import_module(job.task), "show"):
        return {}
    places = sorted({round(place) for place in np.linspace(0, len(planned.ids) - 1, SHOWN)})
    [(_, left)] = job.executor.scatter(show, [[planned.ids[place] for place in places]], *given)
    notes = write_attachments(job.store, planned.folder, left)
    for name, attachment in left.items():
        if attachment.tiles is not None:
            board.image(name, sheet(attachment))
    return notes


def scalars(summary: object) -> dict[str, float]:
    """The scalars that a task's `summarise` returned, as plain numbers.

    None becomes NaN.

    Raises:
        TypeError: it is no mapping from names to numbers.

    >>> import numpy as np
    >>> scalars({"accuracy": np.float32(0.5), "examples": 3})
    {'accuracy': 0.5, 'examples': 3.0}
    """
    if not isinstance(summary, Mapping):
        raise TypeError(f"summarise returned {reprlib.repr(summary)}, no mapping from names to numbers")
    found: dict[str, float] = {}
    for name, value in summary.items():
        if not isinstance(name, str):
            raise TypeError(f"summarise returned a number for {reprlib.repr(name)}, which is no name")
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError("text")
            found[str(name)] = math.nan if value is None else float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise TypeError(f"summarise returned {reprlib.repr(value)} for {name}, which is no number") from error
    return found


def _checks(checks: object) -> dict[str, str | None]:
    """The self-checks that a task's `checks` returned, each with what is wrong, or None."""
    if not isinstance(checks, Mapping) or not all(isinstance(told, (str, NoneType)) for told in checks.values()):
        raise TypeError(
            f"checks returned {reprlib.repr(checks)}; a mapping to words on what is wrong, or None, is needed"
        )
    return {str(what): told for what, told in checks.items()}


def _made(planned: Planned, job: Job, board: Board, report: Report) -> list[object]:
    """Makes what a trial needs; returns the arguments that give it to the workers."""
    logs = {key: partial(board.epoch, prefix=prefix) for key, prefix in _prefixes(planned).items()}
    make_all(planned.artifacts(), job, logs, report)
    return handed(planned.needs, job)


def _mended(store: Store, work: Callable[[], Result]) -> Result:
    """Does the work; for each damaged file, sets it aside and does the work again."""
    found: set[str] = set()
    while True:
        try:
            return work()
        except Damaged as damaged:
            if damaged.path in found:  # made anew, and damaged again
                raise
            found.add(damaged.path)
            store.set_aside(damaged)


def attachments(planned: Planned, store: Store) -> dict[str, str]:
    """The files of the pictures that belong to a trial's network, by name.

    The maker of the network has left them. A trial about several networks has none.
    """
    subject = planned.subject
    names = _about(planned, store).attachments
    files = {name: f"{subject.folder}/attachments/{name}.png" for name in names} if subject else {}
    return {name: file for name, file in files.items() if store.exists(file)}


def _about(planned: Planned, store: Store) -> ArtifactRecord:
    """The record of the artifact that the trial is about; an empty one for several, or for none."""
    subject = planned.subject
    there = subject is not None and exists(subject, store)
    return record_of(subject, store) if subject is not None and there else ArtifactRecord()


def read_rows(planned: Planned, store: Store) -> pd.DataFrame:
    """All rows of a trial, in the order of the examples' ids.

    Raises:
        RuntimeError: an example is missing, since something deleted rows while the trial ran.
        Damaged: a part of them cannot be read.
    """
    rows, covered = read_parts(store, f"{planned.folder}/rows")
    lost = set(planned.ids) - covered
    if lost:
        raise RuntimeError(f"the rows of {len(lost)} examples have disappeared while the trial ran; run it again")
    frame = rows.to_pandas()
    return frame if frame.empty else frame.sort_values("id", kind="stable", ignore_index=True)


def histories(planned: Planned, store: Store) -> dict[str, Sequence[Epoch]]:
    """The steps (epochs) of the whole artifacts that a trial needs, by their tags' prefix.

    The prefix is that of TensorBoard's tags.
    """
    known = planned.artifacts()
    return {
        prefix: record_of(known[key], store).history
        for key, prefix in _prefixes(planned).items()
        if exists(known[key], store)
    }


def _prefixes(planned: Planned) -> dict[str, str]:
    """The prefix of TensorBoard's tags for each whole artifact, by key.

    It is `training` for a single one, else `training/` and the name under which it is needed.
    """
    names: dict[str, str] = {}
    for name, need in planned.needs.items():
        for number, artifact in enumerate(need.chain()):
            if not artifact.kind.per_example:
                names.setdefault(artifact.key, name if artifact is need else f"{name}/{number}")
    return dict.fromkeys(names, "training") if len(names) == 1 else {key: f"training/{of}" for key, of in names.items()}


def log_name(planned: Planned) -> str:
    """A trial's folder in the TensorBoard log while it runs.

    It says what varies, and ends with enough of the key to be unique.
    """
    words = "".join(c if c.isalnum() or c in "=.-" else "_" for c in planned.trial.label)
    return f"{words[:80]}-{planned.key[:6]}"
