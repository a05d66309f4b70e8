"""DDN: the smallest L2 perturbation by decoupled direction and norm.

Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger 2019, "Decoupling direction and norm for
efficient gradient-based L2 adversarial attacks and defenses".

    direction:  delta <- delta + step_size * gradient / |gradient|
    norm:       radius <- radius * (1 - gamma)      where image + delta succeeds
                radius <- radius * (1 + gamma)      elsewhere
                delta <- radius * delta / |delta|,  clipped so that image + delta stays in the box

The paper's rounding to 256 grey levels is left out: adversarial images are floats here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.minimum_norm import Iterate, annealed, diameter, minimise
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.geometry.balls import PIXELS, Box, ascent_direction, clipped, per_example
from tasks.parts.losses import Loss, Objective

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=("L2",), radius="smallest")


def ddn(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    step_size: float = 1.0,
    last_step_size: float = 0.01,
    gamma: float = 0.05,
    radius: float = 1.0,
    loss: Loss | Objective = "ce",
    halvings: int = 12,
    targets: Tensor | None = None,
    box: Box = PIXELS,
    batch: int | None = None,
) -> AttackResult:
    """Searches the misclassified point that is nearest, in L2, to each image.

    With `targets`, it searches the nearest point that is given its target instead.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks that are to be fooled by
            one point, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        steps: gradient steps, at least 1.
        step_size: length of the first step, pixel units.
        last_step_size: of the last; between them the length falls along half a cosine wave.
        gamma: by which share the radius shrinks or grows at a step.
        radius: of the sphere before the first step, pixel units.
        loss: what is maximised: the cross-entropy, as in the paper, or the logit margin, whose
            gradient does not vanish on confident networks; or the DLR, or a function of one's own,
            see `losses`.
        halvings: of the line search that ends at the boundary, see `to_boundary`; 0 leaves it out.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`, with distances in L2; where the search failed, the perturbation that came
        nearest, by margin, to success.

    Raises:
        UserError: as `check_arguments`; an unknown loss.
    """
    check_arguments("ddn", images, labels, targets=targets, box=box)

    def step(iterate: Iterate) -> tuple[Tensor, Tensor]:
        alpha = annealed(step_size, last_step_size, iterate.number, steps)
        grown = iterate.radius * torch.where(iterate.fooled, 1 - gamma, 1 + gamma)
        grown = grown.clamp_max(diameter(iterate.images[0], "L2", box))
        direction = ascent_direction(iterate.delta + alpha * ascent_direction(iterate.gradient, "L2"), "L2")
        return clipped(iterate.images, per_example(grown, direction) * direction, box), grown

    return minimise(
        model,
        images,
        labels,
        step,
        norm="L2",
        loss=loss,
        steps=steps,
        radius=radius,
        halvings=halvings,
        targets=targets,
        box=box,
        batch=batch,
    )
