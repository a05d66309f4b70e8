"""The step along the boundary is the exact minimiser of its problem, and the walk ends where the boundary is nearest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.parts.along_boundary import nearest
from tasks.parts.attacks.alma import alma
from tasks.parts.geometry import PIXELS

NUMBERS = 50


def problem(stay: float, rise: float) -> tuple[Tensor, ...]:
    """Twenty boxes of fifty numbers in double precision, about half of whose walls are in the way."""
    draw = torch.Generator().manual_seed(7)
    delta, gradient = torch.randn(2, 20, NUMBERS, generator=draw, dtype=torch.float64)
    low, high = -torch.rand(2, 20, NUMBERS, generator=draw, dtype=torch.float64)
    one = torch.ones(20, dtype=torch.float64)
    return delta.clamp(low, -high), gradient, rise * one, stay * one, low, -high


def slow(
    delta: Tensor, gradient: Tensor, rise: Tensor, stay: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """By bisection of the multiplier: the minimisers, and which of them fulfil the inequality."""

    def at(multiplier: Tensor) -> Tensor:
        return ((stay[:, None] * delta + multiplier[:, None] * gradient) / (1 + stay[:, None])).clamp(low, high)

    def risen(multiplier: Tensor) -> Tensor:
        return (gradient * (at(multiplier) - delta)).sum(1) >= rise

    below, above = torch.zeros_like(rise), torch.full_like(rise, 1e6)
    for _ in range(200):
        middle = (below + above) / 2
        below, above = torch.where(risen(middle), below, middle), torch.where(risen(middle), middle, above)
    return torch.where(risen(torch.zeros_like(rise))[:, None], at(torch.zeros_like(rise)), at(above)), risen(above)


@pytest.mark.parametrize("stay", [0.0, 0.3, 10.0])
@pytest.mark.parametrize("rise", [-1e3, -1.0, 0.5, 4.0])
def test_the_step_is_the_minimiser(stay: float, rise: float) -> None:
    given = problem(stay, rise)
    expected, there = slow(*given)
    found = nearest(*given)
    assert there.all()
    assert torch.allclose(found, expected, atol=1e-5)
    delta, gradient, wanted, _, low, high = given
    assert ((found >= low) & (found <= high)).all()
    assert ((gradient * (found - delta)).sum(1) >= wanted - 1e-4).all()


def test_what_cannot_be_reached_is_approached() -> None:
    _, gradient, _, _, low, high = given = problem(1.0, 1e3)
    assert torch.equal(nearest(*given), torch.where(gradient > 0, high, low))


def test_rows_do_not_know_each_other() -> None:
    given = problem(1.0, 2.0)
    whole = nearest(*given)
    for row in range(0, 20, 7):
        assert torch.allclose(nearest(*(each[row : row + 1] for each in given)), whole[row : row + 1], atol=1e-12)


def test_without_a_gradient_it_moves_towards_the_image() -> None:
    delta, _, rise, stay, low, high = problem(1.0, 2.0)
    moved = nearest(delta, torch.zeros_like(delta), rise, stay, low, high)
    assert torch.allclose(moved, delta / 2)


def test_the_walk_ends_at_the_foot_of_a_curved_boundary() -> None:
    """Beyond a sphere about the middle of the box lies another class: its nearest point is straight out from the middle."""
    middle, reach = 0.5, 0.8

    def model(points: Tensor) -> Tensor:
        out = (points - middle).flatten(1).square().sum(1) - reach**2
        return torch.stack([torch.zeros_like(out), out], 1)

    draw = torch.Generator().manual_seed(3)
    images = middle + 0.1 * torch.randn(8, 1, 4, 4, generator=draw)
    labels = torch.zeros(8, dtype=torch.long)
    exact = reach - (images - middle).flatten(1).norm(dim=1)
    polished = alma(model, images, labels, steps=40, box=PIXELS)
    plain = alma(model, images, labels, steps=40, polish=0, box=PIXELS)
    assert polished.success.all()
    assert (polished.distance >= exact - 1e-5).all()
    assert float((polished.distance / exact).max()) < 1.002
    assert float((polished.distance / exact).mean()) < float((plain.distance / exact).mean())
