"""Auto-PGD finds the closed form on a linear model, and what its slow twin finds.

The twin is in float64; with the same steps it finds as many as plain PGD. It stays in the ball and
the box, and counts what it costs.
"""

from __future__ import annotations

import pytest
import torch
from known_models import NORMS, SHAPE, Meter, images, linear_with_distances, smooth
from torch import Tensor, nn

from tasks.parts.attacks.apgd import _checked, _Plan, _Walk, apgd, checkpoints
from tasks.parts.attacks.pgd import pgd
from tasks.parts.geometry.balls import random_in_ball
from tasks.parts.losses import objective
from tasks.parts.models.build import Classifier
from tasks.parts.randomness import normal, uniform
from tasks.parts.settings import UserError

LOSSES = ["ce", "margin", "dlr"]


def with_hopeless_classes(model: nn.Module, extra: int) -> nn.Module:
    """The model with further classes that are never the most likely, so that the DLR has the
    classes it wants.
    """

    class Widened(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = model(x)
            below = logits.amin(1, keepdim=True) - 1 - torch.arange(extra).to(logits)
            return torch.cat([logits, below], 1)

    return Widened()


# -------------------------------------------------------------------------------------------------
# closed form


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("how", ["away", "targets", "target_classes"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_linear_model_is_fooled_just_above_the_distance_and_not_below(
    norm: str, loss: str, how: str, batch: int
) -> None:
    model, points, labels, distance = linear_with_distances(norm, 16)
    model = with_hopeless_classes(model, 2)
    aim = {"away": {}, "targets": {"targets": 1 - labels}, "target_classes": {"target_classes": 1}}[how]
    middle = float(distance.sort().values[7:9].mean())
    assert (distance / middle - 1).abs().min() > 0.003
    found = apgd(model, points, labels, epsilon=middle, norm=norm, steps=10, loss=loss, batch=batch, **aim)
    assert torch.equal(found.success, distance < middle)
    for factor in (1.003, 0.997):
        for i in (0, 5):
            one = {key: value[i : i + 1] if key == "targets" else value for key, value in aim.items()}
            epsilon = float(distance[i]) * factor
            found = apgd(
                model,
                points[i : i + 1],
                labels[i : i + 1],
                epsilon=epsilon,
                norm=norm,
                steps=10,
                loss=loss,
                batch=batch,
                **one,
            )
            assert bool(found.success) == (factor > 1)
            assert float(found.distance) == pytest.approx(epsilon, rel=4e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_a_failed_search_keeps_the_best_point_of_the_ball(norm: str) -> None:
    """On a linear model that is the point straight towards the boundary, which leaves a known
    margin.
    """
    model, points, labels, distance = linear_with_distances(norm)
    epsilon = float(distance.min()) / 2
    found = apgd(model, points, labels, epsilon=epsilon, norm=norm, steps=20, restarts=3)
    assert not found.success.any()
    before, after = model(points), model(points + found.perturbation)
    wanted = (before[:, 0] - before[:, 1]).abs() * (1 - epsilon / distance)
    assert (after[:, 0] - after[:, 1]).abs().tolist() == pytest.approx(wanted.tolist(), rel=1e-3, abs=1e-5)


def test_checkpoints_of_the_paper() -> None:
    """p = 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99: in exact fractions, whatever the
    number of steps.
    """
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1000) == [220, 410, 570, 700, 800, 870, 930, 990]
    for steps in range(1, 60):
        at = checkpoints(steps)
        assert at == sorted(set(at))
        assert at[0] >= 1
        assert at[-1] <= steps


def test_the_step_size_is_halved_where_the_loss_swings() -> None:
    """A ridge at 0.503, of which 2 epsilon steps only see the two sides: the walk closes in, as
    plain PGD with that step cannot.
    """

    def model(x: Tensor) -> Tensor:
        t = x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(t), 0.0005 - (t - 0.503).abs()], 1)

    point, label = torch.full((1, 1, 1, 1), 0.45), torch.tensor([0])
    assert not pgd(model, point, label, epsilon=0.1, steps=100, step_size=0.2).success.any()
    assert apgd(model, point, label, epsilon=0.1, steps=100).success.all()


@pytest.mark.parametrize(
    ("rises", "halved", "gained", "wanted"),
    [
        (15, False, True, False),  # 15 of 19 steps, and a new best
        (14, False, True, True),  # less than three quarters
        (15, False, False, True),  # nothing new with this step size
        (15, True, False, False),  # the smaller step size has only had one stretch
        (14, True, False, True),
    ],
)
def test_when_the_step_size_is_halved(rises: int, halved: bool, gained: bool, wanted: bool) -> None:
    """At the checkpoint 41 of 100 steps, 19 after the one before; the last of the rises comes with
    this very look.
    """
    delta, best = torch.full((1, *SHAPE), 2.0), torch.full((1, *SHAPE), 3.0)
    now, best_value = torch.tensor([1.0]), torch.tensor([5.0])
    walk = _Walk(
        number=torch.tensor([0]),
        step=torch.tensor([41]),
        delta=delta,
        previous=delta,
        value=now - 1,
        step_size=torch.tensor([0.2]),
        best=best,
        best_gradient=-best,
        best_value=best_value,
        rises=torch.tensor([rises - 1]),
        halved=torch.tensor([halved]),
        best_then=best_value - float(gained),
    )
    after, gradient = _checked(walk, now, delta, 9.0, _Plan.of(100, delta.device))
    assert float(after.step_size) == pytest.approx(0.1 if wanted else 0.2)
    assert torch.equal(after.delta, best if wanted else delta)
    assert torch.equal(gradient, -best if wanted else delta)
    assert after.value.tolist() == [5.0 if wanted else 1.0]
    assert (after.rises.tolist(), after.halved.tolist(), after.best_then.tolist()) == ([0], [wanted], [5.0])


# -------------------------------------------------------------------------------------------------
# slow twin


def twin(
    model: nn.Module,
    image: Tensor,
    label: int,
    *,
    ident: int,
    epsilon: float,
    norm: str,
    steps: int,
    restarts: int,
    loss: str,
    target: int | None,
    target_classes: int,
    seed: int,
) -> tuple[Tensor, bool, int]:
    """Textbook Auto-PGD on one image in float64: the perturbation, whether it succeeds, and how
    many points were looked at.
    """
    model, x = model.double(), image.double()
    ranking = model(x[None])[0].argsort(descending=True).tolist()
    ranking.remove(label)
    aims = ranking[:target_classes] * restarts if target_classes else [target] * restarts

    def inside(point: Tensor) -> Tensor:
        delta = point - x
        if norm == "Linf":
            delta = delta.clamp(-epsilon, epsilon)
        elif delta.norm() > epsilon:
            delta = delta * epsilon / delta.norm()
        return (x + delta).clamp(0, 1)

    found, found_margin, looked = x, -torch.inf, 0
    for number, aim in enumerate(aims):
        point = x
        if number and norm == "Linf":
            point = inside(x + epsilon * (2 * uniform(seed, "apgd start", [ident], x.shape, number)[0].double() - 1))
        elif number:
            n = normal(seed, "apgd start", [ident], x.shape, number)[0].double()
            share = float(uniform(seed, "apgd start, distance from the centre", [ident], (), number))
            point = inside(x + epsilon * share ** (1 / x.numel()) * n / n.norm())
        step_size, halved, last = 2 * epsilon, False, 0
        path, values, best, best_then = [], [], None, 0.0
        for k in range(steps + 1):
            point = point.detach().requires_grad_(True)
            logits = model(point[None])
            looked += 1
            aim_tensor = None if aim is None else torch.tensor([aim])
            value = objective(loss, logits, torch.tensor([label]), aim_tensor)
            (gradient,) = torch.autograd.grad(value, point)
            z = logits[0].tolist()
            if target is None:
                margin = max(v for i, v in enumerate(z) if i != label) - z[label]
            else:
                margin = z[target] - max(v for i, v in enumerate(z) if i != target)
            if margin > found_margin:
                found, found_margin = point.detach(), margin
            if margin > 0:
                return found - x, True, looked
            path.append(point.detach())
            values.append(value.item())
            if best is None or values[-1] > best[0]:
                best = (values[-1], path[-1], gradient)
            if k == 0:
                best_then = best[0]
            if k in checkpoints(steps):
                rises = sum(values[i + 1] > values[i] for i in range(last, k))
                halve = rises < 0.75 * (k - last) or (not halved and best[0] <= best_then)
                if halve:
                    step_size /= 2
                    values[-1], path[-1], gradient = best
                halved, last, best_then = halve, k, best[0]
            direction = gradient.sign() if norm == "Linf" else gradient / gradient.norm()
            straight = inside(path[-1] + step_size * direction)
            point = inside(path[-1] + 0.75 * (straight - path[-1]) + 0.25 * (path[-1] - path[-2])) if k else straight
    return found - x, False, looked


@pytest.mark.parametrize("how", ["away", "targets", "target_classes"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.1), ("L2", 0.35)])
def test_slow_twin(norm: str, epsilon: float, loss: str, how: str) -> None:
    x, ids = images(10), [3, 141, 59, 26, 5, 35, 89, 79, 32, 38]
    labels = smooth()(x).argmax(1)
    targets = (labels + 1) % 4 if how == "targets" else None
    count = 2 if how == "target_classes" else 0
    arguments = {"epsilon": epsilon, "norm": norm, "steps": 14, "restarts": 2, "loss": loss, "seed": 2}
    arguments["target_classes"] = count
    found = apgd(smooth().double(), x.double(), labels, **arguments, targets=targets, ids=ids, batch=4)
    assert 0 < int(found.success.sum()) < 10
    for i in range(10):
        delta, success, looked = twin(
            smooth(),
            x[i],
            int(labels[i]),
            ident=ids[i],
            target=None if targets is None else int(targets[i]),
            **arguments,
        )
        assert (bool(found.success[i]), int(found.forwards[i])) == (success, looked)
        assert torch.allclose(found.perturbation[i], delta, atol=1e-6)


# -------------------------------------------------------------------------------------------------
# against plain PGD


@pytest.mark.parametrize(("norm", "epsilons"), [("Linf", (0.04, 0.08)), ("L2", (0.3, 0.5))])
def test_finds_as_many_as_pgd_with_the_same_steps(
    norm: str, epsilons: tuple[float, ...], convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, labels = digits[0][:30], digits[1][:30]
    for epsilon in epsilons:
        for steps in (10, 40):
            how = {"epsilon": epsilon, "norm": norm, "steps": steps}
            plain = int(pgd(convnet, x, labels, **how).success.sum())
            assert 0 < plain < 30
            assert int(apgd(convnet, x, labels, **how).success.sum()) >= plain - 1
            if steps == 10:
                in_turn = apgd(convnet, x, labels, **how, loss="dlr", target_classes=9)
                assert int(in_turn.success.sum()) >= plain


def test_a_confident_network_stops_the_cross_entropy_but_not_the_dlr() -> None:
    model, points, labels, distance = linear_with_distances("Linf")
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1e4)
    model = with_hopeless_classes(model, 2)
    how = {"epsilon": 0.3, "steps": 10}
    assert not apgd(model, points, labels, **how).success[distance > 0.02].any()
    assert apgd(model, points, labels, **how, loss="dlr").success.all()
    assert apgd(model, points, labels, **how, loss="dlr", target_classes=3).success.all()


def test_target_classes_find_what_the_nearest_class_hides() -> None:
    """The second class is the most likely other, but is never reached; the third is, in another
    direction.
    """

    def model(x: Tensor) -> Tensor:
        a, b = x.flatten(1).unbind(1)
        low = torch.full_like(a, -9.0)
        return torch.stack([torch.full_like(a, 1.0), (3 * a).clamp_max(0.9), 2 * b - 0.3, low, low - 1], 1)

    point, label = torch.tensor([[[[0.25, 0.5]]]]), torch.tensor([0])
    assert not apgd(model, point, label, epsilon=0.2, loss="margin").success.any()
    assert not apgd(model, point, label, epsilon=0.2, loss="dlr", target_classes=1).success.any()
    found = apgd(model, point, label, epsilon=0.2, loss="dlr", target_classes=2)
    assert found.success.all()
    assert int(found.forwards) > 101  # the walk to the second class came first


# -------------------------------------------------------------------------------------------------
# properties


@pytest.mark.parametrize("norm", NORMS)
def test_a_flat_loss_gives_no_nan(norm: str) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([0 * x.sum((1, 2, 3)) + 1, 0 * x.sum((1, 2, 3))], 1)

    found = apgd(model, images(3), torch.tensor([0, 0, 1]), epsilon=0.1, norm=norm, steps=3, restarts=2)
    assert found.success.tolist() == [False, False, True]
    assert torch.equal(found.perturbation, torch.zeros(3, *SHAPE))
    assert found.forwards.tolist() == [8, 8, 1]


def test_settings_that_contradict() -> None:
    x, labels = images(2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(UserError, match="targets are given"):
        apgd(smooth(), x, labels, epsilon=0.1, targets=labels + 1, target_classes=2)
    with pytest.raises(UserError, match="4 target classes, the classifier has 3 others"):
        apgd(smooth(), x, labels, epsilon=0.1, target_classes=4)


# ------------------------------------------------------------------------------------------------
# cost, and any company


@pytest.mark.usefixtures("eight_rows")
@pytest.mark.parametrize("target_classes", [0, 2])
def test_passes_are_counted_and_none_is_spent_on_a_finished_example(
    target_classes: int, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, labels = digits
    how = {"epsilon": 0.08, "steps": 6, "target_classes": target_classes}
    alone = Meter(convnet)
    found = apgd(alone, x, labels, **how, batch=1)
    longest = 7 * max(1, target_classes)
    assert 0 < int(found.success.sum()) < 60
    assert len(alone.calls) == int(found.forwards.sum())  # one example a pass
    assert alone.backwards == 8 * int(found.backwards.sum())
    assert (found.forwards[~found.success] == longest).all()

    many = Meter(convnet)
    found = apgd(many, x, labels, **how, batch=16)
    assert many.calls[: len(many.calls) - longest] == [16] * (len(many.calls) - longest)  # full until none is waiting
    wanted = int(found.forwards.sum())
    assert wanted <= sum(many.calls) <= wanted + 7 * longest  # the rest is padding
    assert torch.equal(found.forwards, found.backwards)


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_are_keyed_by_seed_and_id(norm: str) -> None:
    def begins(ident: int | None, seed: int) -> Tensor:
        asked: list[Tensor] = []

        def model(x: Tensor) -> Tensor:
            asked.append(x.detach()[0])
            return torch.stack([x.sum((1, 2, 3)) + 1e3, x.square().sum((1, 2, 3))], 1)

        label, ids = torch.tensor([0]), None if ident is None else [ident]
        apgd(model, images(1), label, epsilon=0.2, norm=norm, steps=1, restarts=3, ids=ids, seed=seed)
        assert len(asked) == 6
        return torch.stack(asked[::2])  # where each of the three walks begins

    starts = begins(7, 3)
    assert torch.equal(starts[0], images(1)[0])
    for number in (1, 2):
        random = random_in_ball(norm, SHAPE, seed=3, purpose="apgd start", ids=[7], block=number)[0]
        assert torch.allclose(starts[number], (images(1)[0] + 0.2 * random).clamp(0, 1))
    assert not torch.allclose(begins(8, 3)[1], starts[1])
    assert not torch.allclose(begins(7, 4)[1], starts[1])
    assert torch.equal(begins(None, 3), begins(0, 3))
