"""Where the numbers of a report come from: what was measured, when, and with which versions."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from analysis.results import Results, in_order, show
from engine.store.records import TrialRecord

LIBRARIES = ("numpy", "scipy", "pandas", "matplotlib", "pyarrow")


def measured(results: Results, records: Mapping[str, TrialRecord]) -> list[tuple[str, str]]:
    """What was measured, as pairs of a term and its words."""
    trials, rows = results.trials, results.rows
    statuses = Counter(trials["status"])
    facts = [("Task", results.sweep.task or "unknown")]
    facts.append(
        (
            "Trials",
            ", ".join(
                f"{statuses[name]} {name}"
                for name in ("done", "stopped", "failed", "missing", "incomplete")
                if statuses[name]
            ),
        )
    )
    facts.append(("Recipes", str(len(results.recipes))))
    if results.replicates:
        seeds = in_order(trials.loc[trials["status"] == "done", f"config.{results.replicates}"])
        facts.append(("Seeds", f"{len(seeds)} ({results.replicates}: {', '.join(map(show, seeds))})"))
    if "id" in rows and len(rows):
        examples = rows["id"].nunique()
        missed = _not_found(results)
        facts.append(("Examples", f"{examples:,} in {len(rows):,} rows{missed}"))
    seconds = pd.to_numeric(trials["seconds"], errors="coerce").sum()
    facts.append(("Computing time", f"{_duration(seconds)} over all trials"))
    facts += _when(records)
    facts.append(("Report made", _clock(time.time())))
    return facts


def _when(records: Mapping[str, TrialRecord]) -> list[tuple[str, str]]:
    """When the trials ran, where they say so (`started`, seconds since 1970, and `seconds`)."""
    spans = [
        (record.started, record.started + (record.seconds or 0))
        for record in records.values()
        if record.started is not None
    ]
    if not spans:
        return []
    return [("Measured", f"{_clock(min(start for start, _ in spans))} to {_clock(max(end for _, end in spans))}")]


def _clock(seconds: float) -> str:
    """Seconds since 1970 as a date and a time.

    >>> _clock(0)
    '1970-01-01 00:00 UTC'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _not_found(results: Results) -> str:
    """In words, how many attacks on correctly classified images found nothing."""
    rows = results.rows
    if "found" not in rows or "condition" not in rows:
        return ""
    moved = (rows["condition"] != results.baseline) & rows.get("correct", True)
    searched = rows[moved].drop_duplicates(["trial", "id"])
    failed = int((~searched["found"].astype(bool)).sum())
    return (
        f"; {failed:,} of {len(searched):,} adversarial searches around correctly classified images found nothing"
        if failed
        else ""
    )


def _duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10.0 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def versions(records: Mapping[str, TrialRecord]) -> list[tuple[str, str]]:
    """What measured and what drew: several versions of one library are all named."""
    found: dict[str, dict[str, None]] = {}
    for record in records.values():
        for name, value in [*record.versions.items(), *(("device", name) for name in record.devices)]:
            found.setdefault(name, {})[str(value)] = None
    measured = [(name, ", ".join(values)) for name, values in found.items()]
    drew = [("Python (report)", platform.python_version())]
    for name in LIBRARIES:
        try:
            drew.append((f"{name} (report)", version(name)))
        except PackageNotFoundError:
            continue
    return measured + drew
