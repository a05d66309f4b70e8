"""What a run leaves behind beside the trials themselves: the resolved sweep, the table of trials, the report, the figures' log.

They are in the sweep's page, which a quick look has of its own. What else is in that folder is the user's: see `engine.store.owned`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis import catalogue, drawing, report
from analysis.results import ReportError
from engine.plan.plan import Planned, trial_record
from engine.results import recipe_log
from engine.run.trial import histories
from engine.search.importance import importance
from engine.store.owned import HEADER, SweepFolder
from engine.store.store import Store, as_parquet, content_hash
from engine.sweepfile.load import Spec, facts
from engine.sweepfile.yaml_lines import dump
from engine.terminal import say
from tasks.parts.dotted import inner_settings, settings_of

REPORT = ("report.html", "report.json", "summary.csv")
"""What the report consists of, besides its figures."""
WRITTEN = ("sweep.yaml", "trials.parquet", *REPORT)
"""What every run writes at the top of the page's folder."""


def resolved(spec: Spec) -> str:
    """The sweep with all overrides, as a file that can be run again."""
    entries = spec.sweep.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return f"{HEADER}, with all overrides.\n{dump(entries)}"


def folders(spec: Spec, store: Store) -> tuple[SweepFolder, SweepFolder]:
    """The folder of the sweep's trials, and that of its page.

    Raises:
        UserError: one of them is not ours, or holds a file of the user's own where one of ours belongs.
    """
    home, page = (SweepFolder(store.within(name), spec.name) for name in (spec.name, spec.page))
    asked = drawing.file_names([catalogue.parse(entry) for entry in spec.sweep.figures or []])
    study = ["search.json"] if spec.sweep.studied else []
    page.refuse([*WRITTEN, *study, *(file for name in asked for file in report.files_of(name))])
    return home, page


def begin(spec: Spec, store: Store) -> None:
    """Makes the folders ours before the work, and says in the page which sweep it is of.

    Raises:
        UserError: as `folders`, or nothing can be written.
    """
    home, page = folders(spec, store)
    home.claim()
    page.write("sweep.yaml", resolved(spec).encode())


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
    lacking: list[str] = []
    stamp = content_hash([resolved(spec), [[r["trial"], r["status"], r.get("started")] for r in records]])
    shown = store.location(f"{spec.page}/report.html")
    _, page = folders(spec, store)
    if _stamp(spec, store) != stamp:
        page.write("sweep.yaml", resolved(spec).encode())
        page.write("trials.parquet", as_parquet(table(spec, planned, records)))
        page.remove(name for name in page.files if name.startswith("figures/") or name in REPORT)
    if not done:
        shown = store.location(f"{records[0]['folder']}/trial.json" if records else spec.page)
    elif _stamp(spec, store) != stamp:
        try:
            undrawn = report.failures(report.build(store.location(spec.page), tell=lacking.append))
            by_trial = {item.key: item for item in planned}
            recipe_log.write(store, spec.page, page, lambda trial: histories(by_trial[trial], store))
        except ReportError as error:  # rows that were there when the trials were looked at
            lacking.append(str(error))
        for name in undrawn:
            say(f"figure {name} could not be drawn; the report says why")
        for line in lacking:
            say(line)
        if not undrawn and not lacking:
            page.write_json("report.json", {"made_from": stamp})
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
    say(f"{spec.page}: {done} of {len(records)} trials done{told}; {ran} run now; {shown}", sys.stdout)
    asked = undrawn and spec.sweep.figures  # one that was drawn by default may have nothing to show
    return 1 if failed or asked or wrong or lacking else 0


def _unpassed(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The self-checks of a trial that did not hold, with what is wrong."""
    return [(what, told) for what, told in (record.get("checks") or {}).items() if told is not None]


def table(spec: Spec, planned: list[Planned], records: list[dict[str, Any]]) -> pa.Table:
    """One line a trial: `trial`, `status`, `seconds`, `error`, `examples` that it covers, `config.<name>` and `summary.<name>`; the sweep
    in its metadata.

    `classifier` is the key of the network that a trial is about, None where it is about several: trials may share one. The names are
    those of all settings, and of what varies inside one (`recipe.network_options.width`).
    """
    lines = []
    settings = settings_of(spec.task.Config)
    settings |= inner_settings(spec.task.Config, spec.sweep.varied)  # their holder's column does not tell recipes apart
    for item, record in zip(planned, records, strict=True):
        line = {name: record.get(name) for name in ("trial", "label", "status", "seconds", "error")}
        line["examples"] = len(item.ids)
        line["classifier"] = item.classifier.key if item.classifier else None
        for name in settings:
            value = _at(record["config"], name)
            line[f"config.{name}"] = json.dumps(value) if isinstance(value, (list, dict)) else value
        line |= {f"summary.{name}": value for name, value in (record.get("summary") or {}).items()}
        line |= {f"summary.{name}": float(sign) for name, sign in (record.get("infinite") or {}).items()}
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
        **({"trials": spec.name, "look": spec.look} if spec.look else {}),
        "task": spec.sweep.task,
        "about": spec.sweep.about,
        "replicates": spec.task.Config.replicates,
        "labels": settings,
        "classes": list(planned[0].classes) if planned else [],
        "objective": told["objectives"][0] if told["objectives"] else None,
        **told,
        "epochs": any(record.get("epochs") for record in records),
        "importance": importance(spec, planned, records) if spec.sweep.search else [],
        "figures": spec.sweep.figures or [],
        "columns": spec.task.COLUMNS,
        "shares": list(getattr(spec.task, "SHARES", ())),
    }
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata({"sweep": json.dumps(about)})


def _record(item: Planned, store: Store) -> dict[str, Any]:
    told = trial_record(item, store)
    if told is not None:
        return {"label": item.trial.label, "folder": item.folder, **told}
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
    told = store.record(f"{spec.page}/report.json", "made_from")
    return told["made_from"] if told and store.exists(f"{spec.page}/report.html") else None
