"""Class-probability maximisation: gradient norms and SGD's steps of a softmax-linear model, traces, starts, and every optimiser.

With logits W x + b and probabilities p, the gradient of the target's logit is W_t, that of its log-probability W_t - sum_i p_i W_i, and
that of its probability p_t times this.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from known_models import SHAPE, Meter, gaussian, images, predicted, smooth
from torch import Tensor, nn

from tasks.parts.attacks.class_probability import LEARNING_RATES, MIXING, Trace, class_probability, for_all_classes
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


def same(found: Trace, other: Trace, rows: Tensor | slice = slice(None)) -> bool:
    fields = [field for field in vars(found) if field != "kept_steps"]
    return all(torch.equal(getattr(found, field)[rows], getattr(other, field)) for field in fields)


# ---------------------------------------------------------------------------------------------------------- closed form


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_of_sgd_on_a_softmax_linear_model(objective: str, momentum: float) -> None:
    model, x = softmax_linear(), images(6).double()
    labels = model(x).argmax(1)
    targets = (labels + 1 + torch.arange(6) % 3) % 4
    rate, steps = 0.2, 12
    found = class_probability(
        model,
        x,
        labels,
        targets=targets,
        optimiser="sgd",
        learning_rate=rate,
        optimiser_options={"momentum": momentum},
        objective=objective,
        steps=steps,
        keep=steps + 1,
    )
    assert found.kept_steps.tolist() == list(range(steps + 1))
    walls = 0
    for i in range(6):
        point, velocity = x[i].flatten(), torch.zeros(16, dtype=torch.float64)
        values: list[float] = []
        for step in range(steps + 1):
            value, gradient = height_and_gradient(model, point, int(targets[i]), objective)
            assert float(found.objective[i, step]) == pytest.approx(value, rel=1e-9)
            assert float(found.gradient_norm[i, step]) == pytest.approx(float(gradient.norm()), rel=1e-9)
            assert torch.allclose(found.kept[i, step].flatten(), point, atol=1e-12)
            values.append(value)
            velocity = momentum * velocity + gradient
            free = point + rate * velocity
            point = free.clamp(0, 1)
            walls += int((free != point).any())
        best = found.kept[i, max(range(steps + 1), key=values.__getitem__)]
        assert torch.allclose(x[i] + found.perturbation[i], best, atol=1e-12)
        logits = model(best[None])
        assert bool(found.success[i]) == (int(logits.argmax()) == int(targets[i]))
        assert float(found.distance[i]) == pytest.approx(float((best - x[i]).norm()), rel=1e-9)
    assert walls > 0  # the box was met
    assert torch.equal(found.targets, targets)
    assert (found.forwards == steps + 1).all()
    assert (found.backwards == steps + 1).all()


def test_steps_of_adam_without_a_box() -> None:
    """Adam's first step goes as far as the learning rate in each number, whatever the gradient."""
    model, x = softmax_linear(), 3 * gaussian(4, 5, *SHAPE).double()
    labels = model(x).argmax(1)
    found = class_probability(model, x, labels, steps=1, optimiser="adam", keep=2, box=(-math.inf, math.inf))
    for i in range(5):
        _, gradient = height_and_gradient(model, x[i].flatten(), int(found.targets[i]), "probability")
        wanted = LEARNING_RATES["Adam"] * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose((found.kept[i, 1] - found.kept[i, 0]).flatten(), wanted, atol=1e-9)


def test_several_networks_are_averaged() -> None:
    one, x = softmax_linear(), images(5).double()
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, dtype=torch.float64)).requires_grad_(False)
    other[1].weight.copy_(gaussian(8, 4, 16))
    labels, targets = torch.zeros(5, dtype=torch.long), torch.tensor([1, 2, 3, 1, 2])

    def both(x: Tensor) -> Tensor:
        return torch.stack([one(x), other(x)], 1)

    found = class_probability(both, x, labels, targets=targets, optimiser="sgd", steps=3)
    for i in range(5):
        pairs = [height_and_gradient(m, x[i].flatten(), int(targets[i]), "probability") for m in (one, other)]
        assert float(found.objective[i, 0]) == pytest.approx(sum(v for v, _ in pairs) / 2)
        assert float(found.gradient_norm[i, 0]) == pytest.approx(float((pairs[0][1] + pairs[1][1]).norm() / 2))
    logits = both(x + found.perturbation)
    assert torch.equal(found.success, (logits.argmax(2) == targets[:, None]).all(1))


# ------------------------------------------------------------------------------------------------------------- optimisers


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
    last = convnet(x + found.perturbation).log_softmax(1).gather(1, targets[:, None])[:, 0]
    first, last = first.detach(), last.detach()
    assert torch.allclose(found.objective[:, 0], first, atol=1e-4)
    assert torch.allclose(found.objective.amax(1), last, atol=1e-4)
    assert (last > first + 0.1).all()
    assert float((last - first).median()) > 2


def test_optimisers_are_those_of_torch() -> None:
    """So that a new one is put on one of the two lists."""
    there = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type)} - {"Optimizer"}
    assert there <= set(LEARNING_RATES) | set(MIXING)


@pytest.mark.parametrize("optimiser", sorted(LEARNING_RATES))
def test_no_example_changes_another(optimiser: str) -> None:
    """What makes an optimiser element-wise: the walks of several examples are those of each alone."""
    model, x = smooth(), images(5)
    labels = model(x).argmax(1)
    how: dict[str, Any] = {"optimiser": optimiser.upper(), "objective": "log_probability", "steps": 25, "keep": 3}
    together = class_probability(model, x, labels, **how)
    for i in range(5):
        alone = class_probability(model, x[i : i + 1], labels[i : i + 1], **how)
        assert torch.allclose(together.kept[i], alone.kept[0], atol=1e-5)
        assert torch.allclose(together.objective[i], alone.objective[0], atol=1e-4)


@pytest.mark.parametrize("optimiser", sorted(MIXING))
def test_optimisers_that_mix_examples_are_refused(optimiser: str) -> None:
    with pytest.raises(UserError, match=f"^{optimiser} .* take one of Adadelta") as caught:
        class_probability(smooth(), images(2), torch.tensor([0, 1]), optimiser=optimiser.lower())
    assert caught.value.field == "optimiser"


def test_weight_decay_is_off_unless_asked_for() -> None:
    def flat(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 3) + 0 * x.sum()

    x, labels = images(2), torch.tensor([0, 0])
    how: dict[str, Any] = {"steps": 5, "keep": 1}
    assert torch.equal(class_probability(flat, x, labels, **how).kept[:, 0], x)
    decayed = class_probability(flat, x, labels, **how, optimiser_options={"weight_decay": 0.5}).kept[:, 0]
    assert torch.allclose(decayed, x * (1 - 0.01 * 0.5) ** 5)


# ------------------------------------------------------------------------------------------------------ starts and traces


@pytest.mark.parametrize("start", ["image", "noise", "zeros"])
def test_where_walks_begin(start: str) -> None:
    model, x = smooth(), images(6)
    labels = model(x).argmax(1)
    found = class_probability(model, x, labels, start=start, steps=8, keep=3)
    assert found.kept_steps.tolist() == [0, 4, 8]
    begin = found.kept[:, 0]
    if start == "image":
        assert torch.equal(begin, x)
    elif start == "zeros":
        assert begin.abs().max() < 1e-6
    else:
        assert begin.min() >= 0
        assert begin.max() <= 1
        assert 0.2 < float(begin.std()) < 0.4
        assert not torch.equal(begin[0], begin[1])
    others = model(begin).scatter(1, labels[:, None], -torch.inf)
    assert torch.equal(found.targets, others.argmax(1))
    assert (found.targets != labels).all()
    moved = x + found.perturbation
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(found.success, predicted(model, moved) != labels)


def test_noise_is_keyed_by_seed_and_id_and_in_an_open_space_normal() -> None:
    x, labels = images(1).expand(3, *SHAPE), torch.zeros(3, dtype=torch.long)
    how: dict[str, Any] = {"start": "noise", "steps": 1, "keep": 2}
    begin = class_probability(smooth(), x, labels, ids=[5, 6, 5], **how).kept[:, 0]
    assert torch.equal(begin[0], begin[2])
    assert not torch.equal(begin[0], begin[1])
    other = class_probability(smooth(), x, labels, ids=[5, 6, 5], seed=1, **how).kept[:, 0]
    assert not torch.equal(begin, other)
    free = class_probability(smooth(), images(60), torch.zeros(60).long(), box=(-math.inf, math.inf), **how)
    assert float(free.kept[:, 0].mean()) == pytest.approx(0, abs=0.1)
    assert float(free.kept[:, 0].std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("keep", "steps"), [(0, []), (1, [10]), (2, [0, 10]), (3, [0, 5, 10]), (11, list(range(11)))])
def test_kept_points_have_the_objective_of_their_step(keep: int, steps: list[int]) -> None:
    model, x = smooth(), images(4)
    labels = model(x).argmax(1)
    found = class_probability(model, x, labels, steps=10, keep=keep)
    assert found.kept.shape == (4, keep, *SHAPE)
    assert found.kept_steps.tolist() == steps
    for place, step in enumerate(steps):
        p = model(found.kept[:, place]).softmax(1).gather(1, found.targets[:, None])[:, 0]
        assert torch.allclose(found.objective[:, step], p, atol=1e-6)


def test_targets_are_walked_to_also_from_images_that_are_there_already() -> None:
    model, x = smooth(), images(4)
    there = model(x).argmax(1)
    labels = (there + 1) % 4
    plain = class_probability(model, x, labels, steps=5, keep=2)
    assert plain.success.all()
    assert not plain.perturbation.any()
    assert (plain.forwards == 1).all()
    assert torch.equal(plain.targets, there)
    assert torch.equal(plain.kept, x[:, None].expand(4, 2, *SHAPE))
    assert (plain.objective == plain.objective[:, :1]).all()
    aimed = class_probability(model, x, labels, targets=there, steps=5)
    assert aimed.success.all()
    assert (aimed.objective[:, -1] > aimed.objective[:, 0]).all()
    assert (aimed.forwards == 6).all()


def test_all_classes(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels, targets, rows = for_all_classes(digits[0][:4], digits[1][:4], 10)
    assert x.shape == (36, 1, 8, 8)
    for i in range(4):
        assert torch.equal(x[9 * i : 9 * i + 9], digits[0][i].expand(9, 1, 8, 8))
        assert (labels[9 * i : 9 * i + 9] == digits[1][i]).all()
        assert sorted([*targets[9 * i : 9 * i + 9].tolist(), int(digits[1][i])]) == list(range(10))
    found = class_probability(convnet, x, labels, targets=targets, ids=rows.tolist(), objective="log_probability")
    assert found.success.float().mean() > 0.9
    assert torch.equal(found.success, predicted(convnet, x + found.perturbation) == targets)


# ------------------------------------------------------------------------------------------------ cost, and any company


def test_the_same_bits_in_any_company_and_batch(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits[0][:24], digits[1][:24]

    def search(rows: list[int], batch: int | None = None) -> Trace:
        how: dict[str, Any] = {"ids": rows, "seed": 3, "steps": 15, "keep": 4, "start": "noise"}
        return class_probability(convnet, x[rows], labels[rows], batch=batch, **how)

    together = search(list(range(24)))
    for batch in (1, 7, 8):
        assert same(together, search(list(range(24)), batch))
    mixed = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert same(together, search(mixed.tolist()), mixed)
    for rows in ([4], [5, 6, 7, 8, 9, 10, 11]):
        assert same(together, search(rows), torch.tensor(rows))


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


def test_nothing_given_is_written_to_and_the_network_keeps_its_gradients() -> None:
    model, x = smooth(), images(4)
    before, weights = x.clone(), {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        found = class_probability(model, x, torch.zeros(4, dtype=torch.long), steps=3, keep=2)
    assert torch.equal(x, before)
    assert all(p.grad is None and torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert not any(isinstance(value, Tensor) and value.requires_grad for value in vars(found).values())


def test_no_examples() -> None:
    found = class_probability(smooth(), images(0), torch.zeros(0, dtype=torch.long), steps=3, keep=2)
    assert found.kept.shape == (0, 2, *SHAPE)
    assert found.objective.shape == (0, 4)


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
        ({"steps": 4, "keep": 6}, "of 4 steps 0 to 5 points can be kept, not 6", "keep"),
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
