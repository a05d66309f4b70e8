"""Class-probability maximisation takes SGD's steps on a softmax-linear model.

Also its starts, and every optimiser.

With logits W x + b and probabilities p, the gradient of the target's logit is W_t, that of its
log-probability W_t - sum_i p_i W_i, and that of its probability p_t times this.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from known_models import SHAPE, Meter, gaussian, images, predicted, smooth
from torch import Tensor, nn

from tasks.parts.attacks.class_probability import LEARNING_RATES, MIXING, class_probability
from tasks.parts.models.build import Classifier
from tasks.parts.settings import UserError

OBJECTIVES = ["probability", "log_probability", "logit"]


def softmax_linear(dtype: torch.dtype = torch.float64) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, dtype=dtype)).requires_grad_(False)
    model[1].weight.copy_(gaussian(1, 4, 16) / 2)
    model[1].bias.copy_(gaussian(2, 4))
    return model


def height_and_gradient(model: nn.Module, x: Tensor, target: int, objective: str) -> tuple[float, Tensor]:
    """The objective at one point (16,) and its gradient, written out."""
    weight, bias = model[1].weight, model[1].bias
    logits = weight @ x + bias
    p = logits.exp() / logits.exp().sum()
    inner = weight[target] - p @ weight
    if objective == "logit":
        return float(logits[target]), weight[target]
    if objective == "log_probability":
        return float(p[target].log()), inner
    return float(p[target]), p[target] * inner


class Seen:
    """A model that keeps the points it is asked about, a pass each."""

    def __init__(self, model: nn.Module, count: int):
        self.model, self.count, self.points = model, count, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.points.append(x.detach()[: self.count].clone())  # the rest is padding
        return self.model(x)


def likeliest_other(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    return model(x).scatter(1, labels[:, None], -torch.inf).argmax(1)


# -------------------------------------------------------------------------------------------------
# closed form


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_of_sgd_on_a_softmax_linear_model(objective: str, momentum: float) -> None:
    model, x = softmax_linear(), images(6).double()
    labels = model(x).argmax(1)
    targets = (labels + 1 + torch.arange(6) % 3) % 4
    rate, steps = 0.2, 12
    seen = Seen(model, 6)
    found = class_probability(
        seen,
        x,
        labels,
        targets=targets,
        optimiser="sgd",
        learning_rate=rate,
        optimiser_options={"momentum": momentum},
        objective=objective,
        steps=steps,
    )
    assert len(seen.points) == steps + 1
    walls = 0
    for i in range(6):
        point, velocity = x[i].flatten(), torch.zeros(16, dtype=torch.float64)
        values: list[float] = []
        for step in range(steps + 1):
            value, gradient = height_and_gradient(model, point, int(targets[i]), objective)
            assert torch.allclose(seen.points[step][i].flatten(), point, atol=1e-12)
            values.append(value)
            velocity = momentum * velocity + gradient
            free = point + rate * velocity
            point = free.clamp(0, 1)
            walls += int((free != point).any())
        best = seen.points[max(range(steps + 1), key=values.__getitem__)][i]
        assert torch.allclose(found.images[i], best, atol=1e-12)
        logits = model(best[None])
        assert bool(found.success[i]) == (int(logits.argmax()) == int(targets[i]))
        assert float(found.distance[i]) == pytest.approx(float((best - x[i]).norm()), rel=1e-9)
    assert walls > 0  # the box was met
    assert (found.forwards == steps + 1).all()
    assert (found.backwards == steps + 1).all()


def test_steps_of_adam_without_a_box() -> None:
    """Adam's first step goes as far as the learning rate in each number, whatever the gradient."""
    model, x = softmax_linear(), 3 * gaussian(4, 5, *SHAPE).double()
    labels = model(x).argmax(1)
    seen = Seen(model, 5)
    class_probability(seen, x, labels, steps=1, optimiser="adam", box=(-math.inf, math.inf))
    targets = likeliest_other(model, x, labels)
    for i in range(5):
        _, gradient = height_and_gradient(model, x[i].flatten(), int(targets[i]), "probability")
        wanted = LEARNING_RATES["Adam"] * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose((seen.points[1][i] - seen.points[0][i]).flatten(), wanted, atol=1e-9)


def test_several_networks_are_averaged() -> None:
    one, x = softmax_linear(), 0.5 + 0.02 * gaussian(3, 5, *SHAPE).double()
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, dtype=torch.float64)).requires_grad_(False)
    other[1].weight.copy_(gaussian(8, 4, 16))
    labels, targets = torch.zeros(5, dtype=torch.long), torch.tensor([1, 2, 3, 1, 2])

    def both(x: Tensor) -> Tensor:
        return torch.stack([one(x), other(x)], 1)

    seen = Seen(both, 5)
    how = {"optimiser": "sgd", "learning_rate": 0.01, "objective": "logit"}
    found = class_probability(seen, x, labels, targets=targets, steps=3, **how)
    for i in range(5):
        pairs = [height_and_gradient(m, x[i].flatten(), int(targets[i]), "logit") for m in (one, other)]
        step = 0.01 * (pairs[0][1] + pairs[1][1]) / 2
        assert torch.allclose((seen.points[1][i] - x[i]).flatten(), step, atol=1e-12)
    logits = both(x + found.perturbation)
    assert torch.equal(found.success, (logits.argmax(2) == targets[:, None]).all(1))


# -------------------------------------------------------------------------------------------------
# optimisers


@pytest.mark.parametrize("optimiser", sorted(LEARNING_RATES))
def test_every_optimiser_raises_the_probability(
    optimiser: str, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, labels = digits[0][:24], digits[1][:24]
    targets = (labels + 1 + torch.arange(24) % 9) % 10
    found = class_probability(
        convnet, x, labels, targets=targets, optimiser=optimiser, objective="log_probability", steps=60
    )
    first = convnet(x).log_softmax(1).gather(1, targets[:, None])[:, 0]
    last = convnet(found.images).log_softmax(1).gather(1, targets[:, None])[:, 0]
    first, last = first.detach(), last.detach()
    assert (last > first + 0.1).all()
    assert float((last - first).median()) > 2


def test_optimisers_are_those_of_torch() -> None:
    """So that a new one is put on one of the two lists."""
    there = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type)} - {"Optimizer"}
    assert there <= set(LEARNING_RATES) | set(MIXING)


@pytest.mark.parametrize("optimiser", sorted(LEARNING_RATES))
def test_no_example_changes_another(optimiser: str) -> None:
    """An optimiser is element-wise: the walks of several examples are those of each alone."""
    model, x = smooth(), images(5)
    labels = model(x).argmax(1)
    how: dict[str, Any] = {"optimiser": optimiser.upper(), "objective": "log_probability", "steps": 25}
    together = Seen(model, 5)
    class_probability(together, x, labels, **how)
    for i in range(5):
        alone = Seen(model, 1)
        class_probability(alone, x[i : i + 1], labels[i : i + 1], **how)
        for whole, single in zip(together.points, alone.points, strict=True):
            assert torch.allclose(whole[i], single[0], atol=1e-5)


@pytest.mark.parametrize("optimiser", sorted(MIXING))
def test_optimisers_that_mix_examples_are_refused(optimiser: str) -> None:
    with pytest.raises(UserError, match=f"{optimiser} .* take one of Adadelta") as caught:
        class_probability(smooth(), images(2), torch.tensor([0, 1]), optimiser=optimiser.lower())
    assert caught.value.field == "optimiser"


def test_weight_decay_is_off_unless_asked_for() -> None:
    def flat(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 3) + 0 * x.sum()

    x, labels = images(2), torch.tensor([0, 0])
    plain, decayed = Seen(flat, 2), Seen(flat, 2)
    class_probability(plain, x, labels, steps=5)
    class_probability(decayed, x, labels, steps=5, optimiser_options={"weight_decay": 0.5})
    assert torch.equal(plain.points[-1], x)
    assert torch.allclose(decayed.points[-1], x * (1 - 0.01 * 0.5) ** 5)


# -------------------------------------------------------------------------------------------------
# starts


@pytest.mark.parametrize("start", ["image", "noise", "zeros"])
def test_where_walks_begin(start: str) -> None:
    model, x = smooth(), images(6)
    labels = model(x).argmax(1)
    seen = Seen(model, 6)
    found = class_probability(seen, x, labels, start=start, steps=8)
    begin = seen.points[0]
    if start == "image":
        assert torch.equal(begin, x)
    elif start == "zeros":
        assert begin.abs().max() < 1e-6
    else:
        assert begin.min() >= 0
        assert begin.max() <= 1
        assert 0.2 < float(begin.std()) < 0.4
        assert not torch.equal(begin[0], begin[1])
    aims = likeliest_other(model, begin, labels)
    heights = torch.stack([model(points).softmax(1).gather(1, aims[:, None])[:, 0] for points in seen.points])
    wanted = torch.stack(seen.points)[heights.argmax(0), torch.arange(6)]
    assert torch.allclose(found.images, wanted, atol=1e-6)
    assert torch.equal(found.success, predicted(model, found.images) != labels)


def test_noise_is_keyed_by_seed_and_id_and_in_an_open_space_normal() -> None:
    def begin(x: Tensor, **how: Any) -> Tensor:
        seen = Seen(smooth(), len(x))
        class_probability(seen, x, torch.zeros(len(x), dtype=torch.long), start="noise", steps=1, **how)
        return seen.points[0]

    x = images(1).expand(3, *SHAPE)
    keyed = begin(x, ids=[5, 6, 5])
    assert torch.equal(keyed[0], keyed[2])
    assert not torch.equal(keyed[0], keyed[1])
    assert not torch.equal(keyed, begin(x, ids=[5, 6, 5], seed=1))
    free = begin(images(60), box=(-math.inf, math.inf), batch=64)
    assert float(free.mean()) == pytest.approx(0, abs=0.1)
    assert float(free.std()) == pytest.approx(1, abs=0.1)


def test_targets_are_walked_to_also_from_images_that_are_there_already() -> None:
    model, x = smooth(), images(4)
    there = model(x).argmax(1)
    labels = (there + 1) % 4
    plain = class_probability(model, x, labels, steps=5)
    assert plain.success.all()
    assert not plain.perturbation.any()
    assert (plain.forwards == 1).all()
    aimed = class_probability(model, x, labels, targets=there, steps=5)
    assert aimed.success.all()
    first, last = (model(points).softmax(1).gather(1, there[:, None]) for points in (x, aimed.images))
    assert (last > first).all()
    assert (aimed.forwards == 6).all()


# ------------------------------------------------------------------------------------------------
# cost, and any company


@pytest.mark.usefixtures("eight_rows")
def test_passes_are_counted(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits[0][:16], digits[1][:16].clone()
    labels[:3] = (convnet(x[:3]).argmax(1) + 1) % 10
    alone = Meter(convnet)
    found = class_probability(alone, x, labels, steps=5, batch=1)
    assert found.forwards.tolist()[:3] == [1, 1, 1]
    assert len(alone.calls) == int(found.forwards.sum())
    assert alone.backwards == 8 * int(found.backwards.sum())
    many = Meter(convnet)
    class_probability(many, x, labels, steps=5, batch=8)
    assert many.calls == [8, 8] + [8] * 10  # 16 images, then the 13 that are not misclassified, in two batches


@pytest.mark.parametrize(
    ("wrong", "says", "field"),
    [
        ({"optimiser": "adamm"}, r"unknown optimiser 'adamm'; .*did you mean adam", "optimiser"),
        (
            {"optimiser_options": {"betta": 1}},
            r"AdamW has no option 'betta'; it has betas.*did you mean betas\?",
            "opt",
        ),
        ({"optimiser_options": {"lr": 1}}, r"the rate is learning_rate", "optimiser_options"),
        ({"optimiser_options": {"eps": -1.0}}, r"AdamW refuses its options: .*epsilon", "optimiser_options"),
        ({"start": "images"}, r"unknown start 'images'; image, noise, zeros; did you mean image\?", "start"),
        ({"objective": "log"}, r"unknown objective 'log'; probability, log_probability, logit", "objective"),
        ({"steps": 0}, "at least 1 step", "steps"),
        ({"learning_rate": 0.0}, r"a learning rate above 0 is needed, not 0\.0", "learning_rate"),
        ({"targets": torch.tensor([1, 0])}, "a target must differ from the label", "targets"),
        ({"targets": torch.tensor([1, 9])}, r"target 9 is out of range: the network has the classes 0\.\.3", "targets"),
    ],
)
def test_refused(wrong: dict[str, Any], says: str, field: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        class_probability(smooth(), images(2), torch.tensor([0, 0]), **wrong)
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
