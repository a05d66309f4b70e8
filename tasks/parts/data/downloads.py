"""Data sets that torchvision can download, and the batch files of CIFAR.

A download is all or nothing: its files appear when all of them are there and verified.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tasks.parts.data.cache import locked
from tasks.parts.settings import UserError

PATIENCE = 3.0  # seconds that a host has to answer


class Downloadable(Protocol):
    """One of torchvision's classes for data sets that it can download."""

    __name__: str

    def __call__(self, root: str, *, train: bool = ..., download: bool = ...) -> object:
        """Opens the data set in the folder `root` and verifies it, after a download if so asked."""


class CifarData(Protocol):
    """A split of CIFAR as torchvision has read it.

    Attributes:
        data: images (N, 32, 32, 3) uint8.
        targets: the labels.
        classes: the class names.
    """

    data: np.ndarray
    targets: list[int]
    classes: list[str]


class Cifar(Downloadable, Protocol):
    """One of torchvision's classes for CIFAR.

    Attributes:
        base_folder: the folder of the batch files.
        train_list: (name, MD5 sum) of each file of the training split.
        test_list: the same for the test split.
        meta: the file of the class names under `filename`.
        url: of the archive.
    """

    base_folder: str
    train_list: list[list[str]]
    test_list: list[list[str]]
    meta: Mapping[str, str]
    url: str

    def __call__(self, root: str, *, train: bool = ..., download: bool = ...) -> CifarData:
        """As for any of these classes."""


class DownloadError(Exception):
    """A download that failed; its text says why."""


def missing(name: str, expected: Sequence[str], reason: str = "") -> UserError:
    """The error for a data set whose files are not there.

    Args:
        name: of the data set.
        expected: the places where its files may be.
        reason: why they were not downloaded, if that was tried.
    """
    tail = f"; not downloaded: {reason}" if reason else ""
    return UserError(f"{name}: files not found, expected {', or '.join(expected)}{tail}", "dataset")


def unreachable(urls: Sequence[str]) -> str:
    """Why none of the hosts answers; empty if one does.

    Each URL is sent a HEAD request, through the proxies that are set, and has `PATIENCE` seconds.
    """
    answers: dict[str, str] = {}
    settled = threading.Event()

    def ask(url: str) -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
                answers[url] = ""
        except (OSError, ValueError) as error:
            answers[url] = " ".join(str(getattr(error, "reason", error)).split())
        if answers[url] == "" or len(answers) == len(urls):
            settled.set()

    for url in urls:  # in daemon threads: looking up the name of a host has no timeout
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    settled.wait(PATIENCE)
    answered = dict(answers)
    if "" in answered.values():
        return ""
    return ", ".join(f"{url} ({answered.get(url, f'no answer within {PATIENCE:g} s')})" for url in urls)


def download(dataset: Downloadable, root: Path, urls: Sequence[str]) -> None:
    """Downloads a data set, unless another process has done so.

    Args:
        dataset: torchvision's class, which downloads and verifies the files.
        root: where they appear when all are verified.
        urls: one of them must answer.

    Raises:
        DownloadError: no host answers, or the download or a checksum fails. Nothing is left behind.
    """
    with locked(f"download-{hashlib.sha256(f'{root} {dataset.__name__}'.encode()).hexdigest()[:16]}"):
        try:
            dataset(str(root), download=False)
            return  # another process was first
        except (RuntimeError, OSError):
            pass
        if reason := unreachable(urls):
            raise DownloadError(reason)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
                dataset(temporary, download=True)
                for file in sorted(path for path in Path(temporary).rglob("*") if path.is_file()):
                    target = root / file.relative_to(temporary)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, target)
        except (RuntimeError, OSError) as error:
            raise DownloadError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def batches_folder(name: str, dataset: Cifar, root: Path) -> Path | None:
    """`root` or `root/<name>`, the first with all batch files of CIFAR; None if neither is."""
    files = [file for file, _ in dataset.train_list + dataset.test_list] + [dataset.meta["filename"]]
    places = [root, root / name]
    return next((p for p in places if all((p / dataset.base_folder / file).is_file() for file in files)), None)


def batches_missing(name: str, dataset: Cifar, root: Path, also: Sequence[str] = (), reason: str = "") -> UserError:
    """The error for batch files of CIFAR that are not there.

    Args:
        name: of the data set.
        dataset: torchvision's class.
        root: the data root.
        also: places with other files that would do.
        reason: as for `missing`.
    """
    places = [f"{place}/{dataset.base_folder}/" for place in (root, root / name)]
    return missing(name, [*places, *also], reason)


def read_batches(
    name: str, dataset: Cifar, split: str, root: Path, also: Sequence[str] = ()
) -> tuple[np.ndarray, list[int], list[str]]:
    """Images (N, 3, 32, 32) uint8, labels and class names from the batch files of CIFAR.

    They are downloaded first if need be, and torchvision verifies their checksums.

    Args:
        name: of the data set.
        dataset: torchvision's class.
        split: "train" or "test".
        root: the data root.
        also: as for `batches_missing`.

    Raises:
        UserError: the files are missing and cannot be downloaded, or a file is damaged.
    """
    if (place := batches_folder(name, dataset, root)) is None:
        try:
            download(dataset, root, [dataset.url])
        except DownloadError as error:
            raise batches_missing(name, dataset, root, also, str(error)) from error
        place = root
    try:
        read = dataset(str(place), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        folder = place / dataset.base_folder
        raise UserError(f"{name}: {folder} is damaged, a file's checksum is not the original's", "dataset") from error
    return read.data.transpose(0, 3, 1, 2), read.targets, read.classes
