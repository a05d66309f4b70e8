"""Gaussian blobs, 1 x 4 x 4, three classes, 180 + 60 images. Synthetic, for tests; needs no files.

Class k has a mean drawn uniformly from [0.25, 0.75] per pixel; an image is its class's mean plus N(0, 0.1^2) noise,
clipped to [0, 1]. Classes take turns. Everything is drawn from a fixed seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

EMBEDDED = True
SIZES = {"train": 180, "test": 60}


def read(split: str, root: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    return blobs(SIZES[split], stream=list(SIZES).index(split))


def blobs(
    count: int, stream: int = 0, classes: int = 3, shape: tuple[int, int, int] = (1, 4, 4), sigma: float = 0.1
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """`count` images (count, *shape), labels and class names; the means are the same for every `stream`."""
    means = np.random.default_rng(0).uniform(0.25, 0.75, (classes, *shape))  # (K, C, H, W)
    labels = np.arange(count) % classes
    noise = np.random.default_rng([1, stream]).normal(0, sigma, (count, *shape))
    images = np.clip(means[labels] + noise, 0, 1).astype(np.float32)
    return images, labels, [f"blob {k}" for k in range(classes)]


def fingerprint(root: Path) -> str:
    return "blobs-1"


def check(root: Path) -> None:
    pass
