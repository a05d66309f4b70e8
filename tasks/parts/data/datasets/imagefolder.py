"""Folders of images, one per class: `imagefolder:<folder>` with `train/<class>/*`, and `test/` or `val/`.

The folder is absolute or relative to the data root. Classes are the folders in `train/`, sorted by name; images are
sorted as in torchvision's `ImageFolder` and read as RGB. `test/` is used where `val/` is there, too. Images of
different sizes need `image_size`. The fingerprint covers every file's relative path and size (see
`tasks.parts.data.folders.digest`), not the folder's own path.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.parts.data.downloads import missing
from tasks.parts.data.folders import class_folders, digest, labelled_files
from tasks.parts.settings import UserError


def read(split: str, root: Path) -> tuple[list[Path], np.ndarray, list[str]]:
    check(root)
    classes = class_folders(root / "train")
    return *labelled_files(_split(root, split), classes), classes


def fingerprint(root: Path) -> str:
    check(root)
    return f"imagefolder-{digest({split: _split(root, split) for split in ('train', 'test')})}"


def check(root: Path) -> None:
    train, test = (_split(root, split) for split in ("train", "test"))
    if not (train.is_dir() and test.is_dir() and class_folders(train)):
        raise missing("imagefolder", [f"{root}/train/<class>/ with {root}/test/<class>/", f"{root}/val/<class>/"])
    if extra := sorted(set(class_folders(test)) - set(class_folders(train))):
        raise UserError(f"imagefolder: {test} has the class {extra[0]!r}, {train} has not", "dataset")


def _split(root: Path, split: str) -> Path:
    return root / "val" if split == "test" and not (root / "test").is_dir() else root / split
