"""The table of a sweep's trials, `trials.parquet`, with the sweep's own record in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd
import pyarrow as pa
from pydantic import JsonValue

from engine.results.records import Outcome
from engine.search.importance import importance
from engine.store.records import SweepRecord, TrialRecord
from engine.sweepfile.load import Spec, facts
from tasks.parts.columns import Column
from tasks.parts.contract import hook
from tasks.parts.dotted import inner_settings, settings_of


def table(spec: Spec, found: Sequence[Outcome], *, with_importance: bool = True) -> pa.Table:
    """The table of trials, a line each.

    Its columns are `trial` (the key), `label`, `status`, `seconds`, `error`, `examples` (how many
    it measures), `classifier`, `config.<name>`, `summary.<name>`, `reached.<name>` (metrics of the
    last epoch) and `epochs` (all of them, as JSON). `classifier` is the key of the network that a
    trial is about, which trials may share; None where it is about several. The names of `config`
    are those of all settings, and of what varies inside one (`recipe.network_options.width`).

    Args:
        spec: the sweep.
        found: its trials.
        with_importance: whether a search computes the importance of its settings. That takes long,
            and only a figure shows it.
    """
    settings = settings_of(spec.task.Config)
    # Settings inside one that varies: the column of the outer one does not tell recipes apart.
    settings |= inner_settings(spec.task.Config, spec.sweep.varied)
    frame = pd.DataFrame([_line(outcome, settings) for outcome in found])
    for name in frame.columns:
        if frame[name].map(type).nunique() > 1 and frame[name].map(lambda v: isinstance(v, str)).any():
            frame[name] = frame[name].map(lambda v: v if v is None or isinstance(v, str) else json.dumps(v))
    about = _sweep_record(spec, found, settings, with_importance)
    metadata = {"sweep": json.dumps(about.to_json())}
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(metadata)


def _line(outcome: Outcome, settings: Mapping[str, str]) -> dict[str, object]:
    item, record = outcome.planned, outcome.record or TrialRecord()
    line: dict[str, object] = {
        "trial": item.key,
        "label": outcome.label,
        "status": outcome.status,
        "seconds": record.seconds,
        "error": outcome.error,
        "examples": len(item.ids),
        "classifier": item.subject.key if item.subject else None,
    }
    for name in settings:
        value = _at(outcome.config, name)
        line[f"config.{name}"] = json.dumps(value) if isinstance(value, (list, dict)) else value
    line |= {f"summary.{name}": value for name, value in record.scalars.items()}
    line |= {f"reached.{name}": value for name, value in (record.epochs[-1] if record.epochs else {}).items()}
    return line | {"epochs": json.dumps(record.epochs)}


def _sweep_record(
    spec: Spec, found: Sequence[Outcome], settings: Mapping[str, str], with_importance: bool
) -> SweepRecord:
    """What the sweep says of itself to its report."""
    columns = {name: of if isinstance(of, Column) else Column(of) for name, of in spec.task.COLUMNS.items()}
    about: dict[str, object] = {
        "name": spec.name,
        "task": spec.sweep.task,
        "about": spec.sweep.about,
        "replicates": spec.task.Config.replicates,
        "labels": settings,
        "classes": found[0].planned.classes if found else (),
        **facts(spec.sweep, spec.task),
        "epochs": any(outcome.record and outcome.record.epochs for outcome in found),
        "figures": spec.sweep.figures or (),
        "columns": columns,
        "by_kind": {name: column.by_kind for name, column in columns.items() if column.by_kind},
        "conditions": columns["condition"].values or None if "condition" in columns else None,
        "shares": hook(spec.task, "SHARES"),
    }
    if spec.look:
        about |= {"trials": spec.name, "look": spec.look}
    if with_importance:
        planned, records = [outcome.planned for outcome in found], [outcome.record for outcome in found]
        about["importance"] = importance(spec, planned, records) if spec.sweep.search else ()
    return SweepRecord.model_validate(about)


def _at(config: Mapping[str, JsonValue], path: str) -> JsonValue:
    """The value at a dotted path; None where the task's own validation has taken it away."""
    value: JsonValue = dict(config)
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
