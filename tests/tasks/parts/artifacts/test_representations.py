"""A bank against the network's own head, autoencoders of it, and requests that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tasks.parts.artifacts import autoencoder, representations
from tasks.parts.artifacts.autoencoder import divided
from tasks.parts.artifacts.common.kind import Product, Saved, kind_of
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.batching import Batch
from tasks.parts.contract import prepared
from tasks.parts.data import load as data
from tasks.parts.finite import NotFinite
from tasks.parts.models.build import Classifier
from tasks.parts.settings import UserError
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

RECIPE = Recipe(dataset="digits", network="convnet", epochs=1, train_examples=150)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return training.trained(RECIPE, data.load("digits", "train")).requires_grad_(False)


def bank_of(model: Classifier, **how: Any) -> representations.Representations:
    request = representations.Request(recipe=RECIPE, **how)
    test = data.load("digits", "test")
    batch = Batch((0,), *data.take(test, (0,)))
    return prepared({"bank": request}, {"bank/classifier": model}, batch)["bank"]


@pytest.mark.parametrize("stage", [0, 2, "relu3"])
def test_a_bank_holds_what_the_network_makes_of_its_training_images(model: Classifier, stage: int | str) -> None:
    bank = bank_of(model, stage=stage)
    train = data.load("digits", "train")
    chosen = data.choose(train, 150)
    assert bank.ids.tolist() == sorted(int(i) for i in chosen)
    images, labels = data.take(train, bank.ids)
    assert torch.equal(torch.from_numpy(bank.labels), labels)
    torch.testing.assert_close(bank.take(np.arange(150)), model.head(images, stage), rtol=1e-5, atol=1e-5)
    assert bank.shape == tuple(model.head(images[:1], stage).shape[1:])


def test_a_bank_may_be_pooled_in_half_precision_or_of_the_test_split(model: Classifier) -> None:
    pooled = bank_of(model, stage=2, pooled=True)
    images, _ = data.take(data.load("digits", "train"), pooled.ids)
    expected = model.head(images, 2).mean((2, 3))
    torch.testing.assert_close(pooled.take(slice(None)), expected, rtol=1e-5, atol=1e-5)
    half = bank_of(model, stage=2, pooled=True, dtype="float16")
    assert half.values.dtype == np.float16
    torch.testing.assert_close(half.take(slice(None)), expected, rtol=1e-3, atol=1e-3)
    assert len(bank_of(model, stage="linear", split="test")) == 500


def test_what_is_taken_is_a_copy(model: Classifier) -> None:
    bank = bank_of(model, stage=0)
    before = bank.values.copy()
    bank.take(slice(0, 10)).zero_()
    assert np.array_equal(bank.values, before)


def test_numbers_too_large_for_half_precision_fail(model: Classifier) -> None:
    request = representations.Request(recipe=RECIPE, stage="linear", dtype="float16")
    loud = training.trained(RECIPE.model_copy(update={"epochs": 0}), data.load("digits", "train"))
    with torch.no_grad():
        for parameter in list(loud.parameters())[-2:]:
            parameter.mul_(1e7)
    images, labels = data.take(data.load("digits", "train"), range(4))
    with pytest.raises(NotFinite, match="take dtype: float32"):
        representations.make(request, {"classifier": loud}, Batch(range(4), images, labels))


def test_the_pixels_are_the_same_for_every_network_of_the_same_images() -> None:
    def identity(stage: int | str, **changes: Any) -> object:
        recipe = RECIPE.model_copy(update=changes)
        return representations.identity(representations.Request(recipe=recipe, stage=stage), None)

    assert identity(0) == identity(0, seed=1, network="mlp") == identity("0")
    assert identity(0) != identity(0, train_examples=100)
    assert identity(2) == identity("relu1")
    assert "classifier" not in representations.needs(representations.Request(recipe=RECIPE))
    assert "classifier" in representations.needs(representations.Request(recipe=RECIPE, stage=2))


def test_an_autoencoder_takes_the_seed_of_its_classifier_or_its_own() -> None:
    def seed(own: int | None) -> int:
        how = AutoencoderRecipe(seed=own)
        return autoencoder.Request(recipe=RECIPE.model_copy(update={"seed": 3}), autoencoder=how).seed

    assert (seed(None), seed(0), seed(5)) == (3, 0, 5)


def test_only_an_autoencoder_whose_logits_count_needs_the_classifier() -> None:
    def needed(**how: Any) -> set[str]:
        return set(autoencoder.needs(autoencoder.Request(recipe=RECIPE, autoencoder=AutoencoderRecipe(**how))))

    assert needed(stage=2) == {"representations"}
    assert needed(logits_weight=1.0) == {"representations", "classifier"}


def test_images_are_shown_beside_their_reconstructions_and_deeper_the_nearest_ones(model: Classifier) -> None:
    def product(stage: int) -> Product:
        how = AutoencoderRecipe(kind="linear", bottleneck=12, stage=stage)
        request = autoencoder.Request(recipe=RECIPE, autoencoder=how)
        *_, last = autoencoder.make(request, {"representations": bank_of(model, stage=stage)}, None, "cpu")
        assert isinstance(last, Product)
        return last

    shown = product(0).attachments["reconstructions"]
    assert shown.tiles is not None
    assert shown.tiles.shape == (3, 8, 8, 8, 3)
    ids = [column["example"] for column in shown.notes["columns"]]
    images, _ = data.take(data.load("digits", "train"), ids)
    assert np.array_equal(shown.tiles[0, :, :, :, 0], images[:, 0].mul(255).round().byte().numpy())
    made = product(0)
    request = autoencoder.Request(recipe=RECIPE, autoencoder=AutoencoderRecipe(kind="linear", bottleneck=12))
    loaded = autoencoder.load(request, Saved(made.arrays, made.facts), "cpu")
    again = loaded(images).clamp(0, 1)[:, 0]
    np.testing.assert_allclose(shown.tiles[1, :, :, :, 0] / 255, again, atol=0.5 / 255 + 1e-6)
    deeper = product(2).attachments
    assert set(deeper) == {"nearest_images"}
    tiles = deeper["nearest_images"].tiles
    assert tiles is not None
    assert np.array_equal(tiles[0], shown.tiles[0])  # the same images are held out at every stage
    assert not any(np.array_equal(tiles[1, i], tiles[0, i]) for i in range(8))
    ids = [column["example"] for column in deeper["nearest_images"].notes["columns"]]
    bank = bank_of(model, stage=2)
    distances = np.linalg.norm(bank.values[np.searchsorted(bank.ids, ids)][:, None] - bank.values[None], axis=(3, 4))
    nearest_rows = np.linalg.norm(distances, axis=2).argsort(axis=1)[:, 1]
    images, _ = data.take(data.load("digits", "train"), bank.ids[nearest_rows])
    assert np.array_equal(tiles[1, :, :, :, 0], images[:, 0].mul(255).round().byte().numpy())
    channels = made.facts["explained_variance_by_channel"]
    assert len(channels) == 1
    assert 0.6 < channels[0] < 1


def test_images_are_held_out_by_the_seed_alone() -> None:
    rows, held_out = divided(50, 0.2, seed=1)
    assert len(held_out) == 10
    assert sorted([*rows, *held_out]) == list(range(50))
    assert np.array_equal(divided(50, 0.2, seed=1)[1], held_out)
    assert not np.array_equal(divided(50, 0.2, seed=2)[1], held_out)
    assert [len(part) for part in divided(1, 0.9, seed=0)] == [1, 0]
    assert [len(part) for part in divided(50, 0.0, seed=0)] == [50, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": 12}, "autoencoder.stage: no stage '12': 0 (pixels) to 7 (logits), or one of conv1, relu1"),
        ({"stage": "relu4"}, "autoencoder.stage: no stage 'relu4'"),
        ({"bottleneck": 65}, "autoencoder.bottleneck: 65 is more than the 64 numbers of a representation"),
        ({"bottleneck": 40, "stage": 2, "pooled": True}, "autoencoder.bottleneck: 40 is more than the 32 numbers"),
        ({"pooled": True, "stage": "linear"}, "autoencoder.pooled: a representation of 10 numbers has no positions"),
        ({"pooled": True, "stage": 2, "logits_weight": 1.0}, "autoencoder.logits_weight: a pooled representation"),
        ({"kind": "vea"}, "autoencoder.kind: unknown autoencoder 'vea'"),
        ({"kind": "vae", "options": {"betta": 2}}, "autoencoder.options.betta"),
    ],
)
def test_what_fits_no_network_is_told_before_any_work(settings: dict[str, Any], message: str) -> None:
    request = autoencoder.Request(recipe=RECIPE, autoencoder=AutoencoderRecipe(**settings))
    with pytest.raises(UserError) as told:
        kind_of(request).check(request, None)
    assert str(told.value).startswith(message)


def test_the_identity_of_an_autoencoder_is_what_decides_its_numbers() -> None:
    def identity(**how: Any) -> object:
        return autoencoder.identity(autoencoder.Request(recipe=RECIPE, autoencoder=AutoencoderRecipe(**how)), None)

    assert identity(kind="vae") == identity(kind="vae", options={"beta": 1.0}) == identity(kind="vae", seed=0)
    different = [identity(kind="vae", options={"beta": 2}), identity(kind="vae", seed=1), identity(kind="plain")]
    assert identity(kind="vae") not in different
