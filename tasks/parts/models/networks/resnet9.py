"""ResNet-9, the nine-layer network for fast CIFAR-10 training.

Page 2018, "How to train your ResNet".
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class _ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch normalisation, ReLU, and, where asked, a 2 x 2 max pooling."""

    def __init__(self, channels: int, wanted: int, pool: bool = False):
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(channels, wanted, 3, padding=1, bias=False), bn=nn.BatchNorm2d(wanted), relu=nn.ReLU()
        )
        if pool:
            layers["pool"] = nn.MaxPool2d(2)
        super().__init__(layers)


class _Residual(nn.Module):
    """x + two convolution blocks of x."""

    def __init__(self, channels: int):
        super().__init__()
        self.block1 = _ConvBlock(channels, channels)
        self.block2 = _ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block2(self.block1(x))  # (B, C, H, W)


class _ResNet9(nn.Module):
    def __init__(self, channels: int, classes: int, width: int, scale: float):
        super().__init__()
        self.prep = _ConvBlock(channels, width)
        self.layer1 = _ConvBlock(width, 2 * width, pool=True)
        self.residual1 = _Residual(2 * width)
        self.layer2 = _ConvBlock(2 * width, 4 * width, pool=True)
        self.layer3 = _ConvBlock(4 * width, 8 * width, pool=True)
        self.residual3 = _Residual(8 * width)
        self.maxpool = nn.AdaptiveMaxPool2d(1)
        self.linear = nn.Linear(8 * width, classes, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual1(self.layer1(self.prep(x)))  # (B, 2 width, H / 2, W / 2)
        x = self.residual3(self.layer3(self.layer2(x)))  # (B, 8 width, H / 8, W / 8)
        return self.linear(self.maxpool(x).flatten(1)) * self.scale


def build(shape: tuple[int, int, int], classes: int, *, width: int = 64, scale: float = 0.125) -> nn.Module:
    """Eight convolutions with two residual blocks, then a linear layer.

    They have `width` to 8 `width` channels. `scale` multiplies the logits, as in the source. The
    last pooling is over the whole map, so that any image of at least 8 x 8 pixels will do. At
    32 x 32 it is the source's 4 x 4 pooling.
    """
    return _ResNet9(shape[0], classes, width, scale)
