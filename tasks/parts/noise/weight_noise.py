"""Multiplicative Gaussian noise on a network's weights: w * (1 + sigma * n).

Normalisation layers are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


def noisy_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters that take noise: all but those of normalisation layers."""
    return [p for p in weights(model).values() if p.requires_grad]


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, all parameters but those of normalisation layers, trainable or not."""
    left_out = {id(p) for m in model.modules() if isinstance(m, NORMALISATION) for p in m.parameters(recurse=False)}
    return {name: p for name, p in model.named_parameters() if id(p) not in left_out}


def noisy_copy(model: nn.Module, sigma: float, generator: torch.Generator) -> dict[str, Tensor]:
    """The noisy values of the network's `weights`, by name, as new tensors.

    Args:
        model: the network, which is left alone.
        sigma: relative to each weight.
        generator: a CPU generator.
    """
    with torch.no_grad():
        return {
            name: p * (1 + sigma * torch.randn(p.shape, generator=generator).to(p))
            for name, p in weights(model).items()
        }


@contextmanager
def noisy_weights(model: nn.Module, sigma: float, generator: torch.Generator) -> Iterator[None]:
    """A context in which the network has noisy weights.

    At its end the network has exactly its own weights again, and it keeps its gradients.

    Args:
        model: the network.
        sigma: relative to each weight; 0 leaves the network alone and draws nothing.
        generator: a CPU generator.
    """
    if sigma == 0:
        yield
        return
    parameters = noisy_parameters(model)
    own = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p in parameters:
                p.mul_(1 + sigma * torch.randn(p.shape, generator=generator).to(p))
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, own, strict=True):
                p.copy_(value)
