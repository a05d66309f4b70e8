"""The bisection finds the closed form on a linear model.

It is compared with bisected PGD and FMN on a network, and counts what it costs.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from known_models import SHAPE, images, linear_with_distances, predicted, smooth
from torch import Tensor

from tasks.parts.attacks.bisection import bisection
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.models.build import Classifier
from tasks.parts.settings import UserError

NORMS = ["Linf", "L2"]


# -------------------------------------------------------------------------------------------------
# closed form


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_model_has_its_exact_distance(norm: str, batch: int, targeted: bool, loss: str) -> None:
    model, points, labels, exact = linear_with_distances(norm, 70 if batch == 64 else 9)
    targets = 1 - labels if targeted else None
    found = bisection(model, points, labels, norm=norm, batch=batch, targets=targets, loss=loss)
    assert found.success.all()
    assert (found.distance / exact).max() < 1.001
    assert (found.distance >= exact - 1e-6).all()  # as finely as float32 knows the logits
    assert torch.equal(predicted(model, points + found.perturbation), 1 - labels)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_line_search_the_bracket_is_as_narrow_as_the_rounds_make_it(norm: str) -> None:
    model, points, labels, exact = linear_with_distances(norm)
    for rounds in (0, 3, 6):
        found = bisection(model, points, labels, norm=norm, rounds=rounds, halvings=0)
        excess = found.distance / exact - 1
        assert excess.min() > -1e-5
        assert excess.max() <= 2.0 ** (1 - rounds) + 1e-4  # at first between 0 and twice the distance
    assert excess.max() > 1e-4


@pytest.mark.parametrize("norm", NORMS)
def test_a_far_boundary_behind_a_steep_slope_is_found(norm: str) -> None:
    """Where the logits saturate after a steep start, the estimate is by far too small, and the
    radius doubles.
    """

    def model(x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        score = (200 * mean).tanh() + 0.01 * mean - 1.005  # rises early; success at a mean of 0.5
        return torch.stack([-score, score], 1)

    found = bisection(model, torch.full((1, *SHAPE), 1e-4), torch.tensor([0]), norm=norm)
    assert found.success.all()
    exact = 0.5 * (1 if norm == "Linf" else 4)
    assert float(found.distance) == pytest.approx(exact, rel=2e-3)


def test_what_cannot_be_fooled_is_given_up_and_said_to_be() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).mean(1) * 0.5], 1)

    found = bisection(model, images(3), torch.zeros(3, dtype=torch.long))
    assert not found.success.any()
    assert (found.distance <= 1).all()
    assert (found.forwards < 150).all()


def test_a_space_without_a_box() -> None:
    model, points, labels, exact = linear_with_distances("L2")
    open_space = (-float("inf"), float("inf"))
    found = bisection(model, points, labels, norm="L2", box=open_space)
    assert found.success.all()
    assert (found.distance / exact).max() < 1.001


# -------------------------------------------------------------------------------------------------
# a network


@pytest.mark.parametrize(("norm", "furthest"), [("Linf", 0.5), ("L2", 3.0)])
def test_not_further_than_bisected_pgd(
    norm: str, furthest: float, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    """The median distance of PGD is the least radius at which it fools one half of the examples."""
    x, labels = digits
    found = bisection(convnet, x, labels, norm=norm)
    assert found.success.all()
    assert (predicted(convnet, x + found.perturbation) != labels).all()
    low, high = 0.0, furthest
    for _ in range(10):
        middle = (low + high) / 2
        half = pgd(convnet, x, labels, epsilon=middle, norm=norm).success.float().mean() >= 0.5
        low, high = (low, middle) if half else (middle, high)
    assert 0 < high < furthest
    assert float(found.distance.median()) <= 1.005 * high


@pytest.mark.parametrize("norm", NORMS)
def test_about_as_near_as_fmn(norm: str, convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    found, other = bisection(convnet, x, labels, norm=norm), fmn(convnet, x, labels, norm=norm)
    right = other.distance > 0
    assert float((found.distance / other.distance)[right].median()) < 1.02


def test_more_rounds_are_never_worse() -> None:
    x = images(24)
    labels = smooth()(x).argmax(1)
    distances = [bisection(smooth(), x, labels, rounds=rounds, halvings=0).distance for rounds in (0, 2, 4, 8)]
    for longer, shorter in pairwise(distances):
        assert (shorter <= longer).all()
    assert (distances[-1] < distances[0]).any()


# -------------------------------------------------------------------------------------------------
# accounting


def test_less_than_no_rounds_are_refused() -> None:
    with pytest.raises(UserError, match="0 rounds or more, not -1"):
        bisection(smooth(), images(2), torch.zeros(2, dtype=torch.long), rounds=-1)
