"""Intervals of proportions and means: no number without its uncertainty.

S seeds, N examples, R points along a ladder (radii), B bootstrap resamples. NaN stands for "not measured".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

CELLS = 2_000_000
"""Bootstrap weights in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, at each of R points.

    Attributes:
        mean, low, high: (R,); the interval is NaN where fewer than two examples were measured.
        n: (R,) how many different examples were measured.
        seeds: (R,) under how many seeds.
        resampled: what the bootstrap resampled: "examples" or "seeds and examples".
    """

    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    seeds: NDArray[np.int64]
    resampled: str

    def columns(self) -> dict[str, Any]:
        """What a table shows of it."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n, "seeds": self.seeds}


def wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Score interval of a proportion (Wilson, 1927). `(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`.

    >>> low, high = wilson(9, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.596, 0.982)
    """
    k, n = _counts(successes, trials)
    z = special.ndtri(0.5 + level / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low = np.where(k == 0, 0.0, centre - half)  # exact at the ends, where rounding would leave 1e-17
    high = np.where(k == n, 1.0, centre + half)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Exact interval of a proportion (Clopper and Pearson, 1934): covers at least at its level everywhere.

    >>> low, high = clopper_pearson(0, 10)
    >>> float(low), round(float(high), 3)
    (0.0, 0.308)
    """
    k, n = _counts(successes, trials)
    alpha = 1 - level
    low = np.where(k > 0, special.betaincinv(np.maximum(k, 1), n - k + 1, alpha / 2), 0.0)
    high = np.where(k < n, special.betaincinv(k + 1, np.maximum(n - k, 1e-9), 1 - alpha / 2), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def _counts(successes: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats]:
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    if np.any((k < 0) | (k > n)):
        raise ValueError("successes must lie between 0 and the number of trials")
    return k, n


def bootstrap_mean(
    values: ArrayLike, *, level: float = 0.95, resamples: int = 1000, seed: int = 0, method: str = "percentile"
) -> Estimate:
    """Mean over examples with a bootstrap interval; a resampled example brings all its points along.

    Args:
        values: (N,) or (N, R).
        method: "percentile", or "bca" (bias-corrected and accelerated; Efron, 1987), better for a skewed statistic.

    Raises:
        ValueError: an unknown method.
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f"method {method!r}: percentile or bca")
    table = np.asarray(values, float)
    table = table[:, None] if table.ndim == 1 else table
    if method == "percentile":
        return bootstrap_crossed(table[None], level=level, resamples=resamples, seed=seed)
    means = _resampled_means(table[None], resamples, seed)  # (B, R)
    known = np.isfinite(table)
    n = known.sum(0)
    total = np.where(known, table, 0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        below = ((means < mean).sum(0) + 0.5 * (means == mean).sum(0)) / len(means)
        bias = special.ndtri(np.clip(below, 0.5 / len(means), 1 - 0.5 / len(means)))
        left_out = np.where(known, (total - table) / (n - 1), np.nan)  # jackknife (N, R)
        pull = np.where(known, mean - left_out, 0)  # the mean of the left-out means is the mean
        spread = (pull**2).sum(0)
        acceleration = np.where(spread > 0, (pull**3).sum(0) / (6 * np.maximum(spread, 1e-300) ** 1.5), 0)
    ends = []
    for tail in (0.5 - level / 2, 0.5 + level / 2):
        shifted = bias + special.ndtri(tail)
        share = special.ndtr(bias + shifted / (1 - acceleration * shifted))
        ends.append([_quantile(means[:, r], share[r]) if n[r] > 1 else np.nan for r in range(table.shape[1])])
    return Estimate(mean, np.array(ends[0]), np.array(ends[1]), n, (n > 0).astype(int), "examples")


def _quantile(values: Floats, share: float) -> float:
    return float(np.quantile(values, share)) if np.isfinite(share) else float("nan")


def bootstrap_crossed(values: ArrayLike, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean over seeds and examples: the same examples are seen under each seed, so both are resampled, independently.

    The pigeonhole bootstrap (Owen, 2007) with percentile intervals. Of n seeds (or examples) n - 1 are drawn, with
    replacement, which makes the variance of a mean unbiased for few seeds (Rao and Wu, 1988). With one seed only the
    examples are resampled and the interval says nothing about other seeds. With two or three seeds it is rough: it
    hardly reaches beyond the seeds seen.

    Args:
        values: (S, N, R), NaN where nothing was measured.

    >>> estimate = bootstrap_crossed(np.array([[[0.0], [1.0], [1.0], [0.0]]]))
    >>> float(estimate.mean[0]), int(estimate.n[0]), estimate.resampled
    (0.5, 4, 'examples')
    """
    cube = np.asarray(values, float)
    known = np.isfinite(cube)
    count = known.sum((0, 1))
    with np.errstate(invalid="ignore"):
        mean = np.where(known, cube, 0).sum((0, 1)) / count
    n = known.any(0).sum(0)
    seeds = known.any(1).sum(0)
    low, high = np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    some = n > 1
    if some.any():
        means = _resampled_means(cube[:, :, some], resamples, seed)
        low[some], high[some] = np.nanquantile(means, (0.5 - level / 2, 0.5 + level / 2), axis=0)
    resampled = "seeds and examples" if known.any((1, 2)).sum() > 1 else "examples"
    return Estimate(mean, low, high, n, seeds, resampled)


def _resampled_means(cube: Floats, resamples: int, seed: int) -> Floats:
    """(S, N, R) -> (B, R): the mean of each resample, over what was measured of it."""
    cube = cube[np.isfinite(cube).any((1, 2))]
    cube = cube[:, np.isfinite(cube).any((0, 2))]  # what was never measured cannot be drawn
    n_seeds, n_examples, n_points = cube.shape
    known = np.isfinite(cube)
    complete = bool(known.all())
    filled = np.where(known, cube, 0).transpose(1, 0, 2).reshape(n_examples, -1)  # (N, S R)
    mask = known.transpose(1, 0, 2).reshape(n_examples, -1).astype(float)
    rng = np.random.default_rng(seed)
    seed_weights = resample_weights(n_seeds, resamples, rng)  # (B, S)
    means = np.empty((resamples, n_points))
    step = max(1, CELLS // n_examples)
    for start in range(0, resamples, step):
        chunk = slice(start, min(start + step, resamples))
        weights = resample_weights(n_examples, chunk.stop - chunk.start, rng)  # (b, N)
        sums = (weights @ filled).reshape(-1, n_seeds, n_points)
        top = np.einsum("bs,bsr->br", seed_weights[chunk], sums)
        if complete:
            means[chunk] = top / (weights.sum(1) * seed_weights[chunk].sum(1))[:, None]
            continue
        measured = np.einsum("bs,bsr->br", seed_weights[chunk], (weights @ mask).reshape(-1, n_seeds, n_points))
        with np.errstate(invalid="ignore"):
            means[chunk] = top / measured
    return means


def resample_weights(count: int, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each of `count` things is drawn in each resample of count - 1 draws, (B, count); one alone: always."""
    if count == 1:
        return np.ones((resamples, 1))
    draws = rng.integers(count, size=(resamples, count - 1))
    flat = (draws + count * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * count).reshape(resamples, count).astype(float)


def rank_correlation(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Spearman's rank correlation (1904) with average ranks for ties, where each pair counts as often as its weight says.

    Args:
        first, second: (N,).
        weights: (B, N), how often each pair is there in each of B resamples; by default once.

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
    """(N,), (B, N) -> (B, N): the mean rank of each value's ties, from 1, if each value were there that many times."""
    order = np.argsort(values, kind="stable")
    different, group = np.unique(values[order], return_inverse=True)
    starts = np.searchsorted(values[order], different)
    tied = np.add.reduceat(times[:, order], starts, axis=1) if len(values) else times  # (B, groups)
    middle = np.cumsum(tied, axis=1) - tied + (tied + 1) / 2
    ranks = np.empty(times.shape)
    ranks[:, order] = middle[:, group]
    return ranks


def student_mean(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float, int]:
    """Mean of a few independent numbers (one a seed) with Student's t interval: (mean, low, high, n).

    >>> student_mean([1.0, 2.0, 3.0])[0], student_mean([1.0])[3]
    (2.0, 1)
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    n = len(known)
    if n < 2:
        return float(known.mean()) if n else float("nan"), float("nan"), float("nan"), n
    half = float(special.stdtrit(n - 1, 0.5 + level / 2) * known.std(ddof=1) / np.sqrt(n))
    mean = float(known.mean())
    return mean, mean - half, mean + half, n
