"""Standard image augmentation over a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """A crop of the images' own size from each image padded by `padding` pixels of zero, (B, C, H,
    W); a CPU generator.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, count), generator=generator).to(images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)  # (B, W)
    padded = torch.nn.functional.pad(images, [padding] * 4).permute(0, 2, 3, 1)  # (B, H + 2p, W + 2p, C)
    example = torch.arange(count, device=images.device)[:, None, None]
    return padded[example, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2; a CPU generator."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
