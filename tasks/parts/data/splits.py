"""A split of a data set: choosing examples, dividing it, reading images as tensors.

Images are shared between processes. Every function that returns tensors copies them, so that
whatever a caller does to them never reaches the shared images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike

from tasks.parts.messages import did_you_mean
from tasks.parts.settings import UserError

Integers = Sequence[int] | np.ndarray | torch.Tensor
"""Ids or positions of examples."""


class Selection:
    """Some rows of a shared array.

    It is like `base[rows]`, but only what is asked for is copied, when it is asked for.
    """

    def __init__(self, base: np.ndarray, rows: np.ndarray):
        self.base, self.rows = base, rows
        self.shape, self.dtype, self.ndim = (len(rows), *base.shape[1:]), base.dtype, base.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        return self.base[self.rows[key]]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.base[self.rows], dtype=dtype)


@dataclass(frozen=True, eq=False)
class Split:
    """A split of a data set, or a part of one.

    Attributes:
        images: (N, C, H, W), uint8, or float32 in [0, 1]: a read-only array or a `Selection` of
            one. It is memory-mapped if the data set is on disk. `take` and `gather` give tensors.
        labels: (N,) int64, 0..K-1.
        ids: (N,) int64, increasing: the index of each example in the whole split as the data set
            defines it.
        classes: the K class names.
    """

    images: np.ndarray | Selection
    labels: np.ndarray
    ids: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.images.ndim == 4, self.images.shape
        assert len(self.images) == len(self.labels) == len(self.ids), (
            len(self.images),
            len(self.labels),
            len(self.ids),
        )
        assert (np.diff(self.ids) > 0).all(), "ids must increase"
        for name in ("labels", "ids"):
            array = np.asarray(getattr(self, name), np.int64).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)


def class_indices(known: Sequence[str], wanted: Sequence[str | int], field: str | None = None) -> list[int]:
    """The indices of some classes.

    Args:
        known: the names of all classes.
        wanted: names or indices of some.
        field: the setting that names them, for errors.

    Raises:
        UserError: there is no such class, one is given twice, or none is given.

    >>> class_indices(("cat", "dog", "frog"), ["frog", 0])
    [2, 0]
    """
    wanted = [wanted] if isinstance(wanted, str | int) else list(wanted)
    found: list[int] = []
    for item in wanted:
        if isinstance(item, str) and item in known:
            found.append(known.index(item))
        elif isinstance(item, int | np.integer) and not isinstance(item, bool) and 0 <= item < len(known):
            found.append(int(item))
        else:
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise UserError(
                f"unknown class {item!r}; allowed: {shown}, or an index 0..{len(known) - 1}"
                f"{did_you_mean(str(item), known)}",
                field,
            )
    if not found:
        raise UserError("no class is left: name at least one", field)
    if len(set(found)) != len(found):
        raise UserError(f"the classes {', '.join(map(str, wanted))} name one class twice", field)
    return found


def gather(split: Split, positions: Integers, device: str | torch.device = "cpu") -> torch.Tensor:
    """Images as a new float32 tensor (B, C, H, W) in [0, 1].

    Args:
        split: where they are from.
        positions: their places in the split, 0..N-1, in any order.
        device: of the tensor.
    """
    index = _flat(positions)
    pixels = torch.from_numpy(np.asarray(split.images[index]))  # an index array always copies
    if pixels.dtype == torch.uint8:  # sent to the device as bytes, a quarter of what floats take
        return pixels.to(device).to(torch.float32).div_(255)
    return pixels.to(device)


def take(split: Split, ids: Integers, device: str | torch.device = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, C, H, W) float32 in [0, 1] and labels (B,) int64 of some examples, as new tensors.

    Args:
        split: where they are from.
        ids: of the examples, in any order.
        device: of the tensors.

    Raises:
        UserError: the split has no example of that id.
    """
    positions = _positions(split, _flat(ids))
    return gather(split, positions, device), torch.from_numpy(split.labels[positions]).to(device)


def choose(
    split: Split,
    examples: int | Sequence[int] | None = None,
    classes: Sequence[str | int] | None = None,
    *,
    field: str = "examples",
) -> np.ndarray:
    """The ids of the examples to measure, sorted, (n,) int64.

    A number of examples is taken in equal parts from all classes: the parts differ by at most one
    example as long as no class runs out. Which ones are taken depends only on the ids and labels of
    the split, and a larger number takes the same ones and further ones.

    Args:
        split: where they are chosen.
        examples: their number, or a list of ids; None for all.
        classes: names or indices of the classes to choose from; None for all. Of a list of ids,
            those of other classes are left out.
        field: the setting that `examples` comes from, for errors.

    Raises:
        UserError: there are not as many examples, there is no such id or class, an id is given
            twice, or none of the ids is of these classes.
    """
    kept = np.arange(len(split))
    if classes is not None:
        kept = np.flatnonzero(np.isin(split.labels, class_indices(split.classes, classes, "classes")))
    if examples is None:
        return split.ids[kept]
    if isinstance(examples, int | np.integer):
        if isinstance(examples, bool) or not 1 <= examples <= len(kept):
            raise UserError(f"{examples} examples asked for, there are {len(kept)}", field)
        ids, labels = split.ids[kept], split.labels[kept]
        mixed = _mixed(ids, 0)
        rank = _rank_in_class(labels, mixed)
        return np.sort(ids[np.lexsort((mixed, rank))[:examples]])
    given = np.asarray(examples)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
        raise UserError(f"examples must be a number or a list of ids, got {examples!r}", field)
    ids, counts = np.unique(given.astype(np.int64), return_counts=True)
    if (counts > 1).any():
        raise UserError(f"the id {ids[counts > 1][0]} is given more than once", field)
    positions = _positions(split, ids, field)
    ids = ids[np.isin(positions, kept)]
    if ids.size == 0:
        raise UserError("none of the ids is of the classes asked for", field)
    return ids


def subset(split: Split, ids: Integers) -> Split:
    """The examples with these ids as a new split.

    Ids, labels and classes stay. Images are not copied.
    """
    return _part(split, _positions(split, np.unique(np.asarray(ids, np.int64))))


def divide(split: Split, fraction: float, seed: int = 0) -> tuple[Split, Split]:
    """A split in two parts: (train, validation).

    Which examples go to validation depends only on the ids and labels of the split, on `fraction`
    and on `seed`. Ids and labels stay. Images are not copied.

    Args:
        split: to be divided.
        fraction: the part of every class that goes to validation, to within one example.
        seed: of the random choice.

    Raises:
        UserError: the fraction is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise UserError(f"the fraction for validation must lie in [0, 1], got {fraction}", "validation")
    if fraction == 0:
        return split, _part(split, np.empty(0, np.int64))
    sizes = np.bincount(split.labels, minlength=len(split.classes))
    upto = np.floor(np.cumsum(sizes) * fraction + 0.5).astype(np.int64)  # the total stays right
    quota = np.diff(upto, prepend=0)  # (K,)
    chosen = _rank_in_class(split.labels, _mixed(split.ids, 1 + seed)) < quota[split.labels]
    return _part(split, np.flatnonzero(~chosen)), _part(split, np.flatnonzero(chosen))


def statistics(split: Split, limit: int = 10_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each channel, in units of [0, 1].

    They are taken over at most `limit` images, spread evenly over the split: a folder of images is
    sorted by class, so its first images are not like the others.

    Raises:
        UserError: the split has no examples.
    """
    if len(split) == 0:
        raise UserError("no statistics: the split has no examples")
    count = min(limit, len(split))
    positions = np.arange(count) * len(split) // count
    sums = np.zeros((2, split.shape[0]))
    for block in np.array_split(positions, -(-count // 1000)):
        pixels = np.asarray(split.images[block]).astype(np.float64)  # (B, C, H, W)
        sums += pixels.sum(axis=(0, 2, 3)), np.square(pixels).sum(axis=(0, 2, 3))
    mean, square = sums / (count * split.shape[1] * split.shape[2])
    scale = 255 if split.images.dtype == np.uint8 else 1
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple((mean / scale).tolist()), tuple((std / scale).tolist())


def _part(split: Split, positions: np.ndarray) -> Split:
    images = split.images
    chosen = (
        Selection(images.base, images.rows[positions])
        if isinstance(images, Selection)
        else Selection(images, positions)
    )
    return Split(chosen, split.labels[positions], split.ids[positions], split.classes)


def _flat(numbers: Integers) -> np.ndarray:
    """As an array (B,) int64."""
    return np.asarray(numbers.cpu() if isinstance(numbers, torch.Tensor) else numbers, np.int64).reshape(-1)


def _positions(split: Split, ids: np.ndarray, field: str = "examples") -> np.ndarray:
    found = np.searchsorted(split.ids, ids)
    known = found < len(split)
    known[known] = split.ids[found[known]] == ids[known]
    if not known.all():
        span = f"{split.ids[0]}..{split.ids[-1]}" if len(split) else "none"
        raise UserError(f"unknown example id {ids[~known][0]}; this split has {len(split)} ids in {span}", field)
    return found


def _mixed(ids: np.ndarray, seed: int) -> np.ndarray:
    """A random-looking uint64 for each id; different ids have different ones.

    They are the output of SplitMix64 (Steele, Lea and Flood 2014).
    """
    z = ids.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _rank_in_class(labels: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The place of each example (0, 1, ...) among those of its class, in the order of `key`."""
    order = np.lexsort((key, labels))
    ordered = labels[order]
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return rank
