"""Tiny ImageNet: 3 x 64 x 64 pixels, 200 classes, 100,000 + 10,000 images.

It is a part of ImageNet (Russakovsky et al. 2015), made for Stanford's CS231n in 2015. It is never
downloaded. It is read from `tiny-imagenet-200/` in the data root, or from the data root itself,
with the files of the original archive: `wnids.txt`, `words.txt`, `train/<wnid>/images/*.JPEG`,
`val/images/*.JPEG`, `val/val_annotations.txt`.

The labelled validation images are the test split, in the order of their annotations. Classes are in
the order of `wnids.txt` and have the name of the first synonym in `words.txt`. If two classes have
the same name, the wnid is added.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from tasks.parts.data.downloads import missing
from tasks.parts.data.folders import digest, labelled_files
from tasks.parts.settings import UserError

FILES = ("wnids.txt", "words.txt", "train", "val/images", "val/val_annotations.txt")


def read(split: str, root: Path) -> tuple[list[Path], np.ndarray, list[str]]:
    """The paths of the images."""
    folder = _folder(root)
    wnids = (folder / "wnids.txt").read_text().split()
    if split == "train":
        return *labelled_files(folder / "train", wnids), _names(folder, wnids)
    number = {wnid: k for k, wnid in enumerate(wnids)}
    annotations = folder / "val" / "val_annotations.txt"
    lines = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line.strip()]
    if wrong := next((line for line in lines if len(line) < 2 or line[1] not in number), None):
        raise UserError(f"{annotations} has a line with no class of wnids.txt: {' '.join(wrong)}", "dataset")
    paths = [folder / "val" / "images" / name for name, _ in lines]
    return paths, np.array([number[wnid] for _, wnid in lines]), _names(folder, wnids)


def fingerprint(root: Path) -> str:
    """A hash of the files."""
    folder = _folder(root)
    texts = [folder / name for name in FILES if name.endswith(".txt")]
    return f"tiny_imagenet-{digest({'train': folder / 'train', 'test': folder / 'val'}, texts)}"


def check(root: Path) -> None:
    """There are all files and folders of the archive."""
    _folder(root)


def _folder(root: Path) -> Path:
    places = (root / "tiny-imagenet-200", root)
    found = next((place for place in places if all((place / name).exists() for name in FILES)), None)
    if found is None:
        raise missing("tiny_imagenet", [f"{place}/{{{','.join(FILES)}}}" for place in places])
    return found


def _names(folder: Path, wnids: list[str]) -> list[str]:
    """The names of the classes, from lines like `n02124075<tab>Egyptian cat, puss`.

    A class without such a line has its wnid for a name.
    """
    lines = (line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines() if "\t" in line)
    words = {wnid: synonyms.split(",")[0].strip() for wnid, synonyms in lines}
    names = [words.get(wnid, wnid) for wnid in wnids]
    often = Counter(names)
    return [name if often[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True)]
