"""What every adversarial search returns, and how it looks at a point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.batching import padded

Loss = Literal["ce", "margin"]


@dataclass(frozen=True)
class Found:
    """The outcome of a search around B images.

    Attributes:
        perturbation: (B, C, H, W), image + perturbation in [0, 1]; the best try where the search failed; zero where the image was
            misclassified to begin with.
        success: (B,) bool: the perturbed image is not given its label (or is given the target).
        distance: (B,) norm of the perturbation, in the search's norm, pixel units, not quantised.
        forwards, backwards: (B,) how many forward and backward passes each example took.
    """

    perturbation: Tensor
    success: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor


def look(
    model: Callable[[Tensor], Tensor], points: Tensor, aim: Tensor, loss: Loss, sign: float, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """How far each point is beyond the boundary (B,), whether it succeeds (B,), and the gradient of the loss (B, C, H, W).

    On the boundary itself two logits are equal: there the class is the one that `argmax` gives, as everywhere else.
    """
    count = len(points)
    with torch.enable_grad():
        points = padded(points, batch).detach().requires_grad_(True)
        aim = padded(aim, batch)
        logits = model(points)
        others = logits.scatter(1, aim[:, None], -torch.inf).amax(1)
        margin = sign * (others - logits.gather(1, aim[:, None]).squeeze(1))
        objective = (
            margin if loss == "margin" else sign * torch.nn.functional.cross_entropy(logits, aim, reduction="none")
        )
        (gradient,) = torch.autograd.grad(objective.sum(), points)
    fooled = (logits.argmax(1) == aim) == (sign < 0)
    return margin.detach()[:count], fooled[:count], gradient[:count]
