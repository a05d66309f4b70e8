"""Forward passes in batches whose shape does not depend on how many examples there are.

Kernels may round differently for different batch sizes, and an attack that takes the sign of a gradient makes a visible difference of
it. So the rows of a last, smaller batch are padded: on the CPU to a multiple of `grain`, on other devices to the full batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from tasks.parts.finite import checked

GRAINS = (8, 16, 24, 48)
"""Numbers of rows that are tried as the grain: what the kernels of different processors take together, and what suits several of them."""
LAYERS = ((25, 4), (64, 10), (256, 10), (784, 10), (3072, 10))
"""Inputs and outputs of the linear layers that they are tried on."""
LARGEST = 512
"""The largest batch that they are tried on."""


@dataclass(frozen=True)
class Batch:
    """Examples to measure: ids (B,) in their split, images (B, C, H, W) in [0, 1], labels (B,)."""

    ids: Sequence[int]
    images: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor) -> Batch:
        """Some of the examples, by their rows (b,)."""
        return Batch([self.ids[row] for row in rows.tolist()], self.images[rows], self.labels[rows])


def batch_size(pixels: int, device: torch.device) -> int:
    """A batch size near the fastest for images of so many numbers each (channels times height times width).

    On a CPU the activations of a batch should stay in its caches; a GPU wants as many as fit comfortably.
    """
    if device.type == "cpu":
        return max(16, min(512, 2**15 // pixels // 8 * 8))
    return max(64, min(2048, 2**23 // pixels))


@lru_cache
def grain(threads: int) -> int:
    """The least number of rows such that every multiple of it gives each row the same bits in a product of matrices, on this processor.

    That depends on the processor: where kernels for 512 bits work, 8 or 16 rows, with AVX2 24. It is tried out, in a tenth of a second.
    Convolutions go through their images one by one and need nothing of it; very wide layers may still differ in the last bit.

    Args:
        threads: that torch works with, since threads share the rows out.
    """
    return next((rows for rows in GRAINS if all(_same_bits(rows, *layer) for layer in LAYERS)), GRAINS[-1])


def _same_bits(rows: int, inputs: int, outputs: int) -> bool:
    """Whether a linear layer, forwards and backwards, gives each row the same bits in batches of all multiples of so many rows."""
    sizes = range(rows, LARGEST + 1, rows)
    with torch.no_grad():
        x = torch.arange(sizes[-1] * inputs, dtype=torch.float32).sin_().reshape(-1, inputs)
        weights = torch.arange(outputs * inputs, dtype=torch.float32).cos_().reshape(outputs, inputs)
        there = [(x[:size] @ weights.T, x[:size, :outputs] @ weights) for size in sizes]
    return all(
        torch.equal(fewer, more[: len(fewer)])
        for few, many in pairwise(there)
        for fewer, more in zip(few, many, strict=True)
    )


def padded(x: Tensor, batch: int) -> Tensor:
    """`x` (B, ...) with its last row repeated up to the next allowed batch size; `x` itself where none is needed."""
    missing = -len(x) % (grain(torch.get_num_threads()) if x.device.type == "cpu" else batch)
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch: int) -> Tensor:
    """`function(x)` computed batch by batch, without gradients.

    Args:
        function: maps (B, ...) to (B, ...), each row on its own.
        x: (N, ...).
        batch: rows at once.

    Raises:
        NotFinite: a number that comes out is NaN or infinite.
    """
    with torch.inference_mode():
        pieces = [function(padded(piece, batch))[: len(piece)] for piece in x.split(batch)]
    return checked(torch.cat(pieces))
