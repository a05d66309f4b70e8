"""CIFAR-10: 3 x 32 x 32 pixels, 50,000 + 10,000 images (Krizhevsky 2009).

It is read from `cifar-10-batches-py/` in the data root or in its folder `cifar10/`: torchvision's
files, with their checksums verified. If they are not there, it is read from an export as images, in
the same two places: `train/<class>/*` and `test/<class>/*` with the ten class names of CIFAR-10. An
export may be lossy, so it has a fingerprint of its own.
"""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import CIFAR10

from tasks.parts.data.cache import Raw
from tasks.parts.data.downloads import batches_folder, batches_missing, read_batches, unreachable
from tasks.parts.data.folders import digest, labelled_files

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def read(split: str, root: Path) -> Raw:
    """Images (N, 3, 32, 32) of ten classes, or the paths of an export's images."""
    if place := _export(root):
        return *labelled_files(place / split, CLASSES), CLASSES
    return read_batches("cifar10", CIFAR10, split, root, _also(root))


def fingerprint(root: Path) -> str:
    """A constant for the original; for an export a hash of its files."""
    if place := _export(root):
        return f"cifar10-images-{digest({split: place / split for split in ('train', 'test')})}"
    return "cifar10"  # no other content passes the checksums


def check(root: Path) -> None:
    """There are the batch files, an export, or a host that answers."""
    if batches_folder("cifar10", CIFAR10, root) or _export(root):
        return
    if reason := unreachable([CIFAR10.url]):
        raise batches_missing("cifar10", CIFAR10, root, _also(root), reason)


def _export(root: Path) -> Path | None:
    """The folder of an export as images, unless the original is there."""
    if batches_folder("cifar10", CIFAR10, root):
        return None
    folders = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]
    return next((p for p in (root, root / "cifar10") if all((p / folder).is_dir() for folder in folders)), None)


def _also(root: Path) -> list[str]:
    return [f"{place}/{{train,test}}/{{airplane,...,truck}}/" for place in (root, root / "cifar10")]
