"""Random numbers keyed by what they are for, never by the order in which they are drawn.

The generator is based on a counter (Philox 4x64-10: Salmon, Moraes, Dror and Shaw 2011, "Parallel
random numbers: as easy as 1, 2, 3"), which is set from (seed, purpose, example id, block). So one
worker or fifty, in chunks of 7 or 500, draw the same numbers for the same example. All drawing is
done on the CPU: the numbers are the same for every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

BLOCK = 32
"""Replicates drawn at once; replicate r of an example is row r % BLOCK of its block r // BLOCK."""


def generator(seed: int, purpose: str, first: int = 0, second: int = 0) -> np.random.Generator:
    """A generator decided by its arguments alone.

    Args:
        seed: the user's seed, >= 0.
        purpose: what the numbers are for; two purposes never share numbers.
        first: a further key in 0 .. 2**64 - 1, such as an example's id.
        second: another, such as a block of replicates.

    >>> float(generator(0, "noise", 3).random()) == float(generator(0, "noise", 3).random())
    True
    """
    purpose_key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    key = np.array([seed, purpose_key], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, second, first], dtype=np.uint64)))


def normal(seed: int, purpose: str, ids: Sequence[int], shape: Sequence[int], block: int = 0) -> torch.Tensor:
    """Standard normal numbers, one independent draw of `shape` for each id.

    Returns:
        float32 tensor (len(ids), *shape) on the CPU.
    """
    drawn = np.empty((len(ids), *shape), dtype=np.float32)
    for row, example in enumerate(ids):
        generator(seed, purpose, int(example), block).standard_normal(out=drawn[row, ...], dtype=np.float32)
    return torch.from_numpy(drawn)


def uniform(seed: int, purpose: str, ids: Sequence[int], shape: Sequence[int], block: int = 0) -> torch.Tensor:
    """Numbers uniform in [0, 1), one independent draw of `shape` for each id.

    Returns:
        float32 tensor (len(ids), *shape) on the CPU.
    """
    drawn = np.empty((len(ids), *shape), dtype=np.float32)
    for row, example in enumerate(ids):
        generator(seed, purpose, int(example), block).random(out=drawn[row, ...], dtype=np.float32)
    return torch.from_numpy(drawn)


def torch_generator(seed: int, purpose: str, first: int = 0, second: int = 0) -> torch.Generator:
    """A torch CPU generator decided by its arguments alone, for torch's own drawing functions."""
    draw = generator(seed, purpose, first, second).integers(0, 2**63, dtype=np.int64)
    return torch.Generator().manual_seed(int(draw))
