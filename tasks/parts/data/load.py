"""Data sets by name: loading a split, identifying and checking a data set.

The data sets themselves are in `datasets/`. On disk and in memory images stay uint8 or float32, as
they were read, and the processes of a node share them. As tensors they are in [0, 1]. The functions
that work on a split are in `tasks.parts.data.splits`, and can be imported from here.

>>> train = load("digits", "train")
>>> train.shape, len(train), train.classes[:3]
((1, 8, 8), 1297, ('0', '1', '2'))
>>> ids = choose(train, 20)
>>> images, labels = take(train, ids)
>>> images.shape, labels.bincount().tolist()
(torch.Size([20, 1, 8, 8]), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.parts.data.cache import Raw, cached, in_memory, user_cache
from tasks.parts.data.splits import (
    Selection,
    Split,
    choose,
    class_indices,
    divide,
    gather,
    statistics,
    subset,
    take,
)
from tasks.parts.members import Members
from tasks.parts.messages import did_you_mean
from tasks.parts.settings import UserError
from tasks.parts.user_code import function_of, source_hash

__all__ = [
    "Selection",
    "Split",
    "check",
    "choose",
    "class_indices",
    "default_root",
    "divide",
    "fingerprint",
    "gather",
    "load",
    "names",
    "statistics",
    "subset",
    "take",
]

SPLITS = ("train", "test")
DATASETS = Members(
    "tasks.parts.data.datasets", "data set", ("read", "fingerprint", "check"), "tasks/parts/data/datasets/__init__.py"
)


class DataSet(NamedTuple):
    """The three functions of a data set, and what to call them with.

    Attributes:
        read: the three functions are described in `tasks.parts.data.datasets`.
        fingerprint: the second.
        check: the third.
        root: the folder to call them with.
        embedded: whether the data needs no files.
        here: what tells decoded copies on this node apart, beside the fingerprint.
    """

    read: Callable[[str, Path], Raw]
    fingerprint: Callable[[Path], str]
    check: Callable[[Path], None]
    root: Path
    embedded: bool = False
    here: str = ""


def default_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The absolute path of the data root.

    It is the argument; without one `$INPUTSCAPE_DATA`; without that the user's cache,
    `~/.cache/inputscape`.
    """
    chosen = root or os.environ.get("INPUTSCAPE_DATA")
    return Path(os.path.abspath(Path(chosen).expanduser())) if chosen else user_cache()


def names() -> tuple[str, ...]:
    """The data sets that have a file in `datasets/`, sorted."""
    return DATASETS.names()


def is_own_code(name: str) -> bool:
    """Whether a data set is read by the user's own code."""
    return ":" in name and name.partition(":")[0] not in names()


def load(
    name: str,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    classes: Sequence[str | int] | None = None,
) -> Split:
    """A split of a data set, decoded once per node and shared by its processes.

    Args:
        name: that of a file in `datasets/`, where `:<folder>` may follow for a folder of its own,
            absolute or below the root (`imagefolder:<folder>`). Or `package.module:function`.
        split: "train" or "test".
        root: the data root, see `default_root`.
        image_size: the images become squares of this side in pixels: the shorter side is scaled
            (bilinear, antialiased) and the centre is cropped. Folders of images that differ in size
            need it.
        classes: names or indices of the classes to keep. Labels are numbered in this order; ids
            stay.

    Raises:
        UserError: there is no such data set or class, files are missing or damaged, or the cache
            cannot be written.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; allowed: train, test", "split")
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size must be at least 1 pixel, got {image_size}", "image_size")
    whole = _load(name, split, default_root(root), image_size)
    if classes is None:
        return whole
    wanted = class_indices(whole.classes, classes, "classes")
    number = np.full(len(whole.classes), -1, np.int64)
    number[wanted] = np.arange(len(wanted))
    part = subset(whole, whole.ids[number[whole.labels] >= 0])
    return Split(part.images, number[part.labels], part.ids, tuple(whole.classes[k] for k in wanted))


@lru_cache(maxsize=16)
def _load(name: str, split: str, root: Path, image_size: int | None) -> Split:
    data = _find(name, root)
    identity = fingerprint(name, root=root)

    def read() -> Raw:
        raw = data.read(split, data.root)
        if data.fingerprint(data.root) != identity:
            raise UserError(f"{name} changed while this process was running: start again", "dataset")
        return raw

    if data.embedded:
        images, labels, classes = in_memory(read(), image_size)
    else:
        images, labels, classes = cached([identity, data.here, split], read, image_size)
    return Split(images, labels, np.arange(len(labels)), classes)


def fingerprint(name: str, *, root: str | os.PathLike[str] | None = None) -> str:
    """A text that identifies the content of a data set.

    It does not depend on where the root is mounted, and nothing is decoded for it. A process asks
    each data set once.

    For data sets that are embedded or verified by checksum it is a constant. For folders it has a
    hash of relative paths, sizes and bytes (see `tasks.parts.data.folders.digest`). For
    `package.module:function` it is the name and a hash of the module's source.

    Args:
        name: as for `load`.
        root: as for `load`.

    Raises:
        UserError: there is no such data set, or its files are missing.
    """
    return _fingerprint(name, default_root(root))


@lru_cache(maxsize=64)
def _fingerprint(name: str, root: Path) -> str:
    data = _find(name, root)
    return data.fingerprint(data.root)


def check(name: str, *, root: str | os.PathLike[str] | None = None) -> None:
    """Finds out whether a data set can be loaded.

    Nothing is written and nothing is downloaded. If files are missing, their host is asked whether
    it is there, and has three seconds to answer.

    Args:
        name: as for `load`.
        root: as for `load`.

    Raises:
        UserError: there is no such data set, or its files are missing and no host answers.
    """
    data = _find(name, default_root(root))
    data.check(data.root)


def _find(name: str, root: Path) -> DataSet:
    known = names()
    stem, colon, rest = name.partition(":")
    if stem in known and (rest or not colon):
        module = DATASETS.module(stem)
        place = Path(os.path.abspath(root / Path(rest).expanduser())) if colon else root
        return DataSet(module.read, module.fingerprint, module.check, place, getattr(module, "EMBEDDED", False))
    if not rest or not _is_module(stem):
        plain = ", ".join(one for one in known if one != "imagefolder")
        forms = f"{plain}, imagefolder:<folder> or package.module:function"
        raise UserError(f"unknown data set {name!r}; allowed: {forms}{did_you_mean(stem, known)}", "dataset")

    def check_function(_: Path) -> None:
        _function(name)

    return DataSet(
        read=lambda split, place: _function(name)(split, place),
        fingerprint=lambda _: f"{name}-{source_hash(stem)}",
        check=check_function,
        root=root,
        here=str(root),  # the function may read files there, of which its source says nothing
    )


def _is_module(name: str) -> bool:
    """Whether there is a Python file or a compiled module of that name.

    The packages that it lies in are imported.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return False
    except Exception as error:
        raise UserError(f"{name} cannot be imported: {type(error).__name__}: {error}", "dataset") from error
    return spec is not None and os.path.isfile(spec.origin or "")


def _function(name: str) -> Callable[[str, Path], Raw]:
    """The user's own function that reads a data set."""
    try:
        return function_of(name)
    except UserError as error:
        raise error.below("dataset") from None
