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
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.plan.plan import Planned, plan_one, trial_record
from engine.search import study_file
from engine.search.distributions import decoded, distributions, encoded, quiet
from engine.store.owned import SweepFolder
from engine.store.store import Store, content_hash
from engine.sweepfile.load import Spec
from tasks.parts.dotted import flatten
from tasks.parts.messages import quote
from tasks.parts.settings import UserError

if TYPE_CHECKING:
    import optuna

NEW = "put that back, or begin a new study with --fresh or in other --results"


@dataclass
class Point:
    """Values of the searched settings, and the trials that measure them.

    Attributes:
        system: what Optuna's sampler remembers of the point.
        refused: why the settings do not go together, where they do not.
    """

    values: dict[str, Any]
    system: dict[str, Any] = field(default_factory=dict)
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
        self._spec, self._store, self._fresh = spec, store, fresh
        self._path = f"{spec.page}/search.json"
        self._folder = SweepFolder(store.within(spec.page), spec.name)
        self._records: dict[str, Mapping[str, Any]] = {}
        self._file = study_file.file_of(spec, store)
        study_file.refuse_others(self._file, spec)
        saved: dict[str, Any] | None = None
        if not fresh:
            saved = store.record(self._path, "study", "points") or self._adopted()
        if saved:
            self._refuse_changes(saved["study"])
        self._new = not saved
        self.points = [self._point(entry["values"], entry["system"]) for entry in (saved or {"points": []})["points"]]

    @property
    def planned(self) -> list[Planned]:
        """The trials of the points that are known, each once."""
        here = self.points[: self._spec.sweep.trials]
        return list({item.key: item for point in here for item in point.trials}.values())

    @property
    def refused(self) -> list[str]:
        return [point.refused for point in self.points[: self._spec.sweep.trials] if point.refused]

    @property
    def left(self) -> int:
        """How many points are still to be chosen."""
        return max(0, (self._spec.sweep.trials or 0) - len(self.points))

    def ask(self) -> list[Planned]:
        """Chooses a point; returns its trials (none where its settings do not go together)."""
        import optuna

        sweep, number = self._spec.sweep, len(self.points)
        if sweep.adaptive:
            self._study.sampler = self._sampler(number)
            self._study.ask(distributions(sweep))
            trial = self._study.get_trials(deepcopy=False)[number]
            point = self._point(self._decoded(trial.params), dict(trial.system_attrs))
        else:
            point = self._point(
                {name: d.draw(name, number, sweep.searcher.seed) for name, d in sweep.search.items()}, {}
            )
            self._study.add_trial(self._frozen(point))
        self.points.append(point)
        self._save()
        if sweep.adaptive:
            handle = optuna.trial.Trial(self._study, trial._trial_id)
            handle.set_user_attr("trials", [item.key for item in point.trials])
        self._tell(number)
        return point.trials

    def take(self, planned: Planned, record: Mapping[str, Any]) -> None:
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

    def withdraw(self) -> None:
        """Forgets a study that began in this run, whose objective no trial reports: once that is mended it can begin."""
        import optuna

        if self._new:
            self._folder.remove(["search.json"])
            optuna.delete_study(study_name=self._spec.page, storage=self._storage)

    def _tell(self, number: int) -> None:
        import optuna

        state, values = self._outcome(self.points[number])
        trial = self._study.get_trials(deepcopy=False)[number]
        if state == "RUNNING" or trial.state.is_finished():
            return
        handle = optuna.trial.Trial(self._study, trial._trial_id)
        for name, value in self._told(self.points[number]).items():
            handle.set_user_attr(name, value)
        self._study.tell(number, values, state=optuna.trial.TrialState[state])

    def _outcome(self, point: Point) -> tuple[str, list[float] | None]:
        """The name of a point's state in the study, and its values."""
        records = [self._record(item) for item in point.trials]
        states = [record["status"] if record else "running" for record in records]
        if point.refused or "failed" in states:
            return "FAIL", None
        if "running" in states:
            return "RUNNING", None
        if "stopped" in states:
            return "PRUNED", None
        values = [self._values(point, objective.metric) for objective in self._spec.sweep.objectives]
        if not all(map(math.isfinite, itertools.chain(*values))):
            return "FAIL", None
        return "COMPLETE", [statistics.fmean(of) for of in values]

    def _values(self, point: Point, metric: str) -> list[float]:
        """One value for each seed; NaN from an earlier run that had another objective, and left none."""
        summaries = [(self._record(item) or {}).get("summary") or {} for item in point.trials]
        return [float("nan") if summary.get(metric) is None else float(summary[metric]) for summary in summaries]

    def _told(self, point: Point) -> dict[str, Any]:
        """What the dashboard shows of a point: its trials and, with several seeds, its objectives under each."""
        told: dict[str, Any] = {"trials": [item.key for item in point.trials]}
        if len(point.trials) > 1 and self._outcome(point)[0] == "COMPLETE":
            for objective in self._spec.sweep.objectives:
                values = self._values(point, objective.metric)
                told[objective.metric] = f"{', '.join(f'{value:.4g}' for value in values)} over {len(values)} seeds"
        return told | ({"refused": point.refused} if point.refused else {})

    def _record(self, item: Planned) -> Mapping[str, Any] | None:
        """A trial's record where it has ended and is not tried again."""
        if item.key not in self._records:
            found = None if self._fresh else trial_record(item, self._store)
            if found is None or found["status"] not in self._spec.ended:
                return None
            self._records[item.key] = found
        return self._records[item.key]

    def _point(self, values: dict[str, Any], system: dict[str, Any]) -> Point:
        try:
            trials = [plan_one(self._spec, trial) for trial in self._spec.at(values)]
        except UserError as error:
            return Point(values, system, [], error.message)
        return Point(values, system, trials)

    def _save(self) -> None:
        points = [{"values": point.values, "system": point.system} for point in self.points]
        self._folder.write_json("search.json", {"study": self._identity, "points": points})

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What decides which study it is."""
        sweep = self._spec.sweep
        return {
            "sweep": self._spec.name,
            "task": sweep.task,
            "search": {
                name: d.model_dump(mode="json", by_alias=True, exclude_none=True) for name, d in sweep.search.items()
            },
            "objective": [objective.model_dump() for objective in sweep.objectives],
            "searcher": sweep.searcher.model_dump(),
            "fixed": json.loads(json.dumps(sweep.fixed)),
        }

    def _refuse_changes(self, before: Mapping[str, Any]) -> None:
        """Points were chosen by what came out of others: those must have been drawn from one space and judged alike."""
        now, error = self._identity, self._spec.source.error
        for entry in ("task", "objective", "searcher"):
            if before[entry] != now[entry]:
                raise error(entry, f"was {quote(before[entry])} when this study was begun; {NEW}")
        speed = self._spec.task.Config.performance
        settled = {"search": list, "fixed": lambda held: [name for name in flatten(held) if name not in speed]}
        for entry, names in settled.items():
            old, new = ({name: _at(held[entry], name) for name in names(held[entry])} for held in (before, now))
            for name in [*new, *old]:
                if name not in new:
                    raise error(entry, f"had {name}: {quote(old[name])} when this study was begun; {NEW}")
                if name not in old:
                    raise error(f"{entry}.{name}", f"was not there when this study was begun; {NEW}")
                if old[name] != new[name]:
                    raise error(f"{entry}.{name}", f"was {quote(old[name])} when this study was begun; {NEW}")

    # The study in Optuna

    @cached_property
    def _study(self) -> optuna.Study:
        """The study in its storage, holding what the points and their trials' records say."""
        import optuna

        quiet()
        study = self._created()
        wanted = [self._frozen(point) for point in self.points]
        if [(t.state, t.params, t.values) for t in study.get_trials()] != [
            (t.state, t.params, t.values) for t in wanted
        ]:
            optuna.delete_study(study_name=self._spec.page, storage=self._storage)
            study = self._created()
            study.add_trials(wanted)
        return study

    @cached_property
    def _storage(self) -> Any:
        try:
            return study_file.opened(self._file)
        except Exception as error:  # of SQLAlchemy, of the file system, of Optuna for a file of another version
            raise study_file.unusable(self._spec, self._file, error) from None

    def _created(self) -> optuna.Study:
        """The study in its storage; a new one in place of one that was begun otherwise, or is to be forgotten."""
        import optuna

        name, objectives = self._spec.page, self._spec.sweep.objectives
        maximise, minimise = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [maximise if objective.mode == "max" else minimise for objective in objectives]
        if name in optuna.get_all_study_names(self._storage):
            study = optuna.load_study(study_name=name, storage=self._storage)
            same = study.user_attrs.get(study_file.IDENTITY) == self._identity and study.directions == directions
            if same and not self._fresh:
                return study
            optuna.delete_study(study_name=name, storage=self._storage)
        study = optuna.create_study(study_name=name, storage=self._storage, directions=directions)
        study.set_user_attr(study_file.IDENTITY, self._identity)
        study.set_metric_names([objective.metric for objective in objectives])
        return study

    def _frozen(self, point: Point) -> optuna.trial.FrozenTrial:
        """A point as the study is to hold it."""
        import optuna

        state, values = self._outcome(point)
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            values=values,
            params=encoded(self._spec.sweep, point.values),
            distributions=distributions(self._spec.sweep),
            system_attrs=point.system,
            user_attrs=self._told(point),
        )

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        import optuna

        searcher = self._spec.sweep.searcher
        seed = int(content_hash([searcher.seed, number])[:8], 16)
        if searcher.name == "nsga2":

            class InOrder(optuna.samplers.NSGAIISampler):
                """Has a generation's parents in the order of their numbers also when it has just selected them, not only when it looks
                up which they were: a study that is filled anew goes on as the old one would have."""

                def select_parent(self, study: Any, generation: int) -> list[optuna.trial.FrozenTrial]:
                    return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)

            return InOrder(population_size=searcher.population, seed=seed)
        return optuna.samplers.TPESampler(n_startup_trials=searcher.startup, seed=seed, constant_liar=True)

    def _decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: decoded(drawn, params[name]) for name, drawn in self._spec.sweep.search.items()}

    def _adopted(self) -> dict[str, Any] | None:
        """The points of the study in the storage, where the results have none: they were moved, or deleted."""
        if self._file is None or not self._file.exists():
            return None
        import optuna

        quiet()
        if self._spec.page not in optuna.get_all_study_names(self._storage):
            return None
        study = optuna.load_study(study_name=self._spec.page, storage=self._storage)
        trials = study.get_trials(deepcopy=False)
        if not trials:  # nothing is lost, and a run that was killed may have left it half begun
            return None
        identity = study.user_attrs[study_file.IDENTITY]
        self._refuse_changes(identity)
        points = [{"values": self._decoded(t.params), "system": dict(t.system_attrs)} for t in trials]
        return {"study": identity, "points": points}


def _at(entries: Mapping[str, Any], name: str) -> Any:
    if name in entries:
        return entries[name]
    for part in name.split("."):
        entries = entries[part]
    return entries
