"""A multilayer perceptron: `depth` hidden layers of `width` ReLU units each."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn


def build(shape: tuple[int, int, int], classes: int, *, width: int = 128, depth: int = 2) -> nn.Module:
    """`depth` times a linear layer with ReLU, then a linear layer to the logits.

    The shapes are (B, C, H, W), flattened (B, C H W), then (B, width), last (B, classes).

    >>> [name for name, _ in build((1, 8, 8), 10).named_children()]
    ['flatten', 'hidden1', 'relu1', 'hidden2', 'relu2', 'linear']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = math.prod(shape)
    for i in range(1, depth + 1):
        layers[f"hidden{i}"] = nn.Linear(features, width)
        layers[f"relu{i}"] = nn.ReLU()
        features = width
    layers["linear"] = nn.Linear(features, classes)
    return nn.Sequential(layers)
