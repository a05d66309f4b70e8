"""The handwritten digits of scikit-learn: 1 x 8 x 8 pixels, 1297 + 500 images, no files.

The 1797 images are the test part of the Optical Recognition of Handwritten Digits set (Alpaydin and
Kaynak 1998, UCI). Grey levels 0..16 are divided by 16. The split is this project's: of the images
sorted by class, every 1797/500-th is a test image, so that each class is divided in the same
proportion. Inside a split the images keep the order of scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

EMBEDDED = True
TEST = 500


def read(split: str, root: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images (N, 1, 8, 8) of ten classes."""
    data = load_digits()
    place = np.empty(len(data.target), np.int64)  # of each image when sorted by class
    place[np.argsort(data.target, kind="stable")] = np.arange(len(place))
    tested = (place + 1) * TEST // len(place) > place * TEST // len(place)
    chosen = tested if split == "test" else ~tested
    images = (data.images[chosen] / 16).astype(np.float32)[:, None]  # (N, 1, 8, 8)
    return images, data.target[chosen], [str(digit) for digit in range(10)]


def fingerprint(root: Path) -> str:
    """A constant."""
    return "digits-1"


def check(root: Path) -> None:
    """Nothing can be missing: the images come with scikit-learn."""
