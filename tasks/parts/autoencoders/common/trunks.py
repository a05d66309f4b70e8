"""The networks before and behind a code.

A multilayer perceptron, or convolutions where the representation has positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from tasks.parts.settings import Settings

SMALLEST = 4
"""Positions along a side down to which a convolutional trunk halves them."""
WIDEST = 256
"""Channels up to which they double with each halving."""


class Trunk(Settings):
    """The size of the networks before and behind a code."""

    width: int | None = Field(
        default=None,
        ge=1,
        description="units of a hidden layer, or channels before the first halving; 256 or 16 where null",
    )
    depth: int = Field(
        default=1, ge=0, description="hidden layers, or residual blocks between two halvings; 0: linear maps"
    )


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))); at first nothing is added."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape as x (B, C, H, W)."""
        return x + self.second(self.first(x.relu()).relu())


def encoder(shape: Sequence[int], outputs: int, trunk: Trunk) -> nn.Module:
    """Representations (B, *shape) to (B, outputs).

    >>> import torch
    >>> encoder((3, 32, 32), 16, Trunk())(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 16])
    """
    features = math.prod(shape)
    if trunk.depth == 0:
        return nn.Sequential(nn.Flatten(), nn.Linear(features, outputs))
    if not _has_positions(shape):
        width = trunk.width or 256
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(trunk.depth):
            layers += [nn.Linear(features, width), nn.ReLU()]
            features = width
        return nn.Sequential(*layers, nn.Linear(features, outputs))
    sizes, channels = _levels(shape, trunk)
    layers = [nn.Conv2d(shape[0], channels[0], 3, padding=1)]
    for before, after in pairwise(channels):
        layers += [Residual(before) for _ in range(trunk.depth)]
        layers += [nn.ReLU(), nn.Conv2d(before, after, 3, stride=2, padding=1)]
    layers += [Residual(channels[-1]) for _ in range(trunk.depth)]
    height, width = sizes[-1]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(channels[-1] * height * width, outputs))


def decoder(inputs: int, shape: Sequence[int], trunk: Trunk) -> nn.Module:
    """Codes (B, inputs) to representations (B, *shape): the encoder's way back.

    >>> import torch
    >>> decoder(16, (64, 7, 5), Trunk(width=8))(torch.zeros(2, 16)).shape
    torch.Size([2, 64, 7, 5])
    """
    features = math.prod(shape)
    if trunk.depth == 0:
        return nn.Sequential(nn.Linear(inputs, features), nn.Unflatten(1, tuple(shape)))
    if not _has_positions(shape):
        width = trunk.width or 256
        layers: list[nn.Module] = []
        for _ in range(trunk.depth):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, features), nn.Unflatten(1, tuple(shape)))
    sizes, channels = _levels(shape, trunk)
    deepest = (channels[-1], *sizes[-1])
    layers = [nn.Linear(inputs, math.prod(deepest)), nn.Unflatten(1, deepest)]
    layers += [Residual(channels[-1]) for _ in range(trunk.depth)]
    for size, before, after in zip(sizes[-2::-1], channels[:0:-1], channels[-2::-1], strict=True):
        layers += [nn.ReLU(), nn.Upsample(size=size), nn.Conv2d(before, after, 3, padding=1)]
        layers += [Residual(after) for _ in range(trunk.depth)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(channels[0], shape[0], 3, padding=1))


def _has_positions(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and min(shape[1:]) >= SMALLEST


def _levels(shape: Sequence[int], trunk: Trunk) -> tuple[list[tuple[int, int]], list[int]]:
    """Height and width, and channels, before and after each halving."""
    sizes, channels = [(shape[1], shape[2])], [trunk.width or 16]
    while min(sizes[-1]) > SMALLEST:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
        channels.append(max(channels[-1], min(2 * channels[-1], WIDEST)))
    return sizes, channels
