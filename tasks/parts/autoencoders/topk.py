"""The sparse autoencoder with k active features (Gao et al. 2024).

    z = TopK( W_enc (x - b) ),   reconstruction = W_dec z + b

with more features than x has numbers, of which the k largest positive ones are kept, and columns of
W_dec of norm 1. Features that no example has activated for long are dead. The strongest of them
also learn to reconstruct what the others leave over (the paper's AuxK), which brings them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from tasks.parts.autoencoders.common.coder import Batches, Coder, Objective, Step, squared_error
from tasks.parts.settings import NonNegative, Positive, Settings, UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""


class Options(Settings):
    """Settings of a sparse autoencoder; its bottleneck is k, the number of active features."""

    expansion: Positive = Field(default=4.0, description="features for each number of a representation")
    dead_after: int = Field(
        default=2_000, ge=1, description="training examples without activation after which a feature is dead"
    )
    auxiliary: NonNegative = Field(default=1 / 32, description="weight of the loss that revives dead features; 0: off")
    auxiliary_k: int | None = Field(
        default=None,
        ge=1,
        description="dead features that take part in it; half the representation's numbers where null",
    )


class TopK(Coder):
    """The code is all features (B, features), of which at most k are not 0."""

    idle: Tensor  # (features,), training examples since each was active

    def __init__(self, shape: Sequence[int], k: int, options: Options):
        super().__init__()
        self.shape, self.k, self.options = tuple(shape), k, options
        size = math.prod(shape)
        features = features_of(size, options)
        self.directions = torch.nn.Parameter(normalize(torch.randn(features, size), dim=1))  # rows: W_dec's columns
        self.encoder = torch.nn.Parameter(self.directions.detach().clone())  # at first the transpose of W_dec
        self.bias = torch.nn.Parameter(torch.zeros(size))
        self.register_buffer("idle", torch.zeros(features, dtype=torch.long))

    def encode(self, x: Tensor) -> Tensor:
        """The features, all but the k largest 0."""
        return largest(self._activations(x), self.k)

    def decode(self, code: Tensor) -> Tensor:
        """The sum of the features' directions (B, *shape)."""
        return (self._combined(code) + self.bias).unflatten(1, self.shape)

    def objective(self, x: Tensor, target: Tensor, step: Step) -> Objective:
        """The squared error, and how well dead features explain it.

        In training mode it is counted how long each feature has not been active.
        """
        activations = self._activations(x)
        code = largest(activations, self.k)
        reconstruction = self.decode(code)
        loss = squared_error(reconstruction, target)
        if self.training:
            active = (code > 0).any(0)
            self.idle.add_(len(x)).masked_fill_(active, 0)
        dead = self.dead
        if self.training and self.options.auxiliary and bool(dead.any()):
            count = min(self.options.auxiliary_k or max(1, len(self.bias) // 2), int(dead.sum()))
            residual = (target - reconstruction).detach().flatten(1)
            revived = self._combined(largest(activations.masked_fill(~dead, -math.inf), count))
            loss = loss + self.options.auxiliary * squared_error(revived, residual)
        return Objective(loss, reconstruction, {"dead_features": dead.double().mean()})

    @property
    def dead(self) -> Tensor:
        """Whether each feature has not been active for `dead_after` examples, (features,)."""
        return self.idle >= self.options.dead_after

    def details(self, x: Tensor, ids: list[int], seed: int) -> dict[str, Tensor]:
        """How many features are active."""
        return {"active_features": (self.encode(x) > 0).sum(1).double()}

    def facts(self, batches: Batches) -> dict[str, float]:
        """The share of features that no training representation activates."""
        ever = torch.zeros_like(self.idle, dtype=torch.bool)
        for x in batches():
            ever |= (self.encode(x) > 0).any(0)
        return {"features": float(len(ever)), "dead_features": float((~ever).double().mean())}

    def _activations(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.bias) @ self.encoder.T

    def _combined(self, code: Tensor) -> Tensor:
        return code @ normalize(self.directions, dim=1)


def features_of(size: int, options: Options) -> int:
    """Features of a sparse autoencoder of representations of so many numbers."""
    return max(1, round(options.expansion * size))


def largest(activations: Tensor, k: int) -> Tensor:
    """Activations (B, features), all but the k largest of each row 0, and those below 0 as well.

    >>> largest(torch.tensor([[3.0, -1.0, 2.0, 1.0]]), 2)
    tensor([[3., 0., 2., 0.]])
    """
    values, places = activations.topk(k, dim=1)
    return torch.zeros_like(activations).scatter(1, places, values.relu())


def build(shape: Sequence[int], bottleneck: int, options: Options) -> TopK:
    """A sparse autoencoder of representations of a shape, with `bottleneck` active features.

    Raises:
        UserError: there are fewer features than are to be active.
    """
    features = features_of(math.prod(shape), options)
    if features < bottleneck:
        raise UserError(f"there are {features} features, fewer than the {bottleneck} to be active", "options.expansion")
    return TopK(shape, bottleneck, options)
