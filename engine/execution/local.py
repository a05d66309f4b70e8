"""Runs trials without Ray, one after the other in this process."""

from __future__ import annotations

from functools import partial

from engine.execution.context import Job, judged
from engine.execution.progress import Progress
from engine.execution.trial import run
from engine.execution.trial_queue import TrialQueue
from engine.search.early_stopping import Curves, Pruner
from engine.sweepfile.schema import Scheduler


def run_all(job: Job, queue: TrialQueue, stopping: tuple[Scheduler, Curves] | None, progress: Progress) -> None:
    """Runs the trials of the queue.

    Args:
        job: what the trials share.
        queue: of the trials.
        stopping: what stops trainings early, and the trainings of earlier runs.
        progress: the display.
    """
    pruner = Pruner(*stopping) if stopping else None
    while (planned := queue.next()) is not None:
        report = partial(progress.update, planned.key, planned.trial.label)
        record = run(planned, job, judged(planned, report, pruner.stops) if pruner else report)
        queue.finish(planned, record)
        progress.expect(queue.started + queue.remaining)
        progress.finish(planned.key, planned.trial.label, record)
