"""MNIST: 1 x 28 x 28 pixels, 60,000 + 10,000 images (LeCun et al. 1998).

It is read from `MNIST/raw/` or `mnist/MNIST/raw/` in the data root: torchvision's four idx files,
unpacked or `.gz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST

from tasks.parts.data import idx

ORIGINALS = ((0xE9F4D8B3, 47040016), (0xE0CB4AD2, 60008), (0x91373BDF, 7840016), (0x4AB9EFF9, 10008))
"""The CRC-32 and the size in bytes of the unpacked files."""


def read(split: str, root: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images (N, 1, 28, 28) of ten classes."""
    return *idx.read("mnist", MNIST, split, root), [str(digit) for digit in range(10)]


def fingerprint(root: Path) -> str:
    """As `idx.fingerprint`."""
    return idx.fingerprint("mnist", MNIST, root, ORIGINALS)


def check(root: Path) -> None:
    """As `idx.check`."""
    idx.check("mnist", MNIST, root)
