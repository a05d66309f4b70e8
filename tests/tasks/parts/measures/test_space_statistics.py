"""Statistics of codes against NumPy, slow twins and densities whose dimension is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.parts.finite import NotFinite
from tasks.parts.measures import space_statistics as module
from tasks.parts.measures.space_statistics import PERCENTILES, by_class, dimensions, estimates, space_statistics


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ball(count: int, d: int, seed: int) -> Tensor:
    """Uniform in the unit d-ball, turned into a space of d + 4 dimensions."""
    radius = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) ** (1 / d)
    x = gaussian(seed, count, d)
    turned = torch.linalg.qr(gaussian(seed + 2, d + 4, d)).Q
    return radius * x / x.norm(dim=1, keepdim=True) @ turned.T


def torus(count: int, d: int, seed: int) -> Tensor:
    """Uniform on a flat torus, which has no edge."""
    angles = torch.rand(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 * math.pi
    return torch.cat([angles.cos(), angles.sin()], 1)


@pytest.mark.parametrize(("count", "d"), [(60, 7), (9, 40)])
def test_moments_are_those_of_numpy(count: int, d: int) -> None:
    codes = gaussian(0, count, d) @ gaussian(1, d, d) + gaussian(2, d)
    x = codes.numpy()
    found = space_statistics(codes.view(count, 1, d), seed=0, k=3, resamples=3)
    assert found.count == count
    np.testing.assert_allclose(found.mean, x.mean(0))
    np.testing.assert_allclose(found.spread, x.std(0))
    np.testing.assert_allclose(found.percentiles, np.percentile(x, PERCENTILES, axis=0))
    np.testing.assert_allclose(found.correlations, np.corrcoef(x.T), atol=1e-12)
    np.testing.assert_allclose(found.norms, np.percentile(np.sqrt((x**2).sum(1)), PERCENTILES))
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
    np.testing.assert_allclose(found.spectrum, singular**2 / count, atol=1e-10)
    assert math.isclose(found.spectrum.sum(), x.var(0).sum())


def test_a_coordinate_that_does_not_vary_has_no_correlations() -> None:
    codes = gaussian(0, 50, 3)
    codes[:, 1] = 2.0
    found = space_statistics(codes, seed=0, resamples=2).correlations
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[0, 2], np.corrcoef(codes[:, 0], codes[:, 2])[0, 1])


def test_statistics_of_a_class_are_those_of_its_codes() -> None:
    codes, labels = torus(300, 2, 0), torch.arange(300) % 3
    found = by_class(codes, labels, seed=0, resamples=3)
    assert list(found) == [0, 1, 2]
    for label, each in found.items():
        alone = space_statistics(codes[labels == label], seed=0, resamples=3, name=f"class {label}")
        np.testing.assert_equal(vars(each), vars(alone))
    assert found[0].two_nn != found[1].two_nn


def brute_force(codes: Tensor, k: int) -> tuple[float, float]:
    """Both estimates, code by code in plain Python."""
    ratios, logs = [], []
    for i in range(len(codes)):
        r = sorted(float((codes[i] - codes[j]).norm()) for j in range(len(codes)) if j != i)
        if r[0] == 0:
            continue
        ratios.append(r[1] / r[0])
        logs.append(sum(math.log(r[k - 1] / r[j]) for j in range(k - 1)) / (k - 1))
    ratios.sort()
    kept = int(0.9 * len(ratios))
    pairs = [(math.log(ratios[i]), -math.log(1 - (i + 1) / len(ratios))) for i in range(kept)]
    return sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs), len(logs) / sum(logs)


@pytest.mark.parametrize("k", [2, 6])
def test_estimates_are_those_of_brute_force(k: int) -> None:
    codes = gaussian(0, 60, 4).float().double()
    codes[7] = codes[12]  # which are then left out
    np.testing.assert_allclose(estimates(codes, k), brute_force(codes, k), rtol=1e-6)


def test_the_fit_of_exact_ratios_is_the_dimension() -> None:
    """The ratios are the quantiles of F(mu) = 1 - mu^-d."""
    for d in (1.0, 3.5, 20.0):
        shares = np.arange(1, 200) / 200
        assert math.isclose(module._two_nn(np.append(-np.log1p(-shares) / d, 99.0)), d)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_dimension_of_a_ball(d: int) -> None:
    for value in estimates(ball(4000, d, 10 * d), 10):
        assert abs(value / d - 1) < 0.05


def test_intervals_cover_the_dimension() -> None:
    """They are made for 95 %, and are a little wide."""
    found = [dimensions(torus(250, 2, seed), seed=seed, resamples=12) for seed in range(40)]
    for estimate in range(2):
        values = np.array([each[estimate] for each in found])  # (40, 3)
        assert np.mean((values[:, 1] < 2) & (values[:, 2] > 2)) >= 0.85
        halves = (values[:, 2] - values[:, 1]).mean() / 2 / 1.96
        assert 0.8 < halves / values[:, 0].std() < 1.7


def test_halves_depend_on_the_seed_alone() -> None:
    codes = torus(100, 2, 0)
    assert dimensions(codes, seed=3, resamples=4) == dimensions(codes, seed=3, resamples=4)
    again = dimensions(codes, seed=4, resamples=4)
    assert again != dimensions(codes, seed=3, resamples=4)
    assert again[0].value == dimensions(codes, seed=3, resamples=4)[0].value


@pytest.mark.parametrize("codes", [gaussian(0, 1, 3), gaussian(0, 12, 3), torch.ones(40, 2)], ids=["1", "12", "equal"])
def test_too_few_or_equal_codes_have_no_dimension(codes: Tensor) -> None:
    found = space_statistics(codes, seed=0)
    for dimension in (found.two_nn, found.mle):
        assert all(math.isnan(number) for number in dimension)


def test_codes_that_are_not_finite_are_a_failure() -> None:
    codes = gaussian(0, 20, 3)
    codes[4, 1] = torch.inf
    with pytest.raises(NotFinite, match="the codes have numbers that are not finite"):
        space_statistics(codes, seed=0)


def test_no_codes_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="no codes"):
        space_statistics(torch.zeros(0, 3), seed=0)
