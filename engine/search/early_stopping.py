"""Early stopping: ends trainings that are worse than the others at the same epoch.

The rules are those of Ray Tune's schedulers of the same names. They are applied here, where a
training reports, and not by Tune, for three reasons: a run without Ray makes the same decisions, a
resumed search knows the earlier trainings, and a stopped trial ends like any other. The tasks that
it started are cancelled, and the results so far are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from engine.store.records import Epoch
from engine.sweepfile.schema import Scheduler

Curve = Sequence[float]
"""One value for each epoch; larger is better."""
Curves = Mapping[str, Sequence[Epoch]]
"""The epochs of each training, by the key of its network."""


def asha(curve: Curve, others: Iterable[Curve], grace: int, reduction: int) -> bool:
    """Whether asynchronous successive halving (Li et al., 2020) stops a training.

    It decides at the epochs grace, grace * reduction, grace * reduction^2, ... A training stops if
    it is not among the best 1 / reduction of the trainings that reached this epoch before.

    >>> others = [[0.1], [0.2], [0.9]]
    >>> asha([0.4], others, grace=1, reduction=3), asha([0.4], [], grace=1, reduction=3)
    (True, False)
    """
    rung = grace
    while rung < len(curve):
        rung *= reduction
    there = [other[rung - 1] for other in others if len(other) >= rung and np.isfinite(other[rung - 1])]
    if rung > len(curve) or not there:
        return False
    return bool(curve[-1] < np.percentile(there, 100 * (1 - 1 / reduction)))


def median(curve: Curve, others: Iterable[Curve], grace: int, least: int) -> bool:
    """Whether the median stopping rule (Golovin et al., 2017) stops a training.

    It stops if its best value is below the median of the others' means up to the same epoch. At
    least `least` others must have reached it, and the means begin at the epoch `grace`.

    >>> median([0.1, 0.3], [[0.2, 0.4], [0.3, 0.5], [0.4, 0.6]], grace=1, least=3)
    True
    """
    now = len(curve)
    means = [float(np.mean(other[grace - 1 : now])) for other in others if len(other) >= now >= grace]
    means = [mean for mean in means if np.isfinite(mean)]
    return len(means) >= least and bool(max(curve) < np.median(means))


class Pruner:
    """Remembers the curves of all trainings of a search, and decides which ones stop.

    Args:
        scheduler: the rule and its settings.
        curves: the epochs of earlier trainings, by network, from their `trial.json`.
    """

    def __init__(self, scheduler: Scheduler, curves: Curves):
        self._scheduler = scheduler
        self._curves = {network: [self._value(epoch) for epoch in epochs] for network, epochs in curves.items()}

    def stops(self, network: str, epoch: Epoch, epochs: int) -> bool:
        """Takes the latest epoch of a network's training, and says whether the training stops.

        After the last of its `epochs` a training is over, and is not stopped.
        """
        number = int(epoch["epoch"])
        curve = [*self._curves.get(network, [])[: number - 1], self._value(epoch)]  # a training may start again
        self._curves[network] = curve
        others = [other for name, other in self._curves.items() if name != network]
        if number >= epochs:
            return False
        if self._scheduler.name == "asha":
            return asha(curve, others, self._scheduler.grace, self._scheduler.reduction)
        return median(curve, others, self._scheduler.grace, self._scheduler.least)

    def _value(self, epoch: Epoch) -> float:
        return self._scheduler.sign * float(epoch.get(self._scheduler.metric, np.nan))
