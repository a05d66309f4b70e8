"""Residual networks for small images.

He et al. 2015, "Deep residual learning for image recognition", section 4.2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (option A of the paper).

    Where the block halves the map and doubles the channels, the shortcut takes every second pixel
    and pads the new channels with zeros, half before and half after the old ones.
    """

    def __init__(self, channels: int, wanted: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wanted, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wanted)
        self.conv2 = nn.Conv2d(wanted, wanted, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wanted)
        self.stride = stride
        self.before = (wanted - channels) // 2
        self.after = wanted - channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, wanted, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """A residual network with 6 `blocks` + 2 weighted layers.

    They are a convolution, three groups of `blocks` residual blocks, and a linear layer. The groups
    have `width`, 2 `width` and 4 `width` channels (the paper: 16, 32, 64), the second and third at
    half the resolution of the one before. Convolutions start from He et al.'s normal distribution.
    Parameter names (`conv1`, `bn1`, `layer1.0.conv1`, ..., `linear`) are those of the checkpoints
    in circulation.
    """

    def __init__(self, channels: int, classes: int, *, blocks: int, width: int = 16):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _group(width, width, blocks, stride=1)
        self.layer2 = _group(width, 2 * width, blocks, stride=2)
        self.layer3 = _group(2 * width, 4 * width, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))  # (B, width, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 4 width, H / 4, W / 4)
        return self.linear(self.avgpool(x).flatten(1))


def _group(channels: int, wanted: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(channels, wanted, stride), *(Block(wanted, wanted, 1) for _ in range(blocks - 1)))
