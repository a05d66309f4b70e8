"""Runs trials with Ray Tune, over a cluster.

A trial that Tune runs is a coordinator. It holds no CPU (`cpu: 0` and a sliver of the head node).
So it takes no slot from the work that it starts as remote tasks, losing a worker node loses no
trial, and only `max_concurrent_trials` bounds how many there are. Resuming is ours, by what is in
the store; Tune's own state goes to a folder that is thrown away.

Tune pickles all that it is given: the trainable for the workers, and the rest into its own state,
before the first trial and again and again. What belongs to this process (the display with its
terminal, the study with its database) cannot be pickled, and a copy of it would be of no use. So
the classes below stand at the top of a module, where pickle finds them by name. They reach this
process through `Driver`, which leaves everything behind when it is pickled.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from shutil import rmtree
from typing import Any, Protocol

import ray
from ray import tune
from ray.actor import ActorMethod

from engine.execution.context import Job, judged
from engine.execution.events import Event, Report
from engine.execution.progress import Progress
from engine.execution.trial import run
from engine.execution.trial_queue import TrialQueue
from engine.plan.plan import Planned
from engine.search.early_stopping import Curves, Pruner
from engine.store.records import TrialRecord
from engine.sweepfile.schema import Scheduler
from engine.terminal import on_leaving

REPORT_EVERY = 0.5
"""Seconds between two progress reports of a trial."""


class TuneTrial(Protocol):
    """The part of a Tune trial that is used here."""

    @property
    def config(self) -> Mapping[str, Planned]:
        """The trial, as `planned`."""


class RemotePruner(Protocol):
    """The part of a `Pruner` in a Ray actor that is used here."""

    @property
    def stops(self) -> ActorMethod:
        """Its method `stops`, to be called remotely."""


ON_THE_HEAD = {"node:__internal_head__": 0.001}


class Driver:
    """Holds what belongs to this process: the queue and the display.

    The search algorithm, callback and stopper that Tune is given share one. A copy made by pickle
    is empty.

    Attributes:
        queue: of the trials.
        progress: the display.
        started: the trials that Tune has, by its own names for them.
    """

    def __init__(self, queue: TrialQueue, progress: Progress):
        self.queue, self.progress = queue, progress
        self.started: dict[str, Planned] = {}

    def finish(self, planned: Planned, record: TrialRecord) -> None:
        """Takes the record of a trial that has ended."""
        self.queue.finish(planned, record)
        self.progress.finish(planned.key, planned.trial.label, record)

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()

    def __deepcopy__(self, memo: object) -> Driver:
        return self  # it stays in this process


class QueueSearcher(tune.search.Searcher):
    """A search algorithm of Tune's that suggests the trials of the queue."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's configuration, or Tune's word that there is no other."""
        queue = self._driver.queue
        planned = queue.next()
        self._driver.progress.expect(queue.started + queue.remaining)
        if planned is None:
            return self.FINISHED
        self._driver.started[trial_id] = planned
        return {"planned": planned}

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        """Records the failure of a trial whose process died."""
        if error:
            self._driver.finish(self._driver.started[trial_id], TrialRecord(status="failed", error="its process died"))

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: resuming is ours."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing."""


class ReportCallback(tune.Callback):
    """A callback of Tune's that passes on the trials' events and records."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def on_trial_result(
        self, iteration: int, trials: Sequence[object], trial: TuneTrial, result: Mapping[str, object], **_: object
    ) -> None:
        """Takes what a trial has reported: an event or, at its end, its record."""
        planned = trial.config["planned"]
        if isinstance(event := result.get("progress"), Event):
            self._driver.progress.update(planned.key, planned.trial.label, event)
        else:
            self._driver.finish(planned, TrialRecord.read(result["record"]))


class RefusalStopper(tune.Stopper):
    """A stopper of Tune's that ends a run whose queue has refused it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __call__(self, trial_id: str, result: object) -> bool:
        """Whether a single trial stops: never, since early stopping is ours."""
        return False

    def stop_all(self) -> bool:
        """Whether the whole run stops."""
        return self._driver.queue.refused is not None


def coordinator(config: Mapping[str, Planned], job: Job, pruner: RemotePruner | None) -> None:
    """A trial as Tune runs it, in a process of its own."""
    # Nested, since Tune gives names such as `done` at the top a meaning of its own.
    report = _throttled(lambda event: tune.report({"progress": event}))
    if pruner is not None:
        report = judged(config["planned"], report, lambda *epoch: ray.get(pruner.stops.remote(*epoch)))
    tune.report({"record": run(config["planned"], job, report).to_json()})


def run_all(
    job: Job,
    queue: TrialQueue,
    stopping: tuple[Scheduler, Curves] | None,
    progress: Progress,
    at_once: int,
    retries: int,
) -> None:
    """Runs the trials of the queue.

    Args:
        job: what the trials share.
        queue: of the trials.
        stopping: what stops trainings early, and the trainings of earlier runs.
        progress: the display.
        at_once: how many trials run at once.
        retries: how often a trial is started again whose process died.
    """
    pruner = None
    if stopping:  # one pruner for all trials, on the head node like them
        pruner = ray.remote(num_cpus=0, resources=ON_THE_HEAD)(Pruner).remote(*stopping)
    with tempfile.TemporaryDirectory(prefix="inputscape-tune-") as folder, on_leaving(partial(rmtree, folder, True)):
        searcher, callback, stopper = handles(Driver(queue, progress))
        trainable = tune.with_parameters(coordinator, job=job, pruner=pruner)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0, **ON_THE_HEAD}),
            tune_config=tune.TuneConfig(
                search_alg=searcher, num_samples=-1, max_concurrent_trials=at_once, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name=job.page,
                storage_path=folder,
                verbose=0,
                stop=stopper,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        ).fit()


def handles(driver: Driver) -> tuple[QueueSearcher, ReportCallback, RefusalStopper]:
    """The search algorithm, callback and stopper that Tune is given."""
    return QueueSearcher(driver), ReportCallback(driver), RefusalStopper(driver)


def _throttled(report: Report) -> Report:
    """A report that takes the first event of each phase, and then one every so often."""
    last, phase = 0.0, ""

    def throttled(event: Event) -> None:
        nonlocal last, phase
        now = time.monotonic()
        if now - last > REPORT_EVERY or event.phase != phase:
            last, phase = now, event.phase
            report(event)

    return throttled
