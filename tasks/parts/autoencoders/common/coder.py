"""What every autoencoder has: a code, a reconstruction, and the objective of its training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Batches = Callable[[], Iterator[Tensor]]
"""All training representations in batches (B, *shape); each call goes through them anew."""


@dataclass(frozen=True)
class Step:
    """A step of the training.

    Attributes:
        done: the share of all steps that lie behind, 0 <= done < 1.
        generator: the step's random numbers; on the CPU, whatever the device.
    """

    done: float
    generator: torch.Generator

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of a tensor's shape, type and device."""
        return torch.randn(like.shape, generator=self.generator).to(like)


@dataclass(frozen=True)
class Objective:
    """What a step lowers.

    Attributes:
        loss: (B,).
        reconstruction: (B, *shape), standardised.
        numbers: what is worth following besides, as means over the batch.
    """

    loss: Tensor
    reconstruction: Tensor
    numbers: Mapping[str, Tensor] = field(default_factory=dict)


class Coder(nn.Module, ABC):
    """An autoencoder of standardised representations x (B, *shape)."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The codes (B, d) of x, without noise."""

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """The reconstructions (B, *shape) of codes (B, d)."""

    def objective(self, x: Tensor, target: Tensor, step: Step) -> Objective:
        """The squared error, as the mean over a representation's numbers.

        Args:
            x: what is encoded (B, *shape).
            target: what is to come out (B, *shape); not x where x is noisy.
            step: of the training.
        """
        reconstruction = self.decode(self.encode(x))
        return Objective(squared_error(reconstruction, target), reconstruction)

    def solve(self, batches: Batches, noise: float) -> bool:
        """Takes the optimum where it is known in closed form.

        Args:
            batches: the training representations.
            noise: standard deviation of the noise that the code is to remove.

        Returns:
            Whether that was so; otherwise the coder must be trained.
        """
        return False

    def details(self, x: Tensor, ids: list[int], seed: int) -> dict[str, Tensor]:
        """Numbers of single examples, beside the reconstruction, by name, (B,) each.

        Args:
            x: the representations (B, *shape).
            ids: of the examples, which key the random numbers.
            seed: which keys them too.
        """
        return {}

    def facts(self, batches: Batches) -> dict[str, float]:
        """Numbers of the whole coder over the training representations."""
        return {}


def squared_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean over the numbers of each representation of the squared difference, (B,)."""
    return (reconstruction - target).square().flatten(1).mean(1)
