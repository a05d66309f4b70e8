"""Intervals: closed forms, scipy as a reference, slow twins, and coverage of known truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from scipy.special import expit, logit

from analysis.stats import (
    DIFFERENCE,
    SHARE,
    Bounds,
    crossed_mean,
    crossed_statistic,
    over_seeds,
    rank_correlation,
    resample_weights,
    wilson,
)


def test_wilson_agrees_with_scipy() -> None:
    for level in (0.8, 0.95, 0.99):
        for n in (1, 7, 200):
            for k in {0, 1, n // 2, n - 1, n}:
                theirs = reference.binomtest(k, n).proportion_ci(level, method="wilson")
                assert np.allclose(wilson(k, n, level), (theirs.low, theirs.high), atol=1e-9), (k, n, level)


def test_wilson_solves_its_equation() -> None:
    """Its ends are where |p - k/n| = z sqrt(p (1 - p) / n)."""
    z = reference.norm.ppf(0.975)
    for end in wilson(7, 40):
        assert abs(end - 7 / 40) == pytest.approx(z * np.sqrt(end * (1 - end) / 40))


@given(st.integers(0, 50), st.integers(0, 50))
def test_proportion_lies_in_its_interval(k: int, more: int) -> None:
    low, high = wilson(k, k + more)
    if k + more == 0:
        assert np.isnan(low)
        assert np.isnan(high)
    else:
        assert 0 <= low <= k / (k + more) <= high <= 1


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and"):
        wilson(3, 2)


def test_one_seed_is_students_interval_over_examples() -> None:
    values = np.random.default_rng(0).normal(size=40)
    estimate = crossed_mean(values[None, :, None], level=0.9)
    theirs = reference.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (estimate.low[0], estimate.high[0]) == pytest.approx((theirs.low, theirs.high))
    assert (estimate.n[0], estimate.seeds[0]) == (40, 1)


def test_seeds_alone_are_students_interval_over_seeds() -> None:
    """Where all examples of a seed have one value, there is nothing to learn from more examples."""
    means = np.array([0.81, 0.79, 0.86])
    estimate = crossed_mean(np.repeat(means[:, None, None], 30, axis=1))
    theirs = reference.ttest_1samp(means, 0).confidence_interval()
    assert (estimate.low[0], estimate.high[0]) == pytest.approx((theirs.low, theirs.high))
    alone = over_seeds([*means, np.nan])
    assert (alone.mean[0], alone.low[0], alone.high[0]) == pytest.approx((0.82, theirs.low, theirs.high))
    assert alone.seeds[0] == 3


def test_equal_seeds_are_one_seed() -> None:
    """Training the same network again gains nothing: the examples' part is that of one seed."""
    values = np.random.default_rng(0).normal(size=(1, 40, 2))
    one, five = crossed_mean(values), crossed_mean(np.repeat(values, 5, axis=0))
    assert np.allclose(one.low, five.low)
    assert np.allclose(one.high, five.high)


def jackknifed(cube: np.ndarray, level: float) -> tuple[float, float, float]:
    """The interval of one point as one would write it first: loops that leave out each example."""
    seeds = [s for s in range(len(cube)) if np.isfinite(cube[s]).any()]
    examples = [i for i in range(cube.shape[1]) if np.isfinite(cube[:, i]).any()]

    def means(left_out: int | None) -> list[float]:
        found = []
        for s in seeds:
            rest = [cube[s, i] for i in examples if i != left_out and np.isfinite(cube[s, i])]
            found.append(np.mean(rest) if rest else np.nanmean(cube[s]))
        return found

    theta, n = means(None), len(examples)
    each = np.array([means(i) for i in examples])  # (N, S)
    over_examples = (n - 1) / n * sum((np.mean(line) - np.mean(theta)) ** 2 for line in each)
    within = (n - 1) / n * np.mean(((each - theta) ** 2).sum(0))
    over_seeds = np.var(theta, ddof=1) / len(seeds)
    overlap = max(0, within - over_examples) / (len(seeds) - 1)
    t_seeds, t_examples = (reference.t.ppf(0.5 + level / 2, count - 1) for count in (len(seeds), n))
    half = np.sqrt(t_seeds**2 * over_seeds + t_examples**2 * max(0, over_examples - overlap))
    return float(np.mean(theta)), float(np.mean(theta) - half), float(np.mean(theta) + half)


@pytest.mark.parametrize("holes", [False, True])
def test_crossed_mean_agrees_with_loops(holes: bool) -> None:
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(4, 1, 1)) + rng.normal(size=(1, 30, 1)) + 0.5 * rng.normal(size=(4, 30, 2))
    if holes:
        cube[rng.random(cube.shape) < 0.2] = np.nan
        cube[:, 7] = np.nan
    ours = crossed_mean(cube, level=0.9)
    for r in range(2):
        assert (ours.mean[r], ours.low[r], ours.high[r]) == pytest.approx(jackknifed(cube[:, :, r], 0.9))
    assert ours.n.tolist() == [29 if holes else 30] * 2


def test_sums_and_counts_are_the_mean_of_their_examples() -> None:
    """An example measured several times counts as often in its seed's mean, and varies as one."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, size=(3, 20, 1)).astype(float)
    sums = counts * rng.random((3, 20, 1))
    estimate = crossed_mean(sums, counts)
    assert estimate.mean[0] == pytest.approx(np.mean(sums.sum(1) / counts.sum(1)))
    assert estimate.n[0] == (counts > 0).any(0).sum()
    known = counts > 0
    once = crossed_mean(np.where(known, sums / np.maximum(counts, 1), np.nan), known.astype(float))
    assert np.allclose(once.low, crossed_mean(np.where(known, sums / np.maximum(counts, 1), np.nan)).low)


def test_a_number_by_groups_is_the_mean_where_groups_are_examples() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((3, 12)) + rng.random((3, 1))
    left_out = (values.sum(1, keepdims=True) - values) / 11
    ours, theirs = crossed_statistic(values.mean(1), left_out, 12), crossed_mean(values[:, :, None])
    assert (ours.low[0], ours.high[0]) == pytest.approx((theirs.low[0], theirs.high[0]))


def test_of_two_seeds_both_are_given() -> None:
    values = np.array([[[0.2], [0.4]], [[0.9], [0.7]]])
    for bounds in (None, SHARE, DIFFERENCE):
        estimate = crossed_mean(values, bounds=bounds)
        assert (estimate.mean[0], estimate.low[0], estimate.high[0]) == pytest.approx((0.55, 0.3, 0.8))
    alone = over_seeds([0.8, 0.3], bounds=SHARE)
    assert (alone.low[0], alone.high[0]) == pytest.approx((0.3, 0.8))


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_are_wilsons(seeds: int, share: float) -> None:
    estimate = crossed_mean(np.full((seeds, 50, 1), share), bounds=SHARE)
    assert (estimate.low[0], estimate.high[0]) == pytest.approx(tuple(map(float, wilson(50 * share, 50))))
    assert estimate.low[0] < estimate.high[0]


def test_no_difference_at_all_is_no_certainty() -> None:
    estimate = crossed_mean(np.zeros((3, 50, 1)), bounds=DIFFERENCE)
    assert float(estimate.high[0]) == pytest.approx(float(wilson(0, 50)[1]))
    assert estimate.low[0] == -estimate.high[0]


def test_what_has_no_bounds_and_never_varied_has_no_interval() -> None:
    estimate = crossed_mean(np.full((3, 20, 2), 0.25))
    assert np.allclose(estimate.mean, 0.25)
    assert np.isnan([estimate.low, estimate.high]).all()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from([None, SHARE, DIFFERENCE]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_intervals_on_any_shape(
    n_seeds: int, n_examples: int, n_points: int, bounds: Bounds, binary: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cube = rng.random((n_seeds, n_examples, n_points))
    cube = np.where(rng.random(cube.shape) < binary, cube.round(), cube)
    cube[rng.random(cube.shape) < 0.3] = np.nan
    estimate = crossed_mean(cube, bounds=bounds)
    assert np.array_equal(estimate.n, np.isfinite(cube).any(0).sum(0))
    assert np.array_equal(estimate.seeds, np.isfinite(cube).any(1).sum(0))
    assert np.array_equal(np.isnan(estimate.mean), estimate.n == 0)
    known = ~np.isnan(estimate.low)
    assert np.all(known[(estimate.seeds == 2) | ((estimate.n > 1) & (bounds is not None))])
    assert np.all(estimate.low[known] <= estimate.mean[known] + 1e-12)
    assert np.all(estimate.mean[known] <= estimate.high[known] + 1e-12)
    told = known & (estimate.seeds != 2)
    assert np.all(estimate.low[told] < estimate.high[told])
    if bounds is not None:
        assert np.all((estimate.low[known] >= bounds[0]) & (estimate.high[known] <= bounds[1]))


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("of_seed", [0.0, 0.5, 1.0])
def test_intervals_of_shares_cover(n_seeds: int, of_seed: float) -> None:
    """Hits whose probability differs by seed on the logit scale, around 0.95.

    The mean probability is known by quadrature.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    centre = logit(0.95)
    truth = (expit(centre + of_seed * nodes) * weights).sum() / weights.sum()
    rng = np.random.default_rng(0)
    tries, hits = 600, 0
    for _ in range(tries):
        probability = expit(centre + of_seed * rng.normal(size=(n_seeds, 1, 1)))
        estimate = crossed_mean((rng.random((n_seeds, 200, 1)) < probability).astype(float), bounds=SHARE)
        hits += bool(estimate.low[0] <= truth <= estimate.high[0])
    assert hits / tries >= 0.925  # three standard errors of 600 tries below 0.95 would be 0.923


@pytest.mark.parametrize("n_seeds", [1, 3, 5])
@pytest.mark.parametrize(("of_seed", "of_example", "of_both"), [(0.0, 0.5, 0.3), (0.1, 0.5, 0.3), (1.0, 0.5, 0.3)])
def test_intervals_cover(n_seeds: int, of_seed: float, of_example: float, of_both: float) -> None:
    """Crossed random effects with mean 0: the interval holds it about as often as it says."""
    rng = np.random.default_rng(0)
    tries, hits = 500, 0
    for _ in range(tries):
        seeds = rng.normal(size=(n_seeds, 1, 1)) * (of_seed if n_seeds > 1 else 0)
        cube = seeds + of_example * rng.normal(size=(1, 60, 1)) + of_both * rng.normal(size=(n_seeds, 60, 1))
        estimate = crossed_mean(cube)
        hits += bool(estimate.low[0] <= 0 <= estimate.high[0])
    assert 0.93 <= hits / tries <= 0.99


def test_resample_weights_count_draws() -> None:
    weights = resample_weights(9, 5000, np.random.default_rng(0))
    assert np.all(weights.sum(1) == 8)
    assert np.allclose(weights.mean(0), 8 / 9, atol=0.06)
    assert np.array_equal(resample_weights(1, 3, np.random.default_rng(0)), np.ones((3, 1)))


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
