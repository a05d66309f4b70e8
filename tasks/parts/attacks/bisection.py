"""The smallest perturbation by bisection of the radius at which Auto-PGD still succeeds.

Auto-PGD is `apgd` (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks"). For each example

    bracket:    radius <- 2 |margin| / |gradient|_dual      twice the way to the boundary of the
                                                            linear model,
                radius <- 2 radius                          until a search succeeds
    bisection:  radius <- (low + high) / 2                  between the largest radius that failed
                                                            since the last success below it (0 at
                                                            first) and the length of the shortest
                                                            success

and at last along the straight way to the image, see `to_boundary`. After the first success each
search begins at the shortest perturbation that succeeded, projected onto the smaller ball; that is
what makes short walks do. A search that succeeds ends there and is cheap, so the first radius may
well be too large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.line_search import to_boundary
from tasks.parts.attacks.common.minimum_norm import diameter
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.geometry.balls import PIXELS, Ball, Box, per_example
from tasks.parts.losses import Loss, Objective, objective, value_and_gradient, verdict
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=get_args(Ball), radius="smallest", weight_noise=False)

LEAST = 2.0**-12
"""The smallest first radius, for images that are all but on the boundary."""
DOUBLINGS = 12
"""After so many failures in a row at the start an example is given up.

One failure at the widest radius of the box is enough.
"""


def bisection(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: Ball = "Linf",
    rounds: int = 9,
    steps: int = 20,
    restarts: int = 1,
    loss: Loss | Objective = "ce",
    halvings: int = 10,
    targets: Tensor | None = None,
    box: Box = PIXELS,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> AttackResult:
    """Searches the misclassified point that is nearest to each image.

    With `targets`, it searches the nearest point that is given its target instead.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks that are to be fooled by
            one point, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        norm: that is to be small.
        rounds: searches after the first that succeeded; each halves what is between the radii.
        steps: gradient steps of a search's walk.
        restarts: walks of a search; all but the first begin at random.
        loss: what is maximised, by name or as a function of one's own, see `losses`.
        halvings: of the line search that ends at the boundary, see `to_boundary`; 0 leaves it out.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        ids: the examples' ids, which key the random starts; 0, 1, ... where None.
        seed: keys the random starts.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`; where the search failed, the perturbation of the widest search, which came
        nearest, by margin, to success.

    Raises:
        UserError: as `check_arguments`; an unknown loss; less than 0 rounds.
    """
    check_arguments("bisection", images, labels, norm=norm, norms=ATTACK.norms, targets=targets, box=box)
    if rounds < 0:
        raise UserError(f"bisection needs 0 rounds or more, not {rounds}", "rounds")
    batch = pass_size(images) if batch is None else batch
    names = list(range(len(images)) if ids is None else ids)
    top = diameter(images[0], norm, box) if len(images) else 1.0

    radius, success = _first(model, images, labels, targets, norm, batch)
    radius = radius.clamp(LEAST, top)
    forwards = torch.ones_like(labels)
    backwards = torch.ones_like(labels)
    best = torch.zeros_like(images)
    low, high = torch.zeros_like(radius), torch.full_like(radius, torch.inf)
    left = torch.where(success, 0, DOUBLINGS)  # searches that each example has left
    while left.any():
        rows = left.nonzero().flatten()
        found = apgd(
            model,
            images[rows],
            labels[rows],
            epsilon=radius[rows],
            norm=norm,
            steps=steps,
            restarts=restarts,
            start=best[rows],
            loss=loss,
            targets=None if targets is None else targets[rows],
            box=box,
            ids=[names[row] for row in rows.tolist()],
            seed=seed,
            batch=batch,
        )
        forwards[rows] += found.forwards
        backwards[rows] += found.backwards
        before = success[rows]
        taken = found.success | ~before
        best[rows] = torch.where(per_example(taken, best), found.perturbation, best[rows])
        success[rows] |= found.success
        high[rows] = torch.where(found.success, torch.minimum(found.distance, radius[rows]), high[rows])
        low[rows] = torch.where(found.success, low[rows], radius[rows])
        given_up = ~success[rows] & (radius[rows] >= top)
        left[rows] = torch.where(found.success & ~before, rounds, (left[rows] - 1) * ~given_up)
        middle = (low[rows] + high[rows]) / 2
        radius[rows] = torch.where(success[rows], middle, (2 * radius[rows]).clamp_max(top))
    best, line = to_boundary(
        model, images, labels, best, success, halvings=halvings, norm=norm, batch=batch, targets=targets
    )
    return AttackResult.of(images, best, success, norm=norm, forwards=forwards + line, backwards=backwards, box=box)


def _first(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, targets: Tensor | None, norm: Ball, batch: int
) -> tuple[Tensor, Tensor]:
    """The first radii (N,), and which images succeed themselves (N,).

    A radius is twice the distance of the boundary if the margin were linear, 1 where the margin
    does not change.
    """
    radius, success = images.new_zeros(len(images)), torch.zeros_like(labels, dtype=torch.bool)
    for rows in torch.arange(len(images), device=labels.device).split(batch) if len(images) else ():
        aims = None if targets is None else targets[rows]
        height = partial(objective, "margin", labels=labels[rows], targets=aims)
        logits, _, gradient = value_and_gradient(model, images[rows], height, batch)
        margin, success[rows] = verdict(logits, labels[rows], aims)
        slope = gradient.flatten(1).abs().sum(1) if norm == "Linf" else gradient.flatten(1).norm(dim=1)
        there = 2 * margin.abs() / slope
        radius[rows] = torch.where(there.isfinite(), there, 1.0)
    return radius, success
