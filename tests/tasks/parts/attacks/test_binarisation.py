"""Every attack on disk must find an adversarial example that is known to exist.

After Zimmermann et al. 2022, "Increasing confidence in adversarial robustness evaluations".

For an image, points uniform in the ball are drawn, and one on its surface. On the features of a
trained network a linear readout is fitted that gives the image and all inner points class 0 and the
surface point alone class 1. An attack that does not succeed is broken: a point of class 1 lies in
the ball. And it is not hit by chance: of a thousand further random points none is of class 1.
"""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from tasks.parts.artifacts.common import attack_functions
from tasks.parts.attacks.common.capabilities import capabilities_of
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.geometry.balls import Ball, norm_of, random_in_ball
from tasks.parts.models.build import Classifier

EPSILON: dict[Ball, float] = {"Linf": 0.1, "L2": 0.6}
INNER = 600
ROWS = range(6)


class Readout(nn.Module):
    """Logits 0 and w phi(x) + b, where phi is what the network has before its last layer."""

    def __init__(self, network: Classifier, weight: Tensor, bias: float):
        super().__init__()
        self.network, self.bias = network, bias
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        score = features(self.network, x) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def features(network: Classifier, x: Tensor) -> Tensor:
    return network.head(x, len(network.stages) - 1).flatten(1)


def surface(image: Tensor, norm: Ball, row: int) -> Tensor:
    """A point of the box on the surface of the ball: its signs point inwards, so that the box cuts
    nothing off.
    """
    random = random_in_ball(norm, image.shape, seed=0, purpose="known example", ids=[row])[0]
    random = torch.where(image > 0.5, -random.abs(), random.abs())
    direction = random.sign() if norm == "Linf" else random / random.norm()
    return image + EPSILON[norm] * direction


def around(image: Tensor, norm: Ball, row: int, purpose: str, count: int, share: float) -> Tensor:
    """Random points of the ball of a share of its radius, (count, C, H, W)."""
    draws = [random_in_ball(norm, image.shape, seed=0, purpose=purpose, ids=[row], block=i) for i in range(count)]
    return (image + share * EPSILON[norm] * torch.cat(draws)).clamp(0, 1)


def binarised(network: Classifier, image: Tensor, norm: Ball, row: int) -> tuple[Readout, Tensor]:
    """A classifier of two classes, and its known adversarial example."""
    known = surface(image, norm, row)
    inner = torch.cat([image[None], around(image, norm, row, "inner points", INNER, 1.0)])
    with torch.no_grad():
        phi = features(network, torch.cat([inner, known[None]])).double()
    mean, covariance = phi[:-1].mean(0), phi[:-1].T.cov()
    ridge = 1e-3 * covariance.trace() / len(covariance) * torch.eye(len(covariance))  # some features are always zero
    weight = torch.linalg.solve(covariance + ridge, phi[-1] - mean)  # Fisher's linear discriminant
    weight = weight / (phi @ weight).std()
    scores = phi @ weight
    highest, there = float(scores[:-1].max()), float(scores[-1])
    assert there > highest  # they can be separated
    bias = -(0.3 * highest + 0.7 * there)  # class 1 begins close to the known example
    model = Readout(network, weight.float(), bias).eval()
    with torch.no_grad():
        assert model(inner).argmax(1).tolist() == [0] * len(inner)
        assert model(known[None]).argmax(1).tolist() == [1]
    assert known.min() >= 0
    assert known.max() <= 1
    assert float(norm_of((known - image)[None], norm)) == pytest.approx(EPSILON[norm], abs=1e-6)
    return model, known


def searches() -> list[tuple[str, Ball]]:
    """Every attack with each of the norms L-inf and L2 that it has."""
    norms = {name: capabilities_of(attack_functions.function_of(name)).norms for name in attack_functions.names()}
    return [(name, norm) for name in norms for norm in norms[name] if norm == "Linf" or norm == "L2"]


@pytest.mark.parametrize(("attack", "norm"), searches())
def test_the_known_adversarial_example_is_found(
    attack: str, norm: Ball, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    function = attack_functions.function_of(attack)
    parameters = inspect.signature(function).parameters
    arguments: dict[str, Any] = {"norm": norm, "epsilon": EPSILON[norm], "queries": 10_000, "steps": 100, "restarts": 3}
    slow = (
        {"rounds": 4, "steps": 50, "restarts": 1} if attack == "bisection" else {}
    )  # which runs another attack many times
    arguments = {key: value for key, value in {**arguments, **slow}.items() if key in parameters}
    for row in ROWS[:3] if slow or not capabilities_of(function).gradients else ROWS:
        image = digits[0][row]
        model, _ = binarised(convnet, image, norm, row)
        found: AttackResult = function(model, image[None], torch.tensor([0]), **arguments)
        assert found.success.all(), row
        assert model(image + found.perturbation).argmax(1).tolist() == [1]
        if capabilities_of(function).radius != "free":
            assert float(found.distance) <= EPSILON[norm] + 1e-6


@pytest.mark.parametrize("norm", get_args(Ball))
def test_chance_does_not_find_it(norm: Ball, convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    for row in ROWS:
        image = digits[0][row]
        model, _ = binarised(convnet, image, norm, row)
        with torch.no_grad():
            assert not model(around(image, norm, row, "chance", 1000, 1.0)).argmax(1).any()
