"""The rules of early stopping decide as Ray Tune's schedulers of the same names do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from engine.execution.context import Stopped, judged
from engine.execution.events import Event, StepEnded
from engine.plan.plan import Planned
from engine.search.early_stopping import Pruner, asha, median
from engine.sweepfile.schema import Scheduler


def as_tune(scheduler: Any, order: list[tuple[int, int, float]]) -> list[bool]:
    """The decisions of one of Tune's schedulers.

    Trials report in an order of (trial, epoch, value). A stopped trial reports no more.
    """
    runs: dict[int, Any] = {}
    controller = SimpleNamespace(get_live_trials=lambda: [])
    stopped: set[int] = set()
    decided = []
    for number, epoch, value in order:
        if number not in runs:
            runs[number] = FakeTrial(number)
            scheduler.on_trial_add(controller, runs[number])
        if number in stopped:
            continue
        result = {"training_iteration": epoch, "metric": value, "time_total_s": epoch}
        stop = scheduler.on_trial_result(controller, runs[number], result) == "STOP"
        stopped |= {number} if stop else set()
        decided.append(stop)
    return decided


class FakeTrial:
    def __init__(self, number: int):
        self.trial_id = str(number)


def as_ours(scheduler: Scheduler, order: list[tuple[int, int, float]], epochs: int = 1000) -> list[bool]:
    pruner, stopped, decided = Pruner(scheduler, {}), set(), []
    for number, epoch, value in order:
        if number not in stopped:
            stop = pruner.stops(str(number), {"epoch": epoch, scheduler.metric: scheduler.sign * value}, epochs)
            stopped |= {number} if stop else set()
            decided.append(stop)
    return decided


def reports(seed: int, trials: int = 12, epochs: int = 30) -> list[tuple[int, int, float]]:
    """Reports of trials that run at the same time at different speeds."""
    random = np.random.default_rng(seed)
    ends = random.uniform(0, 1, trials)
    times = np.sort(random.uniform(0, 1, (trials, epochs)), axis=1) + random.uniform(0, 1, (trials, 1))
    order = sorted((times[t, e], t, e + 1) for t in range(trials) for e in range(epochs))
    return [(t, e, float(ends[t] * (1 - 0.8**e) + 0.05 * random.normal())) for _, t, e in order]


@pytest.mark.parametrize("metric", ["validation_accuracy", "loss"])
@pytest.mark.parametrize(("grace", "reduction"), [(1, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_asha_decides_as_tune(seed: int, grace: int, reduction: int, metric: Any) -> None:
    order = reports(seed)
    theirs = AsyncHyperBandScheduler(
        time_attr="training_iteration",
        metric="metric",
        mode="max",
        max_t=1000,
        grace_period=grace,
        reduction_factor=reduction,
    )
    ours = as_ours(Scheduler(name="asha", metric=metric, grace=grace, reduction=reduction), order)
    assert ours == as_tune(theirs, order)
    assert any(ours)


@pytest.mark.parametrize(("grace", "least"), [(1, 3), (4, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_median_decides_as_tune(seed: int, grace: int, least: int) -> None:
    order = reports(seed)
    theirs = MedianStoppingRule(
        time_attr="training_iteration",
        metric="metric",
        mode="max",
        grace_period=grace,
        min_samples_required=least,
        min_time_slice=0,
    )
    ours = as_ours(Scheduler(name="median", grace=grace, least=least), order)
    assert ours == as_tune(theirs, order)
    assert any(ours)


def test_the_last_epoch_stops_nothing() -> None:
    pruner = Pruner(Scheduler(name="asha", metric="accuracy"), {"other": [{"accuracy": 0.9}] * 4})
    assert pruner.stops("here", {"epoch": 1, "accuracy": 0.1}, 4)
    assert not pruner.stops("here", {"epoch": 1, "accuracy": 0.1}, 1)


def test_a_training_that_begins_again_forgets_its_first_try() -> None:
    pruner = Pruner(Scheduler(name="median", metric="loss", least=1), {"other": [{"loss": 0.5}] * 3})
    assert not pruner.stops("here", {"epoch": 1, "loss": 0.1}, 9)
    assert pruner.stops("here", {"epoch": 1, "loss": 0.9}, 9)


def test_a_training_that_was_over_before_is_compared_with_and_never_stopped() -> None:
    pruner = Pruner(Scheduler(name="asha", metric="accuracy", reduction=2), {})
    said: list[Event] = []

    def tell(network: str, accuracy: float, *, before: bool = False) -> None:
        planned = cast(Planned, SimpleNamespace(needs={"classifier": SimpleNamespace(key=network)}))
        report = judged(planned, said.append, pruner.stops)
        report(StepEnded("training", 1, 4, network, {"epoch": 1, "accuracy": accuracy}, before))

    tell("here", 0.5)
    tell("worse", 0.1, before=True)
    tell("best", 0.9, before=True)
    with pytest.raises(Stopped) as stopped:
        tell("new", 0.4)
    assert stopped.value.epochs == [{"epoch": 1, "accuracy": 0.4}]
    tell("good", 0.8)
    assert len(said) == 5


def test_values_that_are_no_numbers_stop_nothing() -> None:
    assert not asha([float("nan")], [[0.5]], 1, 2)
    assert not asha([0.1], [[float("nan")]], 1, 2)
    assert not median([0.1], [[float("nan")]], 1, 1)
