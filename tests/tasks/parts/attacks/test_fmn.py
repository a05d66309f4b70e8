"""FMN finds the closed form on a linear model, and as much as its slow twin.

It is compared with a twin in float64 and with bisected PGD on a network, and its count of passes
with what it takes.

The smallest perturbation that moves a linear model of margin m and weight difference d across its
boundary is m over the dual norm of d: m / |d|_1 in L-inf, m / |d| in L2, m / |d|_inf in L1. In L0
it is the least count of numbers that give m on their way to the wall.
"""

from __future__ import annotations

import math

import pytest
import torch
from known_models import SHAPE, images, linear, predicted, smooth
from torch import Tensor, nn

from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.geometry.balls import norm_of
from tasks.parts.models.build import Classifier

NORMS = ["Linf", "L2", "L1", "L0"]


# -------------------------------------------------------------------------------------------------
# closed form


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_linear_model_has_its_exact_distance(norm: str, batch: int, targeted: bool) -> None:
    model, points, labels, margins, difference = linear(70 if batch == 64 else 9)
    dual = {"Linf": difference.abs().sum(), "L2": difference.norm(), "L1": difference.abs().max()}[norm]
    exact = margins / dual
    assert exact.max() < 0.35  # so that no wall is in the way
    targets = 1 - labels if targeted else None
    found = fmn(model, points, labels, norm=norm, batch=batch, targets=targets)
    assert found.success.all()
    assert (found.distance / exact).max() < 1.001
    assert (found.distance >= exact - 1e-6 / dual).all()  # as finely as float32 knows the logits
    assert torch.equal(predicted(model, points + found.perturbation), 1 - labels)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_linear_model_has_about_its_exact_count(batch: int) -> None:
    """Which numbers change is decided by how far they have come, not by how far they may still go:
    one too many at times.
    """
    model, points, _, _, difference = linear(70 if batch == 64 else 9)
    points = (0.5 + 12 * (points - 0.5)).clamp(0, 1)
    logits = model(points)
    labels, margins = logits.argmax(1), (logits[:, 0] - logits[:, 1]).abs()
    slope = torch.where(labels[:, None] == 0, -difference, difference).float()  # of the way to success
    gains = slope.abs() * torch.where(slope > 0, 1 - points.flatten(1), points.flatten(1))
    exact = (gains.sort(1, descending=True).values.cumsum(1) < margins[:, None]).sum(1) + 1
    assert {1, 2} <= set(exact.tolist())
    found = fmn(model, points, labels, norm="L0", batch=batch)
    assert found.success.all()
    surplus = found.distance - exact
    assert surplus.min() == 0
    assert surplus.max() <= 1
    assert surplus.mean() < 0.15


# -------------------------------------------------------------------------------------------------
# slow twin


def ball(v: Tensor, radius: float, norm: str) -> Tensor:
    if norm == "Linf":
        return v.clamp(-radius, radius)
    if norm == "L2":
        return v * min(1, radius / max(float(v.norm()), 1e-300))
    if norm == "L0":
        kept = torch.zeros_like(v).flatten()
        for i in sorted(range(v.numel()), key=lambda i: -abs(float(v.flatten()[i])))[: int(radius)]:
            kept[i] = v.flatten()[i]
        return kept.reshape(v.shape)
    low, high = 0.0, float(v.abs().max())
    if float(v.abs().sum()) <= radius:
        return v
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((v.abs() - middle).clamp_min(0).sum()) > radius else (low, middle)
    return v.sign() * (v.abs() - high).clamp_min(0)


def twin(
    model: nn.Module, x: Tensor, aim: int, *, norm: str, steps: int, targeted: bool
) -> tuple[float, Tensor | None]:
    """The paper's pseudocode on one image in float64, without the line search: the shortest length,
    and its perturbation.
    """

    def length(v: Tensor) -> float:
        order = {"Linf": math.inf, "L2": 2, "L1": 1, "L0": 0}[norm]
        return float(torch.linalg.vector_norm(v, order))

    model, x, best, kept = model.double(), x.double(), math.inf, None
    delta, radius = torch.zeros_like(x), 0.0
    for k in range(steps + 1):
        point = (x + delta).requires_grad_(True)
        logits = model(point[None])[0]
        others = torch.cat([logits[:aim], logits[aim + 1 :]]).max()
        margin = logits[aim] - others if targeted else others - logits[aim]
        (gradient,) = torch.autograd.grad(margin, point)
        fooled = margin.item() > 0
        if fooled and length(delta) < best:
            best, kept = length(delta), delta
        wave = (1 + math.cos(math.pi * k / steps)) / 2
        gamma, alpha = 0.001 + 0.049 * wave, 0.01 + 0.99 * wave
        inner, outer = radius * (1 - gamma), radius * (1 + gamma)
        if norm == "L0":
            inner, outer = max(1, min(math.floor(inner), radius - 1)), max(math.floor(outer), radius + 1)
        if fooled:
            radius = min(inner, best)
        elif best < math.inf:
            radius = outer
        elif norm == "L0":
            ways = torch.where(gradient > 0, 1 - x - delta, x + delta)
            missing, count = -margin.item(), 1
            for gain in sorted((gradient.abs() * ways).flatten().tolist(), reverse=True):
                missing -= gain
                if missing <= 0:
                    break
                count += 1
            radius = max(length(delta) + count, outer)
        else:
            dual = {"Linf": 1, "L2": 2, "L1": math.inf}[norm]
            radius = max(length(delta) - margin.item() / float(torch.linalg.vector_norm(gradient, dual)), outer)
        radius = min(radius, {"Linf": 1, "L2": 4}.get(norm, 16))
        delta = (x + ball(delta + alpha * gradient / gradient.norm(), radius, norm)).clamp(0, 1) - x
    return best, kept


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_slow_twin(norm: str, targeted: bool) -> None:
    x = images(8)
    labels = smooth()(x).argmax(1)
    aims = (labels + 1) % 4 if targeted else labels
    found = fmn(
        smooth(), x, labels, norm=norm, steps=12, polish=0, targets=aims if targeted else None, halvings=0, batch=3
    )
    succeeded = 0
    for i in range(8):
        best, delta = twin(smooth(), x[i], int(aims[i]), norm=norm, steps=12, targeted=targeted)
        assert bool(found.success[i]) == (delta is not None)
        if delta is not None:
            succeeded += 1
            assert float(found.distance[i]) == pytest.approx(best, rel=1e-4)
            assert torch.allclose(found.perturbation[i].double(), delta, atol=2e-4)
    assert succeeded >= 5


# -------------------------------------------------------------------------------------------------
# a network


@pytest.mark.parametrize(("norm", "furthest"), [("Linf", 0.5), ("L2", 3.0)])
def test_not_further_than_bisected_pgd(
    norm: str, furthest: float, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    """The median distance of PGD is the least radius at which it fools one half of the examples."""
    x, labels = digits
    found = fmn(convnet, x, labels, norm=norm)
    assert found.success.all()
    assert (predicted(convnet, x + found.perturbation) != labels).all()
    low, high = 0.0, furthest
    for _ in range(10):
        middle = (low + high) / 2
        half = pgd(convnet, x, labels, epsilon=middle, norm=norm).success.float().mean() >= 0.5
        low, high = (low, middle) if half else (middle, high)
    assert 0 < high < furthest
    assert float(found.distance.median()) <= high


@pytest.mark.parametrize("norm", ["L1", "L0"])
def test_sparse_norms_are_small_in_their_own_norm(
    norm: str, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    """Not larger for any example, and by far smaller for most, than what is nearest in L2."""
    x, labels = digits
    found, dense = fmn(convnet, x, labels, norm=norm), fmn(convnet, x, labels)
    assert found.success.all()
    assert (predicted(convnet, x + found.perturbation) != labels).all()
    other = norm_of(dense.perturbation, norm)
    assert (found.distance <= other).all()
    assert float(found.distance.median()) < 0.7 * float(other.median())


def test_the_line_search_shortens(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    coarse = {"steps": 10, "last_gamma": 0.05}
    without, with_search = fmn(convnet, x, labels, **coarse, halvings=0), fmn(convnet, x, labels, **coarse)
    assert (with_search.distance <= without.distance).all()
    assert float(with_search.distance.mean()) < float(without.distance.mean())


# -------------------------------------------------------------------------------------------------
# properties


@pytest.mark.parametrize("norm", NORMS)
def test_a_flat_margin_gives_no_nan(norm: str) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([0 * x.sum((1, 2, 3)) + 1, 0 * x.sum((1, 2, 3))], 1)

    found = fmn(model, images(3), torch.tensor([0, 0, 1]), norm=norm, steps=5)
    assert found.success.tolist() == [False, False, True]
    assert torch.equal(found.perturbation, torch.zeros(3, *SHAPE))  # no try is better than the image itself
    assert found.forwards.tolist() == [7, 7, 1]


def test_a_failed_search_keeps_the_try_nearest_to_success() -> None:
    """A margin that comes and goes along the way, and never suffices: the best of all places is not
    the last.
    """
    asked: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        asked.append(x.detach()[0])
        height = (40 * x.flatten(1)).sin().sum(1) - 20 + x.flatten(1) @ torch.linspace(-1, 1, 16)
        return torch.stack([-height, height], 1)

    image = images(1)
    found = fmn(model, image, torch.tensor([0]), steps=9)
    places = asked[1:]  # the first pass sees whether the image itself succeeds
    margins = [float(model(x[None])[0, 1]) for x in list(places)]
    assert len(margins) == 10
    best = max(range(10), key=margins.__getitem__)
    assert best not in (0, 9)
    assert torch.allclose(image[0] + found.perturbation[0], places[best])
    assert not found.success
