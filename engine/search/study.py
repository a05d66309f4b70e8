"""The points of a search, and the Optuna study that chooses them.

`results/<page>/search.json` lists every point in the order in which they were chosen, and is written before a point's trials start. It
and the trials' records decide what the study holds: at the start of a run the study is compared with them and, where it says something
else (a run was killed, seeds were added, a failed trial is tried again), filled anew. So a study file may be lost, and a search resumes
on a store without files too. Each choice is seeded by its number: a search that is resumed goes on as if it had not been interrupted.

A point has one trial for each seed. It is told to the study when all of them have ended: complete with the means of its objectives,
pruned where a training was stopped, failed where a trial failed or lacks an objective, or its settings do not go together.
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
from engine.store.owned import SweepFolder
from engine.store.records import Record, TrialRecord, read_trial
from engine.store.store import Store
from engine.sweepfile.load import Spec
from tasks.parts.dotted import flatten
from tasks.parts.messages import quote
from tasks.parts.settings import UserError

NEW = "put that back, or begin a new study with --fresh or in other --results"


class Identity(Record):
    """What decides which study it is, as `search.json` and the study have it."""

    sweep: str = ""
    task: str
    search: dict[str, JsonValue]
    objective: list[JsonValue]
    searcher: dict[str, JsonValue]
    fixed: dict[str, JsonValue]


class SavedPoint(Record):
    """A point in `search.json`, as `Point` has it."""

    values: dict[str, JsonValue]
    system: dict[str, JsonValue]


class SavedStudy(Record):
    """What `search.json` holds."""

    study: Identity
    points: tuple[SavedPoint, ...]


@dataclass
class Point:
    """Values of the searched settings, and the trials that measure them.

    Attributes:
        system: what Optuna's sampler remembers of the point.
        refused: why the settings do not go together, where they do not.
    """

    values: dict[str, JsonValue]
    system: dict[str, JsonValue] = field(default_factory=dict)
    trials: list[Planned] = field(default_factory=list)
    refused: str | None = None


class Study:
    """The points of one search.

    Args:
        fresh: forget the points of before.

    Raises:
        SpecError: the storage is of another sweep or cannot be used; space, objective or searcher are not those of before.
    """

    def __init__(self, spec: Spec, store: Store, *, fresh: bool = False):
        quiet()
        self._spec, self._store, self._fresh = spec, store, fresh
        self._path = f"{spec.page}/search.json"
        self._folder = SweepFolder(store.within(spec.page), spec.name)
        self._records: dict[str, TrialRecord] = {}
        self._running: dict[int, optuna.Trial] = {}  # by number, of the points that have not ended
        self._file = study_file.file_of(spec, store)
        study_file.refuse_others(self._file, spec)
        saved = None if fresh else self._saved() or self._recovered()
        if saved is not None:
            self._refuse_changes(saved.study)
        self._new = saved is None
        self.points = [self._point(point.values, point.system) for point in (saved.points if saved else ())]

    @property
    def planned(self) -> list[Planned]:
        """The trials of the points that are known, each once."""
        here = self.points[: self._spec.sweep.trials]
        return list({item.key: item for point in here for item in point.trials}.values())

    @property
    def refused(self) -> list[str]:
        return [point.refused for point in self.points[: self._spec.sweep.trials] if point.refused]

    @property
    def remaining(self) -> int:
        """How many points are still to be chosen."""
        return max(0, (self._spec.sweep.trials or 0) - len(self.points))

    def ask(self) -> list[Planned]:
        """Chooses a point; returns its trials (none where its settings do not go together)."""
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
        """Takes the record of a trial that has ended; tells the study every point that ends with it."""
        self._records[planned.key] = record
        for number, point in enumerate(self.points):
            if any(item.key == planned.key for item in point.trials):
                self._tell(number)

    def open(self) -> None:
        """Opens the study, so that what is wrong with its storage is said before the work."""
        if self._fresh or self._store.record(self._path) is None:
            self._save()
        assert self._study is not None

    def rollback(self) -> None:
        """Forgets a study that began in this run, whose objective no trial reports: once that is mended it can begin."""
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
        """One value for each seed; NaN from an earlier run that had another objective, and left none."""
        records = [self._record(item) for item in point.trials]
        values = [record.summary.get(metric) if record else None for record in records]
        return [math.nan if value is None else float(value) for value in values]

    def _shown(self, point: Point) -> dict[str, JsonValue]:
        """What the dashboard shows of a point: its trials and, with several seeds, its objectives under each."""
        shown: dict[str, JsonValue] = {"trials": [item.key for item in point.trials]}
        if len(point.trials) > 1 and self._outcome(point)[0] is TrialState.COMPLETE:
            for objective in self._spec.sweep.objectives:
                values = self._values(point, objective.metric)
                shown[objective.metric] = f"{', '.join(f'{value:.4g}' for value in values)} over {len(values)} seeds"
        return shown | ({"refused": point.refused} if point.refused else {})

    def _record(self, item: Planned) -> TrialRecord | None:
        """A trial's record where it has ended and is not tried again."""
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
        sweep = self._spec.sweep
        return Identity(
            sweep=self._spec.name,
            task=sweep.task,
            search={
                name: d.model_dump(mode="json", by_alias=True, exclude_none=True) for name, d in sweep.search.items()
            },
            objective=[objective.model_dump() for objective in sweep.objectives],
            searcher=sweep.searcher.model_dump(),
            fixed=sweep.fixed,
        )

    def _refuse_changes(self, before: Identity) -> None:
        """Points were chosen by what came out of others: those must have been drawn from one space and judged alike."""
        now, error = self._identity, self._spec.source.error
        whole = {
            "task": (before.task, now.task),
            "objective": (before.objective, now.objective),
            "searcher": (before.searcher, now.searcher),
        }
        for entry, (was, becomes) in whole.items():
            if was != becomes:
                raise error(entry, f"was {quote(was)} when this study was begun; {NEW}")
        for entry, old, new in (
            ("search", before.search, now.search),
            ("fixed", self._fixed(before), self._fixed(now)),
        ):
            for name in [*new, *old]:
                if name not in new:
                    raise error(entry, f"had {name}: {quote(old[name])} when this study was begun; {NEW}")
                if name not in old:
                    raise error(f"{entry}.{name}", f"was not there when this study was begun; {NEW}")
                if old[name] != new[name]:
                    raise error(f"{entry}.{name}", f"was {quote(old[name])} when this study was begun; {NEW}")

    def _fixed(self, identity: Identity) -> dict[str, JsonValue]:
        """What is fixed, by dotted name, without what changes the speed alone."""
        speed = self._spec.task.Config.performance
        return {name: value for name, value in flatten(identity.fixed).items() if name not in speed}

    # The study in Optuna

    @cached_property
    def _study(self) -> optuna.Study:
        """The study in its storage, holding what the points and their trials' records say.

        It is filled anew where it holds something else, and where points of it were under way when
        a run was killed: Optuna gives the trial of such a point to no other process.
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
        except Exception as error:  # of SQLAlchemy, of the file system, of Optuna for a file of another version
            raise study_file.unusable(self._spec, self._file, error) from None

    def _begun(self, *, fresh: bool = False) -> optuna.Study:
        name, objectives = self._spec.page, self._spec.sweep.objectives
        return study_file.begun(self._storage, name, self._identity.to_json(), objectives, fresh=fresh or self._fresh)

    def _add(self, study: optuna.Study, points: list[Point]) -> None:
        """Enters points into the study; those that have not ended wait there, and `ask` takes them up."""
        frozen = [self._frozen(point) for point in points]
        study.add_trials(frozen)
        for trial in frozen:
            if trial.state is TrialState.WAITING:
                taken = study.ask()
                self._running[taken.number] = taken

    def _frozen(self, point: Point) -> optuna.trial.FrozenTrial:
        """A point as the study is to hold it."""
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
        """The points of before; None where there are none."""
        found = self._store.record(self._path, "study", "points")
        return None if found is None else SavedStudy.read(found)

    def _recovered(self) -> SavedStudy | None:
        """The points of the study in the storage, where the results have none: they were moved, or deleted."""
        if self._file is None or not self._file.exists():
            return None
        if self._spec.page not in optuna.get_all_study_names(self._storage):
            return None
        study = optuna.load_study(study_name=self._spec.page, storage=self._storage)
        trials = study.get_trials(deepcopy=False)
        if not trials:  # nothing is lost, and a run that was killed may have left it half begun
            return None
        identity = Identity.read(study.user_attrs[study_file.IDENTITY])
        self._refuse_changes(identity)  # the values of a point are known in its space alone
        points = [SavedPoint(values=self._decoded(t.params), system=t.system_attrs) for t in trials]
        return SavedStudy(study=identity, points=tuple(points))
