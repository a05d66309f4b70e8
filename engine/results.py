"""What a run leaves behind beside the trials themselves: the resolved sweep, the table of trials, the report, the figures' log."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis import report
from engine.board import Board
from engine.explain import inner_settings, settings_of
from engine.importance import importance
from engine.plan import Planned
from engine.source import dump
from engine.spec import Spec, facts
from engine.store import Store, content_hash
from engine.terminal import say


def resolved(spec: Spec) -> str:
    """The sweep with all overrides, as a file that can be run again."""
    entries = spec.sweep.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return "# The sweep as it ran, with all overrides.\n" + dump(entries)


def refuse_unreported(spec: Spec, store: Store, planned: list[Planned]) -> None:
    """Raises `SpecError` where trials are done, in a run that had other objectives, and none of them reports one of today's."""
    left = [objective.metric for objective in spec.sweep.objectives]
    reports: dict[str, None] = {}
    for item in planned if left else ():
        record = _record(item, store)
        if record["status"] == "done":
            reports |= dict.fromkeys(record["summary"])
            left = [metric for metric in left if metric not in reports]
            if not left:
                return
    if reports:
        raise spec.unreported(left[0], list(reports))


def finish(spec: Spec, store: Store, planned: list[Planned], *, ran: int) -> int:
    """Writes the table of trials and, where anything is new, the report; says what came out; returns the exit status."""
    records = [_with_objectives(spec, _record(item, store)) for item in planned]
    failed = [record for record in records if record["status"] not in ("done", "stopped")]
    done = sum(record["status"] == "done" for record in records)
    undrawn: list[str] = []
    stamp = content_hash([resolved(spec), [[r["trial"], r["status"], r.get("started")] for r in records]])
    page = store.location(f"{spec.name}/report.html")
    if _stamp(spec, store) != stamp:
        store.write(f"{spec.name}/sweep.yaml", resolved(spec).encode())
        store.write_table(f"{spec.name}/trials.parquet", table(spec, planned, records))
        for old in ("figures", "report.html", "report.json", "summary.csv"):
            store.delete(f"{spec.name}/{old}")
    if not done:
        page = store.location(f"{records[0]['folder']}/trial.json" if records else spec.name)
    elif _stamp(spec, store) != stamp:
        undrawn = report.failures(report.build(store.location(spec.name)))
        _log_figures(spec, store)
        for name in undrawn:
            say(f"figure {name} could not be drawn; the report says why")
        if not undrawn:
            store.write_json(f"{spec.name}/report.json", {"made_from": stamp})
    for record in failed:
        if record["status"] == "missing":
            say(f"failed: {record['label']}: its process died")
        elif "lacks" in record:
            say(f"failed: {record['label']}: {record['error']}")
    wrong = [(record["label"], what, told) for record in records for what, told in _unpassed(record)]
    for label, what, told in wrong:
        say(f"self-check FAILED: {label}: {what}: {told}")
    stopped = len(records) - done - len(failed)
    others = {"stopped early": stopped, "failed": len(failed)}
    told = "".join(f", {number} {what}" for what, number in others.items() if number)
    say(f"{spec.name}: {done} of {len(records)} trials done{told}; {ran} run now; {page}", sys.stdout)
    asked = undrawn and spec.sweep.figures  # one that was drawn by default may have nothing to show
    return 1 if failed or asked or wrong else 0


def _unpassed(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The self-checks of a trial that did not hold, with what is wrong."""
    return [(what, told) for what, told in (record.get("checks") or {}).items() if told is not None]


def table(spec: Spec, planned: list[Planned], records: list[dict[str, Any]]) -> pa.Table:
    """One line a trial: `trial`, `status`, `seconds`, `error`, `config.<name>` and `summary.<name>`; the sweep in its metadata.

    `classifier` is the key of the network that a trial is about, None where it is about several: trials may share one. The names are
    those of all settings, and of what varies inside one (`recipe.network_options.width`).
    """
    lines = []
    settings = settings_of(spec.task.Config)
    settings |= inner_settings(spec.task.Config, spec.sweep.varied)  # their holder's column does not tell recipes apart
    for item, record in zip(planned, records, strict=True):
        line = {name: record.get(name) for name in ("trial", "label", "status", "seconds", "error")}
        line["classifier"] = item.classifier.key if item.classifier else None
        for name in settings:
            value = _at(record["config"], name)
            line[f"config.{name}"] = json.dumps(value) if isinstance(value, (list, dict)) else value
        line |= {f"summary.{name}": value for name, value in (record.get("summary") or {}).items()}
        epochs = record.get("epochs") or []
        line |= {f"reached.{name}": value for name, value in (epochs[-1] if epochs else {}).items()}
        line["epochs"] = json.dumps(epochs)
        lines.append(line)
    frame = pd.DataFrame(lines)
    for name in frame.columns:
        if frame[name].map(type).nunique() > 1 and frame[name].map(lambda v: isinstance(v, str)).any():
            frame[name] = frame[name].map(lambda v: v if v is None or isinstance(v, str) else json.dumps(v))
    told = facts(spec.sweep)
    about = {
        "name": spec.name,
        "task": spec.sweep.task,
        "about": spec.sweep.about,
        "varied": spec.sweep.varied,
        "replicates": spec.task.Config.replicates,
        "labels": settings,
        "classes": list(planned[0].classes) if planned else [],
        "objective": told["objectives"][0] if told["objectives"] else None,
        **told,
        "epochs": any(record.get("epochs") for record in records),
        "importance": importance(spec, planned, records) if spec.sweep.search else [],
        "figures": spec.sweep.figures or [],
        "columns": spec.task.COLUMNS,
    }
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata({"sweep": json.dumps(about)})


def _record(item: Planned, store: Store) -> dict[str, Any]:
    path = f"{item.folder}/trial.json"
    if store.exists(path):
        return {"label": item.trial.label, "folder": item.folder, **store.read_json(path)}
    config = item.trial.config.model_dump(mode="json")
    return {"trial": item.key, "label": item.trial.label, "folder": item.folder, "status": "missing", "config": config}


def _with_objectives(spec: Spec, record: dict[str, Any]) -> dict[str, Any]:
    """The record; one that an earlier run left, for other objectives, is of a failure where it lacks (`lacks`) one of today's."""
    if record["status"] != "done":
        return record
    lacks = next((o.metric for o in spec.sweep.objectives if record["summary"].get(o.metric) is None), None)
    if lacks is None:
        return record
    return record | {"status": "failed", "error": f"it has no number for the objective {lacks}", "lacks": lacks}


def _at(config: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; None where a task's own validation has taken away what varies inside a setting."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _stamp(spec: Spec, store: Store) -> str | None:
    """What the report there was made from."""
    path = f"{spec.name}/report.json"
    if not (store.exists(path) and store.exists(f"{spec.name}/report.html")):
        return None
    return store.read_json(path)["made_from"]


def _log_figures(spec: Spec, store: Store) -> None:
    """Puts the report's figures into the TensorBoard log, as the run `figures`."""
    place = f"{spec.name}/tensorboard/figures"
    store.delete(place)
    folder = Path(tempfile.mkdtemp(prefix="inputscape-board-"))
    try:
        board = Board(folder)
        for name in store.names(f"{spec.name}/figures"):
            if name.endswith(".png"):
                board.image(name.removesuffix(".png"), store.read(f"{spec.name}/figures/{name}"))
        board.close()
        store.copy_in(folder, place)
    finally:
        shutil.rmtree(folder)
