"""Training is that of a slow twin, repeatable bit for bit.

The twin is softmax regression. Noise of strength zero is no noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.parts.data import load as data
from tasks.parts.models.build import Classifier
from tasks.parts.randomness import torch_generator
from tasks.parts.settings import UserError
from tasks.parts.training import augmentation, training
from tasks.parts.training.augmentation import with_input_noise
from tasks.parts.training.recipes import InputNoise, Recipe
from tasks.parts.training.training import TrainingDiverged

BLOBS = {"dataset": "blobs", "network": "mlp", "network_options": {"width": 16}, "epochs": 3, "batch_size": 32}


def with_dropout(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network that draws random numbers while it trains, and one whose statistics change while it
    does.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(16, classes),
    )


def train(split: data.Split | None = None, **settings: Any) -> tuple[Classifier, list[training.Epoch]]:
    recipe = Recipe(**(BLOBS | settings))
    split = data.load(recipe.dataset, "train") if split is None else split
    model = training.untrained(recipe, split)
    return model, list(training.epochs(recipe, model, split))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def alike(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


# -------------------------------------------------------------------------------------------------
# slow twin


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0},
        {"momentum": 0.9, "nesterov": False, "weight_decay": 0.01},
        {"nesterov": True, "label_smoothing": 0.2, "clip_norm": 0.05},
        {"momentum": 0.5, "batch_size": 500},
        {"batch_size": 179},
    ],
)
def test_softmax_regression(settings: dict[str, Any], schedule: str) -> None:
    """Mini-batch descent written out in NumPy and float64, with the same keyed order of the
    examples.
    """
    recipe = Recipe(**(BLOBS | {"network": "linear", "network_options": {}, "schedule": schedule} | settings))
    split = data.load("blobs", "train")
    model = training.untrained(recipe, split)
    start = weights(model)
    reports = list(training.epochs(recipe, model, split))

    mean, std = (np.array(values).reshape(-1, 1, 1) for values in data.statistics(split))
    inputs = ((data.gather(split, range(180)).double().numpy() - mean) / std).reshape(180, -1)
    inputs = np.concatenate([inputs, np.ones((180, 1))], 1)  # the bias
    w = np.concatenate(
        [start["network.linear.weight"].numpy(), start["network.linear.bias"].numpy()[:, None]], 1
    ).astype(float)
    velocity, first, t = np.zeros_like(w), True, 0
    rest = 180 % recipe.batch_size
    steps = 180 // recipe.batch_size + (rest > 1 or recipe.batch_size > 180)
    for epoch in range(recipe.epochs):
        order = torch.randperm(180, generator=torch_generator(0, "order", epoch)).numpy()
        losses, hits = [], 0
        for step in range(steps):
            rate = {
                "constant": recipe.learning_rate,
                "cosine": recipe.learning_rate * (1 + math.cos(math.pi * t / (steps * recipe.epochs))) / 2,
                "one_cycle": one_cycle(recipe.learning_rate, t, steps * recipe.epochs),
            }[schedule]
            if step == 0:
                assert reports[epoch]["learning_rate"] == pytest.approx(rate, rel=1e-6)
            end = None if step == steps - 1 else (step + 1) * recipe.batch_size
            chosen = order[step * recipe.batch_size : end]
            x, y = inputs[chosen], split.labels[chosen]
            logits = x @ w.T
            log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            wanted = np.full_like(log_p, recipe.label_smoothing / 3)
            wanted[np.arange(len(y)), y] += 1 - recipe.label_smoothing
            losses.extend(-(wanted * log_p).sum(1))
            hits += (logits.argmax(1) == y).sum()
            gradient = (np.exp(log_p) - wanted).T @ x / len(y)
            if recipe.clip_norm is not None:
                gradient = gradient * min(1, recipe.clip_norm / np.linalg.norm(gradient))
            gradient = gradient + recipe.weight_decay * w
            velocity, first = (gradient if first else recipe.momentum * velocity + gradient), False
            w = w - rate * (gradient + recipe.momentum * velocity if recipe.nesterov else velocity)
            t += 1
        assert reports[epoch]["epoch"] == epoch + 1
        assert reports[epoch]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert reports[epoch]["accuracy"] == pytest.approx(hits / 180, abs=1e-9)
    assert model.network.linear.weight.detach().numpy() == pytest.approx(w[:, :-1], abs=1e-4)
    assert model.network.linear.bias.detach().numpy() == pytest.approx(w[:, -1], abs=1e-4)


def one_cycle(peak: float, t: int, last: int) -> float:
    """Cosines from peak / 25 up to the peak after 30 % of the way, and down to peak / 250,000 at
    its end.
    """
    top = 0.3 * (last + 1) - 1
    low, high, share = (peak / 25, peak, t / top) if t <= top else (peak / 25e4, peak, (last - t) / (last - top))
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_adam_moves_every_weight_by_the_rate_in_its_first_step(optimiser: str) -> None:
    """Whatever its gradient's size; adamw's decay shrinks the weight besides, adam's goes through
    the gradient.
    """
    settings = {"network": "linear", "network_options": {}, "optimiser": optimiser, "epochs": 1, "batch_size": 500}
    recipe = Recipe(**(BLOBS | settings | {"weight_decay": 0.5, "schedule": "constant"}))
    split = data.load("blobs", "train")
    model = training.untrained(recipe, split)
    before = model.network.linear.weight.detach().clone()
    list(training.epochs(recipe, model, split))
    kept = before * (1 - recipe.learning_rate * 0.5) if optimiser == "adamw" else before
    step = (model.network.linear.weight.detach() - kept).abs()
    assert torch.allclose(step, torch.full_like(step, recipe.learning_rate), rtol=1e-3)


# -------------------------------------------------------------------------------------------------
# repeatable


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": "test_training:with_dropout", "network_options": {}},
        {
            "input_noise": {"radius": 0.1, "probability": 0.5},
            "weight_noise": {"sigma": 0.1},
            "augmentation": {"crop": 1, "flip": True},
            "optimiser": "adam",
        },
    ],
)
def test_a_seed_decides_everything(settings: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model, reports = train(**settings)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, same = train(**settings)
    assert torch.equal(torch.get_rng_state(), before)  # the shared generator is left alone
    assert alike(model, again)
    assert reports == same
    other, _ = train(**settings, seed=1)
    assert not alike(model, other)


def test_the_seed_decides_the_order_besides_the_initial_weights() -> None:
    split = data.load("blobs", "train")
    ends = []
    for seed in (0, 1):
        model = training.untrained(Recipe(**BLOBS), split)
        list(training.epochs(Recipe(**BLOBS, seed=seed), model, split))
        ends.append(model)
    assert not alike(*ends)


@pytest.mark.parametrize(
    "settings",
    [
        {"input_noise": {"radius": 0, "kind": "multiplicative", "probability": 1}},
        {"input_noise": {"radius": 0.5, "kind": "sphere", "probability": 0}},
        {"weight_noise": {"sigma": 0}},
        {"augmentation": {"crop": 0, "flip": False}},
        {"label_smoothing": 0, "clip_norm": 1e9, "validation": 0, "train_examples": 180},
    ],
)
@pytest.mark.parametrize("network", ["mlp", "test_training:with_dropout"])
def test_nothing_of_it_is_plain_training(settings: dict[str, Any], network: str) -> None:
    plain, reports = train(network=network, network_options={})
    model, others = train(network=network, network_options={}, **settings)
    assert alike(model, plain)
    assert others == reports


@pytest.mark.parametrize(
    "settings",
    [
        {"input_noise": {"radius": 0.1}},
        {"input_noise": {"radius": 0.1, "kind": "multiplicative"}},
        {"input_noise": {"radius": 0.1, "kind": "sphere"}},
        {"weight_noise": {"sigma": 0.1}},
        {"augmentation": {"crop": 1}},
        {"augmentation": {"flip": True}},
        {"label_smoothing": 0.1},
        {"clip_norm": 0.1},
    ],
)
def test_something_of_it_is_not(settings: dict[str, Any]) -> None:
    assert not alike(train()[0], train(**settings)[0])


def test_one_kind_of_noise_does_not_change_what_another_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    crops: list[Tensor] = []

    def crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
        crops.append(original(images, padding, generator))
        return crops[-1]

    original = augmentation.random_crop
    monkeypatch.setattr(augmentation, "random_crop", crop)
    train(augmentation={"crop": 1})
    plain = list(crops)
    crops.clear()
    train(augmentation={"crop": 1, "flip": True}, input_noise={"radius": 0.2}, weight_noise={"sigma": 0.3})
    assert len(plain) == len(crops) == 18
    assert all(torch.equal(a, b) for a, b in zip(plain, crops, strict=True))
    assert len({crop.numpy().tobytes() for crop in crops}) == 18


def test_no_two_draws_have_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch has its order, and every step its crops, flips, input noise and weight noise."""
    keys: list[tuple[Any, ...]] = []
    for module in (training, augmentation):
        monkeypatch.setattr(module, "torch_generator", lambda *key: keys.append(key) or torch_generator(*key))
    train(augmentation={"crop": 1, "flip": True}, input_noise={"radius": 0.2}, weight_noise={"sigma": 0.3}, seed=4)
    assert len(keys) == len(set(keys)) == 3 * 2 + 3 * 6 * 4
    assert {key[0] for key in keys} == {4}
    assert len({torch_generator(*key).initial_seed() for key in keys}) == len(keys)


# -------------------------------------------------------------------------------------------------
# input noise


@pytest.mark.parametrize("kind", ["additive", "multiplicative", "sphere"])
def test_input_noise_moves_each_example_by_itself_with_its_probability(kind: str) -> None:
    images = 0.4 + 0.2 * torch.rand((2000, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    before = images.clone()

    def noisy(probability: float, radius: float = 0.01) -> Tensor:
        return with_input_noise(
            images, InputNoise(kind=kind, radius=radius, probability=probability), torch.Generator().manual_seed(1)
        )

    always, sometimes = noisy(1), noisy(0.3)
    whole = (always != images).flatten(1)
    assert whole.any(1).all()
    chosen = (sometimes != images).flatten(1).any(1)
    assert float(chosen.double().mean()) == pytest.approx(0.3, abs=4.5 * math.sqrt(0.21 / 2000))
    assert torch.equal(sometimes[chosen], always[chosen])  # and by the noise that it would have had anyway
    assert torch.equal(sometimes[~chosen], images[~chosen])
    delta = (always - images).double().flatten(1)
    if kind == "sphere":
        assert delta.norm(dim=1).numpy() == pytest.approx(np.full(2000, 0.01), rel=1e-4)
    else:
        spread = delta / (images.double().flatten(1) if kind == "multiplicative" else 1)
        assert float(spread.std()) == pytest.approx(0.01, rel=0.03)
    assert torch.equal(images, before)
    wild = noisy(0.5, radius=3)
    assert wild.min() == 0 if kind != "sphere" else wild.min() >= 0
    assert wild.max() == 1 if kind != "sphere" else wild.max() <= 1


# -------------------------------------------------------------------------------------------------
# what is trained on


def spoilt(split: data.Split, ids: np.ndarray) -> data.Split:
    """The split with other images at some ids: black and white are exchanged."""
    images = np.array(split.images[np.arange(len(split))])
    at = np.isin(split.ids, ids)
    images[at] = 1 - images[at]
    return data.Split(images, split.labels, split.ids, split.classes)


def test_validation_examples_are_scored_and_not_trained_on() -> None:
    split = data.load("blobs", "train")
    settings = {"validation": 0.25, "normalisation": "none"}
    _, held_out = data.divide(split, 0.25)
    assert len(held_out) == 45
    model, reports = train(**settings)
    other, spoilt_reports = train(spoilt(split, held_out.ids), **settings)
    assert alike(model, other)
    assert [r["loss"] for r in reports] == [r["loss"] for r in spoilt_reports]
    assert reports[-1]["validation_loss"] < spoilt_reports[-1]["validation_loss"]
    logits = model(data.gather(held_out, range(45))).detach()
    labels = torch.tensor(held_out.labels)
    assert reports[-1]["validation_accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert reports[-1]["validation_loss"] == pytest.approx(
        float(-logits.double().log_softmax(1)[torch.arange(45), labels].mean()), rel=1e-5
    )
    assert "validation_loss" not in train()[1][0]


def test_a_subset_of_the_examples() -> None:
    split = data.load("blobs", "train")
    ids = data.choose(split, 50)
    settings = {"train_examples": 50, "normalisation": "none", "batch_size": 20}
    model, _ = train(**settings)
    assert alike(model, train(spoilt(split, np.setdiff1d(split.ids, ids)), **settings)[0])
    assert not alike(model, train(spoilt(split, ids[:1]), **settings)[0])
    with pytest.raises(UserError, match="181 examples asked for, there are 180") as error:
        train(train_examples=181)
    assert error.value.field == "train_examples"


def test_validation_must_leave_something_to_train_on() -> None:
    with pytest.raises(UserError, match="leaves no training examples") as error:
        train(validation=0.999)
    assert error.value.field == "validation"


@pytest.mark.parametrize(
    ("examples", "batch", "sizes"),
    [(65, 16, [16, 16, 16, 17]), (66, 16, [16] * 4 + [2]), (1, 16, [1]), (3, 1, [1] * 3)],
)
def test_one_example_left_over_joins_the_batch_before(
    examples: int, batch: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(training.augmentation, "augmented", lambda recipe, images, *_: seen.append(images) or images)
    _, reports = train(train_examples=examples, batch_size=batch, epochs=1)
    assert [len(images) for images in seen] == sizes
    assert len(torch.cat(seen).unique(dim=0)) == examples
    assert len(reports) == 1


def test_batch_normalisation_survives_one_example_left_over() -> None:
    assert (
        len(train(network="test_training:with_dropout", network_options={}, train_examples=65, batch_size=16)[1]) == 3
    )


def test_no_epochs_leave_the_weights() -> None:
    split = data.load("blobs", "train")
    model, reports = train(epochs=0)
    assert reports == []
    assert alike(model, training.untrained(Recipe(**BLOBS), split))


def test_a_frozen_backbone_keeps_all_but_its_last_layer() -> None:
    settings = {"network": "test_training:with_dropout", "network_options": {}, "freeze_backbone": True}
    split = data.load("blobs", "train")
    before = weights(training.untrained(Recipe(**(BLOBS | settings)), split))
    model, _ = train(**settings, weight_noise={"sigma": 0.1})
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.5.weight", "network.5.bias"}  # nor do the running statistics move


def test_normalisation() -> None:
    split = data.load("blobs", "train")

    def of(normalisation: str, shape: data.Split = split) -> tuple[list[float], list[float]]:
        model = training.untrained(Recipe(**(BLOBS | {"normalisation": normalisation})), shape)
        return model.mean.flatten().tolist(), model.std.flatten().tolist()

    pixels = data.gather(split, range(180)).double()
    assert of("data")[0] == pytest.approx([float(pixels.mean())], rel=1e-5)
    assert of("data")[1] == pytest.approx([float(pixels.std())], rel=1e-3)
    assert of("none") == ([0], [1])
    colour = data.Split(np.zeros((2, 3, 4, 4), np.uint8), np.array([0, 1]), np.arange(2), ("a", "b"))
    mean, std = of("imagenet", colour)
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert std == pytest.approx([0.229, 0.224, 0.225])


# -------------------------------------------------------------------------------------------------
# what it reports


def test_a_diverging_training_says_so() -> None:
    with pytest.raises(
        TrainingDiverged,
        match=r"training diverged: the (loss is|weights are) not finite in epoch [123]; take a smaller",
    ):
        train(learning_rate=1e20)


def test_the_model_is_ready_for_use_at_every_epoch_and_trains_on_after_it() -> None:
    """What a caller does between two epochs does not change the training."""
    recipe = Recipe(**(BLOBS | {"network": "test_training:with_dropout", "network_options": {}}))
    split = data.load("blobs", "train")
    model = training.untrained(recipe, split)
    for report in training.epochs(recipe, model, split):
        assert not any(module.training for module in model.modules())
        assert 0 <= report["accuracy"] <= 1
        training.score(model, split)
        torch.rand(3)
    assert model.network[2].num_batches_tracked == 3 * 6  # every step was one in training mode
    assert alike(model, train(network="test_training:with_dropout", network_options={})[0])


def test_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the split is scored piece by piece."""
    model, _ = train()
    split = data.load("blobs", "test")
    logits = model(data.gather(split, range(60))).double().detach()
    labels = torch.tensor(split.labels)
    loss, accuracy = (
        float(-logits.log_softmax(1)[torch.arange(60), labels].mean()),
        float((logits.argmax(1) == labels).double().mean()),
    )
    for size in (512, 1):  # 16 examples a piece
        monkeypatch.setattr(training, "batch_size", lambda *_, size=size: size)
        assert training.score(model, split) == (pytest.approx(loss, rel=1e-5), pytest.approx(accuracy))


def test_the_default_recipe_reads_digits() -> None:
    recipe, split = Recipe(), data.load("digits", "train")
    model = training.untrained(recipe, split)
    reports = list(training.epochs(recipe, model, split))
    assert len(reports) == 20
    assert training.score(model, data.load("digits", "test"))[1] >= 0.97


# -------------------------------------------------------------------------------------------------
# finetuning


def test_finetuning_goes_on_from_the_network_of_another_recipe() -> None:
    split = data.load("blobs", "train")
    base = Recipe(**(BLOBS | {"epochs": 4, "normalisation": "data"}))
    recipe = Recipe(**(BLOBS | {"learning_rate": 0.01, "finetune_from": base}))
    start = training.trained(base, split)
    kept = weights(start)
    model = training.untrained(recipe, split, start.state_dict())
    assert alike(model, start)
    assert not any(p is q for p, q in zip(model.parameters(), start.parameters(), strict=True))
    reports = list(training.epochs(recipe, model, split))
    assert all(torch.equal(value, kept[name]) for name, value in start.state_dict().items())  # a copy is trained
    assert alike(model, training.trained(recipe, split))
    assert not alike(model, start)
    _, scratch = train(learning_rate=0.01)
    assert reports[0]["loss"] < scratch[0]["loss"]


def test_finetuning_without_epochs_is_the_start() -> None:
    split = data.load("blobs", "train")
    base = Recipe(**BLOBS)
    assert alike(
        training.trained(Recipe(**(BLOBS | {"epochs": 0, "seed": 9, "finetune_from": base})), split),
        training.trained(base, split),
    )


def test_the_paired_baseline_of_an_augmented_finetuning_is_the_same_without() -> None:
    """At probability 0 it is that baseline, bit for bit; both start from one network."""
    split = data.load("blobs", "train")
    settings = {"epsilon": 0.1, "direction": "away"}

    def finetuned(probability: float | None) -> Classifier:
        own = {} if probability is None else {"adversarial_augmentation": settings | {"probability": probability}}
        return training.trained(Recipe(**(BLOBS | {"finetune_from": {"epochs": 2}} | own)), split)

    assert alike(finetuned(None), finetuned(0))
    assert not alike(finetuned(None), finetuned(0.5))


def test_a_start_belongs_to_finetuning_and_must_fit() -> None:
    split = data.load("blobs", "train")
    plain, recipe = Recipe(**BLOBS), Recipe(**BLOBS, finetune_from={})
    state = training.untrained(plain, split).state_dict()
    with pytest.raises(ValueError, match="the state of a network to start from belongs to a recipe with finetune_from"):
        training.untrained(recipe, split)
    with pytest.raises(ValueError, match="belongs to a recipe with finetune_from"):
        training.untrained(plain, split, state)
    other = training.untrained(Recipe(**(BLOBS | {"network_options": {"width": 17}})), split).state_dict()
    with pytest.raises(UserError, match="its network does not fit mlp") as error:
        training.untrained(recipe, split, other)
    assert error.value.field == "finetune_from"


def test_a_frozen_backbone_is_that_of_the_start() -> None:
    split = data.load("blobs", "train")
    own = {"network": "test_training:with_dropout", "network_options": {}}
    base = training.trained(Recipe(**(BLOBS | own)), split)
    model = training.trained(Recipe(**(BLOBS | own | {"freeze_backbone": True, "finetune_from": BLOBS | own})), split)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, base.state_dict()[name])}
    assert changed == {"network.5.weight", "network.5.bias"}
