"""An autoencoder of representations as they are: standardisation around a coder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from tasks.parts.autoencoders.common.coder import Batches, Coder


@final
class Autoencoder(nn.Module):
    """Representations (B, *shape) in their own units, to codes (B, d) and back.

    Attributes:
        coder: works on standardised representations.
        mean: what is subtracted before the coder, (1, ...), broadcast over representations.
        scale: what they are then divided by, (1, ...).
        center: the mean of the training representations, (1, *shape).
        variance: of each of their numbers, (1, *shape).
        magnitude: root mean square of the numbers of the training representations' codes, in which
            radii in the latent space are counted; 0 until it is known.
    """

    mean: Tensor
    scale: Tensor
    center: Tensor
    variance: Tensor
    magnitude: Tensor

    def __init__(self, coder: Coder, shape: Sequence[int], standardise: str):
        super().__init__()
        self.coder, self.shape, self.standardise = coder, tuple(shape), standardise
        by_channel = (1, shape[0], *(1 for _ in shape[1:]))
        self.register_buffer("mean", torch.zeros((1, *shape) if standardise == "whole" else by_channel))
        self.register_buffer("scale", torch.ones(by_channel if standardise == "channel" else (1,) * (1 + len(shape))))
        self.register_buffer("center", torch.zeros((1, *shape)))
        self.register_buffer("variance", torch.ones((1, *shape)))
        self.register_buffer("magnitude", torch.zeros(()))

    def encode(self, h: Tensor, /) -> Tensor:
        """The codes (B, d) of representations (B, *shape)."""
        return self.coder.encode(self.standardised(h))

    def decode(self, code: Tensor, /) -> Tensor:
        """The representations (B, *shape) of codes (B, d)."""
        return self.coder.decode(code) * self.scale + self.mean

    def forward(self, h: Tensor) -> Tensor:
        """The reconstructions of representations."""
        return self.decode(self.encode(h))

    def standardised(self, h: Tensor) -> Tensor:
        """Representations as the coder takes them."""
        return (h - self.mean) / self.scale

    @property
    def typical_norm(self) -> Tensor:
        """Root mean square of the L2 norm of the training representations."""
        return (self.center.square() + self.variance).sum().sqrt()

    def fit(self, batches: Batches) -> None:
        """Takes the statistics of the training representations, and with them mean and scale.

        Args:
            batches: the representations as they are.

        Raises:
            ValueError: all representations are the same.
        """
        count, total = 0, torch.zeros((), dtype=torch.float64)
        for batch in batches():
            count, total = count + len(batch), total + batch.double().sum(0)
        center = total[None] / count
        squares = torch.zeros((), dtype=torch.float64)
        for batch in batches():
            squares = squares + (batch.double() - center).square().sum(0)
        variance = squares[None] / count
        if not float(variance.sum()):
            raise ValueError("the representations of all training images are the same")
        self.center.copy_(center)
        self.variance.copy_(variance)
        if self.standardise != "none":
            mean = _reduced(center, self.mean)
            scale = _reduced(variance + (center - mean).square(), self.scale).sqrt()
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(scale > 0, scale, 1.0))  # a channel that is always the same stays as it is


def _reduced(values: Tensor, like: Tensor) -> Tensor:
    """The mean of values (1, *shape) over the dimensions along which `like` has one number."""
    along = [axis for axis, length in enumerate(like.shape) if axis and length == 1]
    return values.mean(along, keepdim=True) if along else values
