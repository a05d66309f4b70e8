"""A folder of images with a folder for each class: `imagefolder:<folder>`.

The images are in `train/<class>/*`, and in `test/<class>/*` or `val/<class>/*`; `test/` is used if
both are there. The folder's path is absolute or relative to the data root. Classes are the folders
in `train/`, sorted by name. Images are in the order of torchvision's `ImageFolder` and are read as
RGB. Images of different sizes need `image_size`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.parts.data.downloads import missing
from tasks.parts.data.folders import class_folders, digest, labelled_files
from tasks.parts.settings import UserError


def read(split: str, root: Path) -> tuple[list[Path], np.ndarray, list[str]]:
    """The paths of the images, class by class."""
    check(root)
    classes = class_folders(root / "train")
    return *labelled_files(_split(root, split), classes), classes


def fingerprint(root: Path) -> str:
    """A hash of the files, wherever the folder is."""
    check(root)
    return f"imagefolder-{digest({split: _split(root, split) for split in ('train', 'test')})}"


def check(root: Path) -> None:
    """There are both splits, and the test split has no further class."""
    train, test = (_split(root, split) for split in ("train", "test"))
    if not (train.is_dir() and test.is_dir() and class_folders(train)):
        raise missing("imagefolder", [f"{root}/train/<class>/ with {root}/test/<class>/", f"{root}/val/<class>/"])
    if extra := sorted(set(class_folders(test)) - set(class_folders(train))):
        raise UserError(f"imagefolder: {test} has the class {extra[0]!r}, {train} has not", "dataset")


def _split(root: Path, split: str) -> Path:
    return root / "val" if split == "test" and not (root / "test").is_dir() else root / split
