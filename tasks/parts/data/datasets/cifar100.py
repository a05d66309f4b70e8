"""CIFAR-100 with its 100 fine classes, 3 x 32 x 32, 50,000 + 10,000 (Krizhevsky 2009).

Read from `cifar-100-python/` below the data root or below `cifar100/` in it: torchvision's files, checksums verified.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR100

from tasks.parts.data.downloads import batches_folder, batches_missing, read_batches, unreachable


def read(split: str, root: Path) -> tuple[np.ndarray, list[int], list[str]]:
    return read_batches("cifar100", CIFAR100, split, root)


def fingerprint(root: Path) -> str:
    return "cifar100"  # no other content passes the checksums


def check(root: Path) -> None:
    if batches_folder("cifar100", CIFAR100, root) is None and (reason := unreachable([CIFAR100.url])):
        raise batches_missing("cifar100", CIFAR100, root, reason=reason)
