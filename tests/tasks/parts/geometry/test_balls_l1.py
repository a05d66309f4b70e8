"""Norms and projections in L1 and L0 are what defines them.

They are compared with bisection and brute force in float64.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor

from tasks.parts.geometry.balls import inside, norm_of, project, random_in_ball, sparse_ascent


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def twin(row: Tensor, epsilon: float) -> np.ndarray:
    """The nearest point of the L1 ball: the threshold that leaves a norm of epsilon is found by
    bisection.
    """
    v = row.double().flatten().numpy()
    if np.abs(v).sum() <= epsilon:
        return v

    def soft(threshold: float) -> np.ndarray:
        return np.sign(v) * np.maximum(np.abs(v) - threshold, 0)

    return soft(brentq(lambda threshold: np.abs(soft(threshold)).sum() - epsilon, 0, np.abs(v).max(), xtol=1e-15))


def test_norms() -> None:
    delta = gaussian(0, 5, 3, 4, 4).relu()
    flat = delta.double().flatten(1).numpy()
    assert norm_of(delta, "L1").numpy() == pytest.approx(np.abs(flat).sum(1), rel=1e-6)
    assert norm_of(-delta, "L0").tolist() == (flat != 0).sum(1).tolist()
    assert norm_of(delta, "L0").dtype == delta.dtype


@given(
    seed=st.integers(0, 10_000),
    epsilons=st.lists(st.floats(0, 40), min_size=1, max_size=6),
    size=st.floats(1e-3, 100),
    grain=st.sampled_from([None, 1.0, 0.5]),
)
@settings(max_examples=100, deadline=None)
def test_l1_projection_is_its_slow_twin(seed: int, epsilons: list[float], size: float, grain: float | None) -> None:
    delta = gaussian(seed, len(epsilons), 2, 3, 3)
    if grain is not None:
        delta = (delta / grain).round() * grain  # many equal numbers and zeros
    delta = delta * size
    radius = torch.tensor(epsilons)
    near = project(delta, radius, "L1")
    for row, found, epsilon in zip(delta, near, radius.tolist(), strict=True):
        assert found.double().flatten().numpy() == pytest.approx(twin(row, epsilon), abs=2e-6 * size)
        assert float(found.double().abs().sum()) <= epsilon * (1 + 1e-6) + 2e-6 * size
    inside = delta.double().flatten(1).abs().sum(1) <= radius
    assert torch.equal(near[inside], delta[inside])
    assert torch.allclose(project(near, radius, "L1"), near, atol=2e-6 * size)


def test_l1_projection_of_a_large_image_keeps_its_digits() -> None:
    delta = gaussian(0, 2, 3, 224, 224)
    near = project(delta, torch.tensor([3.0, 60_000.0]), "L1")
    for row, found, epsilon in zip(delta, near, [3.0, 60_000.0], strict=True):
        assert float(found.double().abs().sum()) == pytest.approx(epsilon, rel=1e-5)
        assert found.flatten().numpy() == pytest.approx(twin(row, epsilon), abs=1e-6)


@given(seed=st.integers(0, 10_000), kept=st.floats(0, 7))
@settings(max_examples=50, deadline=None)
def test_l0_projection_is_the_nearest_of_all_choices(seed: int, kept: float) -> None:
    delta = gaussian(seed, 1, 1, 2, 3)
    near = project(delta, torch.tensor([kept]), "L0").flatten()
    v = delta.flatten()
    choices = [
        torch.zeros(6).index_fill(0, torch.tensor(c, dtype=torch.long), 1.0) * v
        for c in combinations(range(6), min(int(kept), 6))
    ]
    assert torch.equal(near, min(choices, key=lambda choice: float((choice - v).norm())))


def test_l0_projection_keeps_as_many_as_it_says_of_equals() -> None:
    near = project(torch.ones(3, 1, 2, 2), torch.tensor([0.0, 1.9, 3.0]), "L0")
    assert near.flatten(1).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize("norm", ["L1", "L0"])
def test_projections_are_the_same_in_any_company(norm: str) -> None:
    delta, radius = gaussian(3, 9, 3, 5, 5), torch.linspace(0, 60, 9)
    together = project(delta, radius, norm)
    for i in range(9):
        assert torch.equal(project(delta[i : i + 1], radius[i : i + 1], norm)[0], together[i])


def boxed_twin(row: Tensor, room: Tensor, epsilon: float) -> np.ndarray:
    """The nearest point of ball and box: soft thresholding, cut at the wall, with the threshold
    found by bisection.
    """
    v, wall = row.double().flatten().numpy(), room.double().flatten().numpy()

    def soft(threshold: float) -> np.ndarray:
        return np.sign(v) * np.minimum(np.maximum(np.abs(v) - threshold, 0), wall)

    if np.abs(soft(0)).sum() <= epsilon:
        return soft(0)
    return soft(brentq(lambda threshold: np.abs(soft(threshold)).sum() - epsilon, 0, np.abs(v).max(), xtol=1e-15))


@given(
    seed=st.integers(0, 10_000),
    epsilons=st.lists(st.floats(1e-3, 12), min_size=1, max_size=6),
    size=st.floats(1e-2, 30),
    grain=st.sampled_from([None, 0.25]),
)
@settings(max_examples=150, deadline=None)
def test_l1_projection_onto_ball_and_box(seed: int, epsilons: list[float], size: float, grain: float | None) -> None:
    shape = (len(epsilons), 2, 3, 3)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    images = ((images - 0.5) * 3 + 0.5).clamp(0, 1)  # many at the walls
    delta = gaussian(seed + 1, *shape) * size
    if grain is not None:
        delta, images = (delta / grain).round() * grain, (images / grain).round() * grain
    near = inside(images, delta, torch.tensor(epsilons), "L1", (0.0, 1.0))
    for row, image, found, epsilon in zip(delta, images, near, epsilons, strict=True):
        wanted = boxed_twin(row, torch.where(row > 0, 1 - image, image), epsilon)
        assert found.double().flatten().numpy() == pytest.approx(wanted, abs=2e-6 * max(size, 1))
    moved = images + near
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (norm_of(near, "L1") <= torch.tensor(epsilons) * (1 + 1e-6) + 1e-6).all()


def test_without_a_box_the_projection_is_that_onto_the_ball() -> None:
    delta, radius = gaussian(0, 4, 3, 4, 4), torch.linspace(1, 20, 4)
    for box in ((-torch.inf, torch.inf), (-1e3, 1e3)):
        near = inside(torch.zeros_like(delta), delta, radius, "L1", box)
        assert torch.allclose(near, project(delta, radius, "L1"), atol=1e-6)


def test_the_steepest_that_have_room_move_equally() -> None:
    gradient, room = gaussian(0, 50, 1, 4, 5), gaussian(1, 50, 1, 4, 5).relu()
    step = sparse_ascent(gradient, room, 0.25).flatten(1)
    for g, r, s in zip(gradient.flatten(1), room.flatten(1), step, strict=True):
        allowed = sorted((i for i in range(20) if r[i] > 0), key=lambda i: -abs(float(g[i])))[:5]
        wanted = torch.zeros(20)
        wanted[allowed] = g[allowed].sign() / len(allowed)
        assert torch.allclose(s, wanted)
    assert not sparse_ascent(gradient, 0 * room, 0.25).any()


def test_random_points_of_the_l1_ball_are_uniform() -> None:
    """The share within radius r is r^n, the signs are fair, the sizes of all numbers alike."""
    points = torch.cat([random_in_ball("L1", (3,), seed=0, purpose="test", ids=range(4000))])
    lengths = norm_of(points, "L1")
    assert lengths.max() <= 1 + 1e-6
    for r in (0.5, 0.8):
        assert float((lengths <= r).double().mean()) == pytest.approx(r**3, abs=0.03)
    assert (points > 0).double().mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.03)
    share = points.abs() / lengths[:, None]  # on the simplex each is Beta(1, 2): mean 1/3, variance 1/18
    assert share.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert share.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.006)
