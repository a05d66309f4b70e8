"""The tiles of what augmentation does show the images that the notes tell of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from tasks.parts.data import load as data
from tasks.parts.models.classifier import Classifier
from tasks.parts.training import augmentation_tiles, training
from tasks.parts.training.augmentation_tiles import Notes
from tasks.parts.training.recipes import Recipe

BLOBS: dict[str, Any] = {"dataset": "blobs", "network": "mlp", "epochs": 4, "batch_size": 32}


def drawn(settings: dict[str, Any], count: int = 5, **recipe: Any) -> tuple[np.ndarray, Notes, Classifier, data.Split]:
    chosen = Recipe(**(BLOBS | recipe | {"adversarial_augmentation": settings}))
    split = data.load("blobs", "train")
    model = training.trained(chosen, split)
    found = augmentation_tiles.of(chosen, model, split, count)
    assert found is not None
    return *found, model, split


def tile(tiles: np.ndarray, notes: Notes, row: int, column: int) -> tuple[np.ndarray, str | None]:
    """The image in [0, 1] of a place, one number a pixel, and its mark."""
    shown = tiles[row, column]
    assert (shown == shown[..., :1]).all()  # grey
    return shown[..., 0] / 255, notes["marks"][row][column]


def test_pixels_above_what_they_become() -> None:
    picture, told, model, split = drawn({"epsilon": 0.8})
    assert picture.dtype == np.uint8
    assert picture.shape == (3, 5, 4, 4, 3)
    assert told["rows"] == ["training image", "moved", "difference"]
    assert told == json.loads(json.dumps(told))
    assert 0 < told["largest"] <= 0.8 + 1e-6
    changes = []
    for i, column in enumerate(told["columns"]):
        (own, plain), (moved, frame), (difference, beside) = (tile(picture, told, row, i) for row in range(3))
        image = data.take(split, [column["id"]])[0]
        assert own == pytest.approx(image[0, 0].numpy(), abs=0.51 / 255)
        assert np.abs(moved - own).max() <= 0.8 + 1.01 / 255
        assert (difference - 0.5) * 2 * told["largest"] == pytest.approx(moved - own, abs=0.01)
        changed = column["predicted"] != column["moved_to"]
        assert (plain, frame, beside) == (None, "changed" if changed else None, None)
        assert int(model(image).argmax()) == column["predicted"]
        logits = model(torch.tensor(moved, dtype=torch.float32)[None, None]).detach()[0]
        others = logits.clone()
        others[column["label"]] = -torch.inf
        assert float(logits[column["label"]] - others.max()) == pytest.approx(column["margin_after"], abs=0.2)
        assert (column["margin_after"] < 0) == (column["moved_to"] != column["label"])
        changes.append(changed)
    assert any(changes)


def test_a_hidden_layer_is_shown_by_the_images_nearest_to_the_moved_representation() -> None:
    picture, told, _, split = drawn({"epsilon": 3.0, "space": "hidden:1"}, count=4)
    assert picture.shape == (4, 4, 4, 4, 3)
    assert told["rows"] == ["training image", "nearest", "2nd nearest", "3rd nearest"]
    assert told == json.loads(json.dumps(told))
    frames = set()
    for i, column in enumerate(told["columns"]):
        for rank, (near, label) in enumerate(zip(column["neighbours"], column["neighbour_labels"], strict=True)):
            shown, frame = tile(picture, told, 1 + rank, i)
            image, its = data.take(split, [near])
            assert shown == pytest.approx(image[0, 0].numpy(), abs=0.51 / 255)
            assert int(its[0]) == label
            assert frame == ("own" if near == column["id"] else "changed" if label != column["label"] else None)
            frames.add(frame)
    assert "changed" in frames  # so far a move ends among other classes


def test_the_training_is_as_if_nobody_had_looked() -> None:
    recipe = Recipe(**(BLOBS | {"adversarial_augmentation": {"epsilon": 0.2}}))
    split = data.load("blobs", "train")
    model = training.trained(recipe, split).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    drawn_before = torch.get_rng_state()
    augmentation_tiles.of(recipe, model, split)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn_before)
    assert model.training
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.ones_like(parameter))


@pytest.mark.parametrize(
    "settings", [{}, {"epsilon": 0.2, "probability": 0}, {"epsilon": 0.2, "only": "confident", "confidence": 1.0}]
)
def test_no_picture_where_nothing_is_moved(settings: dict[str, Any]) -> None:
    recipe = Recipe(**(BLOBS | {"epochs": 1, "adversarial_augmentation": settings}))
    split = data.load("blobs", "train")
    assert augmentation_tiles.of(recipe, training.trained(recipe, split), split) is None
