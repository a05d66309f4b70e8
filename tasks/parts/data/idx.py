"""Data sets in MNIST's idx format (LeCun et al. 1998): where the four files are, packed or not, and what is in them."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tasks.parts.data.downloads import DownloadError, download, missing, unreachable
from tasks.parts.settings import UserError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
Crcs = tuple[tuple[int, int], ...]  # (CRC-32, bytes) of the unpacked FILES


def folder(name: str, dataset: Any, root: Path) -> Path | None:
    """The folder that holds all four files, each as it is or as `.gz`; None if there is none.

    Args:
        name: the data set's name.
        dataset: torchvision's class for it, which knows the mirrors and the checksums of the packed files.
        root: the data root.
    """
    return next((p for p in _places(name, dataset, root) if all(_present(p / file).is_file() for file in FILES)), None)


def check(name: str, dataset: Any, root: Path) -> None:
    """Raises `UserError` if the files are neither there nor to be had."""
    if folder(name, dataset, root) is None and (reason := unreachable(_urls(dataset))):
        raise _missing(name, dataset, root, reason)


def fingerprint(name: str, dataset: Any, root: Path, originals: Crcs | None = None) -> str:
    """`name` for the original data, which a download would give, too; else `name` and a hash of what is there.

    Data is original if its sizes and CRCs are `originals`, or if it is what packed files with the published MD5 sums
    unpack to.
    """
    place = folder(name, dataset, root)
    if place is None:
        return name
    crcs = tuple(_crc(_present(place / file)) for file in FILES)
    if crcs == originals or _packed_originals(dataset, place, crcs):
        return name
    return f"{name}-{hashlib.sha256(repr(crcs).encode()).hexdigest()[:32]}"


def read(name: str, dataset: Any, split: str, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, H, W) and labels (N,), both uint8; downloaded first if need be."""
    if (place := folder(name, dataset, root)) is None:
        try:
            download(dataset, root, _urls(dataset))
        except DownloadError as error:
            raise _missing(name, dataset, root, str(error)) from error
        place = _places(name, dataset, root)[0]
    images, labels = FILES[:2] if split == "train" else FILES[2:]
    return read_idx(place / images)[:, None], read_idx(place / labels)


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes in the idx file `path` or `path.gz`: zero, zero, type 8, rank, big-endian sizes, the bytes."""
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
    if path.suffix == ".gz":  # what a gzip file's last eight bytes say of its content, and unpacking checks
        crc, size = struct.unpack("<II", content[-8:].rjust(8, b"\0"))
        return crc, size
    return zlib.crc32(content), len(content)


def _present(path: Path) -> Path:
    return path if path.is_file() else path.with_name(path.name + ".gz")


def _packed_originals(dataset: Any, place: Path, crcs: Crcs) -> bool:
    for file, crc in zip(FILES, crcs, strict=True):
        packed = place / f"{file}.gz"
        if not packed.is_file() or _crc(packed) != crc:
            return False
        if hashlib.md5(packed.read_bytes(), usedforsecurity=False).hexdigest() != dict(dataset.resources)[packed.name]:
            return False
    return True


def _places(name: str, dataset: Any, root: Path) -> list[Path]:
    return [root / dataset.__name__ / "raw", root / name / dataset.__name__ / "raw"]


def _urls(dataset: Any) -> list[str]:
    return [f"{mirror}{FILES[0]}.gz" for mirror in dataset.mirrors]


def _missing(name: str, dataset: Any, root: Path, reason: str) -> UserError:
    first, second = _places(name, dataset, root)
    return missing(name, [f"{first}/{{{','.join(FILES)}}}[.gz]", f"the same in {second}/"], reason)
