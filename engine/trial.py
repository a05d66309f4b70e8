"""One trial from start to end: make what it needs, scatter its examples, keep the rows, sum them up, report.

Everything finished is in the store before the next step begins, so a trial that was killed goes on where it stopped.
"""

from __future__ import annotations

import importlib
import time
import traceback
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from engine import scores
from engine.artifacts import AUGMENTED, load, make_all
from engine.board import live
from engine.job import Job, Report, Stopped, Unreported, complete, devices, versions
from engine.plan import Planned, exists
from engine.store import Store, read_parts
from engine.work import measure


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
        record |= _run(planned, job, report)
        record["status"] = "done"
    except Stopped as stopped:
        record |= {"status": "stopped", "epochs": stopped.epochs}
    except Exception as error:
        record["status"] = "failed"
        record["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
        record["traceback"] = traceback.format_exc()
        record |= {"unreported": error.metric, "reports": error.reports} if isinstance(error, Unreported) else {}
    record.setdefault("epochs", trained(planned, job.store))
    record |= augmented(planned, job.store)
    record["devices"] = devices(planned.folder, job.store)
    record["seconds"] = time.time() - started
    job.store.write_json(f"{planned.folder}/trial.json", record)
    return record


def _run(planned: Planned, job: Job, report: Report) -> dict[str, Any]:
    """The trial's `summary`, and its `checks` where its task has any."""
    config, store = planned.trial.config, job.store
    task = importlib.import_module(job.task)
    with live(store, job.page, log_name(planned)) as board:
        logs = {key: partial(board.epoch, prefix=prefix) for key, prefix in _prefixes(planned).items()}
        make_all(planned.artifacts(), planned.ids, job, logs, report)
        network = planned.classifier
        if network is not None and augmented(planned, store):
            picture = store.read(f"{network.folder}/{AUGMENTED}")
            store.write(f"{planned.folder}/{AUGMENTED}", picture)
            board.image("augmentation", picture)
        loaded = [load(artifact, planned.ids, store) for artifact in planned.needs.values()]
        made = {name: of for name, (of, _) in zip(planned.needs, loaded, strict=True)}
        shared = [job.hands.put(state) for _, state in loaded]
        of = (job.task, config, job.around, made, *shared)
        complete("measuring", planned.folder, planned.ids, job, report, measure, *of)

        rows = read_rows(planned, store)
        if rows.empty:
            raise ValueError("no example was left to measure: each one is misclassified, or was left out")
        summary = task.summarise(config, rows)
        store.write_table(f"{planned.folder}/{scores.FILE}", scores.by_example(task, config, rows, planned.ids))
        unknown = [name for name, value in summary.items() if not np.isfinite(value)]
        for metric in job.metrics:
            if metric not in summary:
                raise Unreported(metric, list(summary))
            if metric in unknown:
                raise ValueError(f"the objective {metric} is not a number; the trial reports {', '.join(summary)}")
    outcome = {"summary": {name: (None if name in unknown else value) for name, value in summary.items()}}
    return outcome | ({"checks": task.checks(config, rows)} if hasattr(task, "checks") else {})


def trained(planned: Planned, store: Store) -> list[dict[str, Any]]:
    """The epochs of the classifier that a trial is about; none where it is about several, or its classifier is not there."""
    return _about(planned, store).get("history", [])


def augmented(planned: Planned, store: Store) -> dict[str, Any]:
    """`augmented`: what the picture of the adversarial augmentation of that classifier shows; empty where there is no picture."""
    return {name: told for name, told in _about(planned, store).items() if name == "augmented"}


def _about(planned: Planned, store: Store) -> dict[str, Any]:
    """What the classifier says of itself that a trial is about; empty where it is about several, or it is not there."""
    network = planned.classifier
    return {} if network is None or not exists(network, store) else store.read_json(f"{network.folder}/artifact.json")


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


def histories(planned: Planned, store: Store) -> dict[str, list[dict[str, Any]]]:
    """The epochs of the classifiers that a trial needs, by the prefix of their tags in TensorBoard."""
    known = {key: artifact for key, artifact in planned.artifacts().items() if artifact.kind == "classifier"}
    return {
        prefix: store.read_json(f"{known[key].folder}/artifact.json")["history"]
        for key, prefix in _prefixes(planned).items()
        if exists(known[key], store)
    }


def _prefixes(planned: Planned) -> dict[str, str]:
    """For each classifier by key: `training` if it is the only one, else `training/` and the name it is needed by."""
    names: dict[str, str] = {}
    for name, need in planned.needs.items():
        for number, artifact in enumerate(need.chain()):
            if artifact.kind == "classifier":
                names.setdefault(artifact.key, name if artifact is need else f"{name}/{number}")
    return dict.fromkeys(names, "training") if len(names) == 1 else {key: f"training/{of}" for key, of in names.items()}


def log_name(planned: Planned) -> str:
    """A trial's folder in the TensorBoard log while it runs: what varies, readable, and enough of the hash to be unique."""
    words = "".join(c if c.isalnum() or c in "=.-" else "_" for c in planned.trial.label)
    return f"{words[:80]}-{planned.key[:6]}"
