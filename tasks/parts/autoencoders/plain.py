"""A deterministic autoencoder, trained on its squared error (Hinton and Salakhutdinov 2006).

A multilayer perceptron, or convolutions with residual blocks where the representation has
positions.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tasks.parts.autoencoders.common.coder import Coder
from tasks.parts.autoencoders.common.trunks import Trunk, decoder, encoder

VERSION = 1
"""Raised by hand when its numbers change on purpose."""


class Options(Trunk):
    """Settings of a plain autoencoder."""


class Plain(Coder):
    """x -> encoder -> code (B, bottleneck) -> decoder -> reconstruction."""

    def __init__(self, shape: Sequence[int], bottleneck: int, options: Options):
        super().__init__()
        self.encoder = encoder(shape, bottleneck, options)
        self.decoder = decoder(bottleneck, shape, options)

    def encode(self, x: Tensor) -> Tensor:
        """The codes (B, bottleneck)."""
        return self.encoder(x)

    def decode(self, code: Tensor) -> Tensor:
        """The reconstructions (B, *shape)."""
        return self.decoder(code)


def build(shape: Sequence[int], bottleneck: int, options: Options) -> Plain:
    """A plain autoencoder of representations of a shape."""
    return Plain(shape, bottleneck, options)
