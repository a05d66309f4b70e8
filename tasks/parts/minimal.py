"""What searches for the smallest perturbation have in common.

Such a search walks about the boundary: out while its point is on the image's side, in while it is beyond. The shortest perturbation
that succeeded on the way is kept and at last shortened to the boundary. A search differs from another by its step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.batching import batch_size, padded
from tasks.parts.boundary import reached, to_boundary
from tasks.parts.geometry import Norm, norm_of, per_example
from tasks.parts.search import Found

Loss = Literal["ce", "margin"]


@dataclass(frozen=True)
class Place:
    """Where B walks are.

    Attributes:
        number: of the step that comes next: 0, 1, ...
        images: (B, C, H, W), where they set out.
        delta: (B, C, H, W), where they are, from there.
        radius: (B,) of the ball, or sphere, that the last step ended in.
        margin: (B,) how far, in logits, they are beyond the boundary; negative before it.
        fooled: (B,) bool: whether they are beyond.
        gradient: (B, C, H, W) of the loss that rises towards success.
        shortest: (B,) norm of the shortest perturbation that has succeeded so far, infinite where none has.
    """

    number: int
    images: Tensor
    delta: Tensor
    radius: Tensor
    margin: Tensor
    fooled: Tensor
    gradient: Tensor
    shortest: Tensor


Step = Callable[[Place], tuple[Tensor, Tensor]]
"""The next delta (B, C, H, W), with images + delta in [0, 1], and its radius (B,)."""


def annealed(first: float, last: float, number: int, steps: int) -> float:
    """From `first` at step 0 down to `last` at step `steps` along half a cosine wave.

    >>> annealed(1.0, 0.0, 0, 10), round(annealed(1.0, 0.0, 5, 10), 9), annealed(1.0, 0.0, 10, 10)
    (1.0, 0.5, 0.0)
    """
    return last + (first - last) * (1 + math.cos(math.pi * number / steps)) / 2


def widest(image: Tensor, norm: Norm) -> float:
    """The norm of the longest perturbation within [0, 1], from a corner to the opposite one."""
    numbers = float(image.numel())
    return {"Linf": 1.0, "L2": numbers**0.5, "L1": numbers, "L0": numbers}[norm]


def smallest(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    step: Step,
    *,
    norm: Norm,
    loss: Loss,
    steps: int,
    radius: float,
    halvings: int,
    targets: Tensor | None,
    batch: int | None,
) -> Found:
    """Walks `steps` steps from each image that is not misclassified and returns the shortest perturbation that succeeded.

    An example costs one forward pass to see whether its image itself succeeds; where not, a forward and a backward pass at each place,
    of which there are steps + 1; and `halvings` forward passes to the boundary where the search succeeded.

    Args:
        step: see `Step`.
        norm: in which the perturbation is to be small.
        loss: whose gradient the steps are given.
        radius: of the ball before the first step, pixel units.
        halvings: of `to_boundary`.
        model, images, labels, targets, batch: as for every attack.
    """
    batch = batch_size(images[0].numel(), images.device) if batch is None else batch
    aims = labels if targets is None else targets
    sign = 1.0 if targets is None else -1.0
    already = reached(model, images, labels, targets, batch)
    best, success = torch.zeros_like(images), already.clone()
    walking = (~already).nonzero().flatten()
    for rows in walking.split(batch) if len(walking) else ():
        best[rows], success[rows] = _walk(model, images[rows], aims[rows], step, norm, loss, sign, steps, radius, batch)
    best, line = to_boundary(
        model, images, labels, best, success, halvings=halvings, norm=norm, batch=batch, targets=targets
    )
    places = torch.where(already, 0, steps + 1)
    return Found(best, success, norm_of(best, norm), 1 + places + line, places)


def _walk(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    aims: Tensor,
    step: Step,
    norm: Norm,
    loss: Loss,
    sign: float,
    steps: int,
    radius: float,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """The shortest perturbation that succeeded (B, C, H, W), else that of the largest margin, and whether it succeeded (B,)."""
    delta = best = torch.zeros_like(images)
    radii = images.new_full((len(images),), radius)
    shortest = torch.full_like(radii, torch.inf)
    highest = torch.full_like(radii, -torch.inf)

    for number in range(steps + 1):
        margin, fooled, gradient = _look(model, images + delta, aims, loss, sign, batch)
        length = norm_of(delta, norm)
        nearer = torch.where(fooled, length < shortest, shortest.isinf() & (margin > highest))
        best = torch.where(per_example(nearer, delta), delta, best)
        shortest = torch.where(nearer & fooled, length, shortest)
        highest = torch.maximum(highest, margin)
        if number < steps:
            delta, radii = step(Place(number, images, delta, radii, margin, fooled, gradient, shortest))
    return best, shortest.isfinite()


def _look(
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
