"""Norms and projections in L1 and L0: against bisection and brute force in float64, and against what defines them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor

from tasks.parts.geometry import norm_of, project


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def twin(row: Tensor, epsilon: float) -> np.ndarray:
    """The nearest point of the L1 ball: the threshold that leaves a norm of epsilon is found by bisection."""
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
