"""The vector-quantised autoencoder (van den Oord, Vinyals and Kavukcuoglu 2017).

The encoder's output is divided into groups, and each is replaced by the nearest vector of a
codebook:

    z_q = e_k,  k = argmin_j ||z - e_j||^2
    loss = ||x - decode(z_q)||^2 / D + commitment ||z - sg(z_q)||^2 / d

The gradient passes from z_q to z unchanged. The codebook follows the vectors that it stands for, as
exponential moving averages (the paper's appendix A.1). A vector that nothing is near to any more is
placed anew at the encoder's output for an example of the batch (Dhariwal et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from tasks.parts.autoencoders.common.coder import Batches, Coder, Objective, Step, squared_error
from tasks.parts.autoencoders.common.trunks import Trunk, decoder, encoder
from tasks.parts.settings import NonNegative, Number, UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""


class Options(Trunk):
    """Settings of a vector-quantised autoencoder."""

    groups: int = Field(
        default=8, ge=1, description="code vectors of one representation, among which the bottleneck is divided"
    )
    codebook: int = Field(default=512, ge=2, description="vectors to choose from")
    commitment: NonNegative = Field(default=0.25, description="weight of the distance to the chosen vectors")
    decay: Number = Field(default=0.99, ge=0, lt=1, description="of the moving averages, in a step")
    revival: NonNegative = Field(
        default=0.1, description="a vector chosen less often than this share of the mean is placed anew; 0: none is"
    )


class Vqvae(Coder):
    """The code is the chosen vectors, one after the other (B, groups * dimension)."""

    vectors: Tensor  # (codebook, dimension)
    counts: Tensor  # (codebook,), moving average of how often each is chosen in a step
    sums: Tensor  # (codebook, dimension), moving average of the sum of what each was chosen for

    def __init__(self, shape: Sequence[int], bottleneck: int, options: Options):
        super().__init__()
        self.options, self.dimension = options, bottleneck // options.groups
        self.encoder = encoder(shape, bottleneck, options)
        self.decoder = decoder(bottleneck, shape, options)
        self.register_buffer("vectors", torch.randn(options.codebook, self.dimension))
        self.register_buffer("counts", torch.zeros(options.codebook))
        self.register_buffer("sums", torch.zeros(options.codebook, self.dimension))

    def indices(self, x: Tensor) -> Tensor:
        """Which vectors are chosen for x, (B, groups)."""
        return self._nearest(self._divided(x))

    def encode(self, x: Tensor) -> Tensor:
        """The chosen vectors."""
        return self.vectors[self.indices(x)].flatten(1)

    def decode(self, code: Tensor) -> Tensor:
        """The reconstructions of any vectors, whether or not they are in the codebook."""
        return self.decoder(code)

    def objective(self, x: Tensor, target: Tensor, step: Step) -> Objective:
        """Squared error and commitment; in training mode the codebook moves."""
        z = self._divided(x)  # (B, groups, dimension)
        if self.training:
            self._revive(z.detach(), step)
        chosen = self._nearest(z)
        quantised = self.vectors[chosen]
        if self.training:
            self._follow(z.detach(), chosen)
        commitment = squared_error(z, quantised)
        reconstruction = self.decoder((z + (quantised - z).detach()).flatten(1))
        loss = squared_error(reconstruction, target) + self.options.commitment * commitment
        shares = one_hot(chosen.flatten(), len(self.vectors)).double().mean(0)
        return Objective(loss, reconstruction, {"perplexity": perplexity(shares)})

    def facts(self, batches: Batches) -> dict[str, float]:
        """The perplexity of the codebook over the training representations."""
        counts = sum(self.indices(x).flatten().bincount(minlength=len(self.vectors)) for x in batches())
        assert isinstance(counts, Tensor)
        return {"perplexity": float(perplexity(counts / counts.sum()))}

    def _divided(self, x: Tensor) -> Tensor:
        return self.encoder(x).unflatten(1, (self.options.groups, self.dimension))

    def _nearest(self, z: Tensor) -> Tensor:
        """The nearest vectors of z (B, groups, dimension), by ||e||^2 - 2 z.e."""
        return (self.vectors.square().sum(1) - 2 * z @ self.vectors.T).argmin(2)

    def _follow(self, z: Tensor, chosen: Tensor) -> None:
        """Moves the codebook towards what it was chosen for."""
        decay, flat = self.options.decay, chosen.flatten()
        counts = flat.bincount(minlength=len(self.vectors)).to(self.counts)
        sums = torch.zeros_like(self.sums).index_add_(0, flat, z.flatten(0, 1))
        self.counts.lerp_(counts, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        used = self.counts > 0
        self.vectors[used] = self.sums[used] / self.counts[used, None]

    def _revive(self, z: Tensor, step: Step) -> None:
        """Places vectors that are chosen too seldom at outputs of the encoder; at first, all."""
        flat = z.flatten(0, 1)
        usual = len(flat) / len(self.vectors)
        seldom = ((self.counts < self.options.revival * usual) | (self.counts == 0)).nonzero().flatten()
        if not len(seldom) or (self.options.revival == 0 and bool((self.counts > 0).any())):
            return
        rows = torch.randint(len(flat), (len(seldom),), generator=step.generator).to(flat.device)
        self.vectors[seldom] = flat[rows]
        self.counts[seldom] = usual
        self.sums[seldom] = flat[rows] * usual


def perplexity(shares: Tensor) -> Tensor:
    """The exponential of the entropy of shares (K,).

    That is how many vectors are in use, were all of these used equally often.

    >>> perplexity(torch.tensor([0.5, 0.5, 0.0]))
    tensor(2.)
    """
    return torch.special.entr(shares).sum().exp()


def build(shape: Sequence[int], bottleneck: int, options: Options) -> Vqvae:
    """A vector-quantised autoencoder of representations of a shape.

    Raises:
        UserError: the bottleneck cannot be divided among the groups.
    """
    if bottleneck % options.groups:
        raise UserError(
            f"a bottleneck of {bottleneck} cannot be divided into {options.groups} groups", "options.groups"
        )
    return Vqvae(shape, bottleneck, options)
