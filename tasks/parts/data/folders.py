"""Folders of images: what is in them, in which order, and a hash of it.

Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tasks.parts.settings import UserError

CONTENTS = 1000  # images whose bytes go into the hash of a folder, beside all names and sizes


def class_folders(folder: Path) -> list[str]:
    """The names of the folders directly in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: Path) -> list[tuple[str, int]]:
    """The relative path and the size in bytes of each image below a folder, without hidden ones.

    They are in the order of torchvision's `ImageFolder`.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS  # slow to import, and seldom needed

    found: list[tuple[str, str, str, int]] = []
    pending = [""]
    while pending:
        place = pending.pop()
        with os.scandir(folder / place) as entries:
            for entry in entries:
                path = f"{place}/{entry.name}" if place else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(path)
                elif entry.name.lower().endswith(IMG_EXTENSIONS):
                    found.append((path.split("/", 1)[0], place, entry.name, entry.stat().st_size))
    return [(f"{place}/{name}" if place else name, size) for _, place, name, size in sorted(found)]


def labelled_files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """The paths and labels (N,) of the images in the folders `folder/<class>/`, class by class."""
    number = {name: k for k, name in enumerate(classes)}
    files = [(number[top], path) for path, _ in image_files(folder) if (top := path.split("/", 1)[0]) in number]
    files.sort(key=lambda file: file[0])  # stable, so that the order inside a class stays
    return [folder / path for _, path in files], np.array([k for k, _ in files], dtype=np.int64)


def digest(folders: Mapping[str, Path], texts: Sequence[Path] = ()) -> str:
    """A hash of the content of image folders and text files, wherever they are.

    It covers the names of the class folders, the relative path and the size of every image, the
    texts, and the bytes of up to `CONTENTS` images, spread evenly. In a small folder these are all
    images. In a large one other bytes can go unseen only if every single size stays the same, which
    compressed images hardly ever do.

    Args:
        folders: role (`train`, `test`) -> folder.
        texts: files that are hashed in full.

    Raises:
        UserError: a file cannot be read.
    """
    total = hashlib.sha256()
    for role, folder in folders.items():
        files = image_files(folder)
        total.update(repr((role, class_folders(folder), files)).encode())
        for i in np.unique(np.linspace(0, len(files) - 1, min(len(files), CONTENTS)).astype(int)):
            total.update(_hash_of(folder / files[i][0]))
    for text in texts:
        total.update(_hash_of(text))
    return total.hexdigest()[:32]


def _hash_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "dataset") from error
