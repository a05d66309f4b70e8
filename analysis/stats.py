"""Intervals of proportions and means: no number without its uncertainty.

Shapes: S seeds, N examples, R points along a ladder (radii), G groups of examples, B bootstrap
resamples. NaN stands for "not measured".

A number of a recipe is the mean over its seeds of what each seed's network gives. Two things could
have come out otherwise: the trainings (other seeds) and the examples (other images). The same
examples are seen under each seed, so their part of the variance does not shrink with more seeds.
Every interval of a report comes from these two parts (`crossed_mean`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tasks.parts.measures.wilson import wilson as score_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bounds = tuple[float, float] | None
"""What values lie between: `SHARE`, `DIFFERENCE` (of two shares), or None for any number."""
SHARE: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)

CELLS = 2_000_000
"""Bootstrap weights in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval, at each of R points.

    Attributes:
        mean: (R,), each seed counting as much as any other.
        low: (R,) the lower end of the interval. With two seeds it is the lower of them, since two
            seeds give no interval. NaN where nothing can be said: of fewer than two examples, or of
            a number without bounds that never varied.
        high: (R,) the upper end, likewise.
        n: (R,) how many different examples were measured.
        seeds: (R,) under how many seeds.
    """

    mean: Floats
    low: Floats
    high: Floats
    n: Ints
    seeds: Ints

    def columns(self) -> dict[str, Floats | Ints]:
        """Its arrays by name, as columns of a table."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n, "seeds": self.seeds}


def crossed_mean(
    values: ArrayLike, counts: ArrayLike | None = None, *, level: float = 0.95, bounds: Bounds = None
) -> Estimate:
    """The mean over seeds and examples, with its interval.

    Each seed's network saw the same examples. The half width h adds up two parts,
    `h^2 = t_{S-1}^2 V_seeds + t_{N-1}^2 V_examples`. `V_seeds = s^2 / S` is that of the seeds'
    means. `V_examples` is the jackknife variance over examples of the mean over seeds, less what
    `V_seeds` holds already (the part that differs by seed and example). So it is Student's interval
    over the seeds where the trainings differ, and the one over the examples where they do not; in
    between it is a little too wide. With one seed it is that over the examples alone, and says
    nothing about other trainings.

    A share has its interval on the logit scale (delta method), so within (0, 1), and there
    `V_seeds` is the larger of that and of the seeds' logits. Where it is 0 or 1, or never varied,
    it has Wilson's.

    Simulated coverage of 95 % intervals with three seeds and more: 93 to 98 %, also where seeds
    dominate (`tests/benchmarks/coverage.py`).

    Args:
        values: (S, N, R), NaN where nothing was measured. With `counts`, sums of that many
            measurements of an example.
        counts: (S, N, R); by default 1 where there is a value. A seed's mean is its sum of values
            over its sum of counts.
        level: of the interval.
        bounds: `SHARE`, `DIFFERENCE`, or None.

    >>> estimate = crossed_mean(np.array([[[0.0], [1.0], [1.0], [0.0]]]), bounds=SHARE)
    >>> float(estimate.mean[0]), int(estimate.n[0]), int(estimate.seeds[0])
    (0.5, 4, 1)
    """
    cube = np.asarray(values, float)
    known = np.isfinite(cube)
    weight = known.astype(float) if counts is None else np.where(known, np.asarray(counts, float), 0)
    known &= weight > 0
    cube = np.where(known, cube, 0)
    sums, total = cube.sum(1, keepdims=True), weight.sum(1, keepdims=True)  # (S, 1, R)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_seed = sums / total
        left_out = np.where(total > weight, (sums - cube) / (total - weight), by_seed)  # (S, N, R)
    return _estimate(by_seed[:, 0], left_out, known.any(0).sum(0), known.any(0).sum(0), level, bounds)


def crossed_statistic(
    by_seed: ArrayLike, left_out: ArrayLike, n: int, *, level: float = 0.95, bounds: Bounds = None
) -> Estimate:
    """As `crossed_mean`, of a number that is no mean over examples.

    Its part over examples is by the jackknife over groups of them.

    Args:
        by_seed: (S,) the number under each seed.
        left_out: (S, G) the number under each seed without each of the groups.
        n: how many examples there are in all groups.
        level: of the interval.
        bounds: `SHARE`, `DIFFERENCE`, or None.
    """
    each = np.asarray(by_seed, float)[:, None]
    deleted = np.asarray(left_out, float)[:, :, None]
    deleted = np.where(np.isfinite(deleted), deleted, each[:, None])
    return _estimate(each, deleted, np.array([deleted.shape[1]]), np.array([n]), level, bounds)


def over_seeds(values: ArrayLike, *, level: float = 0.95, bounds: Bounds = None) -> Estimate:
    """The mean of one number a seed, with Student's interval within the bounds.

    It is for numbers of which nothing is known by example.

    >>> float(over_seeds([1.0, 2.0, 3.0]).mean[0]), over_seeds([1.0]).low.tolist()
    (2.0, [nan])
    >>> over_seeds([1.0, 3.0]).high.tolist()
    [3.0]
    """
    each = np.asarray(values, float)[:, None]
    none = np.zeros(1, int)
    estimate = _estimate(each, each[:, None], none + 1, none + max(2, len(each)), level, bounds)
    alone = estimate.seeds < 2
    low, high = (np.where(alone, np.nan, end) for end in (estimate.low, estimate.high))
    return Estimate(estimate.mean, low, high, none, estimate.seeds)


def _estimate(by_seed: Floats, left_out: Floats, groups: Ints, n: Ints, level: float, bounds: Bounds) -> Estimate:
    """The estimate from each seed's number (S, R), and those without each group (S, G, R).

    `groups` (R,) is how many of the groups hold any example.
    """
    known = np.isfinite(by_seed)
    seeds = known.sum(0)
    several = np.maximum(seeds, 1)
    each = np.where(known, by_seed, 0)
    mean = each.sum(0) / several
    away = np.where(known[:, None], left_out - by_seed[:, None], 0)  # (S, G, R): what each group does
    share = (groups - 1) / np.maximum(groups, 1)
    examples = share * ((away.sum(0) / several) ** 2).sum(0)
    within = share * (away**2).sum((0, 1)) / several
    spread = np.where(known, (by_seed - mean) ** 2, 0).sum(0) / np.maximum(seeds - 1, 1) / several
    overlap = np.maximum(0, within - examples) / np.maximum(seeds - 1, 1)
    if bounds == SHARE:
        spread = np.maximum(spread, _spread_of_logits(by_seed, mean, n) * (mean * (1 - mean)) ** 2)
    quantile = 0.5 + level / 2
    t_seeds = np.where(seeds > 1, special.stdtrit(np.maximum(seeds - 1, 1), quantile), 0)
    t_groups = special.stdtrit(np.maximum(groups - 1, 1), quantile)
    half = np.sqrt(t_seeds**2 * spread + t_groups**2 * np.maximum(0, examples - overlap))
    low, high = _ends(mean, half, n, level, bounds)
    pair = seeds == 2
    low = np.where(pair, np.where(known, by_seed, np.inf).min(0, initial=np.inf), low)
    high = np.where(pair, np.where(known, by_seed, -np.inf).max(0, initial=-np.inf), high)
    told = (seeds > 0) & ((n > 1) | pair)
    return Estimate(
        np.where(seeds > 0, mean, np.nan), np.where(told, low, np.nan), np.where(told, high, np.nan), n, seeds
    )


def _spread_of_logits(shares: Floats, mean: Floats, n: Ints) -> Floats:
    """The variance (R,) of the mean share, on the logit scale.

    It is `v / S + (1 - 2 mean)^2 v^2 / (2 (S - 1))`, where v is the variance of the logits of the S
    seeds. The second part is for the skew of shares close to 0 or 1: there the mean share depends
    on v too, by `v (1 - 2 mean) / 2` on this scale, and v is known from S seeds only (Cox's method
    for the mean of a lognormal number; Zhou and Gao, 1997). Half an example is added to both sides
    of each share, so that 0 and 1 have logits.
    """
    known = np.isfinite(shares)
    seeds = np.maximum(known.sum(0), 1)
    others = np.maximum(seeds - 1, 1)
    logits = np.where(known, special.logit((np.clip(shares, 0, 1) * n + 0.5) / (n + 1)), 0)
    variance = np.where(known, (logits - logits.sum(0) / seeds) ** 2, 0).sum(0) / others
    return variance / seeds + ((1 - 2 * mean) * variance) ** 2 / (2 * others)


def _ends(mean: Floats, half: Floats, n: Ints, level: float, bounds: Bounds) -> tuple[Floats, Floats]:
    """The ends (R,) of intervals of these half widths, within the bounds, and never of no width."""
    tiny = 1e-12 * np.maximum(1, np.abs(mean))  # rounding
    still = half <= tiny
    if bounds is None:
        return np.where(still, np.nan, mean - half), np.where(still, np.nan, mean + half)
    if bounds == DIFFERENCE:
        _, most = wilson(np.zeros(len(n)), n, level)  # as that of no example in n that differs (Tango, 1998)
        half = np.where(still, most, half)
        return np.maximum(mean - half, -1), np.minimum(mean + half, 1)
    inside = np.clip(mean, 0, 1)
    of_none = wilson(inside * n, n, level)
    still |= (inside <= tiny) | (inside >= 1 - tiny)
    with np.errstate(invalid="ignore", divide="ignore"):
        place, step = special.logit(inside), half / (inside * (1 - inside))
        ends = special.expit(place - step), special.expit(place + step)
    return np.where(still, of_none[0], ends[0]), np.where(still, of_none[1], ends[1])


def wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """The ends of the score interval of a proportion (Wilson, 1927), NaN where there are no trials.

    Args:
        successes: how many, at least 0 and at most as many as the trials.
        trials: how many.
        level: of the interval.

    Raises:
        ValueError: more successes than trials, or fewer than none.

    >>> low, high = wilson(9, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.596, 0.982)
    """
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    if np.any((k < 0) | (k > n)):
        raise ValueError("successes must lie between 0 and the number of trials")
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        centre, half = score_interval(k, n, p * (1 - p), float(special.ndtri(0.5 + level / 2)))
    low = np.where(k == 0, 0.0, centre - half)  # exact at the ends, where rounding would leave 1e-17
    high = np.where(k == n, 1.0, centre + half)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def resample_weights(count: int, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each of `count` things is drawn in each resample, (B, count).

    A resample has count - 1 draws; one thing alone is in all of them.
    """
    if count == 1:
        return np.ones((resamples, 1))
    draws = rng.integers(count, size=(resamples, count - 1))
    flat = (draws + count * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * count).reshape(resamples, count).astype(float)


def rank_correlation(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Spearman's rank correlation (1904), with average ranks for ties.

    Args:
        first: (N,).
        second: (N,).
        weights: (B, N), how often each pair counts in each of B resamples; by default once.

    Returns:
        (B,), NaN where all that is there of either is tied.

    >>> float(rank_correlation([1, 2, 3, 4], [1, 4, 9, 16])[0])
    1.0
    """
    x, y = np.asarray(first, float), np.asarray(second, float)
    times = np.ones((1, len(x))) if weights is None else np.asarray(weights, float)
    total = times.sum(1, keepdims=True)
    centred = [_weighted_ranks(values, times) - (total + 1) / 2 for values in (x, y)]  # (B, N) each
    covariance = (times * centred[0] * centred[1]).sum(1)
    spread = np.sqrt((times * centred[0] ** 2).sum(1) * (times * centred[1] ** 2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-9, np.clip(covariance / spread, -1, 1), np.nan)


def _weighted_ranks(values: Floats, times: Floats) -> Floats:
    """The mean ranks (B, N), from 1, of values (N,) that are there so many times (B, N)."""
    order = np.argsort(values, kind="stable")
    different, group = np.unique(values[order], return_inverse=True)
    starts = np.searchsorted(values[order], different)
    tied = np.add.reduceat(times[:, order], starts, axis=1) if len(values) else times  # (B, groups)
    middle = np.cumsum(tied, axis=1) - tied + (tied + 1) / 2
    ranks = np.empty(times.shape)
    ranks[:, order] = middle[:, group]
    return ranks
