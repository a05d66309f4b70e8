"""Calibration: planted probabilities, a slow twin, and what no binning may do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.parts.measures.calibration import bin_of, expected_calibration_error


def twin(confidence: list[float], correct: list[int], bins: int) -> float:
    """Bin by bin: those with confidence in (b / bins, (b + 1) / bins], the first with 0 as well."""
    total = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidence) if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)]
        if inside:
            gap = np.mean([correct[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return float(total)


def test_planted_probabilities() -> None:
    """Said 0.95 and right in 8 of 10; said 0.55 and right in 10 of 10: 1/2 * 0.15 + 1/2 * 0.45."""
    confidence = [0.95] * 10 + [0.55] * 10
    correct = [1] * 8 + [0] * 2 + [1] * 10
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.3)
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(0.15)  # |0.9 - 0.75|


def test_right_as_often_as_said_is_calibrated() -> None:
    confidence = np.repeat([0.25, 0.5, 0.75, 1.0], 4)
    correct = np.concatenate([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0)


def test_gaps_in_one_bin_cancel_and_between_bins_do_not() -> None:
    assert expected_calibration_error([0.8, 0.8], [1, 0.6]) == pytest.approx(0)
    assert expected_calibration_error([0.8, 0.2], [1, 0]) == pytest.approx(0.2)


@given(st.lists(st.tuples(st.integers(0, 97), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_slow_twin(drawn: list[tuple[int, bool]], bins: int) -> None:
    confidence = [k / 97 for k, _ in drawn]  # 97 is prime: on an inner edge of no bin
    correct = [int(right) for _, right in drawn]
    measured = expected_calibration_error(confidence, correct, bins)
    assert measured == pytest.approx(twin(confidence, correct, bins), abs=1e-9)
    assert abs(np.mean(confidence) - np.mean(correct)) - 1e-9 <= measured <= 1


def test_every_confidence_has_a_bin() -> None:
    assert bin_of([0, 1e-9, 1 / 15, 1 / 15 + 1e-6, 0.999, 1]).tolist() == [0, 0, 0, 1, 14, 14]


def test_nothing_is_no_number() -> None:
    assert np.isnan(expected_calibration_error([], []))
