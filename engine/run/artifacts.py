"""Artifacts, made once and then reused: trained classifiers, and the adversarial examples of one or several of them.

A classifier is one remote task; adversarial examples are scattered like the examples of a trial, and a set of them grows by those that
a later trial wants as well.
"""

from __future__ import annotations

import io
import json
import pickle
import queue
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.plan.plan import WEIGHTS, Artifact, exists
from engine.run.context import Job, Log, Report, complete, versions
from engine.run.workers import Made, Sought, State, search, train
from engine.store.store import Damaged, Store, content_hash, parts_of, read_parts
from tasks.parts.artifacts.adversarial_examples import Adversarial
from tasks.parts.data.cache import locked
from tasks.parts.training.recipes import Recipe

AUGMENTED = "augmented.png"
"""The picture of what a classifier's adversarial augmentation does, in its folder; `augmented` in artifact.json tells of it."""
LOOK_AGAIN = 0.2
"""Seconds between two looks at classifiers that are trained at the same time."""


def make_all(
    needs: Mapping[str, Artifact], ids: Sequence[int], job: Job, logs: Mapping[str, Log], report: Report
) -> None:
    """Makes what is missing, each thing after what it is made of: classifiers at the same time, as slots allow.

    Args:
        needs: artifacts by key, in an order in which they can be made.
        ids: the examples whose adversarial examples are wanted.
        logs: of the classifiers, by key.
    """
    absent = {key: a for key, a in needs.items() if a.kind == "classifier" and not exists(a, job.store)}
    while len(absent) > 1 and job.executor.slots > 1:  # in waves: what is finetuned comes after what it starts from
        ready = [a for a in absent.values() if all(base.key not in absent for base in a.needs)]
        _at_once(ready, job, logs, report)
        absent = {key: a for key, a in absent.items() if a not in ready}
    for artifact in needs.values():
        if artifact.kind == "classifier":
            _classifier(artifact, job, logs[artifact.key], report)
        else:
            _adversarial(artifact, ids, job, report)


def load(artifact: Artifact, ids: Sequence[int], store: Store) -> tuple[Made | Sought, State]:
    """What a worker needs of a made artifact: what describes it, and its arrays.

    Raises:
        Damaged: one of its files cannot be read.
    """
    if isinstance(artifact.of, Adversarial):
        return Sought(artifact.key), _searched(artifact, ids, store)
    about = store.read_json(f"{artifact.folder}/artifact.json")
    path = f"{artifact.folder}/{WEIGHTS}"
    try:
        weights = torch.load(io.BytesIO(store.read(path)), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise Damaged(path, store.location(path), "torch cannot read it") from error
    of = Made(artifact.key, artifact.of, tuple(about["shape"]), about["classes"], tuple(about["magnitudes"]))
    return of, {name: value.numpy() for name, value in weights.items()}


def _at_once(absent: Sequence[Artifact], job: Job, logs: Mapping[str, Log], report: Report) -> None:
    """Trains classifiers side by side; what they say is passed on by this thread, in which alone a trial may report."""
    said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    with ThreadPoolExecutor(min(len(absent), job.executor.slots)) as pool:
        running: set[Future[None]] = {
            pool.submit(_classifier, artifact, job, logs[artifact.key], said.put) for artifact in absent
        }
        while running:
            try:
                report(said.get(timeout=LOOK_AGAIN))
            except queue.Empty:
                ended = {future for future in running if future.done()}
                running -= ended
                for future in ended:
                    future.result()


def _classifier(artifact: Artifact, job: Job, log: Log, report: Report) -> None:
    """Trains it, or reads its history; where several trials want it at once, one makes it and the others wait."""
    with _alone(artifact, job.store):
        if not exists(artifact, job.store):
            _train(artifact, job, log, report)
        else:
            history = job.store.read_json(f"{artifact.folder}/artifact.json")["history"]
            how = {"phase": "trained before", "of": len(history), "network": artifact.key}
            for done, epoch in enumerate(history, 1):
                log(epoch)
                report({**how, "done": done, **epoch})


def _train(artifact: Artifact, job: Job, log: Log, report: Report) -> None:
    recipe = artifact.of
    assert isinstance(recipe, Recipe)
    started, history = time.time(), []
    final: dict[str, Any] = {}
    how = {"phase": "training", "of": recipe.epochs, "network": artifact.key}
    report({**how, "done": 0})
    start = [job.executor.put(state) for _, state in (load(base, (), job.store) for base in artifact.needs)]
    with closing(job.executor.stream(train, recipe, job.around, *start)) as messages:  # a scheduler may stop it
        for message in messages:
            for epoch in message.get("epochs", ()):
                history.append(epoch)
                log(epoch)
                report({**how, "done": len(history), **epoch})
            if "state" in message:
                final = message
    buffer = io.BytesIO()
    torch.save({name: torch.tensor(value) for name, value in final["state"].items()}, buffer)
    job.store.write(f"{artifact.folder}/{WEIGHTS}", buffer.getvalue())
    told = {}
    if final["augmented"] is not None:
        picture, told["augmented"] = final["augmented"]
        drawn = io.BytesIO()
        Image.fromarray(picture).save(drawn, "PNG")
        job.store.write(f"{artifact.folder}/{AUGMENTED}", drawn.getvalue())
    about = {
        "kind": artifact.kind,
        "recipe": recipe.model_dump(mode="json"),
        **{name: final[name] for name in ("shape", "classes", "magnitudes", "test", "device")},
        "history": history,
        "seconds": time.time() - started,
        "versions": versions(),
        "bytes": len(buffer.getvalue()),
        **told,
    }
    job.store.write_json(f"{artifact.folder}/artifact.json", about)


def _adversarial(artifact: Artifact, ids: Sequence[int], job: Job, report: Report) -> None:
    wanted = artifact.of
    assert isinstance(wanted, Adversarial)
    with _alone(artifact, job.store):
        if exists(artifact, job.store, ids):
            return
        about = {"kind": artifact.kind, **wanted.model_dump(mode="json"), "versions": versions()}
        job.store.write_json(f"{artifact.folder}/artifact.json", about)
        loaded = [load(network, ids, job.store) for network in artifact.needs]
        shared = [job.executor.put(state) for _, state in loaded]
        of = (wanted, job.around, [made for made, _ in loaded], *shared)
        complete("searching", artifact.folder, ids, job, report, search, *of)


def _searched(artifact: Artifact, ids: Sequence[int], store: Store) -> State:
    """The adversarial examples of these ids, in the order of the ids."""
    folder = f"{artifact.folder}/rows"
    lines, covered = read_parts(store, folder)
    lost = set(ids) - covered
    if lost:
        raise RuntimeError(f"{len(lost)} adversarial examples have disappeared while the trial ran; run it again")
    there = lines["id"].to_numpy()
    order = there.argsort()
    order = order[np.isin(there[order], ids)]
    path, _ = next(parts_of(store, folder))
    shape = json.loads(store.read_schema(path).metadata[b"shape"])
    lines = lines.take(order)
    points = lines["points"].combine_chunks().flatten().to_numpy().reshape(-1, *shape)
    named = [name for name in lines.column_names if name not in ("id", "points")]
    return {"ids": there[order], "points": points, **{name: lines[name].to_numpy() for name in named}}


def _alone(artifact: Artifact, store: Store) -> Any:
    return locked(f"making-{content_hash(store.location(artifact.folder))}")
