"""The small networks and images that attacks are checked on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tasks.parts.geometry.balls import Norm

IDS = (3, 14, 15, 92, 65, 35, 89, 79, 32, 38)
"""The ids of the ten images."""


class Meter:
    """A network that counts its forward and backward passes."""

    def __init__(self, model: Callable[[Tensor], Tensor]):
        self.model, self.forwards, self.backwards = model, 0, 0

    def __call__(self, x: Tensor) -> Tensor:
        """The logits of the network; a backward pass through them is counted too."""
        self.forwards += 1
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._back)
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backwards += 1


def smooth(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Images (B, 1, 4, 4) to four logits, without kinks, in evaluation mode."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).requires_grad_(False)
    for number, p in enumerate(model.parameters()):
        draw = torch.Generator().manual_seed(number)
        p.copy_(torch.randn(p.shape, generator=draw) * (0.5 if p.ndim == 2 else 0.1))
    return model.to(dtype).eval()


def contrasted(dtype: torch.dtype = torch.float32) -> Tensor:
    """Ten images (10, 1, 4, 4); of half of them most pixels are black or white."""
    drawn = torch.rand((len(IDS), 1, 4, 4), generator=torch.Generator().manual_seed(0))
    contrast = torch.where(torch.arange(len(IDS)) % 2 == 0, 1.0, 8.0).reshape(-1, 1, 1, 1)
    return (0.5 + contrast * (drawn - 0.5)).clamp(0, 1).to(dtype)


def walled() -> tuple[nn.Module, Tensor, Tensor, dict[Norm, float]]:
    """A linear model, an image, its label, and how far the boundary is by norm.

    Every second pixel is white and would have to rise.
    """
    weight, gap = torch.linspace(0.5, 2, 16), 0.6
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False).eval()
    image = torch.full((1, 1, 4, 4), 0.3)
    image.view(1, 16)[:, 1::2] = 1.0
    pair = torch.stack([-weight, weight])
    parameters = list(model.parameters())
    parameters[0].copy_(pair)
    parameters[1].copy_(torch.tensor([gap, -gap]) - pair @ image.flatten())
    free = weight[::2]
    distances: dict[Norm, float] = {
        "Linf": float(gap / free.sum()),
        "L2": float(gap / free.norm()),
        "L1": float(gap / free.max()),
        "L0": 1.0,
    }
    return model, image, torch.tensor([0]), distances
