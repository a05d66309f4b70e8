"""Intervals: closed forms, scipy as a reference, brute-force twins, and coverage on data whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from analysis.stats import (
    bootstrap_crossed,
    bootstrap_mean,
    clopper_pearson,
    rank_correlation,
    resample_weights,
    student_mean,
    wilson,
)


@pytest.mark.parametrize(("method", "ours"), [("wilson", wilson), ("exact", clopper_pearson)])
def test_proportions_agree_with_scipy(method: str, ours: Callable[..., object]) -> None:
    for level in (0.8, 0.95, 0.99):
        for n in (1, 7, 200):
            for k in {0, 1, n // 2, n - 1, n}:
                theirs = reference.binomtest(k, n).proportion_ci(level, method=method)
                assert np.allclose(ours(k, n, level), (theirs.low, theirs.high), atol=1e-9), (k, n, level)


def test_wilson_solves_its_equation() -> None:
    """Its ends are where |p - k/n| = z sqrt(p (1 - p) / n)."""
    z = reference.norm.ppf(0.975)
    for end in wilson(7, 40):
        assert abs(end - 7 / 40) == pytest.approx(z * np.sqrt(end * (1 - end) / 40))


def test_clopper_pearson_covers_whatever_the_proportion() -> None:
    for n in (5, 30):
        low, high = clopper_pearson(np.arange(n + 1), n)
        for p in np.linspace(0.01, 0.99, 99):
            covered = reference.binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum()
            assert covered >= 0.95 - 1e-9


@given(st.integers(0, 50), st.integers(0, 50))
def test_proportion_lies_in_its_interval(k: int, more: int) -> None:
    n = k + more
    for low, high in (wilson(k, n), clopper_pearson(k, n)):
        if n == 0:
            assert np.isnan(low)
            assert np.isnan(high)
        else:
            assert 0 <= low <= k / n <= high <= 1


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and"):
        wilson(3, 2)


def brute_means(cube: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The crossed bootstrap as one would write it first: loops that pick seeds, examples, and average what is there."""
    rng = np.random.default_rng(seed)
    n_seeds, n_examples, n_points = cube.shape
    means = np.empty((resamples, n_points))
    for b in range(resamples):
        seeds = rng.integers(n_seeds, size=n_seeds - 1) if n_seeds > 1 else [0]
        examples = rng.integers(n_examples, size=n_examples - 1)
        for r in range(n_points):
            drawn = [cube[s, i, r] for s in seeds for i in examples]
            means[b, r] = np.nanmean(drawn)
    return means


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("n_seeds", [1, 4])
def test_crossed_bootstrap_agrees_with_loops(n_seeds: int, holes: bool) -> None:
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(n_seeds, 1, 1)) + rng.normal(size=(1, 30, 1)) + 0.5 * rng.normal(size=(n_seeds, 30, 2))
    if holes:
        cube[rng.random(cube.shape) < 0.2] = np.nan
    ours = bootstrap_crossed(cube, resamples=4000, seed=1)
    theirs = brute_means(cube, 2000, seed=2)
    width = np.quantile(theirs, 0.975, axis=0) - np.quantile(theirs, 0.025, axis=0)
    assert np.allclose(ours.mean, np.nanmean(cube, axis=(0, 1)))
    assert np.all(np.abs(ours.low - np.quantile(theirs, 0.025, axis=0)) < 0.12 * width)
    assert np.all(np.abs(ours.high - np.quantile(theirs, 0.975, axis=0)) < 0.12 * width)
    assert ours.resampled == ("examples" if n_seeds == 1 else "seeds and examples")


def test_bootstrap_width_is_that_of_the_mean() -> None:
    """For the mean of N examples the interval is 2 z s / sqrt(N), up to resampling error."""
    values = np.random.default_rng(0).normal(size=400)
    estimate = bootstrap_mean(values, resamples=20_000)
    width = 2 * 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert float(estimate.high[0] - estimate.low[0]) == pytest.approx(width, rel=0.03)


@pytest.mark.parametrize("n_seeds", [1, 6])
def test_crossed_bootstrap_covers(n_seeds: int) -> None:
    """Crossed random effects with mean 0: the interval holds it about as often as it says."""
    rng = np.random.default_rng(0)
    tries, hits = 300, 0
    for seed in range(tries):
        of_seed = rng.normal(size=(n_seeds, 1, 1)) * (0.1 if n_seeds > 1 else 0)
        cube = of_seed + 0.5 * rng.normal(size=(1, 60, 1)) + 0.3 * rng.normal(size=(n_seeds, 60, 1))
        estimate = bootstrap_crossed(cube, resamples=300, seed=seed)
        hits += bool(estimate.low[0] <= 0 <= estimate.high[0])
    assert 0.90 <= hits / tries <= 0.99


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    examples = 0.1 * rng.normal(size=(1, 100, 1))
    alike = bootstrap_crossed(np.repeat(examples, 5, axis=0))
    apart = bootstrap_crossed(examples + rng.normal(size=(5, 1, 1)))
    assert (apart.high - apart.low)[0] > 5 * (alike.high - alike.low)[0]


def test_bca_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    ours = bootstrap_mean(values, resamples=20_000, method="bca")
    theirs = reference.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert float(ours.low[0]) == pytest.approx(theirs.low, abs=0.05 * width)
    assert float(ours.high[0]) == pytest.approx(theirs.high, abs=0.05 * width)
    plain = bootstrap_mean(values, resamples=20_000)
    assert ours.high[0] > plain.high[0]  # the corrected interval leans towards the long tail


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="percentile or bca"):
        bootstrap_mean([1.0, 2.0], method="magic")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_crossed_bootstrap_on_any_shape(n_seeds: int, n_examples: int, n_points: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cube = rng.random((n_seeds, n_examples, n_points))
    cube[rng.random(cube.shape) < 0.3] = np.nan
    estimate = bootstrap_crossed(cube, resamples=200, seed=seed)
    assert np.array_equal(estimate.n, np.isfinite(cube).any(0).sum(0))
    assert np.array_equal(np.isnan(estimate.low), estimate.n < 2)  # one example alone has no interval
    known = cube[np.isfinite(cube)]
    inside = ~np.isnan(estimate.low)
    assert np.all(estimate.low[inside] <= estimate.high[inside])
    assert np.all(estimate.low[inside] >= known.min(initial=np.inf) - 1e-12)
    again = bootstrap_crossed(cube, resamples=200, seed=seed)
    assert np.array_equal(estimate.low, again.low, equal_nan=True)


def test_equal_values_have_no_width() -> None:
    estimate = bootstrap_crossed(np.full((3, 20, 2), 0.25))
    assert np.allclose([estimate.low, estimate.high], 0.25)


def test_many_examples_are_resampled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = np.random.default_rng(0).normal(size=(2, 50, 3))
    whole = bootstrap_crossed(cube, resamples=500)
    monkeypatch.setattr("analysis.stats.CELLS", 50 * 7)
    pieces = bootstrap_crossed(cube, resamples=500)
    assert np.allclose(whole.low, pieces.low)
    assert np.allclose(whole.high, pieces.high)


def test_resample_weights_count_draws() -> None:
    weights = resample_weights(9, 5000, np.random.default_rng(0))
    assert np.all(weights.sum(1) == 8)
    assert np.allclose(weights.mean(0), 8 / 9, atol=0.06)
    assert np.array_equal(resample_weights(1, 3, np.random.default_rng(0)), np.ones((3, 1)))


def test_student_mean_agrees_with_scipy() -> None:
    values = [0.81, 0.79, 0.86, float("nan")]
    mean, low, high, n = student_mean(values)
    theirs = reference.ttest_1samp(values[:3], 0).confidence_interval()
    assert n == 3
    assert mean == pytest.approx(0.82)
    assert (low, high) == pytest.approx((theirs.low, theirs.high))
    assert np.isnan(student_mean([0.5])[1])


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 99))
def test_rank_correlation_is_that_of_the_repeated_pairs(n: int, different: int, seed: int) -> None:
    """Each pair written down as often as its weight says, ties and all, given to scipy."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, different, n), rng.normal(size=n).round(1)
    weights = resample_weights(n, 5, rng)
    ours = rank_correlation(first, second, weights)
    for counts, rho in zip(weights.astype(int), ours, strict=True):
        x, y = np.repeat(first, counts), np.repeat(second, counts)
        tied = len(set(x)) < 2 or len(set(y)) < 2
        assert np.isnan(rho) if tied else rho == pytest.approx(reference.spearmanr(x, y).statistic)
