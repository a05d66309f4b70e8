"""Forward passes in batches whose shape does not depend on how many examples there are.

Kernels may round differently for different batch sizes, and an attack that takes the sign of a
gradient makes a visible difference of it. So the last, smaller batch is padded: on the CPU to a
multiple of `grain` rows, on other devices to the full batch.
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
"""Numbers of rows that are tried as the grain; each suits the kernels of some processors."""
LAYERS = ((25, 4), (64, 10), (256, 10), (784, 10), (3072, 10))
"""Inputs and outputs of the linear layers on which they are tried."""
LARGEST = 512
"""The largest batch on which they are tried."""


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
    """A batch size near the fastest, for images of so many numbers (channels * height * width).

    On a CPU the activations of a batch should stay in its caches. A GPU wants as many images as fit
    comfortably.
    """
    if device.type == "cpu":
        return max(16, min(512, 2**15 // pixels // 8 * 8))
    return max(64, min(2048, 2**23 // pixels))


@lru_cache
def grain(threads: int) -> int:
    """The number of rows whose multiples are good batch sizes on this processor.

    It is the least number such that in batches of all its multiples a product of matrices gives
    each row the same bits. It depends on the processor: 8 or 16 where kernels use 512 bits, 24 with
    AVX2. It is found by trial, in a tenth of a second. Convolutions go through their images one by
    one and need no padding; very wide layers may still differ in the last bit.

    Args:
        threads: how many threads torch uses, since they divide the rows among themselves.
    """
    return next((rows for rows in GRAINS if all(_same_bits(rows, *layer) for layer in LAYERS)), GRAINS[-1])


def _same_bits(rows: int, inputs: int, outputs: int) -> bool:
    """Whether a linear layer gives each row the same bits in batches of all multiples of `rows`.

    Tried are the forward and the backward pass.
    """
    sizes = range(rows, LARGEST + 1, rows)
    with torch.no_grad():
        x = torch.arange(sizes[-1] * inputs, dtype=torch.float32).sin_().reshape(-1, inputs)
        weights = torch.arange(outputs * inputs, dtype=torch.float32).cos_().reshape(outputs, inputs)
        products = [(x[:size] @ weights.T, x[:size, :outputs] @ weights) for size in sizes]
    return all(
        torch.equal(fewer, more[: len(fewer)])
        for few, many in pairwise(products)
        for fewer, more in zip(few, many, strict=True)
    )


def padded(x: Tensor, batch: int) -> Tensor:
    """`x` (B, ...) with its last row repeated up to the next allowed batch size."""
    missing = -len(x) % (grain(torch.get_num_threads()) if x.device.type == "cpu" else batch)
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch: int) -> Tensor:
    """`function(x)` computed batch by batch, without gradients.

    Args:
        function: maps (B, ...) to (B, ...), each row on its own.
        x: (N, ...).
        batch: number of rows in a batch.

    Raises:
        NotFinite: the result has NaN or infinity.
    """
    with torch.inference_mode():
        pieces = [function(padded(piece, batch))[: len(piece)] for piece in x.split(batch)]
    return checked(torch.cat(pieces))
