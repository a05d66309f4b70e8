"""A small trained network and its images: what the tests of attacks share."""

from __future__ import annotations

import pytest
from torch import Tensor

from tasks.parts.data import load as data
from tasks.parts.models.build import Classifier
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe


@pytest.fixture(scope="session")
def convnet() -> Classifier:
    """A small network for digits, trained just enough."""
    recipe, train = Recipe(epochs=3), data.load("digits", "train")
    model = training.untrained(recipe, train)
    for _ in training.epochs(recipe, model, train):
        pass
    return model


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    return data.take(data.load("digits", "test"), range(60))
