"""What became of the trials of a sweep, judged by its present objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from engine.plan.plan import Planned
from engine.store.records import TrialRecord, read_trial
from engine.store.store import Store
from engine.sweepfile.load import Spec


@dataclass(frozen=True)
class Outcome:
    """A trial of a sweep, and what became of it.

    Attributes:
        record: what it says of itself; None where its process died.
        lacks: of a trial that was run for other objectives, one of today's that it has no number
            for. Then it counts as failed.
    """

    planned: Planned
    record: TrialRecord | None
    lacks: str | None = None

    @property
    def label(self) -> str:
        """What varies, in words."""
        return self.planned.trial.label

    @property
    def status(self) -> Literal["done", "stopped", "failed", "missing"]:
        """What became of it; "missing" where its process died."""
        if self.record is None:
            return "missing"
        return "failed" if self.lacks is not None else self.record.status

    @property
    def failed(self) -> bool:
        """Whether it gave no results."""
        return self.status in ("failed", "missing")

    @property
    def error(self) -> str | None:
        """What went wrong, in one line; None where nothing did, or it is not known."""
        if self.lacks is not None:
            return f"it has no number for the objective {self.lacks}"
        return self.record.error if self.record is not None else None

    @property
    def config(self) -> Mapping[str, JsonValue]:
        """Its settings, as it was measured."""
        return self.record.config if self.record is not None else self.planned.trial.config.model_dump(mode="json")


def outcomes(spec: Spec, store: Store, planned: Sequence[Planned]) -> list[Outcome]:
    """What became of each of these trials, in their order."""
    return [_outcome(spec, item, read_trial(store, item.folder)) for item in planned]


def _outcome(spec: Spec, item: Planned, record: TrialRecord | None) -> Outcome:
    if record is None or record.status != "done":
        return Outcome(item, record)
    metrics = (objective.metric for objective in spec.sweep.objectives)
    return Outcome(item, record, next((name for name in metrics if record.summary.get(name) is None), None))


def refuse_unreported(spec: Spec, store: Store, planned: Sequence[Planned]) -> None:
    """Refuses an objective that none of the finished trials reports.

    They were run for other objectives.

    Raises:
        SpecError: with the line of the objective.
    """
    unseen = [objective.metric for objective in spec.sweep.objectives]
    reports: dict[str, None] = {}
    for item in planned if unseen else ():
        record = read_trial(store, item.folder)
        if record is not None and record.status == "done":
            reports |= dict.fromkeys(record.summary)
            unseen = [metric for metric in unseen if metric not in reports]
            if not unseen:
                return
    if reports:
        raise spec.unreported(unseen[0], list(reports))
