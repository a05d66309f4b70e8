"""The cache of decoded images on disk.

Images are decoded once per node. All processes of the node share them through the page cache: they
open them with `np.load(mmap_mode="r")`, read-only and without a copy.

An entry of the cache is a folder `<hash>/` with `images.npy` (N, C, H, W), `labels.npy` (N,) and
`meta.json`. It is written in full under a temporary name and then renamed, under a file lock.
Processes that ask for the entry meanwhile wait for the lock, and then open what the first has made.
An entry is made again if its files do not have the sizes that `meta.json` recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import ArrayLike

from tasks.parts.settings import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1  # part of every entry's name: raise it when decoding or the files of an entry change
BLOCK = 1024  # images that are decoded before an error in one of them stops the rest
PIECE = 32  # images that a thread decodes before it asks for more

Raw = tuple[ArrayLike | Sequence[Path], ArrayLike, Sequence[str]]
"""What a data set's `read` returns: images or the paths of image files, labels, class names."""

Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
"""Images (N, C, H, W), labels (N,) int64, class names."""

Identity = list[str | int | None]
"""What decides the content of an entry: the format, then what the caller says, then the size."""

Picture = TypeVar("Picture", torch.Tensor, "Image")


def user_cache() -> Path:
    """The user's folder for what can be made again.

    It is `$XDG_CACHE_HOME/inputscape`, or `~/.cache/inputscape`.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inputscape"


def cache_folder() -> Path:
    """The folder of the decoded data sets.

    It is `$INPUTSCAPE_CACHE`, or `decoded/` in the user's cache.
    """
    chosen = os.environ.get("INPUTSCAPE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache() / "decoded"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds a lock that excludes other processes.

    They are those of this node, and those of other nodes that share the folder of the cache.

    Raises:
        UserError: the folder cannot be written.
    """
    held = FileLock(cache_folder() / f"{name}.lock")
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        held.acquire()
    except OSError as error:
        raise _unwritable(error) from error
    try:
        yield
    finally:
        held.release()


def cached(identity: Sequence[str], make: Callable[[], Raw], image_size: int | None = None) -> Arrays:
    """A split of a data set from the cache, decoded into it first if need be.

    Args:
        identity: what decides the content: fingerprint, split.
        make: called only if there is no good entry.
        image_size: side of the square images wanted, in pixels; None keeps the images' own size.

    Raises:
        UserError: the folder of the cache cannot be written, the disk is full, or the data breaks
            the contract.
    """
    decided: Identity = [FORMAT, *identity, image_size]
    key = hashlib.sha256(json.dumps(decided).encode()).hexdigest()[:32]
    entry = cache_folder() / key
    if (found := _opened(entry, decided)) is not None:
        return found
    with locked(key):
        if (found := _opened(entry, decided)) is not None:
            return found  # another process was first
        raw = make()
        try:
            for abandoned in entry.parent.glob(f"{key}.*.tmp"):  # left by a process that was killed
                shutil.rmtree(abandoned, ignore_errors=True)
            temporary = entry.with_name(f"{key}.{os.getpid()}.tmp")
            temporary.mkdir()
            try:
                _write(temporary, decided, raw, image_size)
                # There may be a damaged entry. Processes that have it open keep their pages.
                shutil.rmtree(entry, ignore_errors=True)
                temporary.rename(entry)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise _unwritable(error) from error
        found = _opened(entry, decided)
    assert found is not None
    return found


def in_memory(raw: Raw, image_size: int | None = None) -> Arrays:
    """As `cached`, for a small data set that needs no disk.

    The arrays are checked, resized and read-only.
    """
    pixels, labels, classes = _checked(raw)
    assert isinstance(pixels, np.ndarray), "a data set in memory has arrays of images, not paths"
    images = _fitted(pixels, image_size) if image_size else np.array(pixels)
    images.flags.writeable = False
    return images, labels, classes


def fit(image: Picture, size: int) -> Picture:
    """A PIL image or a tensor (..., H, W) as a square of `size` pixels a side.

    The shorter side is scaled (bilinear, antialiased), and the centre is cropped.
    """
    if isinstance(image, torch.Tensor):
        height, width = image.shape[-2:]
    else:
        width, height = image.size
    if (height, width) == (size, size):
        return image
    from torchvision.transforms import functional  # slow to import, and seldom needed

    return functional.center_crop(functional.resize(image, [size], antialias=True), [size])


def _unwritable(error: OSError) -> UserError:
    return UserError(f"the cache of decoded images {cache_folder()} cannot be written ({error}); set INPUTSCAPE_CACHE")


def _opened(entry: Path, decided: Identity) -> Arrays | None:
    """The content of an entry; None if it is missing, damaged, or of something else."""
    try:
        meta = json.loads((entry / "meta.json").read_text())
        if meta["identity"] != decided or meta["bytes"] != _sizes(entry):
            return None
        images = np.load(entry / "images.npy", mmap_mode="r")
        return images, np.load(entry / "labels.npy"), tuple(meta["classes"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _sizes(entry: Path) -> dict[str, int]:
    return {name: (entry / name).stat().st_size for name in ("images.npy", "labels.npy")}


def _write(folder: Path, decided: Identity, raw: Raw, image_size: int | None) -> None:
    images, labels, classes = _checked(raw)
    if isinstance(images, np.ndarray):
        shape = _fitted(images[:1], image_size).shape[1:]
        out = _mapped(folder / "images.npy", images.dtype, (len(images), *shape))
        for start in range(0, len(images), BLOCK):
            out[start : start + BLOCK] = _fitted(images[start : start + BLOCK], image_size)
    else:
        out = _mapped(folder / "images.npy", np.dtype(np.uint8), (len(images), *_decoded(images[0], image_size).shape))

        def decode(start: int) -> None:
            for i in range(start, min(start + PIECE, len(images))):
                image = _decoded(images[i], image_size)
                if image.shape != out.shape[1:]:
                    (_, h0, w0), (_, h, w) = out.shape[1:], image.shape
                    sizes = f"{images[0]} {w0} x {h0}, {images[i]} {w} x {h}"
                    raise UserError(f"the images differ in size ({sizes}): image_size is needed", "image_size")
                out[i] = image

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(images), BLOCK):  # in blocks, so that an error stops the rest
                deque(pool.map(decode, range(start, min(start + BLOCK, len(images)), PIECE)), maxlen=0)
    out.flush()
    np.save(folder / "labels.npy", labels)
    meta = {"identity": decided, "bytes": _sizes(folder), "classes": classes}
    (folder / "meta.json").write_text(json.dumps(meta))


def _mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """A new array on disk to write into.

    Its room on the disk is taken at once, so that a full disk is an error. Else a later write into
    the map would kill the process.
    """
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return out


def _decoded(path: Path, image_size: int | None) -> np.ndarray:
    from torchvision.datasets.folder import default_loader

    try:
        image = default_loader(str(path))
    except Exception as error:  # for a damaged file Pillow raises OSError, SyntaxError and others
        raise UserError(f"{path} cannot be read as an image: {error}", "dataset") from error
    image = fit(image, image_size) if image_size else image
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)  # (3, H, W)


def _fitted(images: np.ndarray, image_size: int | None) -> np.ndarray:
    if not image_size:
        return images
    fitted = fit(torch.from_numpy(np.array(images)), image_size)
    return fitted.numpy() if fitted.dtype == torch.uint8 else fitted.clamp_(0, 1).numpy()


def _checked(raw: Raw) -> tuple[np.ndarray | list[Path], np.ndarray, tuple[str, ...]]:
    """What `read` returned, held to the contract.

    Returns:
        Images (N, C, H, W) or the paths of image files, labels (N,) int64, class names.
    """
    if not isinstance(raw, tuple | list) or len(raw) != 3:
        raise _broken(f"images, labels and class names must be returned; got {type(raw).__name__}")
    given, labels, classes = raw[0], np.asarray(raw[1]), tuple(raw[2])
    images: np.ndarray | list[Path]
    if isinstance(given, list) and given and isinstance(given[0], str | os.PathLike):
        images = given
    else:
        images = np.asarray(given)
        if images.dtype != np.uint8:
            if not (images.dtype.kind == "f" and images.size and images.min() >= 0 and images.max() <= 1):
                raise _broken(
                    f"images must be uint8, or floats in [0, 1]; got {images.dtype} with values outside or none"
                )
            images = images.astype(np.float32, copy=False)
        if images.ndim != 4:
            raise _broken(f"images must have the shape (N, C, H, W); got {images.shape}")
    if len(images) == 0:
        raise _broken("no images")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise _broken(f"labels must be {len(images)} integers, one an image; got {labels.dtype} {labels.shape}")
    if len(set(classes)) != len(classes) or not all(isinstance(name, str) for name in classes):
        raise _broken("class names must be different strings")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise _broken(f"labels must lie in 0..{len(classes) - 1}, one a class; got {labels.min()}..{labels.max()}")
    return images, labels.astype(np.int64), classes


def _broken(what: str) -> UserError:
    return UserError(f"the data set breaks its contract: {what}", "dataset")
