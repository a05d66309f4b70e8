"""A walk along the decision boundary to where it is nearest, in L2 and L-inf.

It makes the last steps of a search for the smallest perturbation. Each step takes the margin as
linear at the place, where g is its gradient, so that it costs one forward and one backward pass:

    L2       minimise |x|^2 + stay |x - delta|^2
    L-inf    minimise |x - delta|^2      with |x|_inf <= (1 - shrink) times the shortest so far
    both     with margin + <g, x - delta> >= beyond |g|_dual |delta|  and image + x in the box

`stay` falls where the margin was about as linear as was taken, and is doubled where it was not;
`shrink` falls from a tenth to half a thousandth, `beyond` in L2 from a hundredth to a thousandth.
In L-inf, where |x|_inf alone leaves most numbers free, it is the way to the last place that is kept
short. The linear margin is from DeepFool (Moosavi-Dezfooli, Fawzi and Frossard 2016), the box in
the problem and the projection from FAB (Croce and Hein 2020), the walk of small steps from Brendel,
Rauber, Kuemmerer, Ustyuzhaninov and Bethge 2019, "Accurate, reliable and fast robustness
evaluation". A search that jumps about finds the right part of the boundary; there this walk goes
straight to the foot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.parts.attacks.common.minimum_norm import Iterate
from tasks.parts.geometry.balls import Ball, Box, norm_of, per_example

FIRST_STAY, LEAST_STAY, MOST_STAY = 10.0, 1e-2, 1e3
BEYOND, LAST_BEYOND = 1e-2, 1e-3
SHRINK, LAST_SHRINK = 0.1, 5e-4
TINY = 1e-12
NEWTON_STEPS = 40
"""Newton's steps to a multiplier, at most.

Each passes at least one number that meets its wall, and most pass many.
"""


@dataclass
class BoundaryWalk:
    """A walk of B examples in `steps` steps; begin it at a place near the boundary."""

    norm: Ball
    steps: int
    box: Box
    stay: Tensor  # (B,)
    slack: Tensor  # (B,) by how much, in logits, the last step meant to go beyond the boundary

    @staticmethod
    def of(iterate: Iterate, norm: Ball, steps: int, box: Box) -> BoundaryWalk:
        """The walk of the examples of an iterate, before its first step."""
        stay = torch.full_like(iterate.margin, FIRST_STAY)
        return BoundaryWalk(norm, steps, box, stay, torch.full_like(stay, torch.inf))

    def step(self, iterate: Iterate, number: int) -> Tensor:
        """The next delta (B, ...), `number` being how many steps of this walk there were."""
        low, high = self.box[0] - iterate.images, self.box[1] - iterate.images
        walks = iterate.shortest.isfinite()
        length = torch.where(walks, iterate.shortest, norm_of(iterate.delta, self.norm))
        if self.norm == "Linf":
            shrink = torch.where(walks, 1.0, -1.0) * self._falling(SHRINK, LAST_SHRINK, number)
            radius = per_example(length * (1 - shrink), low)
            low, high = torch.maximum(low, -radius), torch.minimum(high, radius)
            base, slope, beyond = iterate.delta.clamp(low, high), iterate.gradient.flatten(1).abs().sum(1), LAST_BEYOND
        else:
            straight = iterate.margin.abs() < 0.3 * self.slack
            factor = torch.where(iterate.fooled | straight, 0.7, 2.0) if number else 1.0
            self.stay = (self.stay * factor).clamp(LEAST_STAY, MOST_STAY)
            base, slope = per_example(self.stay / (1 + self.stay), low) * iterate.delta, norm_of(iterate.gradient, "L2")
            beyond = self._falling(BEYOND, LAST_BEYOND, number)
        self.slack = beyond * length * slope
        there = (iterate.gradient * iterate.delta).flatten(1).sum(1)
        return project_onto_half_space(base, iterate.gradient, self.slack - iterate.margin + there, low, high)

    def _falling(self, first: float, last: float, number: int) -> float:
        return first * (last / first) ** (number / self.steps)


def project_onto_half_space(base: Tensor, gradient: Tensor, wanted: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The x nearest to `base`, in L2, where <gradient, x> >= wanted and low <= x <= high.

    x is base + multiplier * gradient, clipped, and <gradient, x> rises with the multiplier, less
    and less as numbers meet their walls; so Newton's steps from 0 never pass the multiplier and end
    at it.

    Args:
        base: (B, ...), between `low` and `high`.
        gradient: (B, ...).
        wanted: (B,).
        low: (B, ...).
        high: (B, ...).

    Returns:
        (B, ...); where no x fulfils the inequality, the one that comes nearest to it.

    >>> walls = torch.tensor([[[-2.0, -2.0]], [[2.0, 2.0]]])
    >>> zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
    >>> project_onto_half_space(zeros, ones, torch.ones(1), *walls)
    tensor([[0.5000, 0.5000]])
    """
    flat, slope, low, high = (each.flatten(1) for each in (base, gradient, low, high))
    tolerance = 1e-6 * (wanted.abs() + (slope * flat).abs().sum(1))
    multiplier = torch.zeros_like(wanted)
    for _ in range(NEWTON_STEPS):
        free = flat + multiplier[:, None] * slope
        x = free.clamp(low, high)
        missing = wanted - (slope * x).sum(1)
        steep = torch.where(x == free, slope**2, 0).sum(1)
        going = (missing > tolerance) & (steep > TINY)
        if not going.any():
            break
        multiplier = torch.where(going, multiplier + missing / steep.clamp_min(TINY), multiplier)
    return (flat + multiplier[:, None] * slope).clamp(low, high).view_as(base)
