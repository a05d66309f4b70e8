"""The points of a search, and the Optuna study that chooses them.

`results/<page>/search.json` lists all points in the order of their choice. It is written before the
trials of a new point start. This file and the records of the trials decide what the study holds. At
the start of a run the study is compared with them. Where they differ (a run was killed, seeds were
added, a failed trial is tried again), the study is filled anew. So the file of the study may be
lost, and a search can also resume on a store that has no local files. Each choice is seeded by its
number, so that a resumed search goes on as if it had not been interrupted.

A point has one trial for each seed. The study is told of a point when all its trials have ended.
The point is then complete, with the means of its objectives; pruned, where a training was stopped;
or failed, where a trial failed or lacks an objective, or the settings do not go together.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import optuna
from optuna.trial import TrialState
from pydantic import JsonValue

from engine.plan.plan import Planned, plan_one
from engine.search import study_file
from engine.search.distributions import decoded, distributions, encoded, quiet
from engine.search.samplers import sampler
from engine.search.search_json import Identity, SavedPoint, SavedStudy, identity_of, refuse_changes
from engine.store.owned import SweepFolder
from engine.store.records import TrialRecord, read_trial
from engine.store.store import Store
from engine.sweepfile.load import Spec
from tasks.parts.settings import UserError


@dataclass
class Point:
    """Values of the searched settings, and the trials that measure them.

    Attributes:
        values: value of each searched setting, by dotted name.
        system: what Optuna's sampler notes about the point.
        trials: one for each seed; none where the point is refused.
        refused: why the settings do not go together; None where they do.
    """

    values: dict[str, JsonValue]
    system: dict[str, JsonValue] = field(default_factory=dict)
    trials: list[Planned] = field(default_factory=list)
    refused: str | None = None


class Study:
    """The points of one search: chooses new ones, and tells Optuna how the others ended.

    Args:
        spec: the sweep with its search.
        store: the store of the results.
        fresh: forget the points of earlier runs.

    Raises:
        SpecError: the storage cannot be used or belongs to another sweep, or the search space, the
            objective or the searcher have changed.
    """

    def __init__(self, spec: Spec, store: Store, *, fresh: bool = False):
        quiet()
        self._spec, self._store, self._fresh = spec, store, fresh
        self._path = f"{spec.page}/search.json"
        self._folder = SweepFolder(store.within(spec.page), spec.name)
        self._records: dict[str, TrialRecord] = {}
        self._running: dict[int, optuna.Trial] = {}  # by number of the point; those that have not ended
        self._file = study_file.file_of(spec, store)
        study_file.refuse_others(self._file, spec)
        saved = None if fresh else self._saved() or self._recovered()
        if saved is not None:
            refuse_changes(spec, saved.study)
        self._new = saved is None
        self.points = [self._point(point.values, point.system) for point in (saved.points if saved else ())]

    @property
    def planned(self) -> list[Planned]:
        """The trials of all points so far, each once."""
        here = self.points[: self._spec.sweep.trials]
        return list({item.key: item for point in here for item in point.trials}.values())

    @property
    def refused(self) -> list[str]:
        """The reasons why points were refused, one for each such point."""
        return [point.refused for point in self.points[: self._spec.sweep.trials] if point.refused]

    @property
    def remaining(self) -> int:
        """The number of points that are still to be chosen."""
        return max(0, (self._spec.sweep.trials or 0) - len(self.points))

    def ask(self) -> list[Planned]:
        """Chooses a point and returns its trials; none where its settings do not go together."""
        sweep, number = self._spec.sweep, len(self.points)
        if sweep.adaptive:
            self._study.sampler = sampler(sweep.searcher, number)
            trial = self._running[number] = self._study.ask(distributions(sweep))
            system = dict(self._study.get_trials(deepcopy=False)[number].system_attrs)
            point = self._point(self._decoded(trial.params), system)
            trial.set_user_attr("trials", [item.key for item in point.trials])
        else:
            drawn = {name: d.draw(name, number, sweep.searcher.seed) for name, d in sweep.search.items()}
            point = self._point(drawn, {})
            self._add(self._study, [point])
        self.points.append(point)
        self._save()
        self._tell(number)
        return point.trials

    def finish(self, planned: Planned, record: TrialRecord) -> None:
        """Takes the record of a trial, and tells the study of every point that is now over."""
        self._records[planned.key] = record
        for number, point in enumerate(self.points):
            if any(item.key == planned.key for item in point.trials):
                self._tell(number)

    def open(self) -> None:
        """Opens the study before any trial runs, so that an unusable storage is noticed early.

        Raises:
            SpecError: the storage cannot be used.
        """
        if self._fresh or self._store.record(self._path) is None:
            self._save()
        assert self._study is not None

    def rollback(self) -> None:
        """Deletes a study that began in this run.

        This is done when no trial reports the objective: with a mended sweep file the study can
        begin again.
        """
        if self._new:
            self._folder.remove(["search.json"])
            optuna.delete_study(study_name=self._spec.page, storage=self._storage)

    def _tell(self, number: int) -> None:
        state, values = self._outcome(self.points[number])
        if state is TrialState.RUNNING or number not in self._running:
            return
        trial = self._running.pop(number)
        for name, value in self._shown(self.points[number]).items():
            trial.set_user_attr(name, value)
        self._study.tell(trial, values, state=state)

    def _outcome(self, point: Point) -> tuple[TrialState, list[float] | None]:
        """A point's state in the study, and its values where it is complete."""
        records = [self._record(item) for item in point.trials]
        states = [record.status if record else "running" for record in records]
        if point.refused or "failed" in states:
            return TrialState.FAIL, None
        if "running" in states:
            return TrialState.RUNNING, None
        if "stopped" in states:
            return TrialState.PRUNED, None
        values = [self._values(point, objective.metric) for objective in self._spec.sweep.objectives]
        if not all(map(math.isfinite, itertools.chain(*values))):
            return TrialState.FAIL, None
        return TrialState.COMPLETE, [statistics.fmean(of) for of in values]

    def _values(self, point: Point, metric: str) -> list[float]:
        """The objective under each seed; NaN in records of a run that had another objective."""
        records = [self._record(item) for item in point.trials]
        values = [record.summary.get(metric) if record else None for record in records]
        return [math.nan if value is None else float(value) for value in values]

    def _shown(self, point: Point) -> dict[str, JsonValue]:
        """What the dashboard shows of a point.

        These are its trials and, with several seeds, its objectives under each seed.
        """
        shown: dict[str, JsonValue] = {"trials": [item.key for item in point.trials]}
        if len(point.trials) > 1 and self._outcome(point)[0] is TrialState.COMPLETE:
            for objective in self._spec.sweep.objectives:
                values = self._values(point, objective.metric)
                shown[objective.metric] = f"{', '.join(f'{value:.4g}' for value in values)} over {len(values)} seeds"
        return shown | ({"refused": point.refused} if point.refused else {})

    def _record(self, item: Planned) -> TrialRecord | None:
        """The record of a trial; None where it has not ended or will be tried again."""
        if item.key not in self._records:
            found = None if self._fresh else read_trial(self._store, item.folder)
            if found is None or found.status not in self._spec.ended:
                return None
            self._records[item.key] = found
        return self._records[item.key]

    def _point(self, values: dict[str, JsonValue], system: dict[str, JsonValue]) -> Point:
        try:
            trials = [plan_one(self._spec, trial) for trial in self._spec.at(values)]
        except UserError as error:
            return Point(values, system, [], error.message)
        return Point(values, system, trials)

    def _save(self) -> None:
        points = [{"values": point.values, "system": point.system} for point in self.points]
        self._folder.write_json("search.json", {"study": self._identity.to_json(), "points": points})

    @cached_property
    def _identity(self) -> Identity:
        return identity_of(self._spec)

    # The study in Optuna

    @cached_property
    def _study(self) -> optuna.Study:
        """The study in its storage, brought in line with the points and their trials' records.

        It is filled anew where it holds something else, and where a run was killed while points
        were running: Optuna gives the trial of such a point to no other process.
        """
        study = self._begun()
        wanted = [self._frozen(point) for point in self.points]
        held = study.get_trials()
        ended = all(trial.state.is_finished() for trial in held)
        if not ended or [(t.state, t.params, t.values) for t in held] != [
            (t.state, t.params, t.values) for t in wanted
        ]:
            study = self._begun(fresh=True)
            self._add(study, self.points)
        return study

    @cached_property
    def _storage(self) -> optuna.storages.BaseStorage:
        try:
            return study_file.opened(self._file)
        except Exception as error:  # of SQLAlchemy, the file system, or Optuna (another version's file)
            raise study_file.unusable(self._spec, self._file, error) from None

    def _begun(self, *, fresh: bool = False) -> optuna.Study:
        name, objectives = self._spec.page, self._spec.sweep.objectives
        return study_file.begun(self._storage, name, self._identity.to_json(), objectives, fresh=fresh or self._fresh)

    def _add(self, study: optuna.Study, points: list[Point]) -> None:
        """Adds points to the study; those that have not ended are taken up as running."""
        frozen = [self._frozen(point) for point in points]
        study.add_trials(frozen)
        for trial in frozen:
            if trial.state is TrialState.WAITING:
                taken = study.ask()
                self._running[taken.number] = taken

    def _frozen(self, point: Point) -> optuna.trial.FrozenTrial:
        """The Optuna trial that the study should hold for a point."""
        state, values = self._outcome(point)
        return optuna.trial.create_trial(
            state=TrialState.WAITING if state is TrialState.RUNNING else state,
            values=values,
            params=encoded(self._spec.sweep, point.values),
            distributions=distributions(self._spec.sweep),
            system_attrs=point.system,
            user_attrs=self._shown(point),
        )

    def _decoded(self, params: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        return {name: decoded(drawn, params[name]) for name, drawn in self._spec.sweep.search.items()}

    def _saved(self) -> SavedStudy | None:
        """The points in `search.json`; None where there is no such file."""
        found = self._store.record(self._path, "study", "points")
        return None if found is None else SavedStudy.read(found)

    def _recovered(self) -> SavedStudy | None:
        """The points in the study's storage; None where there are none.

        They are used where the results were moved or deleted, and `search.json` with them.
        """
        if self._file is None or not self._file.exists():
            return None
        if self._spec.page not in optuna.get_all_study_names(self._storage):
            return None
        study = optuna.load_study(study_name=self._spec.page, storage=self._storage)
        trials = study.get_trials(deepcopy=False)
        if not trials:  # nothing to recover; a killed run may have left it so
            return None
        identity = Identity.read(study.user_attrs[study_file.IDENTITY])
        refuse_changes(self._spec, identity)  # points can only be decoded in their own search space
        points = [SavedPoint(values=self._decoded(t.params), system=t.system_attrs) for t in trials]
        return SavedStudy(study=identity, points=tuple(points))
