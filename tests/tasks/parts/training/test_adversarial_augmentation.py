"""Adversarial augmentation moves examples as a slow twin does, and leaves no trace.

The twin moves one example at a time in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tasks.parts.data import load as data
from tasks.parts.geometry.balls import norm_of
from tasks.parts.models.build import Classifier, build
from tasks.parts.models.modes import evaluating
from tasks.parts.settings import UserError
from tasks.parts.training import training
from tasks.parts.training.adversarial_augmentation import (
    Moves,
    Random,
    check,
    forward,
    moved,
    radius_in,
    random_numbers,
    stage,
    tail,
)
from tasks.parts.training.augmented_examples import examples_of
from tasks.parts.training.recipes import AdversarialAugmentation, Recipe

SHAPE, CLASSES, COUNT = (1, 5, 5), 4, 30
NETWORK = "test_adversarial_augmentation:with_everything"
BLOBS = {"dataset": "blobs", "network": "mlp", "network_options": {"width": 16}, "epochs": 3, "batch_size": 32}
DIRECTIONS = ["runner_up", "away", "random_class", "random"]


def with_everything(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Batch normalisation, dropout, and no kinks at which a gradient's sign would hang on the last
    bit.
    """
    return nn.Sequential(
        nn.Conv2d(shape[0], 6, 3),
        nn.BatchNorm2d(6),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(6 * (shape[1] - 2) * (shape[2] - 2), 12),
        nn.Tanh(),
        nn.Linear(12, classes),
    )


def network() -> Classifier:
    """In training mode, with running statistics that are not those of any batch."""
    model = build(NETWORK, SHAPE, CLASSES, mean=(0.4,), std=(0.3,))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.network[1].running_mean.uniform_(-0.5, 0.5, generator=random)
        model.network[1].running_var.uniform_(0.5, 2, generator=random)
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.train()


def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.rand((COUNT, *SHAPE), generator=random)
    images[:, :, 0] = images[:, :, 0].round()  # some pixels at the ends of [0, 1]
    return images, torch.randint(0, CLASSES, (COUNT,), generator=random)


def numbers() -> Random:
    return random_numbers(5, 0, "test")


# -------------------------------------------------------------------------------------------------
# slow twin


def twin(
    settings: AdversarialAugmentation, model: Classifier, points: Tensor, labels: Tensor, k: int, radius: float
) -> dict[int, Tensor]:
    """Place in the batch -> moved point, each example by itself, in float64; those that stay are
    left out.
    """
    who, where = numbers()
    chosen = torch.rand(len(points), generator=who) < settings.probability
    normal = torch.randn(points.shape, generator=where).double() if settings.direction == "random" else None
    lots = torch.rand(len(points), generator=where) if settings.direction == "random_class" else None
    points = points.detach().double()
    if settings.relative:
        radius = radius * float(torch.sqrt((points**2).sum() / points.numel()))
    step = 2.5 * radius / settings.steps
    if settings.step_size is not None:
        step = radius * settings.step_size / settings.epsilon
    model = double_of(model)
    result = {}
    for i in range(len(points)):
        if not chosen[i]:
            continue
        logits = model.tail(points[i : i + 1], k)[0].detach()
        label = int(labels[i])
        others = [c for c in range(CLASSES) if c != label]
        if settings.only == "correct" and int(logits.argmax()) != label:
            continue
        if settings.only == "confident" and float(logits.softmax(0)[label]) < settings.confidence:
            continue
        aim = max(others, key=lambda c: float(logits[c])) if lots is None else others[int(lots[i] * len(others))]
        here = points[i]
        if normal is not None:
            unit = normal[i].sign() if settings.norm == "Linf" else normal[i] / math.sqrt(float((normal[i] ** 2).sum()))
            here = here + radius * unit
        for _ in range(0 if normal is not None else settings.steps):
            at = here.clone().requires_grad_(True)
            logit = model.tail(at[None], k)[0]
            (-logit[label] if settings.direction == "away" else logit[aim]).backward()
            slope = at.grad
            assert slope is not None
            if settings.norm == "Linf":
                delta = (here + step * slope.sign() - points[i]).clamp(-radius, radius)
            else:
                delta = here + step * slope / slope.norm() - points[i]
                delta = delta * min(1, radius / float(delta.norm()))
            here = points[i] + delta
            here = here.clamp(0, 1) if k == 0 else here
        result[i] = here.clamp(0, 1) if k == 0 else here
    return result


def double_of(model: Classifier) -> Classifier:
    copy = build(NETWORK, SHAPE, CLASSES)
    copy.load_state_dict(model.state_dict())
    return copy.double().eval()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "Linf"},
        {"norm": "L2", "epsilon": 0.5},
        {"norm": "L2", "epsilon": 0.5, "steps": 4},
        {"norm": "Linf", "steps": 3, "probability": 0.6},
        {"norm": "Linf", "steps": 3, "step_size": 0.02},
        {"norm": "L2", "only": "correct", "steps": 2},
        {"only": "confident", "confidence": 0.3, "steps": 3},
        {"only": "confident", "confidence": 0.3},
        {"space": "hidden:3"},
        {"space": "hidden:3", "norm": "L2", "epsilon": 2, "steps": 3, "only": "correct", "probability": 0.7},
        {"space": "hidden:network.5", "relative": False, "epsilon": 0.2},
        {"relative": True, "epsilon": 0.2},
        {"equal_cost": False},
        {"equal_cost": False, "only": "correct", "norm": "L2"},
        {"radius": 0.03},
        {"radius": 0.03, "steps": 2, "step_size": 0.05},
    ],
    ids=str,
)
def test_each_example_moves_as_if_it_were_alone(settings: dict[str, Any], direction: str) -> None:
    given = {"epsilon": 0.1, "probability": 1} | settings | {"direction": direction}
    radius = given.pop("radius", given["epsilon"])
    setting = AdversarialAugmentation(**given)
    model, (images, labels) = network(), batch()
    k = stage(setting, model)
    torch.manual_seed(2)
    points = model.head(images, k) if k else images
    moves = moved(setting, model, tail(model, k), points, labels, radius=radius, random=numbers(), clip=k == 0)
    wanted = twin(setting, model, points, labels, k, radius)
    there = points.detach()[moves.rows] + moves.delta
    there = there.clamp(0, 1) if k == 0 else there
    assert moves.rows[moves.kept].tolist() == list(wanted)
    assert 3 < len(wanted) <= COUNT
    for row, place, kept in zip(moves.rows.tolist(), there, moves.kept.tolist(), strict=True):
        if kept:
            assert torch.allclose(place.double(), wanted[row], atol=2e-5), row
        else:
            assert torch.equal(place, points.detach()[row])

    model.load_state_dict(network().state_dict())  # the head has updated its statistics
    torch.manual_seed(2)
    logits, tally = forward(setting, model, k, images, labels, radius=radius, random=numbers(), look=True)
    torch.manual_seed(2)
    again = network()
    mixed = (again.head(images, k) if k else images).clone()
    for row, place in wanted.items():
        mixed[row] = place.float()
    assert torch.allclose(
        logits, again.tail(mixed, k), atol=1e-4
    )  # one batch of all, in training mode, with its dropout
    with torch.no_grad():
        exact, rows = double_of(network()), list(wanted)
        before = exact.tail(points.detach()[rows].double(), k)
        after = exact.tail(torch.stack(list(wanted.values())), k)
    changed = int((before.argmax(1) != after.argmax(1)).sum())
    margins = [float(margins_of(z, labels[rows]).sum()) for z in (before, after)]
    assert tally.moved == len(rows)
    assert tally.looked is not None
    assert tally.looked.tolist() == pytest.approx([len(rows), changed, *margins], abs=1e-3)


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - torch.stack([torch.cat([z[:y], z[y + 1 :]]).max() for z, y in zip(logits, labels, strict=True)])


def test_on_a_linear_network_the_moves_are_known() -> None:
    """The runner-up's logit rises by epsilon times the dual norm of its weights; the true class's
    falls by that of its own.
    """
    model = build("linear", SHAPE, CLASSES)
    w = model.network.linear.weight.detach()
    images, labels = 0.4 + 0.2 * batch()[0], batch()[1]
    before = model(images).detach()
    for norm, dual in [("Linf", w.abs().sum(1)), ("L2", w.norm(dim=1))]:
        for direction, sign in [("runner_up", 1), ("away", -1)]:
            settings = AdversarialAugmentation(epsilon=0.1, norm=norm, direction=direction, probability=1)
            moves = moved(settings, model, model, images, labels, radius=0.1, random=numbers(), clip=True)
            assert norm_of(moves.delta, norm).numpy() == pytest.approx(np.full(COUNT, 0.1), rel=1e-5)
            aim = labels if sign < 0 else before.scatter(1, labels[:, None], -torch.inf).argmax(1)
            rise = (model(images + moves.delta) - before).gather(1, aim[:, None])[:, 0].detach()
            assert torch.allclose(rise, sign * 0.1 * dual[aim], atol=1e-5)


def test_each_example_is_moved_with_its_probability_and_more_of_them_at_a_higher_one() -> None:
    model = build("linear", SHAPE, CLASSES)
    images = torch.rand((3000, *SHAPE), generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(3000, dtype=torch.long)
    seen: set[int] = set()
    for probability in (0.2, 0.5, 0.9):
        settings = AdversarialAugmentation(epsilon=0.1, probability=probability)
        rows = moved(settings, model, model, images, labels, radius=0.1, random=numbers(), clip=True).rows
        share = len(rows) / 3000
        assert share == pytest.approx(probability, abs=4.5 * math.sqrt(probability * (1 - probability) / 3000))
        assert seen <= set(rows.tolist())
        seen = set(rows.tolist())


def test_in_every_direction_the_same_examples_are_moved_batch_after_batch() -> None:
    """So that a random move is a control of the very examples."""
    model, (images, labels) = network(), batch()
    rows = []
    for direction in DIRECTIONS:
        settings = AdversarialAugmentation(epsilon=0.1, probability=0.5, direction=direction)
        random = numbers()
        moves = [moved(settings, model, model, images, labels, radius=0.1, random=random, clip=True) for _ in range(3)]
        rows.append([move.rows.tolist() for move in moves])
    assert all(these == rows[0] for these in rows)
    assert rows[0][0] != rows[0][1] != rows[0][2]


@pytest.mark.parametrize("direction", ["random_class", "random"])
def test_where_an_example_goes_at_random_does_not_depend_on_who_else_is_moved(direction: str) -> None:
    model, (images, labels) = network(), batch()

    def second(*probabilities: float) -> Moves:
        """The moves of the last batch."""
        random = numbers()
        for probability in probabilities:
            settings = AdversarialAugmentation(epsilon=0.1, probability=probability, direction=direction)
            moves = moved(settings, model, model, images, labels, radius=0.1, random=random, clip=True)
        return moves

    some, everyone = second(0, 0.5), second(1, 1)
    assert 0 < len(some.rows) < COUNT
    assert torch.allclose(some.delta, everyone.delta[some.rows], atol=1e-6)


def test_random_classes_are_uniform_over_the_others() -> None:
    model = build("linear", SHAPE, CLASSES)
    images = torch.full((3000, *SHAPE), 0.5)
    labels = torch.arange(3000) % CLASSES
    settings = AdversarialAugmentation(epsilon=0.1, probability=1, direction="random_class", norm="L2")
    moves = moved(settings, model, model, images, labels, radius=0.1, random=numbers(), clip=True)
    w = model.network.linear.weight.detach()
    aims = (moves.delta.flatten(1) @ (w / w.norm(dim=1, keepdim=True)).T).argmax(1)
    assert not (aims == labels).any()
    counts = torch.bincount(labels * CLASSES + aims, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    assert (counts + 250 * torch.eye(CLASSES) > 190).all()  # 250 expected of each


# -------------------------------------------------------------------------------------------------
# no trace


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("space", ["pixel", "hidden:2"])
def test_the_search_leaves_no_trace(space: str, direction: str) -> None:
    settings = AdversarialAugmentation(epsilon=0.1, probability=1, space=space, steps=3, direction=direction)
    model, (images, labels) = network(), batch()
    model.network[0].eval()  # modes need not be the same everywhere
    modes = [module.training for module in model.modules()]
    k = stage(settings, model)
    points = model.head(images, k).detach() if k else images
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    kept, random = points.clone(), torch.get_rng_state()
    moves = moved(settings, model, tail(model, k), points, labels, radius=0.1, random=numbers(), clip=k == 0)
    assert not moves.delta.requires_grad
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert torch.equal(points, kept)


class Rattle(nn.Module):
    """Draws random numbers in evaluation mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.01 * torch.randn_like(x)


def test_torchs_generator_is_as_it_was_after_a_network_that_always_draws() -> None:
    model = nn.Sequential(nn.Flatten(), Rattle(), nn.Linear(25, CLASSES)).train()
    images, labels = batch()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    settings = AdversarialAugmentation(epsilon=0.1, probability=1)
    moved(settings, model, model, images, labels, radius=0.1, random=numbers(), clip=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_in_the_network_leaves_its_modes() -> None:
    model = network()

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("no")

    settings = AdversarialAugmentation(epsilon=0.1, probability=1)
    with pytest.raises(RuntimeError, match="no"):
        moved(settings, model, fail, *batch(), radius=0.1, random=numbers(), clip=True)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("space", ["pixel", "hidden:2"])
def test_the_perturbation_is_a_constant_for_the_gradients(space: str) -> None:
    """The parameters' gradients are those of a network that is given the moved points."""
    settings = AdversarialAugmentation(epsilon=0.1, probability=1, space=space)
    images, labels = batch()
    model, other = network(), network()
    k = stage(settings, model)
    for one in (model, other):
        one.network[3].p = 0.0  # no dropout, so that the head can run twice
    model.network[1].momentum = other.network[1].momentum = 0.0
    delta = torch.zeros_like(other.head(images, k))
    moves = moved(
        settings, other, tail(other, k), other.head(images, k), labels, radius=0.1, random=numbers(), clip=k == 0
    )
    delta[moves.rows] = moves.delta
    logits, _ = forward(settings, model, k, images, labels, radius=0.1, random=numbers())
    nn.functional.cross_entropy(logits, labels).backward()
    points = other.head(images, k) + delta
    nn.functional.cross_entropy(other.tail(points.clamp(0, 1) if k == 0 else points, k), labels).backward()
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        assert mine.grad is not None
        assert its.grad is not None
        assert torch.allclose(mine.grad, its.grad, atol=1e-6)


def test_batch_statistics_are_those_of_the_training_pass_alone() -> None:
    """Also of hidden spaces: the layers after the move see the moved batch once, those before it
    the images once.
    """
    settings = AdversarialAugmentation(epsilon=0.1, probability=1, space="hidden:1", steps=3)
    model, other, (images, labels) = network(), network(), batch()
    forward(settings, model, 1, images, labels, radius=0.1, random=numbers(), look=True)
    moves = moved(
        settings, other, tail(other, 1), other.head(images, 1), labels, radius=0.1, random=numbers(), clip=False
    )
    other.tail(other.head(images, 1).index_add(0, moves.rows, moves.delta), 1)
    assert model.network[1].num_batches_tracked == 1
    for name in ("running_mean", "running_var"):
        assert torch.allclose(getattr(model.network[1], name), getattr(other.network[1], name), atol=1e-6)


# -------------------------------------------------------------------------------------------------
# training


def train(**settings: Any) -> tuple[Classifier, list[training.Epoch]]:
    recipe = Recipe(**(BLOBS | settings))
    split = data.load(recipe.dataset, "train")
    model = training.untrained(recipe, split)
    return model, list(training.epochs(recipe, model, split))


def alike(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("network", ["mlp", NETWORK])
@pytest.mark.parametrize("nothing", [{"probability": 0}, {"epsilon": 0}])
@pytest.mark.parametrize("space", ["pixel", "hidden:2"])
def test_nothing_of_it_is_plain_training(nothing: dict[str, Any], space: str, network: str) -> None:
    own = {"network": network, "network_options": {}}
    plain, reports = train(**own)
    settings = {"epsilon": 0.1, "probability": 1, "space": space, "steps": 2, "only": "correct"} | nothing
    model, others = train(**own, adversarial_augmentation=settings)
    assert alike(model, plain)
    assert others == reports


@pytest.mark.parametrize("network", ["mlp", NETWORK])
def test_moves_of_no_length_are_plain_training(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole machinery runs, dropout and batch normalisation around it, and the weights do not
    feel it.
    """
    own = {"network": network, "network_options": {}}
    plain, _ = train(**own)
    monkeypatch.setattr(training.adversarial_augmentation, "radius_in", lambda *_: 0.0)
    for space in ("pixel", "hidden:2"):
        model, reports = train(**own, adversarial_augmentation={"epsilon": 0.1, "space": space, "steps": 2})
        assert alike(model, plain)
        assert 0.4 < reports[0]["augmented"] < 0.6
        assert reports[0]["label_changed"] == 0


@pytest.mark.parametrize("space", ["pixel", "hidden:2"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_seed_decides_everything(space: str, direction: str) -> None:
    settings = {"epsilon": 0.1, "space": space, "direction": direction, "only": "correct"}
    own = {
        "network": NETWORK,
        "network_options": {},
        "adversarial_augmentation": settings,
        "weight_noise": {"sigma": 0.05},
    }
    torch.manual_seed(1)
    model, reports = train(**own)
    torch.manual_seed(2)
    again, same = train(**own)
    assert alike(model, again)
    assert reports == same
    assert not alike(model, train(**own, seed=1)[0])
    assert not alike(model, train(**(own | {"adversarial_augmentation": {}}))[0])


def test_it_changes_no_other_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    crops: list[Tensor] = []
    original = training.augmentation.random_crop
    monkeypatch.setattr(training.augmentation, "random_crop", lambda *args: crops.append(original(*args)) or crops[-1])
    train(augmentation={"crop": 1})
    plain = list(crops)
    crops.clear()
    train(augmentation={"crop": 1}, adversarial_augmentation={"epsilon": 0.2})
    assert len(plain) == len(crops) == 18
    assert all(torch.equal(a, b) for a, b in zip(plain, crops, strict=True))


def test_evaluation_never_augments() -> None:
    """What is scored between epochs, and the model that is left, see the images as they are."""
    recipe = Recipe(**BLOBS, validation=0.25, adversarial_augmentation={"epsilon": 0.5, "probability": 1})
    split = data.load("blobs", "train")
    _, held_out = data.divide(split, 0.25)
    model = training.untrained(recipe, split)
    for report in training.epochs(recipe, model, split):
        plain = training.untrained(recipe, split)
        plain.load_state_dict(model.state_dict())
        assert not any(module.training for module in model.modules())
        logits = model(data.gather(held_out, range(45)))
        assert torch.equal(logits, plain.eval()(data.gather(held_out, range(45))))
        labels = torch.tensor(held_out.labels)
        loss = float(nn.functional.cross_entropy(logits.detach(), labels))
        assert report["validation_loss"] == pytest.approx(loss, rel=1e-5)


def test_what_an_epoch_says() -> None:
    settings = {"epsilon": 0.3, "probability": 0.5}
    _, reports = train(adversarial_augmentation=settings)
    for report in reports:
        assert 0.3 < report["augmented"] < 0.7
        assert 0 <= report["label_changed"] <= 1
        assert report["margin_after"] < report["margin_before"]
    _, correct = train(adversarial_augmentation=settings | {"only": "correct"})
    assert all(report["margin_before"] > 0 for report in correct)
    assert all(one["augmented"] < other["augmented"] for one, other in zip(correct[:1], reports, strict=False))
    assert "augmented" not in train()[1][0]


@pytest.mark.parametrize(
    ("schedule", "radii"),
    [("constant", [1, 1, 1, 1]), ("rising", [0.25, 0.5, 0.75, 1]), ("falling", [1, 0.75, 0.5, 0.25])],
)
def test_schedule(schedule: str, radii: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AdversarialAugmentation(epsilon=0.1, schedule=schedule, probability=1)
    assert [radius_in(settings, epoch, 4) for epoch in range(4)] == pytest.approx([0.1 * r for r in radii])
    used: list[float] = []
    original = training.adversarial_augmentation.forward

    def spy(*args: Any, radius: float, **kwargs: Any) -> Any:
        used.append(radius)
        return original(*args, radius=radius, **kwargs)

    monkeypatch.setattr(training.adversarial_augmentation, "forward", spy)
    train(epochs=4, batch_size=180, adversarial_augmentation={"epsilon": 0.1, "schedule": schedule})
    assert used == pytest.approx([0.1 * r for r in radii])


# -------------------------------------------------------------------------------------------------
# settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probability": 1.1}, "less than or equal to 1"),
        ({"probability": -0.1}, "greater than or equal to 0"),
        ({"epsilon": -1}, "greater than or equal to 0"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"space": "latent"}, "space: the latent space of an autoencoder is not there yet; pixel or hidden:<k>"),
        ({"space": "hiden:1"}, "space: must be pixel or hidden:<k>, .*, not hiden:1"),
        ({"space": "hidden"}, "space: must be pixel"),
        ({"space": "hidden:"}, "space: must be pixel"),
        ({"direction": "runner"}, "Input should be 'runner_up'"),
        ({"norm": "L1"}, "Input should be 'Linf' or 'L2'"),
    ],
)
def test_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe(adversarial_augmentation=wrong)


def test_resolved() -> None:
    assert not AdversarialAugmentation().relative
    assert AdversarialAugmentation(space="hidden:2").relative
    assert AdversarialAugmentation(space="hidden:0") == AdversarialAugmentation()
    assert not AdversarialAugmentation().active


def test_a_layer_that_does_not_exist_is_refused_before_any_training() -> None:
    split = data.load("blobs", "train")
    recipe = Recipe(**BLOBS, adversarial_augmentation={"space": "hidden:relu9", "epsilon": 0.1})
    model = training.untrained(recipe, split)
    with pytest.raises(UserError, match=r"no stage 'relu9': 0 \(pixels\) to \d \(logits\), or one of .*") as error:
        check(recipe, model)
    assert error.value.field == "adversarial_augmentation.space"
    with pytest.raises(UserError, match="no stage 'relu9'"):
        next(training.epochs(recipe, model, split))
    base = Recipe(**BLOBS, finetune_from={"adversarial_augmentation": {"space": "hidden:99"}})
    with pytest.raises(UserError, match="no stage '99'") as error:
        check(base, model)
    assert error.value.field == "finetune_from.adversarial_augmentation.space"
    check(Recipe(**BLOBS, adversarial_augmentation={"space": "hidden:1"}), model)
    with pytest.raises(UserError, match="a Sequential has no hidden layers"):
        check(recipe, nn.Sequential())


# -------------------------------------------------------------------------------------------------
# examples


def test_examples_in_pixels() -> None:
    settings = {"epsilon": 0.2, "norm": "L2", "probability": 0.3, "only": "correct"}
    recipe = Recipe(**(BLOBS | {"adversarial_augmentation": settings, "train_examples": 90, "epochs": 12}))
    split = data.load("blobs", "train")
    model = training.trained(recipe, split)
    found = examples_of(recipe, model, split, 7)
    assert found is not None
    assert len(found.ids) == 7
    assert set(found.ids) <= set(data.choose(split, 90))
    for example, image, label in zip(found.ids, found.images, found.labels, strict=True):
        alone, its = data.take(split, [int(example)])
        assert np.array_equal(image, alone[0].numpy())
        assert label == its[0]
    assert np.array_equal(found.predicted, found.labels)
    assert found.moved is not None
    assert found.neighbours is None
    length = np.sqrt(((found.moved - found.images) ** 2).reshape(7, -1).sum(1))
    assert (length <= 0.2 + 1e-6).all()
    assert (length > 0.1).all()
    assert (found.margin_after < found.margin_before).all()
    logits = model(torch.tensor(found.moved)).detach()
    assert np.array_equal(logits.argmax(1).numpy(), found.moved_to)
    assert set(found.labels) == {0, 1, 2}
    assert examples_of(Recipe(**BLOBS), model, split) is None


def test_examples_in_a_hidden_layer_are_told_by_their_nearest_neighbours() -> None:
    settings = {"epsilon": 0.5, "space": "hidden:1", "direction": "random"}
    recipe = Recipe(**(BLOBS | {"adversarial_augmentation": settings}))
    split = data.load("blobs", "train")
    model = training.trained(recipe, split)
    found = examples_of(recipe, model, split, 5, neighbours=4)
    assert found is not None
    assert found.moved is None
    assert found.neighbours is not None
    assert found.neighbour_labels is not None
    assert found.distances is not None
    assert found.distance is not None
    with evaluating(model), torch.no_grad():
        layer = model.head(data.gather(split, range(180)), 1).numpy()
    unit = np.sqrt((layer.astype(float) ** 2).mean())
    assert found.distance == pytest.approx(np.full(5, 0.5 * math.sqrt(layer[0].size)), rel=1e-3)  # a sign vector
    assert (np.diff(found.distances, axis=1) >= 0).all()
    for ids, labels, apart, own, far in zip(
        found.neighbours, found.neighbour_labels, found.distances, found.ids, found.distance, strict=True
    ):
        assert np.array_equal(labels, split.labels[ids])
        for other, between in zip(ids, apart, strict=True):
            direct = np.linalg.norm(layer[other] - layer[own]) / unit
            assert abs(direct - far) <= between + 1e-4  # the triangle inequality
            assert between <= far + 1e-5 or own in ids
