"""Data sets that torchvision can download: does the host answer, the download (all or nothing), and CIFAR's batches."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.parts.data.cache import locked
from tasks.parts.settings import UserError

PATIENCE = 3.0  # seconds that a host has to answer


class DownloadError(Exception):
    """A download that did not succeed; its text says why."""


def missing(name: str, expected: Sequence[str], reason: str = "") -> UserError:
    """The one line for a data set whose files are not there."""
    tail = f"; not downloaded: {reason}" if reason else ""
    return UserError(f"{name}: files not found, expected {', or '.join(expected)}{tail}", "dataset")


def unreachable(urls: Sequence[str]) -> str:
    """Why no URL answers a HEAD request (through proxies that are set) within `PATIENCE` seconds; "" if one does."""
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

    for url in urls:  # daemons: a look-up of the host's name has no timeout of its own
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    settled.wait(PATIENCE)
    told = dict(answers)
    if "" in told.values():
        return ""
    return ", ".join(f"{url} ({told.get(url, f'no answer within {PATIENCE:g} s')})" for url in urls)


def download(dataset: Any, root: Path, urls: Sequence[str]) -> None:
    """Has torchvision's `dataset` (a class) download itself; its files appear in `root` when all are verified.

    Raises:
        DownloadError: if no host answers, or the download or its checksum fails. Nothing is left behind.
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


def batches_folder(name: str, dataset: Any, root: Path) -> Path | None:
    """`root` or `root/<name>`, the first that holds all of CIFAR's batch files; None if neither does."""
    files = [file for file, _ in dataset.train_list + dataset.test_list] + [dataset.meta["filename"]]
    places = [root, root / name]
    return next((p for p in places if all((p / dataset.base_folder / file).is_file() for file in files)), None)


def batches_missing(name: str, dataset: Any, root: Path, also: Sequence[str] = (), reason: str = "") -> UserError:
    """The line for CIFAR batches that are not there; `also` names other layouts that would do."""
    places = [f"{place}/{dataset.base_folder}/" for place in (root, root / name)]
    return missing(name, [*places, *also], reason)


def read_batches(
    name: str, dataset: Any, split: str, root: Path, also: Sequence[str] = ()
) -> tuple[np.ndarray, list[int], list[str]]:
    """Images (N, 3, 32, 32) uint8, labels and class names from CIFAR's batches; torchvision verifies checksums."""
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
