"""scikit-learn's handwritten digits, 1 x 8 x 8: 1297 + 500. Needs no files.

The 1797 images are the test part of the Optical Recognition of Handwritten Digits set (Alpaydin and Kaynak 1998,
UCI), grey levels 0..16 divided by 16. The split is this project's: sorted by class, every 1797/500-th image is a test
image, so that each class is divided in the same proportion; inside a split the images keep scikit-learn's order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

EMBEDDED = True
TEST = 500


def read(split: str, root: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    data = load_digits()
    place = np.empty(len(data.target), np.int64)  # of each image in the order of the classes
    place[np.argsort(data.target, kind="stable")] = np.arange(len(place))
    tested = (place + 1) * TEST // len(place) > place * TEST // len(place)
    chosen = tested if split == "test" else ~tested
    images = (data.images[chosen] / 16).astype(np.float32)[:, None]  # (N, 1, 8, 8)
    return images, data.target[chosen], [str(digit) for digit in range(10)]


def fingerprint(root: Path) -> str:
    return "digits-1"


def check(root: Path) -> None:
    pass
