"""Gaussian and spherical perturbations against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from tasks.parts.samplers import gaussian, spherical
from tasks.parts.settings import UserError

RADII = (0.0, 0.1, 2.0)
POINTS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
SCALE = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)


@pytest.mark.parametrize("scale", [2.0, SCALE], ids=["one", "each"])
def test_gaussian_moments(scale: float | Tensor) -> None:
    found = gaussian(POINTS, RADII, ids=[3, 8], seed=0, samples=20_000, scale=scale)
    assert found.shape == (2, 3, 20_000, 3)
    for r, radius in enumerate(RADII):
        n = (found[:, r] - POINTS[:, None]) / (radius * torch.as_tensor(scale) if radius else 1.0)
        if not radius:
            assert not n.any()
            continue
        assert (n.mean(1).abs() < 4 / math.sqrt(20_000)).all()
        assert ((n.var(1) - 1).abs() < 4 * math.sqrt(2 / 20_000)).all()


def test_multiplicative_is_relative_to_each_coordinate() -> None:
    settings: dict[str, Any] = {"ids": [3, 8], "seed": 0, "samples": 5}
    found = gaussian(POINTS, RADII, kind="multiplicative", scale=7.0, **settings)
    n = gaussian(torch.zeros_like(POINTS), [1.0], **settings)
    radii = torch.tensor(RADII)[:, None, None]
    torch.testing.assert_close(found, POINTS[:, None, None] * (1 + radii * n))


@pytest.mark.parametrize("scale", [2.0, SCALE], ids=["one", "each"])
def test_the_sphere_has_its_radius_and_is_uniform(scale: float | Tensor) -> None:
    found = spherical(POINTS, RADII, ids=[3, 8], seed=0, samples=5000, scale=scale)
    inside = (found - POINTS[:, None, None]) / torch.as_tensor(scale)
    torch.testing.assert_close(inside.norm(dim=-1), torch.tensor(RADII)[None, :, None].expand(2, 3, 5000).double())
    heights = inside[:, 2] / RADII[2]
    for k in range(3):  # in three dimensions each coordinate is uniform (Archimedes)
        assert stats.kstest(heights[..., k].flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


def test_comparisons_are_paired() -> None:
    """The same directions for all radii, for both samplers, and for fewer samples or examples."""
    settings: dict[str, Any] = {"ids": [3, 8], "seed": 0}
    whole = gaussian(POINTS, RADII, samples=9, **settings) - POINTS[:, None, None]
    torch.testing.assert_close(whole[:, 2], 20 * whole[:, 1])
    sphere = spherical(POINTS, [1.0], samples=4, **settings) - POINTS[:, None, None]
    torch.testing.assert_close(sphere[:, 0], whole[:, 1, :4] / whole[:, 1, :4].norm(dim=-1, keepdim=True))
    one = gaussian(POINTS[1:], RADII, samples=4, ids=[8], seed=0)
    assert torch.equal(one, gaussian(POINTS, RADII, samples=9, **settings)[1:, :, :4])


@pytest.mark.parametrize("sampler", [gaussian, spherical])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"radii": [0.1, -1.0]}, "radii: must be finite and at least 0, not -1.0"),
        ({"samples": 0}, "samples: must be at least 1, not 0"),
        ({"ids": [1]}, "ids: 1 ids of 2 points"),
    ],
)
def test_bad_numbers_are_refused(sampler: Callable[..., Tensor], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        sampler(POINTS, **{"radii": [0.1], "ids": [0, 1], "seed": 0, "samples": 3, **settings})
    assert str(caught.value) == said
