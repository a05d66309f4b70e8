"""FMN: the smallest perturbation by adaptive norm constraints, in L-inf, L2, L1 or L0.

Pintor, Roli, Brendel and Biggio 2021, "Fast minimum-norm adversarial attacks through adaptive norm
constraints".

    radius:  |delta| + |margin| / |gradient|_dual        the boundary of a linear model (at least
                                                         the next line) until the search has
                                                         succeeded once; from then on
             radius * (1 + gamma)                        before the boundary, and beyond it
             min(radius * (1 - gamma), shortest)         where `shortest` is the shortest
                                                         perturbation that has succeeded
    delta:   project(delta + step_size * gradient / |gradient|_2, radius)
             clipped so that image + delta stays in [0, 1]

In L-inf the last steps, two in five, are those of `boundary_walk` in place of these, which the
paper does not have: projections onto the linear boundary are more exact there.

`margin` is the largest other logit minus the label's (towards a target: the target's minus the
largest other), `gradient` its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from tasks.parts.attacks.common.boundary_walk import BoundaryWalk
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.minimum_norm import Iterate, annealed, diameter, minimise
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.geometry.balls import PIXELS, Box, Norm, ascent_direction, clipped, norm_of, project
from tasks.parts.losses import Loss, Objective

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=get_args(Norm), radius="smallest")


def fmn(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "L2",
    steps: int = 100,
    step_size: float = 1.0,
    last_step_size: float = 0.01,
    gamma: float = 0.05,
    last_gamma: float = 0.001,
    polish: int = 40,
    halvings: int = 12,
    loss: Loss | Objective = "margin",
    targets: Tensor | None = None,
    box: Box = PIXELS,
    batch: int | None = None,
) -> AttackResult:
    """Searches the misclassified point that is nearest to each image.

    With `targets`, it searches the nearest point that is given its target instead.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks that are to be fooled by
            one point, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        norm: that is to be small. L0 is the number of numbers that change, three for a pixel of
            three channels.
        steps: gradient steps, at least 1.
        step_size: length (L2, in every norm) of the first step, pixel units.
        last_step_size: of the last; between them the length falls along half a cosine wave.
        gamma: by which share the radius shrinks or grows at the first step. In L0 by one number at
            least.
        last_gamma: by which at the last step; between them the share falls along the same wave.
        polish: in L-inf, how many of the steps, the last ones, go along the boundary, see
            `boundary_walk`; at most half of them do.
        halvings: of the line search that ends at the boundary, see `to_boundary`; 0 leaves it out.
        loss: whose gradient the steps follow, by name (see `losses`) or as a function of one's own.
            How far the boundary is, is told from the margin: a loss of another scale makes the
            first radii longer or shorter.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`; where the search failed, the perturbation that came nearest, by margin, to
        success.

    Raises:
        UserError: as `check_arguments`; an unknown loss.
    """
    check_arguments("fmn", images, labels, norm=norm, norms=ATTACK.norms, targets=targets, box=box)
    turn = steps - min(polish, steps // 2) if norm == "Linf" else steps
    foot: BoundaryWalk | None = None  # of the batch that is under way: they come one after the other

    def step(iterate: Iterate) -> tuple[Tensor, Tensor]:
        nonlocal foot
        if iterate.number == turn:
            foot = BoundaryWalk.of(iterate, "Linf", steps - turn - 1, box)
            return iterate.best, iterate.radius
        if iterate.number > turn:
            assert foot is not None
            return foot.step(iterate, iterate.number - turn - 1), iterate.radius
        share = annealed(gamma, last_gamma, iterate.number, turn)
        alpha = annealed(step_size, last_step_size, iterate.number, turn)
        smaller, larger = iterate.radius * (1 - share), iterate.radius * (1 + share)
        if norm == "L0":
            smaller = torch.minimum(smaller.floor(), iterate.radius - 1).clamp_min(1)
            larger = torch.maximum(larger.floor(), iterate.radius + 1)
        # Newton's steps may end just before the boundary for ever, so the radius grows at least as
        # it does later on.
        plane = torch.maximum(norm_of(iterate.delta, norm) + _to_plane(iterate, norm, box), larger)
        outwards = torch.where(iterate.shortest.isfinite(), larger, plane)
        radius = torch.where(iterate.fooled, torch.minimum(smaller, iterate.shortest), outwards)
        radius = radius.clamp_max(diameter(iterate.images[0], norm, box))
        moved = project(iterate.delta + alpha * ascent_direction(iterate.gradient, "L2"), radius, norm)
        return clipped(iterate.images, moved, box), radius

    return minimise(
        model,
        images,
        labels,
        step,
        norm=norm,
        loss=loss,
        steps=steps,
        radius=0.0,
        halvings=halvings,
        targets=targets,
        box=box,
        batch=batch,
    )


def _to_plane(iterate: Iterate, norm: Norm, box: Box) -> Tensor:
    """How far the boundary would be if the margin were linear (B,).

    That is |margin| / dual norm of the gradient. In L0 the most a number can give is its gradient
    times its way to the wall of the box; as many of the most generous are counted as the margin
    takes.
    """
    gradient, missing = iterate.gradient.flatten(1), iterate.margin.abs()
    if norm == "L0":
        point = (iterate.images + iterate.delta).flatten(1)
        gains = gradient.abs() * torch.where(gradient > 0, box[1] - point, point - box[0])
        gains = torch.where(gradient == 0, 0, gains)  # also where there is no wall
        return (gains.sort(dim=1, descending=True).values.cumsum(1) < missing[:, None]).sum(1) + 1.0
    dual = {"Linf": gradient.abs().sum(1), "L2": gradient.norm(dim=1), "L1": gradient.abs().amax(1)}[norm]
    return missing / dual.clamp_min(torch.finfo(dual.dtype).tiny)
