"""The trials of a run with Ray Tune, over a cluster.

A trial that Tune runs is a coordinator. It holds no CPU (`cpu: 0` and a sliver of the head node), so it takes no slot from the work
it starts as remote tasks, losing a worker node loses no trial, and only `max_concurrent_trials` bounds how many there are. Resuming
is ours, by what is in the store; Tune's own state goes to a folder that is thrown away.

Tune pickles all that it is given: the trainable for the workers, and the rest into its own state, before the first trial and
again and again. What belongs to this process (the display with its terminal, the study with its database) cannot be pickled,
and is never to be looked for in a copy. So the classes below stand at the top of a module, where pickle finds them by name,
and reach this process through `Ours`, which leaves everything behind when it is pickled.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from shutil import rmtree
from typing import Any, Protocol

import ray
from ray import tune

from engine.plan.plan import Planned
from engine.run.context import Job, Report, judged
from engine.run.progress import Progress
from engine.run.trial import run
from engine.search.early_stopping import Curves, Judge
from engine.store.records import TrialRecord
from engine.sweepfile.schema import Scheduler
from engine.terminal import on_leaving

REPORT_EVERY = 0.5
"""Seconds between two progress reports of a trial."""
ON_THE_HEAD = {"node:__internal_head__": 0.001}


class Trials(Protocol):
    """The trials of a run, as `engine.run.launch.Feed`."""

    refused: Any
    handed: int

    @property
    def most(self) -> int: ...

    def next(self) -> Planned | None: ...

    def take(self, planned: Planned, record: TrialRecord) -> None: ...


class Ours:
    """What of this process Tune's search algorithm, callback and stopper work on; they share one. A copy made by pickle is empty.

    Attributes:
        given: the trials that Tune has, by its own names for them.
    """

    def __init__(self, feed: Trials, progress: Progress):
        self.feed, self.progress = feed, progress
        self.given: dict[str, Planned] = {}

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()

    def __deepcopy__(self, memo: Any) -> Ours:
        return self  # it stays in this process


class Ask(tune.search.Searcher):
    """Gives Tune the trials of the feed, and the feed what became of those whose process died."""

    def __init__(self, ours: Ours) -> None:
        super().__init__()
        self._ours = ours

    def suggest(self, trial_id: str) -> Any:
        planned = self._ours.feed.next()
        self._ours.progress.expect(self._ours.feed.handed + self._ours.feed.most)
        if planned is None:
            return self.FINISHED
        self._ours.given[trial_id] = planned
        return {"planned": planned}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            planned, record = self._ours.given[trial_id], TrialRecord(status="failed", error="its process died")
            self._ours.feed.take(planned, record)
            self._ours.progress.finish(planned.key, planned.trial.label, record)

    def save(self, checkpoint_path: str) -> None:
        pass  # resuming is ours

    def restore(self, checkpoint_path: str) -> None:
        pass


class Listener(tune.Callback):
    """Passes on what the trials say."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        planned, progress = trial.config["planned"], self._ours.progress
        if "record" in result:
            record = TrialRecord.read(result["record"])
            self._ours.feed.take(planned, record)
            progress.finish(planned.key, planned.trial.label, record)
        else:
            progress.update(planned.key, planned.trial.label, result["progress"])


class Refused(tune.Stopper):
    """Ends a run that makes no sense."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._ours.feed.refused is not None


def coordinator(config: dict[str, Any], job: Job, judge: Any) -> None:
    """What Tune runs of a trial, in a process of its own."""
    # Nested, since Tune gives names such as `done` at the top a meaning of its own.
    said = _throttled(lambda progress: tune.report({"progress": progress}))
    if judge is not None:
        said = judged(config["planned"], said, lambda *epoch: ray.get(judge.stops.remote(*epoch)))
    tune.report({"record": run(config["planned"], job, said)})


def run_all(
    job: Job, feed: Trials, judging: tuple[Scheduler, Curves] | None, progress: Progress, at_once: int, retries: int
) -> None:
    """Runs the trials of the feed, so many at once.

    Args:
        judging: who stops trainings, and the trainings of earlier runs.
        retries: how often a trial is started again whose process died.
    """
    judge = None
    if judging:  # one for all trials, on the head node like them
        judge = ray.remote(num_cpus=0, resources=ON_THE_HEAD)(Judge).remote(*judging)
    with tempfile.TemporaryDirectory(prefix="inputscape-tune-") as folder, on_leaving(partial(rmtree, folder, True)):
        search, listener, refused = given(Ours(feed, progress))
        trainable = tune.with_parameters(coordinator, job=job, judge=judge)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0, **ON_THE_HEAD}),
            tune_config=tune.TuneConfig(
                search_alg=search, num_samples=-1, max_concurrent_trials=at_once, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name=job.page,
                storage_path=folder,
                verbose=0,
                stop=refused,
                callbacks=[listener],
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        ).fit()


def given(ours: Ours) -> tuple[Ask, Listener, Refused]:
    """What Tune is given that works on this process."""
    return Ask(ours), Listener(ours), Refused(ours)


def _throttled(report: Report) -> Report:
    """Passes on a first report, a changed phase, and else one every so often."""
    last: dict[str, Any] = {"at": 0.0, "phase": None}

    def throttled(said: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - last["at"] > REPORT_EVERY or said["phase"] != last["phase"]:
            last.update(at=now, phase=said["phase"])
            report(said)

    return throttled
