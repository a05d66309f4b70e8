"""The smallest L2 perturbation by an augmented Lagrangian (after Rony, Granger, Pedersoli and Ben Ayed 2021, "Augmented Lagrangian
adversarial attacks").

With r the way to the boundary of the model that is linear at the image, and the constraint y = margin / margin at the image, which is 1
at the image and negative beyond the boundary, each example descends

    |delta| / r + P(y),    P(y) = mu y + mu rho y^2 + rho^2 y^3 / 6  where y >= 0,    mu y / (1 - rho y)  where y < 0

    multiplier:  mu  <- smoothing mu + (1 - smoothing) P'(y)       at every step
    penalty:     rho <- growth rho                                 every 10 steps, where y > 0 has not fallen below 0.95 of what it was
    delta:       delta - step_size_k gradient / rms                clipped so that image + delta stays in the box

`rms` is the root of a running mean of each number's squared gradient, and step_size_k falls exponentially. So outside the constraint
grows heavier and inside lighter, until the walk goes along the boundary. The paper's constraint is the difference of logits ratio,
its distance the squared one and its first step of a given length; with y and r as here nothing depends on the scale of logits and pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.parts import door
from tasks.parts.geometry import PIXELS, Box, clipped, norm_of, per_example
from tasks.parts.losses import Loss, Objective
from tasks.parts.minimal import Place, smallest, widest
from tasks.parts.search import Found

LEAST = 1e-6
"""The smallest unit of a margin, of a way to the boundary, and of what is divided by."""
LIMITS = (1e-6, 1e12)
"""Of the multiplier."""
EVERY = 10
IMPROVED = 0.95


def alma(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    step_size: float = 2.0,
    last_step_size: float = 0.05,
    smoothing: float = 0.7,
    rms: float = 0.9,
    growth: float = 1.2,
    loss: Loss | Objective = "margin",
    halvings: int = 12,
    targets: Tensor | None = None,
    box: Box = PIXELS,
    batch: int | None = None,
) -> Found:
    """Searches the misclassified (or, with `targets`, the so classified) point that is nearest to each image in L2.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks that are to be fooled by one point, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        steps: gradient steps, at least 1.
        step_size, last_step_size: length of the first step and, falling exponentially, about that of the last, in ways to the boundary
            of the linear model.
        smoothing: share of the multiplier that stays at a step.
        rms: share of the mean squared gradient that stays at a step.
        growth: of the penalty where the constraint is not getting better.
        loss: whose gradient stands for that of the constraint, see `losses`; one of another scale makes the constraint lighter or
            heavier.
        halvings: of the line search that ends at the boundary, see `to_boundary`; 0 leaves it out.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `Found`, with distances in L2; where the search failed, the perturbation that came nearest, by margin, to success.

    Raises:
        UserError: as `door.arguments`; an unknown loss.
    """
    door.arguments("alma", images, labels, targets=targets, box=box)
    held: list[_State] = []  # of the walks that are under way: they come one batch after the other

    def step(place: Place) -> tuple[Tensor, Tensor]:
        state = _State.at_image(place, widest(place.images[0], "L2", box)) if place.number == 0 else held.pop()
        y = -place.margin / state.margin
        if place.number and place.number % EVERY == 0:
            state.rho = torch.where((y > 0) & (y > IMPROVED * state.then), growth * state.rho, state.rho)
        if place.number % EVERY == 0:
            state.then = y
        if place.number:
            state.mu = (smoothing * state.mu + (1 - smoothing) * _slope(y, state.mu, state.rho)).clamp(*LIMITS)
        weight = _slope(y, state.mu, state.rho) / state.margin
        length = norm_of(place.delta, "L2").clamp_min(LEAST)
        gradient = place.delta / per_example(length * state.way, place.delta)
        gradient = gradient - per_example(weight, place.delta) * place.gradient
        state.square = rms * state.square + (1 - rms) * gradient**2
        unbiased = state.square / (1 - rms ** (place.number + 1))
        direction = gradient / unbiased.sqrt().clamp_min(1e-12)
        if place.number == 0:  # then each number of the direction is -1, 0 or 1
            state.unit = state.way / norm_of(direction, "L2").clamp_min(1)
        alpha = step_size * (last_step_size / step_size) ** (place.number / steps)
        held.append(state)
        moved = place.delta - per_example(alpha * state.unit, direction) * direction
        return clipped(place.images, moved, box), place.radius

    return smallest(
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
        batch=batch,
    )


@dataclass
class _State:
    """What B walks remember."""

    margin: Tensor  # (B,) at the image
    way: Tensor  # (B,) r
    mu: Tensor  # (B,)
    rho: Tensor  # (B,)
    then: Tensor  # (B,) y when the penalty was last thought over
    square: Tensor  # (B, ...) running mean of the squared gradient
    unit: Tensor  # (B,) what makes the first step as long as r

    @staticmethod
    def at_image(place: Place, furthest: float) -> _State:
        margin = place.margin.abs().clamp_min(LEAST)
        way = margin / norm_of(place.gradient, "L2")
        way = torch.where(way.isfinite(), way, 1.0).clamp(LEAST, furthest)
        one = torch.ones_like(margin)
        return _State(margin, way, one, one, one, torch.zeros_like(place.delta), one)


def _slope(y: Tensor, mu: Tensor, rho: Tensor) -> Tensor:
    """P'(y): mu at y = 0, rising outside, falling to 0 inside."""
    outside = mu + 2 * mu * rho * y + rho**2 * y**2 / 2
    return torch.where(y >= 0, outside, mu / (1 - rho * y.clamp_max(0)) ** 2)
