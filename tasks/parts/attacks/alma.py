"""ALMA: the smallest L2 perturbation by an augmented Lagrangian.

After Rony, Granger, Pedersoli and Ben Ayed 2021, "Augmented Lagrangian adversarial attacks". With r
the way to the boundary of the model that is linear at the image, and the constraint y = margin /
margin at the image, which is 1 at the image and negative beyond the boundary, each example descends

    (|delta| / r)^2 + P(y),    P(y) = mu y + mu rho y^2 + rho^2 y^3 / 6    where y >= 0
                                      mu y / (1 - rho y)                   where y < 0

    multiplier:  mu  <- smoothing mu + (1 - smoothing) P'(y)       at every step
    penalty:     rho <- growth rho                                 every 10 steps, see below
    delta:       delta - step_size_k gradient / rms                clipped to the box

The penalty grows where y > 0 has not fallen below 0.95 of what it was 10 steps before. `rms` is the
root of a running mean of each number's squared gradient, and step_size_k falls exponentially from
the step on at which the walk was first beyond the boundary. The mean begins at ten times the
squared norm of the whole first gradient, next to which one number's is nothing: the first steps go
along the gradient itself, ever longer, and only later ones are evened out. Outside, the constraint
grows heavier, and inside lighter, until the walk goes along the boundary; its last steps are those
of `boundary_walk`, from the shortest perturbation so far. The paper's constraint is the difference
of logits ratio, its first step of a given length; with y and r as here nothing depends on the scale
of logits and pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.parts.attacks.common.boundary_walk import BoundaryWalk
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.minimum_norm import Iterate, diameter, minimise
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.geometry.balls import PIXELS, Box, clipped, norm_of, per_example
from tasks.parts.losses import Loss, Objective

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=("L2",), radius="smallest")

LEAST = 1e-6
"""The smallest unit of a margin, of a way to the boundary, and of what is divided by."""
LIMITS = (1e-6, 1e12)
"""Of the multiplier."""
CALM = 10.0
"""The first mean square of each number's gradient, in squared norms of the whole gradient."""
EVERY = 10
IMPROVED = 0.95
TINY = 1e-12


def alma(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    step_size: float = 0.25,
    last_step_size: float = 0.0025,
    smoothing: float = 0.5,
    rms: float = 0.5,
    growth: float = 1.2,
    polish: int = 20,
    loss: Loss | Objective = "margin",
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
        step_size: length of the first step, in ways to the boundary of the linear model.
        last_step_size: what it falls to.
        smoothing: share of the multiplier that stays at a step.
        rms: share of the mean squared gradient that stays at a step.
        growth: of the penalty where the constraint is not getting better.
        polish: how many of the steps, the last ones, go along the boundary, see `boundary_walk`; at
            most half of them do.
        loss: whose gradient stands for that of the constraint, see `losses`; one of another scale
            makes the constraint lighter or heavier.
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
    check_arguments("alma", images, labels, targets=targets, box=box)
    turn = steps - min(polish, steps // 2)
    walk: _Descent | BoundaryWalk | None = None  # of the batch that is under way: they come one after the other

    def step(iterate: Iterate) -> tuple[Tensor, Tensor]:
        nonlocal walk
        if iterate.number == turn:
            walk = BoundaryWalk.of(iterate, "L2", steps - turn - 1, box)
            return iterate.best, iterate.radius
        if iterate.number == 0:
            walk = _Descent.at_image(iterate, diameter(iterate.images[0], "L2", box))
        assert walk is not None
        if isinstance(walk, BoundaryWalk):
            return walk.step(iterate, iterate.number - turn - 1), iterate.radius
        walk.weigh(iterate, smoothing, growth)
        direction = walk.direction(iterate, rms)
        if iterate.number == 0:
            walk.unit = walk.way / norm_of(direction, "L2").clamp_min(LEAST)
        late = (iterate.number - walk.found).clamp_min(0) / (turn - walk.found).clamp_min(1)
        alpha = step_size ** (1 - late) * last_step_size**late * walk.unit
        return clipped(iterate.images, iterate.delta - per_example(alpha, direction) * direction, box), iterate.radius

    return minimise(
        model,
        images,
        labels,
        step,
        norm="L2",
        loss=loss,
        steps=steps,
        radius=0.0,
        halvings=halvings,
        targets=targets,
        box=box,
        batch=batch,
    )


@dataclass
class _Descent:
    """What B walks remember before they go along the boundary."""

    margin: Tensor  # (B,) at the image
    way: Tensor  # (B,) r
    mu: Tensor  # (B,)
    rho: Tensor  # (B,)
    then: Tensor  # (B,) y when the penalty was last thought over
    found: Tensor  # (B,) number of the step that was first beyond the boundary, infinite where none was
    unit: Tensor  # (B,) what makes a first step of size 1 as long as r
    square: Tensor | None = None  # (B, ...) running mean of the squared gradient

    @staticmethod
    def at_image(iterate: Iterate, furthest: float) -> _Descent:
        margin = iterate.margin.abs().clamp_min(LEAST)
        way = margin / norm_of(iterate.gradient, "L2")
        way = torch.where(way.isfinite(), way, 1.0).clamp(LEAST, furthest)
        one = torch.ones_like(margin)
        return _Descent(margin, way, one, one, one, torch.full_like(one, torch.inf), one)

    def y(self, iterate: Iterate) -> Tensor:
        return -iterate.margin / self.margin

    def weigh(self, iterate: Iterate, smoothing: float, growth: float) -> None:
        """Multiplier and penalty after a step."""
        y = self.y(iterate)
        if iterate.number and iterate.number % EVERY == 0:
            self.rho = torch.where((y > 0) & (y > IMPROVED * self.then), growth * self.rho, self.rho)
        if iterate.number % EVERY == 0:
            self.then = y
        if iterate.number:
            self.mu = (smoothing * self.mu + (1 - smoothing) * _slope(y, self.mu, self.rho)).clamp(*LIMITS)
        self.found = torch.where(iterate.fooled, self.found.clamp_max(iterate.number), self.found)

    def direction(self, iterate: Iterate, rms: float) -> Tensor:
        """The gradient of what is descended (B, ...), each number over its running `rms`."""
        weight = _slope(self.y(iterate), self.mu, self.rho) / self.margin
        gradient = 2 * iterate.delta / per_example(self.way**2, iterate.delta)
        gradient = gradient - per_example(weight, iterate.delta) * iterate.gradient
        if self.square is None:
            self.square = per_example(CALM * norm_of(gradient, "L2") ** 2, gradient).expand_as(gradient)
        self.square = rms * self.square + (1 - rms) * gradient**2
        return gradient / self.square.sqrt().clamp_min(TINY)


def _slope(y: Tensor, mu: Tensor, rho: Tensor) -> Tensor:
    """P'(y): mu at y = 0, rising outside, falling to 0 inside."""
    outside = mu + 2 * mu * rho * y + rho**2 * y**2 / 2
    return torch.where(y >= 0, outside, mu / (1 - rho * y.clamp_max(0)) ** 2)
