"""Data sets in the idx format of MNIST (LeCun et al. 1998).

There are four files, `FILES`, each as it is or packed as `.gz`.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tasks.parts.data.downloads import Downloadable, DownloadError, download, missing, unreachable
from tasks.parts.settings import UserError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

Crcs = tuple[tuple[int, int], ...]
"""The CRC-32 and the size in bytes of each of the unpacked `FILES`."""


class Mnist(Downloadable, Protocol):
    """One of torchvision's classes for data in this format.

    Attributes:
        mirrors: URLs of the folders to download from.
        resources: (name, MD5 sum) of each packed file.
    """

    mirrors: Sequence[str]
    resources: Sequence[tuple[str, str]]


def folder(name: str, dataset: Mnist, root: Path) -> Path | None:
    """The folder that holds all four files; None if there is none.

    Args:
        name: of the data set.
        dataset: torchvision's class.
        root: the data root.
    """
    return next((p for p in _places(name, dataset, root) if all(_present(p / file).is_file() for file in FILES)), None)


def check(name: str, dataset: Mnist, root: Path) -> None:
    """Finds out whether the files are there or can be downloaded.

    Args:
        name: of the data set.
        dataset: torchvision's class.
        root: the data root.

    Raises:
        UserError: the files are missing and no host answers.
    """
    if folder(name, dataset, root) is None and (reason := unreachable(_urls(dataset))):
        raise _missing(name, dataset, root, reason)


def fingerprint(name: str, dataset: Mnist, root: Path, originals: Crcs | None = None) -> str:
    """A text that identifies the data: its name, with a hash if it is not the original data.

    Data is original if it has the sizes and CRCs of `originals`, or if the packed files beside it
    have the published MD5 sums and unpack to it. Data that is not there counts as original, for it
    would be downloaded.

    Args:
        name: of the data set.
        dataset: torchvision's class.
        root: the data root.
        originals: of the original files; None if they are not known.
    """
    place = folder(name, dataset, root)
    if place is None:
        return name
    crcs = tuple(_crc(_present(place / file)) for file in FILES)
    if crcs == originals or _packed_originals(dataset, place, crcs):
        return name
    return f"{name}-{hashlib.sha256(repr(crcs).encode()).hexdigest()[:32]}"


def read(name: str, dataset: Mnist, split: str, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, H, W) and labels (N,), both uint8, downloaded first if need be.

    Args:
        name: of the data set.
        dataset: torchvision's class.
        split: "train" or "test".
        root: the data root.

    Raises:
        UserError: the files are missing and cannot be downloaded, or one is damaged.
    """
    if (place := folder(name, dataset, root)) is None:
        try:
            download(dataset, root, _urls(dataset))
        except DownloadError as error:
            raise _missing(name, dataset, root, str(error)) from error
        place = _places(name, dataset, root)[0]
    images, labels = FILES[:2] if split == "train" else FILES[2:]
    return read_idx(place / images)[:, None], read_idx(place / labels)


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an idx file, or in the same file packed as `.gz`.

    The file has two zero bytes, the type (8), the number of axes, the sizes as big-endian numbers
    of four bytes, then the array.

    Raises:
        UserError: the file is damaged.
    """
    path = _present(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, rank = struct.unpack(">HBB", content[:4])
        if (zeros, kind) != (0, 8):
            raise ValueError("not an idx file of unsigned bytes")
        shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}", "dataset") from error


def _crc(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    if path.suffix == ".gz":  # the last eight bytes hold both, and unpacking checks them
        crc, size = struct.unpack("<II", content[-8:].rjust(8, b"\0"))
        return crc, size
    return zlib.crc32(content), len(content)


def _present(path: Path) -> Path:
    return path if path.is_file() else path.with_name(path.name + ".gz")


def _packed_originals(dataset: Mnist, place: Path, crcs: Crcs) -> bool:
    for file, crc in zip(FILES, crcs, strict=True):
        packed = place / f"{file}.gz"
        if not packed.is_file() or _crc(packed) != crc:
            return False
        if hashlib.md5(packed.read_bytes(), usedforsecurity=False).hexdigest() != dict(dataset.resources)[packed.name]:
            return False
    return True


def _places(name: str, dataset: Mnist, root: Path) -> list[Path]:
    return [root / dataset.__name__ / "raw", root / name / dataset.__name__ / "raw"]


def _urls(dataset: Mnist) -> list[str]:
    return [f"{mirror}{FILES[0]}.gz" for mirror in dataset.mirrors]


def _missing(name: str, dataset: Mnist, root: Path, reason: str) -> UserError:
    first, second = _places(name, dataset, root)
    return missing(name, [f"{first}/{{{','.join(FILES)}}}[.gz]", f"the same in {second}/"], reason)
