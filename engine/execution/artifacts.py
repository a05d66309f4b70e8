"""Makes artifacts, once: whole things, and rows by example.

A whole thing, such as a classifier, is one remote task. Rows by example are made in chunks, like
those of a trial. A later trial that wants other examples adds to the rows that are there.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing

from pydantic import JsonValue

from engine.execution.attachments import write_attachments
from engine.execution.context import Job, Log, complete, versions
from engine.execution.events import Event, Making, Report, StepEnded
from engine.execution.workers import Handle, Made, make_rows, make_whole
from engine.plan.plan import Artifact, exists
from engine.store.arrays import Shared, shared_rows, shared_whole, write_whole
from engine.store.naming import content_hash
from engine.store.records import Epoch, Record
from engine.store.store import Store
from tasks.parts.data.cache import locked

LOOK_AGAIN = 0.2
"""Seconds between two looks at artifacts that are made at the same time."""


class ArtifactRecord(Record):
    """The record that an artifact has in `artifact.json`.

    Attributes:
        facts: about a whole artifact.
        attachments: the notes that its maker left, by name.
        history: its steps (epochs).
        bytes: the size of the file of its arrays.
    """

    facts: Mapping[str, JsonValue] = {}
    attachments: Mapping[str, Mapping[str, JsonValue]] = {}
    history: tuple[Epoch, ...] = ()
    bytes: int = 0


def record_of(artifact: Artifact, store: Store) -> ArtifactRecord:
    """The record of an artifact; an empty one where there is none."""
    return ArtifactRecord.read(store.record(f"{artifact.folder}/artifact.json") or {})


def make_all(artifacts: Mapping[str, Artifact], job: Job, logs: Mapping[str, Log], report: Report) -> None:
    """Makes the artifacts that are missing, each after those that it needs.

    Whole things are made at the same time, as slots allow.

    Args:
        artifacts: by key, in an order in which they can be made.
        job: what the trials of the run share.
        logs: by key, where the steps of a whole artifact go.
        report: takes the events.
    """
    absent = {key: a for key, a in artifacts.items() if not a.kind.per_example and not exists(a, job.store)}
    alone = {key for key, a in absent.items() if any(need.kind.per_example for need in a.chain())}
    while len(absent.keys() - alone) > 1 and job.executor.slots > 1:
        # in waves: what starts from another comes after it
        ready = [
            a for key, a in absent.items() if key not in alone and all(n.key not in absent for n in a.needs.values())
        ]
        _at_once(ready, job, logs, report)
        absent = {key: a for key, a in absent.items() if a not in ready}
    for key, artifact in artifacts.items():
        if artifact.kind.per_example:
            _rows(artifact, job, report)
        else:
            _whole(artifact, job, logs[key], report)


def handed(needs: Mapping[str, Artifact], job: Job) -> list[object]:
    """The arguments that give artifacts to a worker: names, handles, and the arrays of each.

    Raises:
        Damaged: one of their files cannot be read.
    """
    handles = [
        Handle(need.kind, need.request, content_hash([need.key, need.ids]) if need.kind.own_examples else need.key)
        for need in needs.values()
    ]
    return [list(needs), handles, *(job.executor.put(shared(need, job.store)) for need in needs.values())]


def shared(artifact: Artifact, store: Store) -> Shared:
    """The arrays of an artifact, in the form in which they travel to the workers.

    Raises:
        Damaged: one of its files cannot be read.
    """
    if artifact.kind.per_example:
        return shared_rows(store, artifact.folder, artifact.ids)
    about = record_of(artifact, store)
    return shared_whole(store, artifact.folder, about.facts, about.bytes)


def _at_once(absent: Sequence[Artifact], job: Job, logs: Mapping[str, Log], report: Report) -> None:
    """Makes whole things side by side.

    This thread passes on their events, since a trial may report in no other.
    """
    said: queue.SimpleQueue[Event] = queue.SimpleQueue()
    with ThreadPoolExecutor(min(len(absent), job.executor.slots)) as pool:
        running: set[Future[None]] = {
            pool.submit(_whole, artifact, job, logs[artifact.key], said.put) for artifact in absent
        }
        while running:
            try:
                report(said.get(timeout=LOOK_AGAIN))
            except queue.Empty:
                ended = {future for future in running if future.done()}
                running -= ended
                for future in ended:
                    future.result()


def _whole(artifact: Artifact, job: Job, log: Log, report: Report) -> None:
    """Makes an artifact, or reports the history of one that is there.

    Where several trials want it at once, one makes it and the others wait.
    """
    with _alone(artifact, job.store):
        if not exists(artifact, job.store):
            _make(artifact, job, log, report)
            return
        history, phase = record_of(artifact, job.store).history, f"{artifact.kind.doing} before"
        for done, numbers in enumerate(history, 1):
            log(numbers)
            report(StepEnded(phase, done, len(history), artifact.key, numbers, before=True))


def _make(artifact: Artifact, job: Job, log: Log, report: Report) -> None:
    started, kind, folder = time.time(), artifact.kind, artifact.folder
    history: list[Epoch] = []
    report(Making(kind.doing, 0, max(artifact.cost.values(), default=0)))
    handle = Handle(kind, artifact.request, artifact.key)
    made = Made()
    needs = handed(artifact.needs, job)
    with closing(job.executor.stream(make_whole, handle, job.context, (job.store, folder), *needs)) as messages:
        for made in messages:  # a scheduler may stop it
            for step in made.steps:
                numbers: Epoch = {**step.numbers, "epoch": step.done}
                history.append(numbers)
                log(numbers)
                report(StepEnded(kind.doing, step.done, step.total, artifact.key, numbers))
    product = made.product
    assert product is not None
    size = made.bytes if made.bytes is not None else write_whole(job.store, folder, product.arrays)
    about = {
        "kind": kind.name,
        "request": artifact.request.model_dump(mode="json"),
        "facts": product.facts,
        "attachments": write_attachments(job.store, folder, product.attachments),
        "history": history,
        "device": made.device,
        "seconds": time.time() - started,
        "versions": versions(),
        "bytes": size,
    }
    job.store.write_json(f"{folder}/artifact.json", about)


def _rows(artifact: Artifact, job: Job, report: Report) -> None:
    """Makes the rows of the examples that lack them."""
    with _alone(artifact, job.store):
        if exists(artifact, job.store):
            return
        kind = artifact.kind
        about = {"kind": kind.name, "request": artifact.request.model_dump(mode="json"), "versions": versions()}
        job.store.write_json(f"{artifact.folder}/artifact.json", about)
        handle = Handle(kind, artifact.request, artifact.key)

        def rows_are_there(done: int, total: int) -> None:
            report(Making(kind.doing, done, total))

        given = handed(artifact.needs, job)
        complete(artifact.folder, artifact.ids, job, rows_are_there, make_rows, handle, job.context, *given)


def _alone(artifact: Artifact, store: Store) -> AbstractContextManager[None]:
    return locked(f"making-{content_hash(store.location(artifact.folder))}")
