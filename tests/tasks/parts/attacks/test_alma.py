"""ALMA finds the closed form on a linear model, and is about as near as DDN on a network.

Scales do not matter, and it counts what it costs.
"""

from __future__ import annotations

import pytest
import torch
from known_models import images, linear_with_distances, predicted, smooth
from torch import Tensor

from tasks.parts.attacks.alma import _slope, alma
from tasks.parts.attacks.ddn import ddn
from tasks.parts.models.build import Classifier


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_linear_model_has_its_exact_distance(batch: int, targeted: bool) -> None:
    model, points, labels, exact = linear_with_distances("L2", 70 if batch == 64 else 9)
    targets = 1 - labels if targeted else None
    found = alma(model, points, labels, batch=batch, targets=targets)
    assert found.success.all()
    assert (found.distance / exact).max() < 1.001
    assert (found.distance >= exact - 1e-6).all()  # as finely as float32 knows the logits
    assert torch.equal(predicted(model, points + found.perturbation), 1 - labels)


def test_the_slope_is_that_of_the_penalty() -> None:
    y = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    mu, rho = torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)
    penalty = torch.where(y >= 0, mu * y + mu * rho * y**2 + rho**2 * y**3 / 6, mu * y / (1 - rho * y))
    (slope,) = torch.autograd.grad(penalty.sum(), y)
    assert torch.allclose(_slope(y.detach(), mu, rho), slope)


def test_the_scale_of_the_logits_does_not_matter() -> None:
    x = images(12)
    labels = smooth()(x).argmax(1)
    plain = alma(smooth(), x, labels)
    scaled = alma(lambda points: 64 * smooth()(points), x, labels)
    assert plain.success.all()
    assert torch.allclose(plain.distance, scaled.distance, rtol=1e-3)


def test_about_as_near_as_ddn(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    found, other = alma(convnet, x, labels), ddn(convnet, x, labels)
    assert found.success.all()
    assert (predicted(convnet, x + found.perturbation) != labels).all()
    assert float((found.distance / other.distance)[other.distance > 0].median()) < 1.02
