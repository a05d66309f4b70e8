"""Along the decision boundary to where it is nearest: the last steps of a search for the smallest L2 perturbation.

Each step takes the margin as linear at the place, where g is its gradient, and solves

    minimise |x|^2 + stay |x - delta|^2    with  margin + <g, x - delta> >= beyond |g| |delta|  and image + x in the box

so that it costs one forward and one backward pass. `stay` falls where the margin was about as linear as was taken, and is doubled
where it was not; `beyond`, a share of the length, falls to a thousandth. The linear margin is from DeepFool (Moosavi-Dezfooli, Fawzi
and Frossard 2016), the box in the problem from FAB (Croce and Hein 2020), the walk of small steps from Brendel, Rauber, Kuemmerer,
Ustyuzhaninov and Bethge 2019, "Accurate, reliable and fast robustness evaluation". A search that jumps about finds the right part of
the boundary; there this walk goes straight to the foot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.parts.geometry import Box, norm_of
from tasks.parts.minimal import Place

STAY, LEAST_STAY, MOST_STAY = 10.0, 1e-2, 1e3
BEYOND, LAST_BEYOND = 1e-2, 1e-3
TINY = 1e-12
CORNERS = 40
"""Newton's steps to a multiplier, at most: each passes at least one number that meets its wall, and most pass many."""


@dataclass
class AlongBoundary:
    """A walk of B examples in `steps` steps; begin it at a place near the boundary."""

    steps: int
    box: Box
    stay: Tensor  # (B,)
    slack: Tensor  # (B,) by how much, in logits, the last step meant to go beyond the boundary

    @staticmethod
    def of(place: Place, steps: int, box: Box) -> AlongBoundary:
        stay = torch.full_like(place.margin, STAY)
        return AlongBoundary(steps, box, stay, torch.full_like(stay, torch.inf))

    def step(self, place: Place, number: int) -> Tensor:
        """The next delta (B, ...), `number` being how many steps of this walk there were."""
        straight = place.margin.abs() < 0.3 * self.slack
        factor = torch.where(place.fooled | straight, 0.7, 2.0) if number else 1.0
        self.stay = (self.stay * factor).clamp(LEAST_STAY, MOST_STAY)
        length = torch.where(place.shortest.isfinite(), place.shortest, norm_of(place.delta, "L2"))
        share = BEYOND * (LAST_BEYOND / BEYOND) ** (number / self.steps)
        self.slack = share * length * norm_of(place.gradient, "L2")
        low, high = self.box[0] - place.images, self.box[1] - place.images
        return nearest(place.delta, place.gradient, self.slack - place.margin, self.stay, low, high)


def nearest(delta: Tensor, gradient: Tensor, rise: Tensor, stay: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The x that minimises |x|^2 + stay |x - delta|^2 where <gradient, x - delta> >= rise and low <= x <= high.

    x is base + multiplier * gradient, clipped, with base = delta stay / (1 + stay), and <gradient, x> rises with the multiplier, less and
    less as numbers meet their walls; so Newton's steps from 0 never pass the multiplier and end at it.

    Args:
        delta, gradient, low, high: (B, ...), with low <= 0 <= high and low <= delta <= high.
        rise, stay: (B,), stay not negative.

    Returns:
        (B, ...); where no x fulfils the inequality, the one that comes nearest to it.

    >>> box = torch.tensor([[[-2.0, -2.0]], [[2.0, 2.0]]])
    >>> nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), torch.zeros(1), torch.zeros(1), *box)
    tensor([[0.5000, 0.5000]])
    """
    flat, slope, low, high = (each.flatten(1) for each in (delta, gradient, low, high))
    base = (stay / (1 + stay))[:, None] * flat
    wanted = rise + (slope * flat).sum(1)
    tolerance = 1e-6 * (wanted.abs() + (slope * base).abs().sum(1))
    multiplier = torch.zeros_like(rise)
    for _ in range(CORNERS):
        free = base + multiplier[:, None] * slope
        x = free.clamp(low, high)
        missing = wanted - (slope * x).sum(1)
        steep = torch.where(x == free, slope**2, 0).sum(1)
        going = (missing > tolerance) & (steep > TINY)
        if not going.any():
            break
        multiplier = torch.where(going, multiplier + missing / steep.clamp_min(TINY), multiplier)
    return (base + multiplier[:, None] * slope).clamp(low, high).view_as(delta)
