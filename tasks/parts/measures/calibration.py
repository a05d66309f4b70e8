"""How far confidence is from accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017."""


def bin_of(confidence: ArrayLike, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence, among so many of equal width.

    Bin b holds (b / bins, (b + 1) / bins]; 0 belongs to the first.

    >>> bin_of([0.0, 0.5, 0.51, 1.0], bins=2).tolist()
    [0, 0, 1, 1]
    """
    places = np.ceil(np.asarray(confidence, np.float64) * bins) - 1
    return places.clip(0, bins - 1).astype(np.int64)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """How far mean confidence is from accuracy within a bin, averaged over the bins.

    The bins are of equal width, and each weighs as much as it has examples.

        ECE = sum_b n_b / n |accuracy_b - confidence_b|

    Naeini, Cooper and Hauskrecht 2015; bins as in Guo, Pleiss, Sun and Weinberger 2017. It is never
    negative, and so too large for few examples even where the classifier is calibrated.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) whether the prediction is right, 0 or 1.
        bins: how many.

    >>> round(expected_calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 0, 1]), 9)
    0.15
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    assert confidence.shape == correct.shape
    assert confidence.ndim == 1
    if not len(confidence):
        return float("nan")
    gaps = np.bincount(bin_of(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
