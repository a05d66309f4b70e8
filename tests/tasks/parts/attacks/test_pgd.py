"""PGD finds the closed form on a linear model, and what its slow twin finds.

The twin is in float64. PGD stays in the ball and the box, and counts what it costs.

The smallest perturbation that moves a linear model of margin m and weight difference d across its
boundary is m / |d| in L2 and m / |d|_1 in L-inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from known_models import NORMS, SHAPE, Meter, images, linear, linear_with_distances, same, smooth
from torch import Tensor, nn

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.pgd import falling, pgd
from tasks.parts.losses import joint
from tasks.parts.models.build import Classifier
from tasks.parts.randomness import normal, uniform
from tasks.parts.settings import UserError

LOSSES = ["ce", "margin"]


# -------------------------------------------------------------------------------------------------
# closed form


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_linear_model_is_fooled_just_above_the_distance_and_not_below(
    norm: str, loss: str, restarts: int, targeted: bool
) -> None:
    model, points, labels, distance = linear_with_distances(norm)
    for i, smallest in enumerate(distance.tolist()):
        for factor in (1.003, 0.997):
            found = pgd(
                model,
                points[i : i + 1],
                labels[i : i + 1],
                epsilon=smallest * factor,
                norm=norm,
                steps=10,
                loss=loss,
                restarts=restarts,
                targets=1 - labels[i : i + 1] if targeted else None,
            )
            assert bool(found.success) == (factor > 1)
            assert float(found.distance) == pytest.approx(smallest * factor, rel=4e-3)


@pytest.mark.parametrize("batch", [1, 2, 5, 8, 100])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_model_in_batches(norm: str, batch: int) -> None:
    """One radius between the examples' distances: nearer ones are fooled, further ones are not."""
    model, points, labels, distance = linear_with_distances(norm, 21)
    near = distance < distance.median() * 0.999
    found = pgd(
        model, points, labels, epsilon=float(distance.median()) * 0.999, norm=norm, steps=10, batch=batch, restarts=2
    )
    assert torch.equal(found.success, near)


@pytest.mark.parametrize("norm", NORMS)
def test_a_failed_search_keeps_the_best_point_of_the_ball(norm: str) -> None:
    """On a linear model that is the point straight towards the boundary, which leaves a known
    margin.
    """
    model, points, labels, distance = linear_with_distances(norm)
    epsilon = float(distance.min()) / 2
    found = pgd(model, points, labels, epsilon=epsilon, norm=norm, restarts=3)
    assert not found.success.any()
    logits = model(points + found.perturbation)
    left = (logits[:, 0] - logits[:, 1]).abs()
    before = model(points)
    wanted = (before[:, 0] - before[:, 1]).abs() * (1 - epsilon / distance)
    assert left.tolist() == pytest.approx(wanted.tolist(), rel=1e-3, abs=1e-5)


def test_the_best_try_is_not_the_last() -> None:
    """A loss that comes and goes along the way: what is kept is the best of all points that were
    looked at.
    """
    asked: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        asked.append(x.detach()[0])
        height = (40 * x.flatten(1)).sin().sum(1) - 20 + x.flatten(1) @ torch.linspace(-1, 1, 16)
        return torch.stack([-height, height], 1)

    image = images(1, 3)
    found = pgd(model, image, torch.tensor([0]), epsilon=0.2, steps=7, restarts=3)
    margins = [float(model(x[None])[0, 1] - model(x[None])[0, 0]) for x in list(asked)]
    assert len(margins) == 3 * 8
    best = max(range(24), key=margins.__getitem__)
    assert best % 8 != 7
    assert torch.allclose(image[0] + found.perturbation[0], asked[best])
    assert not found.success


# -------------------------------------------------------------------------------------------------
# slow twin


def twin(
    model: nn.Module,
    image: Tensor,
    aim: int,
    *,
    ident: int,
    epsilon,
    norm,
    steps,
    step_size,
    restarts,
    loss,
    targeted,
    seed,
) -> tuple[Tensor, bool, int]:
    """Textbook PGD on one image in float64: the perturbation, whether it succeeds, and how many
    points were looked at.
    """
    model, x, sign = model.double(), image.double(), -1 if targeted else 1
    best, best_margin, looked = torch.zeros_like(x), -torch.inf, 0
    for restart in range(restarts):
        delta = torch.zeros_like(x)
        if restart:
            if norm == "Linf":
                delta = epsilon * (2 * uniform(seed, "pgd start", [ident], x.shape, restart)[0].double() - 1)
            else:
                n = normal(seed, "pgd start", [ident], x.shape, restart)[0].double()
                share = float(uniform(seed, "pgd start, distance from the centre", [ident], (), restart))
                delta = epsilon * share ** (1 / x.numel()) * n / n.norm()
            delta = (x + delta).clamp(0, 1) - x
        for step in range(steps + 1):
            point = (x + delta).requires_grad_(True)
            logits = model(point[None])[0]
            looked += 1
            others = torch.cat([logits[:aim], logits[aim + 1 :]])
            margin = sign * (others.max() - logits[aim])
            objective = margin if loss == "margin" else -sign * logits.log_softmax(0)[aim]
            (gradient,) = torch.autograd.grad(objective, point)
            if margin.item() > best_margin:
                best, best_margin = delta.clone(), margin.item()
            if margin > 0:
                return best, True, looked
            if step == steps:
                break
            if norm == "Linf":
                delta = (delta + step_size * gradient.sign()).clamp(-epsilon, epsilon)
            else:
                delta = delta + step_size * gradient / gradient.norm()
                delta = delta * min(1, epsilon / float(delta.norm()))
            delta = (x + delta).clamp(0, 1) - x
    return best, False, looked


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.12), ("L2", 0.4)])
def test_slow_twin(norm: str, epsilon: float, loss: str, targeted: bool) -> None:
    x, ids = images(10), [3, 141, 59, 26, 5, 35, 89, 79, 32, 38]
    labels = smooth()(x).argmax(1)
    aims = (labels + 1) % 4 if targeted else labels
    how = {"epsilon": epsilon, "norm": norm, "steps": 6, "restarts": 3, "loss": loss, "seed": 2}
    found = pgd(smooth(), x, labels, **how, targets=aims if targeted else None, ids=ids, batch=4)
    assert 0 < int(found.success.sum()) < 10
    for i in range(10):
        delta, success, looked = twin(
            smooth(), x[i], int(aims[i]), ident=ids[i], step_size=2.5 * epsilon / 6, targeted=targeted, **how
        )
        assert (bool(found.success[i]), int(found.forwards[i])) == (success, looked)
        assert torch.allclose(found.perturbation[i].double(), delta, atol=1e-5)


# -------------------------------------------------------------------------------------------------
# properties


def test_a_restart_finds_what_lies_the_other_way() -> None:
    """From the image the loss leads up a hill that is too low; the higher one begins on the other
    side of a valley.
    """

    def model(x: Tensor) -> Tensor:
        t = x.flatten(1).mean(1) - 0.5
        height = torch.where(t > -0.05, t.clamp_max(0.05), -t - 0.1)
        return torch.stack([torch.full_like(t, 0.07), height], 1)

    points, labels = torch.full((6, 1, 1, 1), 0.49), torch.zeros(6, dtype=torch.long)
    assert not pgd(model, points, labels, epsilon=0.19, steps=4).success.any()
    found = pgd(model, points, labels, epsilon=0.19, steps=4, restarts=40)
    assert found.success.all()
    assert (found.perturbation < -0.15).all()
    assert len(set(found.forwards.tolist())) > 1  # every example has starts of its own


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_a_flat_loss_gives_no_nan(norm: str, loss: str) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([0 * x.sum((1, 2, 3)) + 1, 0 * x.sum((1, 2, 3))], 1)

    found = pgd(model, images(3), torch.tensor([0, 0, 1]), epsilon=0.1, norm=norm, loss=loss, steps=3, restarts=2)
    assert found.success.tolist() == [False, False, True]
    assert torch.equal(found.perturbation, torch.zeros(3, *SHAPE))  # no try is better than the image itself
    assert found.forwards.tolist() == [8, 8, 1]


def test_a_confident_network_stops_the_cross_entropy_but_not_the_margin() -> None:
    model, points, labels, distance = linear_with_distances("Linf")
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1e4)  # p_true = 1 in float32: the gradient of the cross-entropy is zero
    far = distance > 0.02
    how = {"epsilon": 0.3, "steps": 10}
    assert not pgd(model, points, labels, **how).success[far].any()
    assert pgd(model, points, labels, **how, loss="margin").success.all()


def test_on_the_boundary_the_class_is_the_argmax() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 3) + 0 * x.sum()

    found = pgd(model, images(3), torch.tensor([0, 1, 2]), epsilon=0.1, steps=2)
    assert found.success.tolist() == [False, True, True]
    assert found.forwards.tolist() == [3, 1, 1]
    assert pgd(model, images(2), torch.tensor([1, 0]), targets=torch.tensor([0, 1]), epsilon=0.1).success.tolist() == [
        True,
        False,
    ]


def test_default_step_size_reaches_the_far_side() -> None:
    """2.5 epsilon / steps: written out, it changes nothing."""
    labels = smooth()(images(6)).argmax(1)
    written = pgd(smooth(), images(6), labels, epsilon=0.1, steps=5, step_size=2.5 * 0.1 / 5)
    assert same(pgd(smooth(), images(6), labels, epsilon=0.1, steps=5), written)


# --------------------------------------------------------------------------------------- other
# norms, spaces and starts


def l1_linear(count: int = 9) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model whose distance in L1 is known: margin / largest weight, as long as that number
    stays in the box.
    """
    model, points, labels, _, _ = linear(count)
    with torch.no_grad():  # one number outweighs the others
        model[1].weight[0, 5] += 8.0
        model[1].bias[0] -= 8.0 * 0.5
    logits = model(points)
    labels, margins = logits.argmax(1), (logits[:, 0] - logits[:, 1]).abs()
    steepest = (model[1].weight[0] - model[1].weight[1]).abs().max()
    assert (margins / steepest).max() < 0.4
    return model, points, labels, margins / steepest


@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_linear_model_in_l1(loss: str, batch: int) -> None:
    model, points, labels, distance = l1_linear()
    for factor in (1.003, 0.997):
        how = {"epsilon": distance * factor, "norm": "L1", "loss": loss, "steps": 20, "batch": batch}
        found = pgd(model, points, labels, **how)
        assert found.success.tolist() == [factor > 1] * 9
        assert torch.allclose(found.distance, distance * factor, rtol=4e-3)


def test_linear_model_in_l1_where_the_box_is_in_the_way() -> None:
    """Then the numbers are used up in the order of their weights: the distance is that of a
    knapsack of fractions.
    """
    weights = torch.linspace(1, 2, 16)
    image, label = torch.full((1, *SHAPE), 0.8), torch.tensor([0])
    needed = float(0.2 * weights[-5:].sum() + 0.1 * weights[-6])  # five go to the wall, the sixth half of the way

    def model(x: Tensor) -> Tensor:
        rise = (x - image).flatten(1) @ weights - needed
        return torch.stack([-rise, rise], 1)

    for factor in (1.01, 0.995):
        how = {"epsilon": 1.1 * factor, "norm": "L1", "steps": 100, "schedule": "cosine", "share": 0.1}
        assert bool(pgd(model, image, label, **how).success) == (factor > 1)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_radius_each_is_one_search_each(norm: str) -> None:
    x = images(6)
    labels = smooth()(x).argmax(1)
    radii = torch.linspace(0.02, 0.4, 6)
    how = {"norm": norm, "steps": 5, "restarts": 2, "share": 0.2}
    together = pgd(smooth(), x, labels, epsilon=radii, **how)
    assert 0 < int(together.success.sum()) < 6
    for i in range(6):
        one = slice(i, i + 1)
        alone = pgd(smooth(), x[one], labels[one], epsilon=float(radii[i]), ids=[i], **how)
        assert same(together, alone, one)


@pytest.mark.parametrize("norm", NORMS)
def test_the_box_scales_and_shifts_with_the_points(norm: str) -> None:
    """The same search in units eight times as large, about zero."""
    x, model = images(8), smooth()
    labels = model(x).argmax(1)
    how = {"norm": norm, "steps": 6, "loss": "margin", "restarts": 2}
    wanted = pgd(model, x, labels, epsilon=0.25, **how)
    scaled = pgd(lambda z: model(z / 8 + 0.5), 8 * (x - 0.5), labels, epsilon=2.0, box=(-4.0, 4.0), **how)
    assert torch.equal(scaled.success, wanted.success)
    assert torch.equal(scaled.forwards, wanted.forwards)
    assert torch.allclose(scaled.perturbation, 8 * wanted.perturbation, atol=1e-4)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_points_of_any_shape_without_a_box(norm: str) -> None:
    model = nn.Sequential(nn.Linear(7, 3)).requires_grad_(False)
    model[0].weight.copy_(torch.arange(21.0).reshape(3, 7).sin())
    points = 5 * torch.randn((9, 7), generator=torch.Generator().manual_seed(0))
    logits = model(points)
    labels, others = logits.argmax(1), logits.topk(2).indices[:, 1]
    w = model[0].weight
    dual = {"Linf": 1, "L2": 2, "L1": torch.inf}[norm]
    every = torch.arange(3)
    apart = (w[labels][:, None] - w[None]).norm(dual, dim=2)  # (B, K)
    margins = logits.gather(1, labels[:, None]) - logits
    distance = (margins / apart)[every[None] != labels[:, None]].reshape(9, 2).amin(1)
    assert len(others) == 9
    for factor in (1.01, 0.99):
        how = {"loss": "margin", "steps": 40, "schedule": "cosine", "box": (-torch.inf, torch.inf), "norm": norm}
        reached = torch.zeros(9, dtype=torch.bool)
        for turn in (1, 2):  # towards each other class
            aims = (labels + turn) % 3
            reached |= pgd(model, points, labels, epsilon=distance * factor, targets=aims, **how).success
        assert reached.tolist() == [factor > 1] * 9


def test_two_networks_at_once() -> None:
    """One wants the first number raised by 0.1, the other the second by 0.2: both take as much as
    the norm makes of it.
    """

    def model(x: Tensor) -> Tensor:
        rise = x[:, :2] - torch.tensor([0.6, 0.7])
        return torch.stack([-rise, rise], 2)  # (B, M, K)

    point, label = torch.full((1, 3), 0.5), torch.tensor([0])
    for norm, smallest in (("Linf", 0.2), ("L2", 0.05**0.5), ("L1", 0.3)):
        for factor in (1.05, 0.98):
            how = {"epsilon": smallest * factor, "norm": norm, "steps": 200, "schedule": "linear"}
            for way in ("worst", "unfooled"):
                found = pgd(model, point, label, loss=joint("margin", way), **how)
                assert bool(found.success) == (factor > 1), (norm, way)
    assert pgd(model, point, label, epsilon=0.21).success  # in L-inf the mean will do


def momentum_twin(model: nn.Module, x: Tensor, label: int, epsilon: float, steps: int, mu: float) -> Tensor:
    """MI-FGSM on one image, in float64, with step sizes that fall like a half cosine: the last
    point.
    """
    model, x = model.double(), x.double()
    delta = gathered = torch.zeros_like(x)
    for step in range(steps):
        point = (x + delta).requires_grad_(True)
        logits = model(point[None])[0] + 6 * nn.functional.one_hot(torch.tensor(label), 4)
        (gradient,) = torch.autograd.grad(-logits.log_softmax(0)[label], point)
        gathered = mu * gathered + gradient / gradient.abs().sum()
        size = 5 * epsilon / steps * (1 + math.cos(math.pi * step / steps)) / 2
        delta = (delta + size * gathered.sign()).clamp(-epsilon, epsilon)
        delta = (x + delta).clamp(0, 1) - x
    return delta


@pytest.mark.usefixtures("eight_rows")
def test_momentum_and_schedule() -> None:
    x = images(6)
    labels = smooth()(x).argmax(1)
    points: list[Tensor] = []

    def seen(z: Tensor) -> Tensor:  # so sure of the labels that no search ends early
        points.append(z.detach())
        return smooth()(z) + 6 * nn.functional.one_hot(labels[[0, 1, 2, 3, 4, 5, 5, 5]], 4)

    how = {"epsilon": 0.3, "steps": 6, "momentum": 0.9, "schedule": "cosine", "restarts": 2}
    found = pgd(seen, x, labels, **how, batch=8)
    assert not found.success.any()
    turned = False
    for i in range(6):
        wanted = momentum_twin(smooth(), x[i], int(labels[i]), 0.3, 6, 0.9)
        assert torch.allclose((points[6][i] - x[i]).double(), wanted, atol=1e-6)
        turned |= not torch.allclose(momentum_twin(smooth(), x[i], int(labels[i]), 0.3, 6, 0.0), wanted, atol=1e-3)
    assert turned  # somewhere the momentum made a difference


def test_schedules_start_whole_and_sum_up_to_half() -> None:
    for schedule in ("cosine", "linear"):
        shares = falling(schedule, 50)
        assert float(shares[0]) == 1
        assert (shares.diff() < 0).all()
        assert float(shares.sum()) / 50 == pytest.approx(0.5, abs=0.011)
    with pytest.raises(UserError, match="unknown schedule 'step'; constant, cosine, linear"):
        falling("step", 5)


@pytest.mark.parametrize("attack", [pgd, apgd])
def test_a_start_is_where_the_first_walk_begins(attack: Callable[..., AttackResult]) -> None:
    """Seen by the model after the images: projected onto ball and box; where it succeeds, the
    search is over.
    """
    x = images(5)
    labels = smooth()(x).argmax(1)
    labels[3] = (labels[3] + 1) % 4  # misclassified: nothing to start
    begin = torch.linspace(-1, 1, 16).reshape(1, *SHAPE).expand(5, *SHAPE).clone()
    begin[0] = 0.001
    calls: list[Tensor] = []

    def seen(z: Tensor) -> Tensor:
        calls.append(z.detach())
        return smooth()(z)

    found = attack(seen, x, labels, epsilon=0.05, steps=4, start=begin, batch=8)
    assert torch.equal(calls[0][:5], x)
    assert torch.equal(calls[1][:4], (x + begin.clamp(-0.05, 0.05)).clamp(0, 1)[[0, 1, 2, 4]])
    assert not found.perturbation[3].any()
    assert (int(found.forwards[3]), int(found.backwards[3])) == (1, 0)
    others = torch.tensor([0, 1, 2, 4])
    assert torch.equal(found.forwards[others], found.backwards[others] + 1)
    far = attack(smooth(), x, labels, epsilon=0.5, steps=20)
    assert far.success.all()
    again = attack(smooth(), x, labels, epsilon=0.5, steps=20, start=far.perturbation)
    assert again.forwards.tolist() == [2, 2, 2, 1, 2]
    assert torch.allclose(again.perturbation, far.perturbation, atol=1e-6)


def test_after_the_start_the_walk_is_the_plain_one() -> None:
    """From the image itself: the same points as without a start."""
    x = images(6)
    labels = smooth()(x).argmax(1)
    how = {"epsilon": 0.1, "steps": 6, "restarts": 2}
    plain, begun = pgd(smooth(), x, labels, **how), pgd(smooth(), x, labels, start=torch.zeros_like(x), **how)
    assert torch.equal(plain.perturbation, begun.perturbation)
    assert torch.equal(plain.success, begun.success)
    assert torch.equal(plain.backwards, begun.backwards)
    assert torch.equal(plain.forwards + 1, begun.forwards)


# ------------------------------------------------------------------------------------------------
# cost, and any company


@pytest.mark.usefixtures("eight_rows")
@pytest.mark.parametrize("restarts", [1, 2])
def test_passes_are_counted_and_none_is_spent_on_a_finished_example(
    restarts: int, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, labels = digits
    how = {"epsilon": 0.08, "steps": 6, "restarts": restarts}
    alone = Meter(convnet)
    found = pgd(alone, x, labels, **how, batch=1)
    assert 0 < int(found.success.sum()) < 60
    assert len(alone.calls) == int(found.forwards.sum())  # one example a pass
    assert set(alone.calls) == {8}
    assert alone.backwards == 8 * int(found.backwards.sum())
    assert (found.forwards[~found.success] == restarts * 7).all()

    many = Meter(convnet)
    found = pgd(many, x, labels, **how, batch=16)
    longest = restarts * 7
    assert many.calls[: len(many.calls) - longest] == [16] * (len(many.calls) - longest)  # full until none is waiting
    wanted = int(found.forwards.sum())
    assert wanted <= sum(many.calls) <= wanted + 7 * longest  # the rest is padding
    assert many.backwards == sum(many.calls)
    assert torch.equal(found.forwards, found.backwards)


def test_random_starts_are_keyed_by_seed_and_id() -> None:
    x, labels = images(1).expand(3, *SHAPE), smooth()(images(1)).argmax(1).expand(3)
    how = {"epsilon": 0.01, "steps": 1, "step_size": 1e-6, "restarts": 5}
    found = pgd(smooth(), x, labels, **how, ids=[0, 1, 0])
    assert torch.equal(found.perturbation[0], found.perturbation[2])
    assert not torch.equal(found.perturbation[0], found.perturbation[1])
    assert torch.equal(pgd(smooth(), x, labels, **how).perturbation[:2], found.perturbation[:2])  # 0, 1, ... by default
    assert not torch.equal(pgd(smooth(), x, labels, **how, seed=1).perturbation[0], found.perturbation[0])


def test_the_last_step_goes_to_the_far_side_of_the_ball() -> None:
    """On a linear model the first point that succeeds is short of the ball's surface; the steps
    after it go on to the surface.
    """
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0] * 8, [-1.0, 1.0] * 8]))
        layer.bias.copy_(torch.tensor([3.2, 0.0]))  # at an even grey the boundary is 0.1 away
    model = nn.Sequential(nn.Flatten(), layer)
    images, labels, epsilon = torch.full((6, 1, 4, 4), 0.5), torch.zeros(6, dtype=torch.long), 0.2
    first = pgd(model, images, labels, epsilon=epsilon, steps=10)
    last = pgd(model, images, labels, epsilon=epsilon, steps=10, stop="last")
    assert first.success.all()
    assert last.success.all()
    assert torch.allclose(last.distance, torch.full((6,), epsilon), atol=1e-6)
    assert (first.distance <= last.distance + 1e-6).all()
    assert (first.forwards < last.forwards).any()
    assert (last.forwards == 11).all()
    wrong = pgd(model, images, 1 - labels, epsilon=epsilon, steps=10, stop="last")
    assert (wrong.distance == 0).all()
    assert (wrong.forwards == 1).all()
