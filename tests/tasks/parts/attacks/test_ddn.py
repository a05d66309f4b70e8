"""DDN finds the closed form on a linear model, and as much as its slow twin.

It is compared with a twin in float64 and with bisected PGD on a network, and its count of passes
with what it takes.

The smallest L2 perturbation that moves a linear model of margin m and weight difference d across
its boundary is m / |d|.
"""

from __future__ import annotations

import math

import pytest
import torch
from known_models import SHAPE, images, linear, predicted, smooth
from torch import Tensor, nn

from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.models.build import Classifier

LOSSES = ["ce", "margin"]


# -------------------------------------------------------------------------------------------------
# closed form


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_linear_model_has_its_exact_distance(batch: int, loss: str, targeted: bool) -> None:
    model, points, labels, margins, difference = linear(70 if batch == 64 else 9)
    slope = difference.norm()
    exact = margins / slope
    assert exact.max() < 0.3  # so that no wall is in the way
    targets = 1 - labels if targeted else None
    found = ddn(model, points, labels, loss=loss, batch=batch, targets=targets)
    assert found.success.all()
    assert (found.distance / exact).max() < 1.001
    assert (found.distance >= exact - 1e-6 / slope).all()  # as finely as float32 knows the logits
    assert torch.equal(predicted(model, points + found.perturbation), 1 - labels)


# -------------------------------------------------------------------------------------------------
# slow twin


def twin(
    model: nn.Module, x: Tensor, aim: int, *, loss: str, steps: int, targeted: bool
) -> tuple[float, Tensor | None]:
    """The paper's pseudocode on one image in float64, without the rounding: the shortest length,
    and its perturbation.
    """
    model, x, best, kept = model.double(), x.double(), math.inf, None
    delta, radius = torch.zeros_like(x), 1.0
    for k in range(steps + 1):
        point = (x + delta).requires_grad_(True)
        logits = model(point[None])[0]
        others = torch.cat([logits[:aim], logits[aim + 1 :]]).max()
        margin = (logits[aim] - others) * (1 if targeted else -1)
        objective = margin if loss == "margin" else logits.log_softmax(0)[aim] * (1 if targeted else -1)
        (gradient,) = torch.autograd.grad(objective, point)
        fooled = margin.item() > 0
        if fooled and float(delta.norm()) < best:
            best, kept = float(delta.norm()), delta
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2
        delta = delta + alpha * gradient / gradient.norm()
        radius = radius * (0.95 if fooled else 1.05)
        delta = (x + radius * delta / delta.norm()).clamp(0, 1) - x
    return best, kept


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_slow_twin(loss: str, targeted: bool) -> None:
    x = images(8)
    labels = smooth()(x).argmax(1)
    aims = (labels + 1) % 4 if targeted else labels
    found = ddn(smooth(), x, labels, steps=12, loss=loss, targets=aims if targeted else None, halvings=0, batch=3)
    succeeded = 0
    for i in range(8):
        best, delta = twin(smooth(), x[i], int(aims[i]), loss=loss, steps=12, targeted=targeted)
        assert bool(found.success[i]) == (delta is not None)
        if delta is not None:
            succeeded += 1
            assert float(found.distance[i]) == pytest.approx(best, rel=1e-4)
            assert torch.allclose(found.perturbation[i].double(), delta, atol=1e-4)
    assert succeeded >= 5


# -------------------------------------------------------------------------------------------------
# a network


def test_not_further_than_bisected_pgd(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    """The median distance of PGD is the least radius at which it fools one half of the examples."""
    x, labels = digits
    found = ddn(convnet, x, labels)
    assert found.success.all()
    assert (predicted(convnet, x + found.perturbation) != labels).all()
    low, high = 0.0, 3.0
    for _ in range(10):
        middle = (low + high) / 2
        half = pgd(convnet, x, labels, epsilon=middle, norm="L2").success.float().mean() >= 0.5
        low, high = (low, middle) if half else (middle, high)
    assert 0 < high < 3
    assert float(found.distance.median()) <= high


def test_the_line_search_shortens(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    without, with_search = ddn(convnet, x, labels, steps=15, halvings=0), ddn(convnet, x, labels, steps=15)
    assert (with_search.distance <= without.distance).all()
    assert float(with_search.distance.mean()) < 0.99 * float(without.distance.mean())


# -------------------------------------------------------------------------------------------------
# properties


@pytest.mark.parametrize("loss", LOSSES)
def test_a_flat_loss_gives_no_nan(loss: str) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([0 * x.sum((1, 2, 3)) + 1, 0 * x.sum((1, 2, 3))], 1)

    found = ddn(model, images(3), torch.tensor([0, 0, 1]), steps=5, loss=loss)
    assert found.success.tolist() == [False, False, True]
    assert torch.equal(found.perturbation, torch.zeros(3, *SHAPE))  # no try is better than the image itself
    assert found.forwards.tolist() == [7, 7, 1]


def test_a_confident_network_stops_the_cross_entropy_but_not_the_margin() -> None:
    model, points, labels, margins, difference = linear(15)
    exact = margins / difference.norm()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1e4)  # p_true = 1 in float32: the gradient of the cross-entropy is zero
    far = exact > 0.02
    assert far.sum() > 3
    assert not ddn(model, points, labels).success[far].any()
    found = ddn(model, points, labels, loss="margin")
    assert found.success.all()
    assert (found.distance / exact).max() < 1.001
