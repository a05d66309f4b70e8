"""The linear autoencoder, whose optimum is the projection on the first principal components.

Baldi and Hornik 1989. The components are computed, not learnt: exactly from the covariance where
the representation has few numbers, else by subspace iteration from a random start (Halko,
Martinsson and Tropp 2011). With noise of variance s^2 that the code is to remove, the best linear
map shrinks each component by lambda / (lambda + s^2), with lambda its variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.parts.autoencoders.common.coder import Batches, Coder
from tasks.parts.settings import Settings

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

EXACT = 4096
"""Numbers of a representation up to which the covariance is decomposed as a whole."""
OVERSAMPLED = 16
"""Directions beyond those wanted that the subspace iteration follows."""
PASSES = 6
"""Passes of the subspace iteration over the representations."""


class Options(Settings):
    """Settings of the linear autoencoder: none."""


class Linear(Coder):
    """A projection: code = (x - mean) V, reconstruction = mean + code diag(shrink) V^T.

    The columns of V (D, bottleneck) are orthonormal.
    """

    mean: Tensor
    shrink: Tensor

    def __init__(self, shape: Sequence[int], bottleneck: int):
        super().__init__()
        self.shape, size = tuple(shape), math.prod(shape)
        self.components = torch.nn.Parameter(torch.linalg.qr(torch.randn(size, bottleneck)).Q)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("shrink", torch.ones(bottleneck))

    def encode(self, x: Tensor) -> Tensor:
        """The coordinates (B, bottleneck) along the components."""
        return (x.flatten(1) - self.mean) @ self.components

    def decode(self, code: Tensor) -> Tensor:
        """The point (B, *shape) with such coordinates, shrunk."""
        return (self.mean + (code * self.shrink) @ self.components.T).unflatten(1, self.shape)

    def solve(self, batches: Batches, noise: float) -> bool:
        """Takes the principal components of the training representations."""
        mean, components, variances = principal_components(batches, self.components.shape[1])
        with torch.no_grad():
            self.mean.copy_(mean)
            self.components.copy_(components)
            self.shrink.copy_(variances / (variances + noise**2) if noise else torch.ones_like(variances))
        return True


def principal_components(batches: Batches, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first principal components of representations that are gone through in batches.

    Args:
        batches: the representations (B, ...), flattened here to (B, D).
        count: how many components, at most D.

    Returns:
        The mean (D,), the components (D, count) as orthonormal columns, and the variances along
        them (count,), largest first; float64.
    """
    total, examples = torch.zeros((), dtype=torch.float64), 0
    for batch in batches():
        total, examples = total + batch.flatten(1).double().sum(0), examples + len(batch)
    mean = total / examples
    size = len(mean)
    if size <= EXACT:
        covariance = torch.zeros(size, size, dtype=torch.float64, device=mean.device)
        for batch in batches():
            deviations = batch.flatten(1).double() - mean
            covariance.addmm_(deviations.T, deviations, alpha=1 / examples)
        variances, vectors = torch.linalg.eigh(covariance)
        return mean, vectors.flip(1)[:, :count], variances.flip(0)[:count].clamp_min(0)
    width = min(count + OVERSAMPLED, size)
    start = torch.randn(size, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis, variances = torch.linalg.qr(start.to(mean.device)).Q, mean.new_zeros(width)
    for _ in range(PASSES):
        image = torch.zeros_like(basis)
        for batch in batches():
            deviations = batch.flatten(1).double() - mean
            image.addmm_(deviations.T, deviations @ basis, alpha=1 / examples)
        rotation, variances, _ = torch.linalg.svd(image, full_matrices=False)  # of C V: the variances at convergence
        basis = rotation
    return mean, basis[:, :count], variances[:count]


def build(shape: Sequence[int], bottleneck: int, options: Options) -> Linear:
    """The linear autoencoder of representations of a shape."""
    return Linear(shape, bottleneck)
