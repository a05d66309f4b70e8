"""The walk along the boundary ends where the boundary is nearest.

Its step is the exact minimiser of its problem.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from tasks.parts.attacks.alma import alma
from tasks.parts.attacks.common.boundary_walk import project_onto_half_space
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.fmn import fmn
from tasks.parts.geometry.balls import Ball

NUMBERS = 50


def problem(wanted: float) -> tuple[Tensor, ...]:
    """Twenty boxes of fifty numbers in double precision; about half of the walls are in the way."""
    draw = torch.Generator().manual_seed(7)
    base, gradient = torch.randn(2, 20, NUMBERS, generator=draw, dtype=torch.float64)
    low, high = -torch.rand(2, 20, NUMBERS, generator=draw, dtype=torch.float64)
    return base.clamp(low, -high), gradient, wanted * torch.ones(20, dtype=torch.float64), low, -high


def slow(base: Tensor, gradient: Tensor, wanted: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """By bisection of the multiplier: the nearest points, and which fulfil the inequality."""

    def at(multiplier: Tensor) -> Tensor:
        return (base + multiplier[:, None] * gradient).clamp(low, high)

    def fulfilled(multiplier: Tensor) -> Tensor:
        return (gradient * at(multiplier)).sum(1) >= wanted

    below, above = torch.zeros_like(wanted), torch.full_like(wanted, 1e6)
    for _ in range(200):
        middle = (below + above) / 2
        below, above = torch.where(fulfilled(middle), below, middle), torch.where(fulfilled(middle), middle, above)
    return torch.where(fulfilled(torch.zeros_like(wanted))[:, None], base, at(above)), fulfilled(above)


@pytest.mark.parametrize("wanted", [-1e3, -1.0, 0.5, 4.0, 10.0])
def test_the_step_is_the_nearest_point(wanted: float) -> None:
    given = problem(wanted)
    expected, there = slow(*given)
    found = project_onto_half_space(*given)
    assert there.all()
    assert torch.allclose(found, expected, atol=1e-5)
    _, gradient, _, low, high = given
    assert ((found >= low) & (found <= high)).all()
    assert ((gradient * found).sum(1) >= wanted - 1e-4).all()


def test_what_cannot_be_reached_is_approached() -> None:
    _, gradient, _, low, high = given = problem(1e3)
    assert torch.equal(project_onto_half_space(*given), torch.where(gradient > 0, high, low))


def test_rows_do_not_know_each_other() -> None:
    given = problem(2.0)
    whole = project_onto_half_space(*given)
    for row in range(0, 20, 7):
        assert torch.allclose(
            project_onto_half_space(*(each[row : row + 1] for each in given)), whole[row : row + 1], atol=1e-12
        )


def test_without_a_gradient_it_stays() -> None:
    base, _, wanted, low, high = problem(2.0)
    assert torch.equal(project_onto_half_space(base, torch.zeros_like(base), wanted, low, high), base)


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_the_walk_ends_at_the_foot_of_a_curved_boundary(norm: Ball) -> None:
    """Beyond an ellipsoid about the middle of the box, of weights a, lies another class.

    In L2 it is a sphere, whose nearest point is straight out from the middle. In L-inf every number
    moves out by the same t, and a_1 (|z_1| + t)^2 + ... + a_n (|z_n| + t)^2 = reach^2 for the way z
    from the middle to the image.
    """
    middle, reach = 0.5, 0.8
    weights = torch.ones(16) if norm == "L2" else torch.linspace(0, 2, 16)

    def model(points: Tensor) -> Tensor:
        out = (weights * (points - middle).flatten(1).square()).sum(1) - reach**2
        return torch.stack([torch.zeros_like(out), out], 1)

    draw = torch.Generator().manual_seed(3)
    images = middle + 0.1 * torch.randn(8, 1, 4, 4, generator=draw)
    labels = torch.zeros(8, dtype=torch.long)
    way = (images - middle).flatten(1)
    half = (weights * way.abs()).sum(1) / weights.sum()
    rest = (reach**2 - (weights * way.square()).sum(1)) / weights.sum()
    exact = reach - way.norm(dim=1) if norm == "L2" else (half**2 + rest).sqrt() - half
    search: partial[AttackResult] = partial(alma) if norm == "L2" else partial(fmn, norm=norm)
    found = search(model, images, labels, steps=60, polish=30)
    assert found.success.all()
    assert (found.distance >= exact - 1e-5).all()
    assert float((found.distance / exact).max()) < 1.001
