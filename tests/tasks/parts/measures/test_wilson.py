"""Wilson's interval: against another library, and the same for arrays and tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

from tasks.parts.measures.wilson import Z, wilson


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_shares_have_the_interval_of_scipy(level: float) -> None:
    z = float(norm.ppf(0.5 + level / 2))
    for n in (1, 7, 400):
        for successes in {0, 1, n // 3, n}:
            share = np.array([successes / n])
            centre, half = wilson(share * n, np.array([float(n)]), share * (1 - share), z)
            expected = binomtest(successes, n).proportion_ci(level, method="wilson")
            assert (centre - half).item() == pytest.approx(expected.low, abs=1e-12)
            assert (centre + half).item() == pytest.approx(expected.high, abs=1e-12)


def test_tensors_have_the_interval_of_arrays() -> None:
    total, n, variance = np.array([0.0, 2.5, 7.0]), np.array([1.0, 4.0, 7.0]), np.array([0.0, 0.1, 0.0])
    arrays = wilson(total, n, variance)
    tensors = wilson(torch.from_numpy(total), torch.from_numpy(n), torch.from_numpy(variance))
    for tensor, array in zip(tensors, arrays, strict=True):
        assert tensor.tolist() == pytest.approx(array.tolist(), rel=1e-12)


def test_the_usual_quantile_leaves_95_percent() -> None:
    assert norm.cdf(Z) - norm.cdf(-Z) == pytest.approx(0.95, abs=1e-12)
