"""The task against what can be computed otherwise, such as principal components of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tasks.autoencoding import Config, checks, measure, needs, summarise
from tasks.parts.contract import Batch, prepared
from tasks.parts.data import load as data
from tasks.parts.models.build import Classifier
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

IDS = tuple(range(0, 200, 5))
RECIPE = Recipe(dataset="digits", network="mlp", network_options={"width": 32}, epochs=3)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return training.trained(RECIPE, data.load("digits", "train")).requires_grad_(False)


def batch_of(split: str = "test", ids: tuple[int, ...] = IDS) -> Batch:
    return Batch(ids, *data.take(data.load("digits", split), ids))


def rows_of(model: nn.Module, batch: Batch, neighbor: bool = True, split: str = "test", **how: Any) -> pd.DataFrame:
    settings = {"kind": "linear", "bottleneck": 8, "epochs": 2, "validation": 0.0, **how}
    config = Config(recipe=RECIPE, autoencoder=settings, neighbor=neighbor, split=split)
    return pd.DataFrame(measure(config, prepared(needs(config), model, batch), batch))


def test_the_errors_of_pixels_are_those_of_their_principal_components(model: Classifier) -> None:
    train, _ = data.take(data.load("digits", "train"), data.load("digits", "train").ids)
    batch = batch_of()
    known, images = train.flatten(1).double(), batch.images.flatten(1).double()
    mean = known.mean(0)
    basis = torch.linalg.svd(known - mean, full_matrices=False).Vh[:8]
    again = mean + (images - mean) @ basis.T @ basis
    error = (images - again).norm(dim=1)
    rows = rows_of(model, batch)
    variation = (known - mean).square().sum(1).mean()
    nearest = torch.cdist(images, known).amin(1)
    np.testing.assert_allclose(rows["error_over_magnitude"], error / known.square().sum(1).mean().sqrt(), rtol=1e-4)
    np.testing.assert_allclose(rows["error_over_variation"], error.square() / variation, rtol=1e-4)
    np.testing.assert_allclose(rows["error_over_neighbor"], error / nearest, rtol=1e-4)
    np.testing.assert_allclose(rows["neighbor"], nearest / known.square().sum(1).mean().sqrt(), rtol=1e-4)
    np.testing.assert_allclose(
        rows["loss_reconstructed"],
        cross_entropy(model(again.float().view(-1, 1, 8, 8)), batch.labels, reduction="none"),
        rtol=1e-3,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        rows["loss_mean"],
        cross_entropy(model(mean.float().view(1, 1, 8, 8)).expand(40, -1), batch.labels, reduction="none"),
        rtol=1e-3,
    )
    assert (
        rows["agrees"].tolist()
        == (model(again.float().view(-1, 1, 8, 8)).argmax(1) == model(batch.images).argmax(1)).tolist()
    )
    assert rows[["active_features", "rate", "distortion"]].isna().all(axis=None)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_autoencoder_that_loses_nothing_recovers_all(model: Classifier, stage: int) -> None:
    size = model.head(torch.zeros(1, 1, 8, 8), stage)[0].numel()
    config = Config(recipe=RECIPE, autoencoder={"kind": "linear", "bottleneck": size, "stage": stage})
    scalars = summarise(config, rows_of(model, batch_of(), stage=stage, bottleneck=size))
    assert scalars["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert scalars["recovered_loss"] == pytest.approx(1, abs=1e-3)
    assert scalars["agreement"] == 1
    assert scalars["accuracy"] == scalars["accuracy_reconstructed"]
    assert scalars["error_over_neighbor"] < 1e-2


def test_examples_of_the_training_split_are_not_their_own_neighbours(model: Classifier) -> None:
    batch = batch_of("train")
    train, _ = data.take(data.load("digits", "train"), data.load("digits", "train").ids)
    distances = torch.cdist(batch.images.flatten(1).double(), train.flatten(1).double())
    second = distances.sort(1).values[:, 1]
    rows = rows_of(model, batch, split="train")
    norm = train.flatten(1).double().square().sum(1).mean().sqrt()
    np.testing.assert_allclose(rows["neighbor"], second / norm, rtol=1e-4)


def test_only_what_a_kind_has_is_told_and_nothing_behind_a_pooled_representation() -> None:
    recipe = Recipe(dataset="digits", network="convnet", epochs=1)
    network = training.trained(recipe, data.load("digits", "train")).requires_grad_(False)
    batch = batch_of()

    def scalars(**how: Any) -> set[str]:
        config = Config(recipe=recipe, autoencoder={"epochs": 1, "bottleneck": 8, **how}, neighbor=False)
        rows = pd.DataFrame(measure(config, prepared(needs(config), network, batch), batch))
        return set(summarise(config, rows))

    always = {"explained_variance", "error_over_magnitude", "accuracy"}
    behind = {"accuracy_reconstructed", "agreement", "recovered_loss"}
    assert scalars(kind="vae", stage=6) == always | behind | {"rate", "distortion"}
    assert scalars(kind="topk", stage=6) == always | behind | {"active_features"}
    assert scalars(kind="linear", stage=2, pooled=True) == always


def test_an_autoencoder_worse_than_the_mean_is_told() -> None:
    frame = pd.DataFrame({"error_over_variation": [0.9, 1.3]})
    told = checks(Config(), frame)["the autoencoder does better than the mean representation"]
    assert told == "it explains -10.0% of the variance"
    assert set(checks(Config(), frame / 2).values()) == {None}
