"""Norms, balls and directions are what defines them.

They are compared with NumPy in float64, and points stay inside the ball and the box.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from tasks.parts.geometry.balls import (
    PIXELS,
    UNBOUNDED,
    ascent_direction,
    ascent_step,
    norm_of,
    per_example,
    project,
    random_in_ball,
    within_box,
)
from tasks.parts.randomness import normal

NORMS = ["Linf", "L2"]


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def length(delta: Tensor, norm: str) -> np.ndarray:
    """The norm of each row, by NumPy in float64."""
    flat = delta.double().flatten(1).numpy()
    return np.abs(flat).max(1) if norm == "Linf" else np.sqrt((flat**2).sum(1))


@pytest.mark.parametrize("norm", NORMS)
def test_norm_of(norm: str) -> None:
    delta = gaussian(0, 5, 3, 4, 4)
    assert norm_of(delta, norm).numpy() == pytest.approx(length(delta, norm), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(1e-3, 10))
@settings(max_examples=30, deadline=None)
def test_projection_is_the_nearest_point_of_the_ball(norm: str, seed: int, epsilon: float) -> None:
    delta = gaussian(seed, 6, 1, 3, 3)
    radius = torch.full((6,), epsilon)
    near = project(delta, radius, norm)
    assert (length(near, norm) <= epsilon * (1 + 1e-6)).all()
    assert torch.allclose(project(near, radius, norm), near, rtol=1e-6)
    inside = norm_of(delta, norm) <= epsilon
    assert torch.equal(near[inside], delta[inside])
    for other in range(20):  # points of the ball, on its surface and within
        point = gaussian(100_000 + other, 6, 1, 3, 3)
        point = point / per_example(norm_of(point, norm), point) * epsilon * (1 if other % 2 else 0.7)
        assert (length(delta - near, "L2") <= length(delta - point, "L2") + 1e-6).all()


def test_projection_has_a_radius_for_each_example() -> None:
    delta = torch.full((2, 1, 2, 2), 3.0)
    assert norm_of(project(delta, torch.tensor([1.0, 2.0]), "L2"), "L2").tolist() == pytest.approx([1, 2])
    assert norm_of(project(delta, torch.tensor([1.0, 2.0]), "Linf"), "Linf").tolist() == [1, 2]


@pytest.mark.parametrize(("norm", "dual"), [("Linf", lambda g: g.abs().sum()), ("L2", lambda g: g.norm())])
def test_ascent_direction_gains_the_dual_norm(norm: str, dual) -> None:
    """Of all steps of unit norm it has the largest product with the gradient, which is the
    gradient's dual norm.
    """
    gradient = gaussian(1, 4, 2, 3, 3).double() * torch.tensor([1e-20, 1e-6, 1.0, 1e6])[:, None, None, None]
    step = ascent_direction(gradient, norm)
    assert length(step, norm) == pytest.approx(np.ones(4), rel=1e-6)
    for g, s in zip(gradient, step, strict=True):
        assert float((g * s).sum()) == pytest.approx(float(dual(g)), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_ascent_direction_of_nothing_is_nothing(norm: str) -> None:
    assert torch.equal(ascent_direction(torch.zeros(2, 1, 2, 2), norm), torch.zeros(2, 1, 2, 2))
    faint = ascent_direction(torch.full((1, 1, 2, 2), 1e-30), norm)  # its squares are zero in float32
    assert torch.isfinite(project(faint, torch.ones(1), norm)).all()


@pytest.mark.parametrize(("norm", "dual"), [("Linf", "L1"), ("L2", "L2"), ("L1", "Linf")])
def test_a_step_goes_as_far_as_its_size_and_no_further_than_the_ball(norm: str, dual: str) -> None:
    """Where one number in nine moves in L1, it is the steepest. Every example has a size of its
    own.
    """
    gradient, none = gaussian(2, 4, 1, 3, 3).double(), torch.zeros(4, 1, 3, 3, dtype=torch.double)
    epsilon, sizes = torch.full((1,), 0.6).double(), torch.tensor([0.0, 0.2, 0.5, 3.0]).double()
    settings = {"epsilon": epsilon, "step_size": per_example(sizes, none), "norm": norm, "share": 1 / 9}
    step = ascent_step(none, none, gradient, **settings, box=UNBOUNDED)
    gain, reach = (gradient * step).flatten(1).sum(1), sizes.clamp_max(0.6)
    assert torch.allclose(gain, reach * norm_of(gradient, dual))
    assert torch.allclose(norm_of(step, norm), reach)
    assert (ascent_step(none, none, gradient, **settings, box=PIXELS) >= 0).all()


def test_points_in_the_ball_are_uniform() -> None:
    """In a ball of d dimensions the share of the volume within radius r is r^d; in L-inf each
    coordinate is uniform.
    """
    ids = range(3000)
    ball = random_in_ball("L2", (1, 2, 2), seed=0, purpose="start", ids=ids)
    radius = length(ball, "L2")
    assert radius.max() <= 1 + 1e-6
    assert kstest(radius**4, "uniform").pvalue > 1e-3
    first = ball.flatten(1)[:, 0].numpy() / radius  # of a uniform direction in 4 dimensions: Beta(3/2, 3/2) on [-1, 1]
    assert kstest((first + 1) / 2, "beta", args=(1.5, 1.5)).pvalue > 1e-3
    cube = random_in_ball("Linf", (1, 2, 2), seed=0, purpose="start", ids=ids)
    assert kstest((cube.flatten().numpy() + 1) / 2, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_points_in_the_ball_are_keyed(norm: str) -> None:
    def points(ids, seed=0, purpose="start", block=0) -> Tensor:
        return random_in_ball(norm, (1, 2, 2), seed=seed, purpose=purpose, ids=ids, block=block)

    assert torch.equal(points([3, 8])[1:], points([8]))
    others = [points([8]), points([8], block=1), points([8], seed=1), points([8], purpose="other"), points([9])]
    assert len({tuple(point.flatten().tolist()) for point in others}) == 5


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), far=st.floats(1e-3, 1.5), dark=st.floats(0.3, 3))
@settings(max_examples=60, deadline=None)
def test_within_box_has_the_length_or_ends_at_the_wall(norm: str, seed: int, far: float, dark: float) -> None:
    images = torch.rand((5, 1, 4, 4), generator=torch.Generator().manual_seed(seed)) ** dark
    images[0].round_()  # black and white alone: every pixel at a wall
    asked = torch.full((5,), far)
    moved = images + within_box(images, gaussian(seed + 1, 5, 1, 4, 4), asked, norm)
    assert moved.min() >= 0
    assert moved.max() <= 1
    at_wall = ((moved == 0) | (moved == 1)).flatten(1).all(1)
    exact = np.abs(length(moved - images, norm) - far) <= 2e-6 * max(1, far)
    assert (exact | at_wall.numpy()).all()
    if far <= 0.49:  # there is room for every pixel to move so far, up or down
        assert exact.all()


@pytest.mark.parametrize("norm", NORMS)
def test_within_box_goes_straight_where_nothing_is_in_the_way(norm: str) -> None:
    direction = gaussian(0, 3, 1, 4, 4)
    delta = within_box(torch.full((3, 1, 4, 4), 0.5), direction, torch.tensor([0.1, 0.2, 0.3]), norm)
    wanted = (
        direction
        / per_example(norm_of(direction, norm), direction)
        * torch.tensor([0.1, 0.2, 0.3])[:, None, None, None]
    )
    assert torch.allclose(delta, wanted, atol=1e-6)


def test_within_box_turns_a_pixel_inwards_only_at_its_wall() -> None:
    images = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 0.95]).reshape(1, 1, 2, 3)
    direction = torch.tensor([-1.0, 1.0, 1.0, -1.0, -1.0, 1.0]).reshape(1, 1, 2, 3)
    delta = within_box(images, direction, torch.tensor([0.1]), "Linf").flatten()
    assert delta.tolist() == pytest.approx([0.1, -0.1, 0.1, -0.1, -0.1, -0.1], abs=1e-6)


def test_within_box_goes_on_along_the_direction_for_what_a_wall_took() -> None:
    """One pixel can go nowhere near far enough either way: the other makes up for it."""
    images = torch.tensor([[[[0.5, 0.0]]]])
    delta = within_box(images, torch.tensor([[[[1.0, 0.75]]]]), torch.tensor([1.0]), "L2").flatten()
    assert float(delta.norm()) == pytest.approx(1, abs=1e-6)
    assert delta[0] == 0.5  # at its wall
    assert float(delta[1]) == pytest.approx(0.75**0.5, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_within_box_ends_in_the_furthest_point_where_the_length_is_out_of_reach(norm: str) -> None:
    delta = within_box(torch.full((1, 1, 2, 2), 0.25), torch.ones(1, 1, 2, 2), torch.tensor([9.0]), norm)
    assert torch.equal(delta, torch.full((1, 1, 2, 2), 0.75))


@pytest.mark.parametrize("norm", NORMS)
def test_within_box_has_a_length_for_each_example_and_is_the_same_in_any_company(norm: str) -> None:
    images = torch.rand((9, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    direction, asked = normal(0, "control", range(9), (1, 4, 4)), torch.linspace(0, 0.4, 9)
    together = within_box(images, direction, asked, norm)
    assert length(together, norm) == pytest.approx(asked.numpy(), abs=1e-6)
    assert torch.equal(together[0], torch.zeros(1, 4, 4))
    for i in range(9):
        alone = within_box(images[i : i + 1], direction[i : i + 1], asked[i : i + 1], norm)
        assert torch.equal(alone[0], together[i])
