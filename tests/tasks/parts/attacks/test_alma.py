"""ALMA: the closed form on a linear model, DDN on a network, scales that do not matter, and what it says it cost."""

from __future__ import annotations

import pytest
import torch
from known_models import SHAPE, Meter, images, linear_with_distances, predicted, same, smooth
from torch import Tensor, nn

from tasks.parts.attacks.alma import _slope, alma
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.ddn import ddn
from tasks.parts.models.build import Classifier
from tasks.parts.settings import UserError


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


def test_walls_in_the_way() -> None:
    """Half of the numbers are at the wall that they would have to pass: the others must do it alone."""
    weight = torch.linspace(0.5, 2, 16)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.stack([-weight, weight]))
    points = torch.full((1, 16), 0.3)
    points[:, 1::2] = 1.0
    model[1].bias.copy_(torch.tensor([0.6, -0.6]) + torch.stack([weight, -weight]) @ points[0])
    exact = 0.6 / weight[::2].norm()  # half the difference of the logits
    found = alma(model, points.reshape(1, *SHAPE), torch.tensor([0]))
    assert 1 - 1e-5 < float(found.distance / exact) < 1.002


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


@pytest.mark.usefixtures("eight_rows")
def test_the_passes_are_counted() -> None:
    x = images(3)
    labels = smooth()(x).argmax(1)
    meter = Meter(smooth())
    found = alma(meter, x[:1], labels[:1], steps=9, halvings=5, batch=1)
    assert int(found.forwards) == len(meter.calls) == 1 + 10 + 5
    assert 8 * int(found.backwards) == meter.backwards == 80


def test_neither_order_nor_batch_matter() -> None:
    x = images(60)
    labels = smooth()(x).argmax(1)

    def search(rows: list[int], batch: int = 16) -> AttackResult:
        return alma(smooth(), x[rows], labels[rows], batch=batch, steps=20)

    together = search(list(range(60)))
    for batch in (7, 64):
        assert same(together, search(list(range(60)), batch))
    mixed = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert same(together, search(mixed.tolist()), mixed)
    for rows in ([4], [40, 41, 42, 43, 44, 45, 46]):
        assert same(together, search(rows), torch.tensor(rows))


def test_the_door() -> None:
    label = torch.zeros(2, dtype=torch.long)
    with pytest.raises(UserError, match="target must differ"):
        alma(smooth(), images(2), label, targets=label)
