"""Recipes: what they refuse, what they resolve, and that they come back from text as they were."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from tasks.parts.training.recipes import (
    LEARNING_RATES,
    SAME_AS_BASE,
    AdversarialAugmentation,
    Augmentation,
    InputNoise,
    Recipe,
    Robust,
    WeightNoise,
)

GROUPS = [Recipe, InputNoise, WeightNoise, Augmentation, AdversarialAugmentation, Robust]


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_has_a_default_and_a_description(group: type[BaseModel]) -> None:
    for name, field in group.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name


@pytest.mark.parametrize("group", GROUPS)
def test_frozen_and_closed(group: type[BaseModel]) -> None:
    name = next(iter(group.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(group(), name, getattr(group(), name))
    with pytest.raises(ValidationError, match="Extra inputs"):
        group(**{f"{name}x": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": "nan"},
        {"momentum": 1},
        {"validation": 1},
        {"validation": -0.1},
        {"label_smoothing": 1},
        {"clip_norm": 0},
        {"weight_decay": -1e-4},
        {"weight_decay": float("inf")},
        {"optimiser": "sdg"},
        {"schedule": "step"},
        {"normalisation": "imagenette"},
        {"seed": -1},
        {"seed": 2**63},
        {"train_examples": 0},
        {"image_size": 0},
        {"input_noise": {"radius": -0.1}},
        {"input_noise": {"probability": 1.1}},
        {"input_noise": {"kind": "gaussian"}},
        {"input_noise": {"sigma": 0.1}},
        {"weight_noise": {"sigma": -1}},
        {"augmentation": {"crop": -1}},
        {"augmentation": {"radius": 1}},
        {"input_noise": 0.1},
        {"learning_rate": True},
        {"adversarial_augmentation": {"probability": 1.5}},
        {"adversarial_augmentation": {"confidence": -0.5}},
        {"adversarial_augmentation": {"schedule": "cosine"}},
        {"robust": {"method": "free"}},
        {"robust": {"epsilon": -1}},
        {"robust": {"steps": 0}},
        {"robust": {"beta": -1}},
        {"robust": {"norm": "L0"}},
        {"finetune_from": {"epochs": -1}},
        {"finetune_from": 3},
    ],
    ids=str,
)
def test_out_of_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**wrong)


def test_numbers_may_be_fractions() -> None:
    recipe = Recipe(input_noise={"radius": "8/255", "probability": "1/2"}, weight_decay="1/1000", validation=" 1 / 5 ")
    assert recipe.input_noise == InputNoise(radius=8 / 255, probability=0.5)
    assert (recipe.weight_decay, recipe.validation) == (0.001, 0.2)
    with pytest.raises(ValidationError):
        Recipe(validation="6/5")
    with pytest.raises(ValidationError):
        Recipe(validation="1/0")


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_the_learning_rate_is_the_optimisers_where_none_is_given(optimiser: str) -> None:
    assert set(LEARNING_RATES) == {"sgd", "adam", "adamw"}
    recipe = Recipe(optimiser=optimiser)
    assert recipe.learning_rate == LEARNING_RATES[optimiser]
    assert recipe.model_dump()["learning_rate"] == LEARNING_RATES[optimiser]
    assert recipe == Recipe(optimiser=optimiser, learning_rate=LEARNING_RATES[optimiser])  # and so has the same hash
    assert Recipe(optimiser=optimiser, learning_rate=0.3).learning_rate == 0.3
    assert f"'{optimiser}': {LEARNING_RATES[optimiser]}" in (Recipe.model_fields["learning_rate"].description or "")


def test_there_is_no_nesterov_without_momentum() -> None:
    assert Recipe().nesterov
    assert not Recipe(momentum=0).nesterov
    assert Recipe(momentum=0) == Recipe(momentum=0, nesterov=False)


def test_it_comes_back_from_text_as_it_was() -> None:
    recipe = Recipe(
        dataset="blobs",
        classes=["blob 0", 2],
        network="mlp",
        network_options={"width": 16},
        optimiser="adamw",
        clip_norm=0.1 + 0.2,
        weight_decay=1 / 3,
        input_noise={"kind": "sphere", "radius": "8/255", "probability": 0.1},
        weight_noise={"sigma": 0.05},
        augmentation={"crop": 1, "flip": True},
        adversarial_augmentation={"space": "hidden:1", "epsilon": "1/3", "only": "correct"},
        robust={"beta": "1/6"},
        finetune_from={"epochs": 2, "finetune_from": {"epochs": 1}},
        momentum=0,
        seed=2**63 - 1,
    )
    for one in (recipe, Recipe()):
        assert Recipe.model_validate_json(one.model_dump_json()) == one
        assert Recipe(**yaml.safe_load(yaml.safe_dump(one.model_dump(mode="json")))) == one
        assert Recipe.model_validate_json(one.model_dump_json()).model_dump_json() == one.model_dump_json()


def test_defaults_are_not_shared() -> None:
    Recipe().network_options["width"] = 3
    assert Recipe().network_options == {}


def test_the_recipe_to_start_from_has_what_it_does_not_name_from_the_one_around_it() -> None:
    recipe = Recipe(
        dataset="blobs", network="mlp", network_options={"width": 9}, seed=3, epochs=4, finetune_from={"epochs": 7}
    )
    assert recipe.finetune_from == Recipe(
        dataset="blobs", network="mlp", network_options={"width": 9}, seed=3, epochs=7
    )
    apart = Recipe(seed=3, validation=0.2, finetune_from={"seed": 5})
    assert apart.finetune_from == Recipe(seed=5, validation=0.2)
    chain = Recipe(dataset="blobs", finetune_from={"finetune_from": {"epochs": 1}})
    assert chain.finetune_from is not None
    assert chain.finetune_from.finetune_from == Recipe(dataset="blobs", epochs=1)
    assert Recipe(finetune_from=Recipe(epochs=2)) == Recipe(finetune_from={"epochs": 2})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "mnist"),
        ("image_size", 28),
        ("classes", [1, 2]),
        ("network", "mlp"),
        ("network_options", {"width": 3}),
        ("normalisation", "none"),
    ],
)
def test_a_start_of_another_kind_is_refused(name: str, value: Any) -> None:
    assert name in SAME_AS_BASE
    with pytest.raises(ValidationError, match=f"finetune_from: its {name} is .*, but .* here; they must be the same"):
        Recipe(finetune_from={name: value})
    with pytest.raises(ValidationError, match=f"finetune_from: its {name}"):
        Recipe(**{name: value}, finetune_from=Recipe())


def test_there_is_one_start() -> None:
    with pytest.raises(ValidationError, match="weights: those of finetune_from are the start"):
        Recipe(weights="a.pt", finetune_from={})
    assert Recipe(finetune_from={"weights": "a.pt"}).weights == "none"


def test_two_ways_of_moving_the_training_examples_are_refused() -> None:
    with pytest.raises(ValidationError, match="robust: pgd moves the training examples, and so does adversarial_augm"):
        Recipe(robust={"method": "pgd"}, adversarial_augmentation={"epsilon": 0.1})
    for off in ({"epsilon": 0}, {"epsilon": 0.1, "probability": 0}):
        assert Recipe(robust={"method": "pgd"}, adversarial_augmentation=off).robust.active
    assert not Recipe(robust={"method": "pgd", "epsilon": 0}, adversarial_augmentation={"epsilon": 1}).robust.active
    assert not Recipe(robust={"method": "trades", "beta": 0}).robust.active
