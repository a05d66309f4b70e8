"""The search within a training step: points climb a loss by projected gradient steps.

Each point of a batch climbs on its own. It must leave no trace in the training: the network is in
evaluation mode meanwhile (no dropout; batch normalisation uses its running statistics and does not
change them, so that no example feels another), only gradients to the points are computed, and what
is returned is detached. Layers that draw random numbers in evaluation mode too leave torch's
generators as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tasks.parts.geometry.balls import Ball, Box, ascent_step
from tasks.parts.models.modes import all_modules

Classify = Callable[[Tensor], Tensor]
"""Points (B, ...) to logits (B, K)."""
Height = Callable[[Tensor], Tensor]
"""Logits (B, K) to what is climbed (B,), each row on its own."""
Gradient = Callable[[Tensor], Tensor]
"""Points (B, ...) to the gradients (B, ...) of what is climbed."""


@contextmanager
def without_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """A context in which every module is in evaluation mode.

    At its end their modes and torch's generators are as they were. The mode is set module by module
    and past `nn.Module.__setattr__`, at a tenth of the cost of `model.eval()`: that counts where a
    step takes a millisecond.
    """
    training = [module for module in all_modules(model) if module.training]
    state = torch.get_rng_state()
    state_there = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    for module in training:
        vars(module)["training"] = False
    try:
        yield
    finally:
        for module in training:
            vars(module)["training"] = True
        torch.set_rng_state(state)
        if state_there is not None:
            torch.cuda.set_rng_state(state_there, device)


def gradient_at(classify: Classify, points: Tensor, height: Height) -> tuple[Tensor, Tensor]:
    """The logits at the points and the gradient of each point's height, both detached.

    No parameter gets a gradient.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_(True)
        logits = classify(points)
        (gradient,) = torch.autograd.grad(height(logits).sum(), points)
    return logits.detach(), gradient


def gradient_of_logits(
    classify: Classify, points: Tensor, weights: Tensor | Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """As `gradient_at`, for a height that is a weighted sum of the logits.

    The weights (B, K) are constant; a function gives them for the logits, detached.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_(True)
        logits = classify(points)
    seen = logits.detach()
    (gradient,) = torch.autograd.grad(logits, points, weights if isinstance(weights, Tensor) else weights(seen))
    return seen, gradient


def climb(
    gradient: Gradient,
    start: Tensor,
    delta: Tensor,
    *,
    steps: int,
    epsilon: Tensor,
    step_size: Tensor | float,
    norm: Ball,
    box: Box,
) -> Tensor:
    """The perturbation (B, ...) after some steps of `ascent_step` from `delta`.

    Args:
        gradient: points to the gradients of what is climbed.
        start: points (B, ...), the centres of the balls.
        delta: (B, ...) the perturbation at which the climb begins.
        steps: how many.
        epsilon: radius of the balls, one number for all, (1,), in the units of the points.
        step_size: in the units of the points.
        norm: of the balls.
        box: the least and the largest number that a point may have.
    """
    for _ in range(steps):
        uphill = gradient(start + delta)
        delta = ascent_step(start, delta, uphill, epsilon=epsilon, step_size=step_size, norm=norm, box=box)
    return delta
