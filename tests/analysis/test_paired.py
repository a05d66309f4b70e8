"""Differences by example: scipy as a reference, exact counts, and the level of the tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from analysis.paired import holm, paired_difference, paired_test
from analysis.stats import SHARE


def test_difference_is_by_example() -> None:
    """Examples differ wildly among themselves, each by about 0.1: the interval is of the latter."""
    rng = np.random.default_rng(0)
    second = rng.normal(size=(1, 40, 2)) * 10
    by_example = 0.1 + 0.01 * rng.normal(size=(1, 40, 2))
    estimate, test = paired_difference(second + by_example, second)
    theirs = reference.ttest_1samp(by_example[0], 0).confidence_interval()
    assert np.allclose([estimate.low, estimate.high], [theirs.low, theirs.high])
    assert np.all(test.p_holm < 1e-6)


def test_shares_differ_by_at_most_one() -> None:
    first, second = np.ones((3, 4, 1)), np.zeros((3, 4, 1))
    second[:, 0] = 1
    estimate, _ = paired_difference(first, second, bounds=SHARE)
    assert estimate.high[0] <= 1
    assert estimate.low[0] < estimate.mean[0] == 0.75


def test_only_pairs_count() -> None:
    first, second = np.ones((1, 10, 1)), np.zeros((1, 10, 1))
    first[0, :3], second[0, 7:] = np.nan, np.nan
    estimate, test = paired_difference(first, second)
    assert estimate.n.tolist() == [4]
    assert test.n.tolist() == [4]


def test_wilcoxon_and_sign_agree_with_scipy() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, size=(1, 25, 3))
    for r, p in enumerate(paired_test(differences).p):
        assert p == pytest.approx(reference.wilcoxon(differences[0, :, r], zero_method="pratt").pvalue)
    for r, p in enumerate(paired_test(differences, "sign").p):
        above = int((differences[0, :, r] > 0).sum())
        assert p == pytest.approx(reference.binomtest(above, 25).pvalue)


def test_seeds_are_no_independent_examples() -> None:
    """Ten seeds of the same differences tell no more about examples than one seed."""
    differences = np.random.default_rng(0).normal(0.3, 1, size=(1, 25, 1))
    assert np.allclose(paired_test(np.repeat(differences, 10, axis=0)).p, paired_test(differences).p)


def test_no_difference_is_no_finding() -> None:
    assert paired_test(np.zeros((2, 10, 1))).p.tolist() == [1.0]
    assert paired_test(np.zeros((2, 10, 1)), "sign").p.tolist() == [1.0]
    assert np.isnan(paired_test(np.full((1, 4, 1), np.nan)).p[0])


@pytest.mark.parametrize("method", ["wilcoxon", "sign"])
def test_family_wise_error_is_kept(method: str) -> None:
    """Without any difference, at most 5 % of sweeps over 6 radii name one."""
    rng = np.random.default_rng(0)
    named = [np.any(paired_test(rng.normal(size=(1, 30, 6)), method).p_holm < 0.05) for _ in range(300)]
    assert np.mean(named) < 0.075


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_step_down(p: list[float]) -> None:
    """The k-th smallest of m is multiplied by m - k + 1, and none falls below an earlier one."""
    corrected = holm(p)
    worst = 0.0
    for rank, place in enumerate(np.argsort(p, kind="stable")):
        worst = max(worst, min(1.0, p[place] * (len(p) - rank)))
        assert corrected[place] == pytest.approx(worst)


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert np.allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02], equal_nan=True)


def test_unknown_test_is_refused() -> None:
    with pytest.raises(ValueError, match="wilcoxon or sign"):
        paired_test(np.zeros((1, 2, 1)), "t")
