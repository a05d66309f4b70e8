"""Forward passes in batches whose shape does not depend on how many examples there are.

Kernels may round differently for different batch sizes, and an attack that takes the sign of a gradient makes a visible difference of
it. So the rows of a last, smaller batch are padded: on the CPU to a multiple of 8 (from there on every batch size gives the same bits),
on other devices to the full batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def batch_size(pixels: int, device: torch.device) -> int:
    """A batch size near the fastest for images of so many numbers each (channels times height times width).

    On a CPU the activations of a batch should stay in its caches; a GPU wants as many as fit comfortably.
    """
    if device.type == "cpu":
        return max(16, min(512, 2**15 // pixels // 8 * 8))
    return max(64, min(2048, 2**23 // pixels))


def padded(x: Tensor, batch: int) -> Tensor:
    """`x` (B, ...) with its last row repeated up to the next allowed batch size; `x` itself where none is needed."""
    grain = 8 if x.device.type == "cpu" else batch
    missing = -len(x) % grain
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch: int) -> Tensor:
    """`function(x)` computed batch by batch, without gradients.

    Args:
        function: maps (B, ...) to (B, ...), each row on its own.
        x: (N, ...).
        batch: rows at once.
    """
    with torch.inference_mode():
        pieces = [function(padded(piece, batch))[: len(piece)] for piece in x.split(batch)]
    return torch.cat(pieces)
