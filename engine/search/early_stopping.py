"""Early stopping: whether a training goes on, by one of its epoch metrics and by what the other trainings had at the same epoch.

The rules are those of Ray Tune's schedulers of the same names. They are applied here, where a training reports, and not by Tune, so that
a run without Ray decides alike, a search that is resumed knows the trainings of before, and a stopped trial ends like any other: what it
started is cancelled, and what it reached is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from engine.store.records import Epoch
from engine.sweepfile.schema import Scheduler

Curve = Sequence[float]
"""A value an epoch; larger is better."""
Curves = Mapping[str, Sequence[Epoch]]
"""The epochs of trainings, by network."""


def asha(curve: Curve, others: Iterable[Curve], grace: int, reduction: int) -> bool:
    """Asynchronous successive halving (Li et al., 2020): at the epochs grace, grace * reduction, grace * reduction^2, ... a training
    stops that is not among the best 1 / reduction of those that were there before it.

    >>> asha([0.4], [[0.1], [0.2], [0.9]], grace=1, reduction=3), asha([0.4], [], grace=1, reduction=3)
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
    """Median stopping rule (Golovin et al., 2017): a training stops whose best value is below the median of the others' means so far.

    >>> median([0.1, 0.3], [[0.2, 0.4], [0.3, 0.5], [0.4, 0.6]], grace=1, least=3)
    True
    """
    now = len(curve)
    means = [float(np.mean(other[grace - 1 : now])) for other in others if len(other) >= now >= grace]
    means = [mean for mean in means if np.isfinite(mean)]
    return len(means) >= least and bool(max(curve) < np.median(means))


class Pruner:
    """Remembers the curves of all trainings of a search and decides which goes on.

    Args:
        curves: the epochs of trainings that ended before, by network (`trial.json` has them).
    """

    def __init__(self, scheduler: Scheduler, curves: Curves):
        self._scheduler = scheduler
        self._curves = {network: [self._value(epoch) for epoch in epochs] for network, epochs in curves.items()}

    def stops(self, network: str, epoch: Epoch, epochs: int) -> bool:
        """Takes an epoch of a network's training, of `epochs` in all, and says whether it is the last."""
        number = int(epoch["epoch"])
        curve = [*self._curves.get(network, [])[: number - 1], self._value(epoch)]  # a training may begin again
        self._curves[network] = curve
        others = [other for name, other in self._curves.items() if name != network]
        if number >= epochs:
            return False
        if self._scheduler.name == "asha":
            return asha(curve, others, self._scheduler.grace, self._scheduler.reduction)
        return median(curve, others, self._scheduler.grace, self._scheduler.least)

    def _value(self, epoch: Epoch) -> float:
        return self._scheduler.sign * float(epoch.get(self._scheduler.metric, np.nan))
