"""Effective sample size and R-hat against autoregressive chains, for which both are known."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.signal import lfilter

from tasks.parts.samplers.common.diagnostics import diagnosed


def autoregressive(rho: float, chains: int, samples: int, seed: int = 0) -> np.ndarray:
    """x_t = rho x_(t-1) + noise, from its stationary distribution."""
    noise = np.random.default_rng(seed).standard_normal((chains, samples + 200))
    return lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 200:]


def test_ess_of_autoregressive_chains() -> None:
    """S (1 - rho) / (1 + rho) of S samples."""
    for rho in (0.0, 0.5, 0.9, -0.5):
        found = [diagnosed(autoregressive(rho, 4, 10_000, seed)) for seed in range(12)]
        assert abs(np.mean([each.ess for each in found]) / (40_000 * (1 - rho) / (1 + rho)) - 1) < 0.07
        assert max(each.r_hat for each in found) < 1.01


def test_chains_that_disagree_are_seen() -> None:
    values = autoregressive(0.2, 4, 500)
    values[0] += 3
    assert diagnosed(values).r_hat > 1.1
    spread = autoregressive(0.2, 4, 500)
    spread[0] *= 5  # the same centre
    assert diagnosed(torch.from_numpy(spread)).r_hat > 1.05
    still = autoregressive(0.2, 4, 500)
    still[0] = 0.1
    assert diagnosed(still).r_hat > 1.05


def test_nothing_is_said_of_what_says_nothing() -> None:
    values = autoregressive(0.0, 4, 50)
    broken = values.copy()
    broken[1, 3] = np.inf
    for each in (np.ones((4, 50)), values[:, :3], broken):
        assert all(math.isnan(number) for number in diagnosed(each))
    apart = diagnosed(np.arange(4)[:, None] + np.zeros((4, 50)))  # each stands still, elsewhere
    assert not apart.r_hat < 1.01
