"""Fashion-MNIST: 1 x 28 x 28 pixels, 60,000 + 10,000 images (Xiao, Rasul and Vollgraf 2017).

It is read from `FashionMNIST/raw/` or `fashion_mnist/FashionMNIST/raw/` in the data root:
torchvision's four idx files, unpacked or `.gz`. Keep the packed files beside the unpacked ones:
their published checksums show that the data is the original.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from tasks.parts.data import idx


def read(split: str, root: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images (N, 1, 28, 28) of ten classes."""
    return *idx.read("fashion_mnist", FashionMNIST, split, root), list(FashionMNIST.classes)


def fingerprint(root: Path) -> str:
    """As `idx.fingerprint`."""
    return idx.fingerprint("fashion_mnist", FashionMNIST, root)


def check(root: Path) -> None:
    """As `idx.check`."""
    idx.check("fashion_mnist", FashionMNIST, root)
