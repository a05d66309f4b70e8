"""The ensemble for the smallest perturbation is never further than its parts.

It finds the closed form on linear models, and counts what it costs.
"""

from __future__ import annotations

import pytest
import torch
from known_models import Meter, images, linear_with_distances, predicted, smooth
from torch import Tensor

from tasks.parts.artifacts.adversarial_examples import Together
from tasks.parts.attacks.alma import alma
from tasks.parts.attacks.bisection import bisection
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.nearest import nearest
from tasks.parts.geometry.balls import norm_of
from tasks.parts.models.build import Classifier

NORMS = ["Linf", "L2", "L1", "L0"]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("batch", [7, 64])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_linear_model_has_its_exact_distance(norm: str, batch: int, targeted: bool) -> None:
    model, points, labels, exact = linear_with_distances(norm)
    found = nearest(model, points, labels, norm=norm, steps=100, batch=batch, targets=1 - labels if targeted else None)
    assert found.success.all()
    assert (found.distance / exact).max() < 1.001
    assert (found.distance >= exact - 1e-6).all()


@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("norm", NORMS)
def test_any_number_of_classes(norm: str, classes: int) -> None:
    x, model = images(10), smooth(classes=classes)
    labels = model(x).argmax(1)
    found = nearest(model, x, labels, norm=norm, steps=20)
    moved = x + found.perturbation
    assert torch.equal(found.success, predicted(model, moved) != labels)
    assert found.success.all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.allclose(found.distance, norm_of(found.perturbation, norm))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_nearest_of_its_parts(norm: str, convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    """On a network with ten classes, aiming at each finds some that the search for any class does
    not.
    """
    x, labels = digits
    found = nearest(convnet, x, labels, norm=norm, steps=30, target_classes=9, finalists=9)
    walk = alma if norm == "L2" else fmn
    how = {} if norm == "L2" else {"norm": norm}
    first = walk(convnet, x, labels, steps=30, **how)
    parts = [first, bisection(convnet, x, labels, norm=norm, steps=5)]
    for offset in range(1, 10):
        aims = (labels + offset) % 10
        parts += [walk(convnet, x, labels, steps=steps, targets=aims, **how) for steps in (10, 30)]
    best = torch.stack([torch.where(part.success, part.distance, torch.inf) for part in parts]).amin(0)
    wrong = convnet(x).argmax(1) != labels
    best[wrong] = 0
    assert found.success.all()
    assert torch.allclose(found.distance, best, rtol=1e-4, atol=1e-6)
    assert (found.distance < 0.99 * first.distance).sum() > 3


@pytest.mark.usefixtures("eight_rows")
def test_passes_are_counted(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    meter = Meter(convnet)
    found = nearest(meter, x, labels, norm="L2", steps=12, target_classes=3, finalists=1, batch=16)
    assert int(found.forwards.sum()) <= sum(meter.calls) <= 1.2 * int(found.forwards.sum())
    wrong = convnet(x).argmax(1) != labels
    assert wrong.any()
    assert (found.forwards[wrong] == 1).all()
    assert (found.backwards[wrong] == 0).all()
    assert (found.forwards[~wrong] > 2 * 14 + 3 * 6).all()


def test_several_networks_at_once() -> None:
    """The point found fools them both, and is therefore no nearer than for either."""
    x, networks = images(8), [smooth(), smooth(seed=1)]
    labels = networks[0](x).argmax(1)
    both = nearest(Together(networks), x, labels, steps=40)
    for network in networks:
        alone = nearest(network, x, labels, steps=40)
        assert (network(x + both.perturbation).argmax(1) != labels)[both.success].all()
        assert (both.distance >= 0.98 * alone.distance)[both.success].all()
    assert both.success.sum() > 4
