"""A small convolutional network for sweeps on a CPU.

It is fast on 8 x 8 digits, and still of use at 28 x 28 and 32 x 32.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def build(shape: tuple[int, int, int], classes: int, *, width: int = 32, depth: int = 3) -> nn.Module:
    """`depth` 3 x 3 convolutions with ReLU, then a linear layer on the flattened map.

    The first two convolutions have stride 2. The channels are (width, width, 2 width, 2 width,
    ...). With the defaults an 8 x 8 image costs 118,000 multiply-adds. The stride comes first
    because at this size most time goes into moving the widest map. There is no batch normalisation
    and no pooling, which would cost more than the third convolution.

    >>> [name for name, _ in build((1, 8, 8), 10).named_children()]
    ['conv1', 'relu1', 'conv2', 'relu2', 'conv3', 'relu3', 'flatten', 'linear']
    """
    channels, height, breadth = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, depth + 1):
        wanted, stride = (width, 2) if i <= 2 else (2 * width, 1)
        layers[f"conv{i}"] = nn.Conv2d(channels, wanted, 3, stride, padding=1)
        layers[f"relu{i}"] = nn.ReLU()
        channels, height, breadth = wanted, -(-height // stride), -(-breadth // stride)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels * height * breadth, classes)
    return nn.Sequential(layers)
