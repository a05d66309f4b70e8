"""A small trained network and its images: what the tests of attacks share."""

from __future__ import annotations

import pytest
from torch import Tensor

from tasks.parts import data, training
from tasks.parts.models import Classifier
from tasks.parts.recipes import Recipe


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
