"""Gaussian blobs for tests: 1 x 4 x 4 pixels, three classes, 180 + 60 images.

Each pixel of a class's mean is drawn uniformly from [0.25, 0.75]. An image is the mean of its class
plus N(0, 0.1^2) noise, clipped to [0, 1]. Classes take turns. Everything is drawn from a fixed
seed, so no files are needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

EMBEDDED = True
SIZES = {"train": 180, "test": 60}


def read(split: str, root: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Three classes of images (N, 1, 4, 4)."""
    return blobs(SIZES[split], stream=list(SIZES).index(split))


def blobs(
    count: int, stream: int = 0, classes: int = 3, shape: tuple[int, int, int] = (1, 4, 4), sigma: float = 0.1
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Blobs of any number, classes and shape.

    Args:
        count: the number N of images.
        stream: a number that decides the noise. The means do not depend on it.
        classes: the number of classes.
        shape: (C, H, W) of an image.
        sigma: the standard deviation of the noise.

    Returns:
        Images (N, C, H, W), labels (N,) and class names.
    """
    means = np.random.default_rng(0).uniform(0.25, 0.75, (classes, *shape))  # (K, C, H, W)
    labels = np.arange(count) % classes
    noise = np.random.default_rng([1, stream]).normal(0, sigma, (count, *shape))
    images = np.clip(means[labels] + noise, 0, 1).astype(np.float32)
    return images, labels, [f"blob {k}" for k in range(classes)]


def fingerprint(root: Path) -> str:
    """A constant."""
    return "blobs-1"


def check(root: Path) -> None:
    """Nothing can be missing."""
