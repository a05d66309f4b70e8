"""The ensemble finds the closed form on linear models and is never weaker than its parts.

Each stage attacks what is still standing.
"""

from __future__ import annotations

import pytest
import torch
from known_models import Meter, gaussian, images, linear_with_distances, predicted, smooth
from torch import Tensor

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.auto import auto
from tasks.parts.attacks.square import square
from tasks.parts.geometry.balls import norm_of
from tasks.parts.models.build import Classifier

FEW = {"steps": 15, "queries": 60}


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_linear_model_is_fooled_just_above_the_distance_and_not_below(norm: str, batch: int) -> None:
    """With two classes: the margin takes the DLR's place."""
    model, points, labels, distance = linear_with_distances(norm)
    for factor in (1.003, 0.997):
        found = auto(model, points, labels, epsilon=distance * factor, norm=norm, batch=batch, **FEW)
        assert found.success.tolist() == [factor > 1] * 9
        assert found.distance.tolist() == pytest.approx((distance * factor).tolist(), rel=4e-3)


@pytest.mark.parametrize("classes", [2, 3, 4, 12])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_any_number_of_classes(norm: str, classes: int) -> None:
    x, model = images(20), smooth(classes=classes)
    labels = model(x).argmax(1)
    epsilon = {"Linf": 0.04, "L2": 0.15, "L1": 0.4}[norm]
    found = auto(model, x, labels, epsilon=epsilon, norm=norm, **FEW)
    moved = x + found.perturbation
    assert torch.equal(found.success, predicted(model, moved) != labels)
    assert 0 < int(found.success.sum()) < 20
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (norm_of(found.perturbation, norm) <= epsilon + 1e-6).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_not_weaker_than_its_parts(norm: str, convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    how = {"epsilon": {"Linf": 0.06, "L2": 0.4}[norm], "norm": norm}
    found = auto(convnet, x, labels, **how, **FEW)
    first = apgd(convnet, x, labels, **how, steps=15)
    second = apgd(convnet, x, labels, **how, steps=15, loss="dlr", target_classes=9)
    third = square(convnet, x, labels, **how, queries=60)
    assert torch.equal(found.success, first.success | second.success | third.success)
    assert 5 < int(found.success.sum()) < 55
    assert torch.equal(found.perturbation[first.success], first.perturbation[first.success])
    margin = convnet(x + found.perturbation).topk(2).values.diff().abs().flatten()
    for part in (first, second, third):  # where all fail, the best try of all
        other = convnet(x + part.perturbation).topk(2).values.diff().abs().flatten()
        assert (margin <= other + 1e-5)[~found.success].all()


@pytest.mark.usefixtures("eight_rows")
def test_passes_are_counted_and_none_is_spent_on_what_has_fallen(
    convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, labels = digits
    meter = Meter(convnet)
    found = auto(meter, x, labels, epsilon=0.06, batch=16, **FEW)
    standing = ~found.success
    assert (found.forwards[standing] == 16 + 9 * 16 + 60 + 3).all()
    assert (found.backwards[standing] == 16 + 9 * 16).all()
    assert int(found.forwards.sum()) <= sum(meter.calls) <= int(found.forwards.sum()) + 7 * len(meter.calls) + 8
    wrong = convnet(x).argmax(1) != labels
    assert (found.forwards[wrong] == 2).all()
    without = auto(convnet, x, labels, epsilon=0.06, steps=15, queries=0)
    assert (without.forwards[~without.success] == 16 + 9 * 16 + 2).all()


def test_a_gradient_that_misleads_is_no_refuge() -> None:
    """A network whose gradients point the wrong way falls to the attack without gradients."""
    honest = smooth()

    def masked(z: Tensor) -> Tensor:
        logits = honest(z)
        return (2 * logits).detach() - logits

    x = images(12)
    labels = honest(x).argmax(1)
    epsilon = 0.15
    lost = auto(masked, x, labels, epsilon=epsilon, steps=10, queries=0).success
    assert not lost.all()
    assert int(auto(masked, x, labels, epsilon=epsilon, steps=10, queries=600).success.sum()) > int(lost.sum())


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_points_of_another_space_against_two_networks(norm: str) -> None:
    weights = gaussian(3, 2, 7, 5)

    def model(z: Tensor) -> Tensor:
        return torch.einsum("bi,mik->bmk", z, weights)

    points = gaussian(4, 30, 7)
    labels = model(points).mean(1).argmax(1)
    how = {"norm": norm, "box": (-torch.inf, torch.inf)}
    near, far = (auto(model, points, labels, epsilon=e, **how, **FEW) for e in (0.05, 20.0))
    for found in (near, far):
        fooled = (model(points + found.perturbation).argmax(2) != labels[:, None]).all(1)
        assert torch.equal(found.success, fooled)
    assert int(near.success.sum()) < 10
    assert far.success.all()
