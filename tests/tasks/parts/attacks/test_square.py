"""Square Attack finds the closed form on a linear model, without gradients.

It is compared with slow twins; it stays in the ball and the box, and counts what it costs.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from known_models import NORMS, Meter, images, linear_with_distances, smooth
from torch import Tensor

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.square import BLOCK, bump, sides, square
from tasks.parts.geometry.balls import random_in_ball
from tasks.parts.models.build import Classifier
from tasks.parts.randomness import uniform


class NoWayBack(torch.autograd.Function):
    """The identity, whose derivative nobody may ask for."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        raise AssertionError("a gradient was asked for")


# -------------------------------------------------------------------------------------------------
# closed form


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_linear_model_is_fooled_just_above_the_distance_and_not_below(batch: int) -> None:
    """In L-inf the nearest point is a corner of the ball: squares of one pixel reach it exactly."""
    model, points, labels, distance = linear_with_distances("Linf", 8)
    for factor in (1.003, 0.997):
        for i in (0, 5):
            found = square(
                model,
                points[i : i + 1],
                labels[i : i + 1],
                epsilon=float(distance[i]) * factor,
                queries=600,
                batch=batch,
            )
            assert bool(found.success) == (factor > 1)
    middle = float(distance.sort().values[3:5].mean())
    assert (distance / middle - 1).abs().min() > 0.003
    found = square(model, points, labels, epsilon=middle, queries=600, batch=batch)
    assert torch.equal(found.success, distance < middle)


@pytest.mark.parametrize("targeted", [False, True])
def test_linear_model_in_l2(targeted: bool) -> None:
    """The search is random in direction and stays short of the nearest point, but never finds one
    that is not there.
    """
    model, points, labels, distance = linear_with_distances("L2", 8)
    targets = 1 - labels if targeted else None
    for i in (0, 3, 5):
        for factor in (1.5, 0.999):
            found = square(
                model,
                points[i : i + 1],
                labels[i : i + 1],
                epsilon=float(distance[i]) * factor,
                norm="L2",
                queries=300,
                targets=None if targets is None else targets[i : i + 1],
            )
            assert bool(found.success) == (factor > 1)


# -------------------------------------------------------------------------------------------------
# slow twins


@pytest.mark.parametrize("side", range(1, 12))
def test_bump_is_the_papers_sum(side: int) -> None:
    def half(h: int, v: int) -> np.ndarray:
        n = h // 2
        values = np.zeros((h, v))
        for r in range(1, h + 1):
            for s in range(1, v + 1):
                m = n - max(abs(r - n - 1), abs(s - v // 2 - 1))
                values[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
        return values

    k = side // 2
    wanted = np.concatenate([half(side, k), -half(side, side - k)], 1)
    assert bump(side).numpy() == pytest.approx(wanted / np.linalg.norm(wanted), rel=1e-5)


def test_the_squares_shrink_as_in_the_paper() -> None:
    """Their area is halved at 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 tries."""
    seen = sides(10_000, 0.8, 100, 100, "Linf")
    places = [0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert [seen[i] for i in places] == [round(math.sqrt(0.8 / 2**k) * 100) for k in range(10)]
    assert [i for i in range(1, 10_000) if seen[i] != seen[i - 1]] == places[1:]
    assert sides(1000, 0.8, 100, 100, "Linf") == seen[::10]
    assert all(s % 2 == 1 and 3 <= s <= 99 for s in sides(1000, 1.0, 100, 100, "L2"))
    assert set(sides(100, 1.0, 2, 7, "L2")) == {1}
    assert set(sides(100, 1.0, 3, 3, "Linf")) == {3, 2, 1}


def twin(
    model, image: Tensor, label: int, *, ident: int, epsilon: float, norm: str, queries: int, seed: int
) -> tuple[np.ndarray, bool, int]:
    """Square Attack on one image, pixel by pixel, in float64."""
    x = image.double().numpy()
    channels, height, width = x.shape
    side = sides(queries, 0.8, height, width, norm)

    def margin(delta: np.ndarray) -> float:
        z = model(torch.from_numpy(x + delta)[None])[0].tolist()
        return max(v for i, v in enumerate(z) if i != label) - z[label]

    start = uniform(seed, "square start", [ident], x.shape, 1)[0].double().numpy()
    found, best, value, delta = np.zeros_like(x), np.zeros_like(x), -np.inf, np.zeros_like(x)
    found_margin = -np.inf
    for query in range(queries):
        if query == 1:
            delta = np.zeros_like(x)
            tile = max(3, height // 5)
            for c, i, j in np.ndindex(*x.shape):
                if norm == "Linf":
                    delta[c, i, j] = epsilon * (-1 if start[c, 0, j] < 0.5 else 1)
                else:
                    sign = -1 if start[c, i // tile, j // tile] < 0.5 else 1
                    delta[c, i, j] = sign * bump(tile)[i % tile, j % tile]
            if norm == "L2":
                delta *= epsilon / np.linalg.norm(delta)
        elif query > 1:
            s = side[query]
            u = uniform(seed, "square", [ident], (BLOCK, 5 + channels), (query - 1) // BLOCK)[0][(query - 1) % BLOCK]
            u = u.double().numpy()
            r1, c1, r2, c2 = (int(u[k] * (n - s + 1)) for k, n in enumerate((height, width, height, width)))
            delta = best.copy()
            spare = max(0.0, epsilon**2 - np.sum(best**2)) / channels
            hill = bump(s).double().numpy()
            hill = hill.T if u[4] < 0.5 else hill
            for c in range(channels):
                sign = -1 if u[5 + c] < 0.5 else 1
                if norm == "Linf":
                    delta[c, r1 : r1 + s, c1 : c1 + s] = sign * epsilon
                    continue
                union = {(i, j) for r, k in ((r1, c1), (r2, c2)) for i in range(r, r + s) for j in range(k, k + s)}
                available = math.sqrt(sum(best[c, i, j] ** 2 for i, j in union) + spare)
                here = best[c, r1 : r1 + s, c1 : c1 + s]
                new = sign * hill + here / max(np.linalg.norm(here), 1e-12)
                delta[c, r2 : r2 + s, c2 : c2 + s] = 0
                delta[c, r1 : r1 + s, c1 : c1 + s] = new / np.linalg.norm(new) * available
        delta = np.clip(x + delta, 0, 1) - x
        now = margin(delta)
        if now > found_margin:
            found, found_margin = delta, now
        if now > 0:
            return found, True, query + 1
        if query <= 1 or now > value:
            best, value = delta, now
    return found, False, queries


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.09), ("L2", 0.5)])
def test_slow_twin(norm: str, epsilon: float) -> None:
    shape, ids = (2, 6, 8), [3, 141, 59, 26, 5, 35, 89, 79]
    x = torch.rand((8, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = torch.randn((4, 96), generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 3

    def model(points: Tensor) -> Tensor:
        return (points.flatten(1) @ weight.T).tanh()

    labels = model(x).argmax(1)
    how = {"epsilon": epsilon, "norm": norm, "queries": 150, "seed": 2}
    found = square(model, x, labels, **how, ids=ids, batch=3)
    assert 0 < int(found.success.sum()) < 8
    for i in range(8):
        delta, success, looked = twin(model, x[i], int(labels[i]), ident=ids[i], **how)
        assert (bool(found.success[i]), int(found.forwards[i])) == (success, looked)
        assert found.perturbation[i].numpy() == pytest.approx(delta, abs=1e-6)


# ----------------------------------------------------------------------------------------------
# against other searches


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.08), ("L2", 0.5)])
def test_finds_less_than_the_white_box_and_far_more_than_chance(
    norm: str, epsilon: float, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, labels = digits

    def hidden(points: Tensor) -> Tensor:
        return NoWayBack.apply(convnet(NoWayBack.apply(points)))

    found = square(hidden, x, labels, epsilon=epsilon, norm=norm, queries=500)
    assert not found.backwards.any()
    white = apgd(convnet, x, labels, epsilon=epsilon, norm=norm, steps=40, loss="dlr", target_classes=9).success
    wrong = convnet(x).argmax(1) != labels
    chance = wrong.clone()
    for block in range(500):
        random = random_in_ball(norm, x.shape[1:], seed=0, purpose="chance", ids=range(60), block=block)
        chance |= convnet((x + epsilon * random).clamp(0, 1)).argmax(1) != labels
    assert int(found.success.sum()) <= int(white.sum())
    gained, possible = int((found.success & ~wrong).sum()), int((white & ~wrong).sum())
    assert possible >= 10
    assert gained >= 0.5 * possible
    assert gained >= 2 * int((chance & ~wrong).sum())


def test_a_model_that_hides_its_gradient_is_seen_through() -> None:
    """Rounded logits have no slope: gradients find nothing, tries do."""
    model, points, labels, distance = linear_with_distances("Linf")

    def rounded(x: Tensor) -> Tensor:
        return (model(x) * 200).round() / 200 + 0 * x.sum((1, 2, 3))[:, None]

    how = {"epsilon": float(distance.max()) * 1.2}
    far = distance > 0.02
    assert not apgd(rounded, points, labels, **how).success[far].any()
    assert square(rounded, points, labels, **how, queries=1000).success.all()


# -------------------------------------------------------------------------------------------------
# properties


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (1, 2, 3), (1, 9, 4)])
@pytest.mark.parametrize("norm", NORMS)
def test_images_of_any_shape(norm: str, shape: tuple[int, int, int]) -> None:
    x = torch.rand((3, *shape), generator=torch.Generator().manual_seed(0))

    def model(points: Tensor) -> Tensor:
        t = points.flatten(1).sum(1)
        return torch.stack([0 * t, t - 1e3], 1)

    found = square(model, x, torch.zeros(3, dtype=torch.long), epsilon=0.1, norm=norm, queries=40)
    assert not found.success.any()
    assert (found.perturbation.sum((1, 2, 3)) > 0).all()
    assert found.distance.max() <= 0.1 + 1e-6


# ------------------------------------------------------------------------------------------------
# cost, and any company


@pytest.mark.usefixtures("eight_rows")
def test_passes_are_counted_and_none_is_spent_on_a_finished_example(
    convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, labels = digits
    alone = Meter(convnet)
    found = square(alone, x, labels, epsilon=0.1, queries=40, batch=1)
    assert 0 < int(found.success.sum()) < 60
    assert len(alone.calls) == int(found.forwards.sum())
    assert alone.backwards == 0
    many = Meter(convnet)
    found = square(many, x, labels, epsilon=0.1, queries=40, batch=16)
    assert many.calls[: len(many.calls) - 40] == [16] * (len(many.calls) - 40)  # full until none is waiting


@pytest.mark.parametrize("norm", NORMS)
def test_tries_are_keyed_by_seed_and_id(norm: str) -> None:
    x = images(1).expand(3, 1, 4, 4)
    labels = smooth()(x).argmax(1)
    how = {"epsilon": 0.001, "norm": norm, "queries": 4}
    found = square(smooth(), x, labels, **how, ids=[0, 1, 0])
    assert torch.equal(found.perturbation[0], found.perturbation[2])
    assert not torch.equal(found.perturbation[0], found.perturbation[1])
    assert torch.equal(square(smooth(), x, labels, **how).perturbation[:2], found.perturbation[:2])
    assert not torch.equal(square(smooth(), x, labels, **how, seed=1).perturbation[0], found.perturbation[0])
