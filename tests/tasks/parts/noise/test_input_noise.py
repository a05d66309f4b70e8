"""The kinds of noise, against their formulas in NumPy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.parts.noise.input_noise import direction, moved
from tasks.parts.randomness import normal

KINDS = ["additive", "multiplicative", "sphere"]
IMAGES = torch.rand((4, 2, 3, 3), generator=torch.Generator().manual_seed(0))
NORMAL = normal(0, "noise", range(4), (2, 3, 3))
RADII = [0.1, 0.2, 0.7, 2.0]


def formula(x: np.ndarray, radius: float, n: np.ndarray, kind: str) -> np.ndarray:
    match kind:
        case "additive":
            return x + radius * n
        case "multiplicative":
            return x * (1 + radius * n)
    return x + radius * n / np.sqrt((n**2).sum())


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_formula(kind: str, clip: bool) -> None:
    before = IMAGES.clone()
    radius = torch.tensor(RADII)[:, None, None, None]
    noisy = moved(IMAGES, radius, direction(NORMAL, kind), kind, clip=clip)
    for i in range(4):
        wanted = formula(IMAGES[i].double().numpy(), RADII[i], NORMAL[i].double().numpy(), kind)
        wanted = wanted.clip(0, 1) if clip else wanted
        assert noisy[i].numpy() == pytest.approx(wanted, abs=1e-6)
        alone = moved(IMAGES[i], RADII[i], direction(NORMAL[i], kind), kind, clip=clip)
        assert torch.allclose(alone, noisy[i], atol=1e-6)
    assert torch.equal(IMAGES, before)


def test_a_point_on_the_sphere_has_exactly_its_radius() -> None:
    for radius in RADII:
        noisy = moved(IMAGES, radius, direction(NORMAL, "sphere"), "sphere", clip=False)
        distance = (noisy - IMAGES).double().flatten(1).norm(dim=1)
        assert distance.numpy() == pytest.approx(np.full(4, radius), rel=2e-6)


def test_directions() -> None:
    block = normal(0, "noise", range(3), (5, 2, 3, 3))  # (..., C, H, W)
    assert direction(block, "additive") is block
    assert direction(block, "multiplicative") is block
    unit = direction(block, "sphere")
    assert unit.flatten(2).norm(dim=2).numpy() == pytest.approx(np.ones((3, 5)), rel=1e-6)
    assert torch.equal(unit[1, 2], direction(block[1, 2], "sphere"))


@pytest.mark.parametrize("kind", KINDS)
def test_cells_broadcast_over_replicates_into_a_given_place(kind: str) -> None:
    """Centres (K, 1, C, H, W), radii (K, 1, 1, 1, 1) and directions (S, C, H, W) give (K, S, C, H,
    W).
    """
    centres, radius = IMAGES[:2, None], torch.tensor([0.1, 0.5]).reshape(2, 1, 1, 1, 1)
    along = direction(NORMAL[:3], kind)
    place = torch.full((2, 3, 2, 3, 3), torch.nan)
    result = moved(centres, radius, along, kind, clip=True, out=place)
    assert result.data_ptr() == place.data_ptr()
    for k in range(2):
        for s in range(3):
            wanted = moved(IMAGES[k], float(radius[k]), along[s], kind, clip=True)
            assert torch.allclose(place[k, s], wanted, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_radius_zero_moves_nothing(kind: str) -> None:
    assert torch.equal(moved(IMAGES, 0.0, direction(NORMAL, kind), kind, clip=True), IMAGES)


def test_black_stays_black_under_multiplicative_noise() -> None:
    black = torch.zeros(2, 2, 3, 3)
    assert torch.equal(moved(black, 5.0, NORMAL[:2], "multiplicative", clip=False), black)
