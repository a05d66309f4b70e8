"""The queue of a run's trials."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.plan.plan import Planned, plan, status
from engine.search.early_stopping import Curves
from engine.store.owned import clear_trial
from engine.store.records import Epoch, TrialRecord, read_trial
from engine.store.store import Store
from engine.sweepfile.load import Spec
from engine.sweepfile.yaml_lines import SpecError

if TYPE_CHECKING:
    from engine.search.study import Study


class TrialQueue:
    """Gives out the trials of a run: the planned ones first, then those that the search proposes.

    The records of trials that have ended are passed back to the search.

    Attributes:
        started: how many trials were given out.
        refused: why the run makes no sense, after which no trial is given out; None while it does.
    """

    def __init__(
        self, spec: Spec, store: Store, todo: Sequence[Planned], study: Study | None = None, *, fresh: bool = False
    ):
        self._spec, self._store, self._study, self._fresh = spec, store, study, fresh
        self._waiting = deque(todo)
        self._seen = {item.key for item in todo}
        self._reported = False  # whether some trial has all objectives
        self.started = 0
        self.refused: SpecError | None = None

    @property
    def remaining(self) -> int:
        """How many trials may still be given out."""
        proposed = self._study.remaining * len(self._spec.sweep.seed_list or [0]) if self._study else 0
        return len(self._waiting) + proposed

    def next(self) -> Planned | None:
        """The next trial to run; None where there is no other."""
        while not self._waiting and self._study is not None and self._study.remaining and self.refused is None:
            for item in self._study.ask():
                if item.key not in self._seen and (self._fresh or status(item, self._store) not in self._spec.ended):
                    self._waiting.append(item)
                self._seen.add(item.key)
        if not self._waiting or self.refused is not None:
            return None
        item = self._waiting.popleft()
        if self._fresh:
            clear_trial(item.folder, self._store)
        self.started += 1
        return item

    def finish(self, planned: Planned, record: TrialRecord) -> None:
        """Takes the record of a trial that has ended."""
        self._reported |= record.status == "done"
        if record.unreported is not None and not self._reported:
            self.refused = self._spec.unreported(record.unreported, record.reports)
        if self._study is not None:
            self._study.finish(planned, record)

    def rollback(self) -> None:
        """Takes back what a refused run has added to the search; its trials stay."""
        if self._study is not None:
            self._study.rollback()

    def curves(self) -> Curves:
        """The epochs of trainings of earlier runs, for early stopping to compare with."""
        planned = self._study.planned if self._study else plan(self._spec)
        curves: dict[str, Sequence[Epoch]] = {}
        for item in planned if not self._fresh else ():
            if item.subject and status(item, self._store) in self._spec.ended:
                record = read_trial(self._store, item.folder) or TrialRecord()
                curves[item.subject.key] = max(record.epochs, curves.get(item.subject.key, ()), key=len)
        return curves
