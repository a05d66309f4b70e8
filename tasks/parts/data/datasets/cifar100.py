"""CIFAR-100 with its fine classes: 3 x 32 x 32 pixels, 50,000 + 10,000 images (Krizhevsky 2009).

It is read from `cifar-100-python/` in the data root or in its folder `cifar100/`: torchvision's
files, with their checksums verified.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR100

from tasks.parts.data.downloads import batches_folder, batches_missing, read_batches, unreachable


def read(split: str, root: Path) -> tuple[np.ndarray, list[int], list[str]]:
    """Images (N, 3, 32, 32) of a hundred classes."""
    return read_batches("cifar100", CIFAR100, split, root)


def fingerprint(root: Path) -> str:
    """A constant."""
    return "cifar100"  # no other content passes the checksums


def check(root: Path) -> None:
    """There are the batch files, or a host that answers."""
    if batches_folder("cifar100", CIFAR100, root) is None and (reason := unreachable([CIFAR100.url])):
        raise batches_missing("cifar100", CIFAR100, root, reason=reason)
