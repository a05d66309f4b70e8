"""Running the trials of a sweep: with Ray Tune over a cluster (see `engine.run.ray_tune`), or one after the other in this process."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from engine.plan.plan import Planned, plan, status
from engine.run.context import Job, judged
from engine.run.executors import LocalExecutor, RayExecutor
from engine.run.progress import Progress
from engine.run.trial import run
from engine.run.workers import Surroundings
from engine.search.early_stopping import Curves, Judge
from engine.search.study import Study
from engine.store.owned import clear_trial
from engine.store.records import Epoch, TrialRecord, read_trial
from engine.store.store import Store
from engine.sweepfile.load import Spec
from engine.sweepfile.yaml_lines import SpecError
from engine.terminal import dimensions, say


@contextmanager
def executor(spec: Spec, *, local: bool, address: str | None) -> Iterator[LocalExecutor | RayExecutor]:
    """What the work is done with: this process, or a Ray cluster (the one at `address`, or one started here and ended after).

    Raises:
        SpecError: the sweep asks for GPUs or CPUs that no node has; no cluster answers at the address.
    """
    if local:
        if spec.sweep.resources.gpus not in ("auto", 0) and not torch.cuda.is_available():
            raise _no_gpu(spec, "this machine has none that torch can use")
        yield LocalExecutor()
        return
    import ray

    try:
        _connect(address)
        yield _over_ray(spec)
    finally:
        ray.shutdown()


class Feed:
    """The trials of a run, one after the other: those that are known, then those that a search asks for; it takes their records.

    Attributes:
        handed: how many trials were given out.
        refused: why the run makes no sense; no trial is given out any more.
    """

    def __init__(
        self, spec: Spec, store: Store, todo: Sequence[Planned], study: Study | None = None, *, fresh: bool = False
    ):
        self._spec, self._store, self._study, self._fresh = spec, store, study, fresh
        self._waiting = deque(todo)
        self._seen = {item.key for item in todo}
        self._reported = False  # whether some trial has all objectives
        self.handed = 0
        self.refused: SpecError | None = None

    @property
    def most(self) -> int:
        """How many trials there still may be."""
        asked = self._study.left * len(self._spec.sweep.seed_list or [0]) if self._study else 0
        return len(self._waiting) + asked

    def next(self) -> Planned | None:
        while not self._waiting and self._study is not None and self._study.left and self.refused is None:
            for item in self._study.ask():
                if item.key not in self._seen and (self._fresh or status(item, self._store) not in self._spec.ended):
                    self._waiting.append(item)
                self._seen.add(item.key)
        if not self._waiting or self.refused is not None:
            return None
        item = self._waiting.popleft()
        if self._fresh:
            clear_trial(item.folder, self._store)
        self.handed += 1
        return item

    def take(self, planned: Planned, record: TrialRecord) -> None:
        """The record of a trial that has ended."""
        self._reported |= record.status == "done"
        if record.unreported is not None and not self._reported:
            self.refused = self._spec.unreported(record.unreported, record.reports)
        if self._study is not None:
            self._study.take(planned, record)

    def withdraw(self) -> None:
        """Takes back what a run that was refused has begun, apart from its trials."""
        if self._study is not None:
            self._study.withdraw()

    def curves(self) -> Curves:
        """The epochs of the trainings of earlier runs: a scheduler compares with them too."""
        there = self._study.planned if self._study else plan(self._spec)
        found: dict[str, Sequence[Epoch]] = {}
        for item in there:
            if item.classifier and status(item, self._store) in self._spec.ended and not self._fresh:
                record = read_trial(self._store, item.folder) or TrialRecord()
                found[item.classifier.key] = max(record.epochs, found.get(item.classifier.key, ()), key=len)
        return found


def run_all(
    spec: Spec,
    store: Store,
    feed: Feed,
    by: LocalExecutor | RayExecutor,
    progress: Progress,
    at_once: int | None = None,
) -> None:
    """Runs the trials; each leaves its `trial.json`, also when it fails.

    Args:
        by: what `executor` gave.
        at_once: trials at once; as the sweep says, or by the cluster's size, where None.

    Raises:
        SpecError: no trial reports an objective.
    """
    resources = spec.sweep.resources
    judging = (spec.sweep.scheduler, feed.curves()) if spec.sweep.scheduler else None
    if isinstance(by, LocalExecutor):
        on_gpu = resources.gpus != 0 and torch.cuda.is_available()
        job = Job.of(spec, store, by, Surroundings("cuda" if on_gpu else "cpu", resources.cpus, spec.data_root))
        judge = Judge(*judging) if judging else None
        while (planned := feed.next()) is not None:
            said = partial(progress.update, planned.key, planned.trial.label)
            record = TrialRecord.read(run(planned, job, judged(planned, said, judge.stops) if judge else said))
            feed.take(planned, record)
            progress.expect(feed.handed + feed.most)
            progress.finish(planned.key, planned.trial.label, record)
    else:
        job = Job.of(spec, store, by, Surroundings("cuda" if by.gpus else "cpu", resources.cpus, spec.data_root))
        most = at_once or resources.max_concurrent or max(2, min(8, by.slots))
        from engine.run import ray_tune

        ray_tune.run_all(job, feed, judging, progress, max(1, min(most, feed.most)), resources.retries)
    if feed.refused is not None:
        feed.withdraw()
        raise feed.refused


def _connect(address: str | None) -> None:
    """Joins the cluster at the address (or in RAY_ADDRESS), or starts one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C reaches us, and so ends the run at once
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None and "RAY_ADDRESS" not in os.environ:
        _tell_who_waits("starting Ray ...")
        ray.init(address="local", include_dashboard=False, **options)
        return
    address = address or os.environ["RAY_ADDRESS"]
    _knock(address)
    _tell_who_waits(f"joining the Ray cluster at {address} ...")
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SpecError(f"--address {address}: no Ray cluster answers there: {reason}") from None


def _tell_who_waits(text: str) -> None:
    """What takes some seconds is said at a terminal; elsewhere a mistake that comes of it stays one line."""
    if dimensions(sys.stderr) is not None:
        say(text)


def _knock(address: str) -> None:
    """Tries a `host:port` address before Ray does, which takes a minute and many lines to give up."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, or a name that only Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise SpecError(f"--address {address}: no Ray cluster answers there: {error.strerror or error}") from None


def _over_ray(spec: Spec) -> RayExecutor:
    """How tasks are started, with the GPUs that each gets."""
    import ray

    resources = spec.sweep.resources
    most = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    cores = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    gpus = (1.0 if most else 0.0) if resources.gpus == "auto" else float(resources.gpus)
    if gpus > most and not resources.nodes_may_join:
        raise _no_gpu(spec, f"the largest node has {most:g}")
    if resources.cpus > cores and not resources.nodes_may_join:
        message = f"{resources.cpus} a task are asked for, the largest node has {cores:g}"
        raise spec.source.error("resources.cpus", message)
    return RayExecutor(resources.cpus, gpus, resources.retries)


def _no_gpu(spec: Spec, have: str) -> SpecError:
    message = f"{spec.sweep.resources.gpus:g} a task are asked for, {have}; use 0, or auto for what there is"
    return spec.source.error("resources.gpus", message)
