"""Running the trials of a sweep: with Ray Tune over a cluster, or one after the other in this process.

A trial that Tune runs is a coordinator. It holds no CPU (`cpu: 0` and a sliver of the head node), so it takes no slot from the work
it starts as remote tasks, losing a worker node loses no trial, and only `max_concurrent_trials` bounds how many there are. Resuming
is ours, by what is in the store; Tune's own state goes to a folder that is thrown away.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from engine.job import Job
from engine.plan import Planned
from engine.progress import Progress
from engine.scatter import Here, OverRay
from engine.source import SpecError
from engine.spec import Spec
from engine.store import Store
from engine.trial import run
from engine.work import Surroundings

REPORT_EVERY = 0.5
"""Seconds between two progress reports of a trial."""


@contextmanager
def hands(spec: Spec, *, local: bool, address: str | None) -> Iterator[Here | OverRay]:
    """What the work is done with: this process, or a Ray cluster (the one at `address`, or one started here and ended after).

    Raises:
        SpecError: the sweep asks for GPUs or CPUs that no node has; no cluster answers at the address.
    """
    if local:
        if spec.sweep.resources.gpus not in ("auto", 0) and not torch.cuda.is_available():
            raise _no_gpu(spec, "this machine has none that torch can use")
        yield Here()
        return
    import ray

    _connect(address)
    try:
        yield _over_ray(spec)
    finally:
        ray.shutdown()


def run_all(
    spec: Spec, store: Store, todo: list[Planned], by: Here | OverRay, progress: Progress, at_once: int | None = None
) -> None:
    """Runs the trials; each leaves its `trial.json`, also when it fails.

    Args:
        by: what `hands` gave.
        at_once: trials at once; as the sweep says, or by the cluster's size, where None.
    """
    resources = spec.sweep.resources
    if isinstance(by, Here):
        on_gpu = resources.gpus != 0 and torch.cuda.is_available()
        job = Job.of(spec, store, by, Surroundings("cuda" if on_gpu else "cpu", resources.cpus, spec.data_root))
        for planned in todo:
            said = partial(progress.update, planned.key, planned.trial.label)
            progress.finish(planned.key, planned.trial.label, run(planned, job, said))
        return
    job = Job.of(spec, store, by, Surroundings("cuda" if by.gpus else "cpu", resources.cpus, spec.data_root))
    _tune(job, todo, progress, at_once or resources.max_concurrent or max(2, min(8, by.slots)), resources.retries)


def _tune(job: Job, todo: list[Planned], progress: Progress, at_once: int, retries: int) -> None:
    from ray import tune

    def coordinator(config: dict[str, Any], todo: list[Planned], job: Job) -> None:
        # Nested, since Tune gives names such as `done` at the top a meaning of its own.
        said = _throttled(lambda progress: tune.report({"progress": progress}))
        tune.report({"record": run(todo[config["index"]], job, said)})

    class Listener(tune.Callback):
        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            planned = todo[trial.config["index"]]
            if "record" in result:
                progress.finish(planned.key, planned.trial.label, result["record"])
            else:
                progress.update(planned.key, planned.trial.label, result["progress"])

    trainable = tune.with_parameters(coordinator, todo=todo, job=job)
    with tempfile.TemporaryDirectory(prefix="inputscape-tune-") as folder:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0, "node:__internal_head__": 0.001}),
            param_space={"index": tune.grid_search(list(range(len(todo))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=min(at_once, len(todo)), reuse_actors=True),
            run_config=tune.RunConfig(
                name=job.sweep,
                storage_path=folder,
                verbose=0,
                callbacks=[Listener()],
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        ).fit()


def _connect(address: str | None) -> None:
    """Joins the cluster at the address (or in RAY_ADDRESS), or starts one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C reaches us, and so ends the run at once
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None and "RAY_ADDRESS" not in os.environ:
        ray.init(address="local", include_dashboard=False, **options)
        return
    address = address or os.environ["RAY_ADDRESS"]
    _knock(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SpecError(f"--address {address}: no Ray cluster answers there: {reason}") from None


def _knock(address: str) -> None:
    """Tries a `host:port` address before Ray does, which takes a minute and many lines to give up."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, or a name that only Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise SpecError(f"--address {address}: no Ray cluster answers there: {error.strerror or error}") from None


def _over_ray(spec: Spec) -> OverRay:
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
    return OverRay(resources.cpus, gpus, resources.retries)


def _no_gpu(spec: Spec, have: str) -> SpecError:
    message = f"{spec.sweep.resources.gpus:g} a task are asked for, {have}; use 0, or auto for what there is"
    return spec.source.error("resources.gpus", message)


def _throttled(report: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Passes on a first report, a changed phase, and else one every so often."""
    last: dict[str, Any] = {"at": 0.0, "phase": None}

    def throttled(said: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - last["at"] > REPORT_EVERY or said["phase"] != last["phase"]:
            last.update(at=now, phase=said["phase"])
            report(said)

    return throttled
