"""Runs the trials of a sweep, with Ray Tune over a cluster or in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.execution import local as in_this_process
from engine.execution.context import Job
from engine.execution.executors import LocalExecutor, RayExecutor
from engine.execution.progress import Progress
from engine.execution.ray_cluster import connect, no_gpu, ray_executor
from engine.execution.trial_queue import TrialQueue
from engine.execution.workers import RunContext
from engine.store.store import Store
from engine.sweepfile.load import Spec


@contextmanager
def executor(spec: Spec, *, local: bool, address: str | None) -> Iterator[LocalExecutor | RayExecutor]:
    """The executor of this run, for as long as it is needed.

    Args:
        spec: the sweep.
        local: without Ray, in this process.
        address: of a Ray cluster; None starts one for this run.

    Raises:
        SpecError: the sweep asks for GPUs or CPUs that no node has, or no cluster answers at the
            address.
    """
    if local:
        if spec.sweep.resources.gpus not in ("auto", 0) and not torch.cuda.is_available():
            raise no_gpu(spec, "this machine has none that torch can use")
        yield LocalExecutor()
        return
    import ray

    try:
        connect(address)
        yield ray_executor(spec)
    finally:
        ray.shutdown()


def run_all(
    spec: Spec,
    store: Store,
    queue: TrialQueue,
    by: LocalExecutor | RayExecutor,
    progress: Progress,
    at_once: int | None = None,
) -> None:
    """Runs the trials of a queue; each leaves its `trial.json`, also when it fails.

    Args:
        spec: the sweep.
        store: of all results.
        queue: of the trials.
        by: what `executor` gave.
        progress: the display.
        at_once: how many trials run at once; None: as the sweep says, or by the cluster's size.

    Raises:
        SpecError: no trial reports an objective.
    """
    resources = spec.sweep.resources
    on_gpu = resources.gpus != 0 and torch.cuda.is_available() if isinstance(by, LocalExecutor) else by.gpus > 0
    job = Job.of(spec, store, by, RunContext("cuda" if on_gpu else "cpu", resources.cpus, spec.data_root))
    stopping = (spec.sweep.scheduler, queue.curves()) if spec.sweep.scheduler else None
    if isinstance(by, LocalExecutor):
        in_this_process.run_all(job, queue, stopping, progress)
    else:
        from engine.execution import ray_tune

        most = at_once or resources.max_concurrent or max(2, min(8, by.slots))
        ray_tune.run_all(job, queue, stopping, progress, max(1, min(most, queue.remaining)), resources.retries)
    if queue.refused is not None:
        queue.rollback()
        raise queue.refused
