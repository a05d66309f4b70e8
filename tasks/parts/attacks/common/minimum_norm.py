"""What searches for the smallest perturbation share: a walk of which the best point is kept.

Such a search walks about the boundary: out while its point is on the image's side, in while it is
beyond. The shortest perturbation that succeeded on the way is kept and at last shortened to the
boundary. A search differs from another by its step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tasks.parts.attacks.common.line_search import reached, to_boundary
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.geometry.balls import Box, Norm, norm_of, per_example
from tasks.parts.losses import Loss, Objective, objective, value_and_gradient, verdict


@dataclass(frozen=True)
class Iterate:
    """Where B walks are at one of their steps.

    Attributes:
        number: of the step that comes next: 0, 1, ...
        images: (B, ...), where they set out.
        delta: (B, ...), where they are, from there.
        radius: (B,) of the ball, or sphere, that the last step ended in.
        margin: (B,) how far, in logits, they are beyond the boundary; negative before it.
        fooled: (B,) bool: whether they are beyond.
        gradient: (B, ...) of the loss that rises towards success.
        best: (B, ...) the shortest perturbation that has succeeded so far, else that of the largest
            margin.
        shortest: (B,) norm of the shortest perturbation that has succeeded so far, infinite where
            none has.
    """

    number: int
    images: Tensor
    delta: Tensor
    radius: Tensor
    margin: Tensor
    fooled: Tensor
    gradient: Tensor
    best: Tensor
    shortest: Tensor


Step = Callable[[Iterate], tuple[Tensor, Tensor]]
"""The next delta (B, ...), with images + delta in the box, and its radius (B,)."""


def annealed(first: float, last: float, number: int, steps: int) -> float:
    """From `first` at step 0 down to `last` at step `steps` along half a cosine wave.

    >>> annealed(1.0, 0.0, 0, 10), round(annealed(1.0, 0.0, 5, 10), 9), annealed(1.0, 0.0, 10, 10)
    (1.0, 0.5, 0.0)
    """
    return last + (first - last) * (1 + math.cos(math.pi * number / steps)) / 2


def diameter(image: Tensor, norm: Norm, box: Box) -> float:
    """The norm of the longest perturbation within the box, from a corner to the opposite one."""
    numbers, side = float(image.numel()), box[1] - box[0]
    return {"Linf": side, "L2": side * numbers**0.5, "L1": side * numbers, "L0": numbers}[norm]


def minimise(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    step: Step,
    *,
    norm: Norm,
    loss: Loss | Objective,
    steps: int,
    radius: float,
    halvings: int,
    targets: Tensor | None,
    box: Box,
    batch: int | None,
) -> AttackResult:
    """Walks from each image, and returns the shortest perturbation that succeeded.

    Images that are misclassified stay where they are.

    An example costs one forward pass to see whether its image itself succeeds; where not, a forward
    and a backward pass at each place, of which there are steps + 1; and `halvings` forward passes
    to the boundary where the search succeeded.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        step: see `Step`.
        norm: in which the perturbation is to be small.
        loss: whose gradient the steps are given.
        steps: of a walk.
        radius: of the ball before the first step, pixel units.
        halvings: of `to_boundary`.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        batch: images in one pass; chosen for the device where None.
    """
    batch = pass_size(images) if batch is None else batch
    already = reached(model, images, labels, targets, batch)
    best, success = torch.zeros_like(images), already.clone()
    walking = (~already).nonzero().flatten()
    for rows in walking.split(batch) if len(walking) else ():
        aims = None if targets is None else targets[rows]
        best[rows], success[rows] = _descend(
            model, images[rows], labels[rows], aims, step, norm, loss, steps, radius, batch
        )
    best, line = to_boundary(
        model, images, labels, best, success, halvings=halvings, norm=norm, batch=batch, targets=targets
    )
    passes = torch.where(already, 0, steps + 1)
    return AttackResult.of(images, best, success, norm=norm, forwards=1 + passes + line, backwards=passes, box=box)


def _descend(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    step: Step,
    norm: Norm,
    loss: Loss | Objective,
    steps: int,
    radius: float,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """The shortest perturbation that succeeded (B, ...), and whether there is one (B,).

    Where there is none, it is that of the largest margin.
    """
    delta = best = torch.zeros_like(images)
    radii = images.new_full((len(images),), radius)
    shortest = torch.full_like(radii, torch.inf)
    highest = torch.full_like(radii, -torch.inf)

    height = partial(objective, loss, labels=labels, targets=targets)
    for number in range(steps + 1):
        logits, _, gradient = value_and_gradient(model, images + delta, height, batch)
        margin, fooled = verdict(logits, labels, targets)
        length = norm_of(delta, norm)
        nearer = torch.where(fooled, length < shortest, shortest.isinf() & (margin > highest))
        best = torch.where(per_example(nearer, delta), delta, best)
        shortest = torch.where(nearer & fooled, length, shortest)
        highest = torch.maximum(highest, margin)
        if number < steps:
            delta, radii = step(Iterate(number, images, delta, radii, margin, fooled, gradient, best, shortest))
    return best, shortest.isfinite()
