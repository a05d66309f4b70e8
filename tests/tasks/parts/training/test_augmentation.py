"""Crops and flips, against a loop over examples that does the same by slicing."""

from __future__ import annotations

import pytest
import torch

from tasks.parts.training.augmentation import random_crop, random_flip

SHAPES = [(1, 8, 8), (3, 5, 7)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(shape: tuple[int, int, int], count: int = 40) -> torch.Tensor:
    return torch.rand((count, *shape), generator=generator(1)) + 0.01  # no pixel is zero, as the padding is


@pytest.mark.parametrize("padding", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_crop(shape: tuple[int, int, int], padding: int) -> None:
    _, height, width = shape
    x = images(shape)
    before = x.clone()
    cropped = random_crop(x, padding, generator())
    assert cropped.shape == x.shape
    assert torch.equal(x, before)
    down, right = torch.randint(0, 2 * padding + 1, (2, len(x)), generator=generator())
    for i in range(len(x)):
        wide = torch.zeros(shape[0], height + 2 * padding, width + 2 * padding)
        wide[:, padding : padding + height, padding : padding + width] = x[i]
        a, b = int(down[i]), int(right[i])
        assert torch.equal(cropped[i], wide[:, a : a + height, b : b + width])


def test_every_offset_comes_and_comes_as_often() -> None:
    """A single bright pixel tells where the crop was; 25 offsets, each expected 100 times."""
    x = torch.zeros(2500, 1, 5, 5)
    x[:, :, 2, 2] = 1
    place = random_crop(x, 2, generator()).flatten(1).argmax(1).bincount(minlength=25)
    assert place.sum() == 2500
    assert place.min() > 50
    assert place.max() < 160


def test_crop_without_padding_is_the_image() -> None:
    assert torch.equal(random_crop(images((3, 5, 7)), 0, generator()), images((3, 5, 7)))


@pytest.mark.parametrize("shape", SHAPES)
def test_flip(shape: tuple[int, int, int]) -> None:
    x = images(shape)
    before = x.clone()
    flipped = random_flip(x, generator())
    mirrored = torch.rand(len(x), generator=generator()) < 0.5
    assert 5 < int(mirrored.sum()) < 35
    for i in range(len(x)):
        wanted = torch.stack([x[i, :, :, shape[2] - 1 - column] for column in range(shape[2])], -1)
        assert torch.equal(flipped[i], wanted if mirrored[i] else x[i])
    assert torch.equal(x, before)


def test_half_of_the_images_are_mirrored() -> None:
    x = torch.tensor([[[[0.0, 1.0]]]]).expand(4000, 1, 1, 2)
    assert float(random_flip(x, generator()).flatten(1)[:, 0].mean()) == pytest.approx(0.5, abs=0.035)
