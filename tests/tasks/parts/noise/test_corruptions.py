"""Corruptions: slow twins in float64, exact cases, and what must hold of every one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.parts.data import load as data
from tasks.parts.noise.corruptions import SEVERITIES, blur, corrupted, pixelation, shot_noise
from tasks.parts.randomness import uniform

IDS = [3, 0, 14, 27]
every_corruption = pytest.mark.parametrize("name", list(SEVERITIES))


def pictures(channels: int = 2, height: int = 9, width: int = 12) -> Tensor:
    return torch.rand(len(IDS), channels, height, width, generator=torch.Generator().manual_seed(0))


@every_corruption
def test_an_image_is_damaged_alike_in_any_company(name: str) -> None:
    images = pictures()
    before = images.clone()
    together = corrupted(name, images, 3, ids=IDS, seed=1)
    assert torch.equal(images, before)
    alone = torch.cat([corrupted(name, images[i : i + 1], 3, ids=[IDS[i]], seed=1) for i in range(len(IDS))])
    assert torch.allclose(together, alone, atol=1e-6)
    other = corrupted(name, images, 3, ids=IDS, seed=2)
    assert torch.equal(other, together) == (name in ("blur", "pixelation", "contrast", "brightness"))


@every_corruption
def test_severities_go_up_and_stay_images(name: str) -> None:
    """On real digits and on noise of another shape; further from the image with each severity, on
    the average.
    """
    images, _ = data.take(data.load("digits", "test"), range(60))
    changes = []
    for severity in range(1, 6):
        damaged = corrupted(name, images, severity, ids=range(60), seed=0)
        assert damaged.shape == images.shape
        assert damaged.dtype == images.dtype
        assert damaged.min() >= 0
        assert damaged.max() <= 1
        changes.append(float((damaged - images).square().mean().sqrt()))
        assert corrupted(name, pictures(), severity, ids=IDS, seed=0).shape == pictures().shape
    if name == "pixelation":  # a grid of 5 x 5 fits 8 x 8 pixels no worse than one of 6 x 6
        changes = changes[1:]
    assert changes == sorted(changes)
    assert 0 < changes[0] < changes[-1]


@every_corruption
def test_a_grey_image_stays_grey_where_nothing_is_added(name: str) -> None:
    grey = torch.full((2, 3, 8, 8), 0.5)
    damaged = corrupted(name, grey, 4, ids=[0, 1], seed=0)
    assert torch.allclose(damaged, grey, atol=1e-6) == (name not in ("brightness", "shot_noise", "salt_and_pepper"))


def clamped(image: Tensor) -> Callable[[int, int], Tensor]:
    """The pixel (C,) at a row and a column, outside the image that of the nearest edge."""
    height, width = image.shape[1:]
    return lambda row, column: image[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]


def test_blur_twin() -> None:
    images, share = pictures(height=7, width=5).double(), 0.2
    sigma = share * 5
    reach = math.ceil(3 * sigma)
    around = range(-reach, reach + 1)
    weights = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma**2)) for i in around for j in around}
    blurred = blur(images, share)
    for image, result in zip(images, blurred, strict=True):
        pixel = clamped(image)
        for row in range(7):
            for column in range(5):
                total = sum(w * pixel(row + i, column + j) for (i, j), w in weights.items())
                assert torch.allclose(result[:, row, column], total / sum(weights.values()))


def bilinear(image: Tensor, row: float, column: float) -> Tensor:
    """Between four pixels; outside the centres of the outermost ones, the edge repeated."""
    row = min(max(row, 0.0), image.shape[1] - 1.0)
    column = min(max(column, 0.0), image.shape[2] - 1.0)
    top, left = math.floor(row), math.floor(column)
    pixel = clamped(image)
    above = (1 - (column - left)) * pixel(top, left) + (column - left) * pixel(top, left + 1)
    below = (1 - (column - left)) * pixel(top + 1, left) + (column - left) * pixel(top + 1, left + 1)
    return (1 - (row - top)) * above + (row - top) * below


def test_translation_twin() -> None:
    images = pictures().double()
    moved = corrupted("translation", images, 5, ids=IDS, seed=4)
    angle = 2 * math.pi * uniform(4, "translation", IDS, ()).double()
    for i, image in enumerate(images):
        across, down = 0.2 * math.cos(angle[i]) * 12, 0.2 * math.sin(angle[i]) * 9  # pixels
        for row in range(9):
            for column in range(12):
                assert torch.allclose(moved[i, :, row, column], bilinear(image, row - down, column - across), atol=1e-6)


def test_rotation_twin() -> None:
    images = pictures().double()
    turned = corrupted("rotation", images, 3, ids=IDS, seed=4)
    sides = uniform(4, "rotation", IDS, ())
    assert 0 < int((sides < 0.5).sum()) < len(IDS)  # both sides are seen
    for i, image in enumerate(images):
        angle = math.radians(15) * (-1 if sides[i] < 0.5 else 1)
        for row in range(9):
            for column in range(12):
                y, x = row - 4.0, column - 5.5  # from the centre, in pixels: a true rotation also where sides differ
                from_x = math.cos(angle) * x - math.sin(angle) * y
                from_y = math.sin(angle) * x + math.cos(angle) * y
                wanted = bilinear(image, from_y + 4.0, from_x + 5.5)
                assert torch.allclose(turned[i, :, row, column], wanted, atol=1e-6)


def test_pixelation_is_the_mean_of_each_block() -> None:
    images = pictures(height=8, width=8)
    coarse = images.reshape(len(IDS), 2, 2, 4, 2, 4).mean((3, 5))
    wanted = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(pixelation(images, 0.25), wanted, atol=1e-6)
    assert torch.equal(pixelation(images, 1.0), images)
    assert torch.allclose(pixelation(images, 0.01), images.mean((2, 3), keepdim=True).expand_as(images), atol=1e-6)


def test_contrast_and_brightness_are_exact() -> None:
    images = pictures()
    mean = images.mean((1, 2, 3), keepdim=True)
    for severity in range(1, 6):
        flat = corrupted("contrast", images, severity, ids=IDS, seed=0)
        assert torch.allclose(flat - mean, SEVERITIES["contrast"][severity - 1] * (images - mean), atol=1e-6)
        bright = corrupted("brightness", images, severity, ids=IDS, seed=0)
        assert torch.allclose(bright, (images + SEVERITIES["brightness"][severity - 1]).clamp(max=1))


def test_shot_noise_has_the_moments_of_counted_photons() -> None:
    """Mean x, variance x / photons, whole numbers of photons."""
    level, photons = 0.4, 12.0
    noisy = shot_noise(torch.full((200, 1, 10, 10), level), photons, ids=range(200), seed=0).double()
    n = noisy.numel()
    deviation = math.sqrt(level / photons)
    assert float(noisy.mean()) == pytest.approx(level, abs=4.5 * deviation / math.sqrt(n))
    assert float(noisy.var()) == pytest.approx(deviation**2, rel=4.5 * math.sqrt(2.3 / n))
    counts = (noisy * photons).numpy()
    assert np.allclose(counts, counts.round(), atol=1e-4)
    assert not shot_noise(torch.zeros(1, 1, 4, 4), photons, ids=[0], seed=0).any()


def test_salt_and_pepper_hits_its_share_and_the_same_pixels_again() -> None:
    images, ids = torch.full((60, 3, 16, 16), 0.5), range(60)
    before = torch.zeros_like(images, dtype=torch.bool)
    for severity, share in enumerate(SEVERITIES["salt_and_pepper"], 1):
        damaged = corrupted("salt_and_pepper", images, severity, ids=ids, seed=0)
        hit = damaged != images
        assert (hit | ~before).all()
        before = hit
        assert (hit == hit[:, :1]).all()  # all channels alike
        error = math.sqrt(share * (1 - share) / (60 * 256))
        assert float(hit.double().mean()) == pytest.approx(share, abs=4.5 * error)
        assert float((damaged == 1).double().mean()) == pytest.approx(share / 2, abs=4.5 * error)
        assert set(damaged.unique().tolist()) == {0.0, 0.5, 1.0}
