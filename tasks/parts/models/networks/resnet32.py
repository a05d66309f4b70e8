"""ResNet-32 for small images (He et al. 2015, section 4.2): 6 n + 2 layers with n = 5."""

from __future__ import annotations

from torch import nn

from tasks.parts.models.residual import CifarResNet


def build(shape: tuple[int, int, int], classes: int, *, width: int = 16) -> nn.Module:
    """Three groups of 5 residual blocks, with `width`, 2 `width` and 4 `width` channels."""
    return CifarResNet(shape[0], classes, blocks=5, width=width)
