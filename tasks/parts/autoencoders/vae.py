"""The variational autoencoder (Kingma and Welling 2014; beta: Higgins et al. 2017).

q(z|x) = N(mu(x), diag sigma(x)^2), p(z) = N(0, 1). What is lowered, in nats, over D numbers:

    loss = ( -E_q log p(x|z) + beta KL(q(z|x) || p(z)) ) / D

p(x|z) is Gaussian around the decoder's output or, for numbers in [0, 1], Bernoulli. The Gaussian's
one variance is at its optimum, the mean squared error of the batch (Rybkin, Daniilidis and Levine
2021); a moving average of it is kept. Without hidden layers this is probabilistic PCA (Lucas et al.
2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from tasks.parts.autoencoders.common.coder import Batches, Coder, Objective, Step
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.autoencoders.common.trunks import Trunk, decoder, encoder
from tasks.parts.randomness import normal
from tasks.parts.settings import NonNegative, Probability, UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

DECAY = 0.99
"""Of the moving average of the variance, in a step."""
SMALLEST = 1e-6
"""Variance below which none is counted with, in that of standardised numbers."""
ACTIVE = 0.01
"""Variance of a unit's mean over the data from which on it is active (Burda et al. 2016)."""


class Options(Trunk):
    """Settings of a variational autoencoder."""

    beta: NonNegative = Field(default=1.0, description="weight of the rate, the divergence from the prior")
    warm_up: Probability = Field(
        default=0.1, description="share of the training over which beta rises from 0; none where 0"
    )
    likelihood: Literal["gaussian", "bernoulli"] = Field(
        default="gaussian", description="of a number, given the code; bernoulli: of pixels, with standardise: none"
    )


class Vae(Coder):
    """The code is the posterior's mean (B, bottleneck)."""

    variance: Tensor  # of p(x|z), a number; 0 before the first step

    def __init__(self, shape: Sequence[int], bottleneck: int, options: Options):
        super().__init__()
        self.options, self.bottleneck = options, bottleneck
        self.encoder = encoder(shape, 2 * bottleneck, options)
        self.decoder = decoder(bottleneck, shape, options)
        self.register_buffer("variance", torch.zeros(()))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of q(z|x), (B, bottleneck) each."""
        mu, log_sigma = self.encoder(x).chunk(2, dim=1)
        return mu, log_sigma

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z|x)."""
        return self.posterior(x)[0]

    def decode(self, code: Tensor) -> Tensor:
        """The mean of p(x|z)."""
        output = self.decoder(code)
        return output.sigmoid() if self.options.likelihood == "bernoulli" else output

    def objective(self, x: Tensor, target: Tensor, step: Step) -> Objective:
        """The negative evidence lower bound in nats over D, by one sample of q.

        In training mode the rate is weighted with the beta of the step.
        """
        mu, log_sigma = self.posterior(x)
        z = mu + log_sigma.exp() * step.normal(mu)
        output = self.decoder(z)
        if self.training and self.options.likelihood == "gaussian":
            error = (output.detach() - target).square().mean()
            self.variance.copy_(self.variance.lerp(error, 1 - DECAY) if self.variance > 0 else error)
            distortion, reconstruction = self._distortion(output, target, error)
        else:
            distortion, reconstruction = self._distortion(output, target, self.variance)
        rate = divergence(mu, log_sigma)
        warm_up = self.options.warm_up
        beta = self.options.beta * (min(1.0, step.done / warm_up) if warm_up and self.training else 1.0)
        loss = (distortion + beta * rate) / target[0].numel()
        return Objective(loss, reconstruction, {"rate": rate.mean(), "distortion": distortion.mean()})

    def details(self, x: Tensor, ids: list[int], seed: int) -> dict[str, Tensor]:
        """Rate and distortion (nats), the latter by one sample of q keyed by the example."""
        mu, log_sigma = self.posterior(x)
        noise = normal(seed, "sample of the posterior", ids, mu.shape[1:]).to(mu)
        distortion, _ = self._distortion(self.decoder(mu + log_sigma.exp() * noise), x, self.variance)
        return {"rate": divergence(mu, log_sigma), "distortion": distortion}

    def facts(self, batches: Batches) -> dict[str, float]:
        """How many units are active, and the standard deviation of p(x|z)."""
        means = torch.cat([self.encode(x).double() for x in batches()])
        active = int((means.var(dim=0, correction=0) > ACTIVE).sum())
        found = {"active_units": float(active)}
        return found if self.options.likelihood == "bernoulli" else found | {"sigma": math.sqrt(float(self.variance))}

    def _distortion(self, output: Tensor, target: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x|z) in nats (B,), and the mean of p(x|z), of the decoder's output."""
        if self.options.likelihood == "bernoulli":
            nats = binary_cross_entropy_with_logits(output, target, reduction="none").flatten(1).sum(1)
            return nats, output.sigmoid()
        variance = variance.clamp_min(SMALLEST)
        squares = (output - target).square().flatten(1).sum(1)
        return 0.5 * (squares / variance + target[0].numel() * (2 * math.pi * variance).log()), output


def divergence(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu, diag sigma^2) || N(0, 1)) in nats, (B,), of tensors (B, d).

    >>> divergence(torch.ones(1, 2), torch.zeros(1, 2))
    tensor([1.])
    """
    return 0.5 * (mu.square() + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(1)


def check(recipe: AutoencoderRecipe, options: Options) -> None:
    """Refuses a Bernoulli likelihood of numbers that may lie outside [0, 1].

    Raises:
        UserError: they may.
    """
    if options.likelihood == "bernoulli" and (recipe.stage != 0 or recipe.standardise != "none"):
        raise UserError("bernoulli is for pixels as they are; take stage: 0 and standardise: none", "likelihood")


def build(shape: Sequence[int], bottleneck: int, options: Options) -> Vae:
    """A variational autoencoder of representations of a shape."""
    return Vae(shape, bottleneck, options)
