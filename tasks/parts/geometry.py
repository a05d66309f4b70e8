"""Norms, balls and directions in input space. Images lie in the box [0, 1]; radii are in pixel units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.randomness import normal, uniform

Norm = Literal["Linf", "L2", "L1", "L0"]
Ball = Literal["Linf", "L2"]
"""The norms in whose balls the searches at a fixed radius move."""
"""L0 counts the numbers that change: the three channels of a pixel are three numbers."""


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """A vector of one number an example, (B,), shaped to broadcast over images (B, C, H, W)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def norm_of(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each example's perturbation, (B, ...) -> (B,).

    >>> norm_of(torch.tensor([[3.0, -4.0]]), "L2"), norm_of(torch.tensor([[3.0, -4.0]]), "Linf")
    (tensor([5.]), tensor([4.]))
    >>> norm_of(torch.tensor([[3.0, -4.0]]), "L1"), norm_of(torch.tensor([[3.0, 0.0]]), "L0")
    (tensor([7.]), tensor([1.]))
    """
    flat = delta.flatten(1)
    if norm == "Linf":
        return flat.abs().amax(1)
    if norm == "L2":
        return flat.norm(dim=1)
    return flat.abs().sum(1) if norm == "L1" else (flat != 0).sum(1).to(delta.dtype)


def project(delta: Tensor, epsilon: Tensor, norm: Norm) -> Tensor:
    """The nearest point (in L2) of the ball of radius `epsilon` (B,), at least 0, around zero.

    Of equally large numbers, the L0 ball keeps those that come first.
    """
    radius = per_example(epsilon, delta)
    if norm == "Linf":
        return torch.minimum(torch.maximum(delta, -radius), radius)
    if norm == "L1":
        return _project_l1(delta, epsilon)
    if norm == "L0":
        order = delta.flatten(1).abs().argsort(dim=1, descending=True, stable=True)
        kept = torch.arange(order.shape[1], device=delta.device) < epsilon[:, None].floor()
        return delta * torch.zeros_like(kept).scatter(1, order, kept).reshape(delta.shape)
    length = per_example(norm_of(delta, "L2"), delta)
    return delta * (radius / length.clamp_min(1e-12)).clamp_max(1.0)


def _project_l1(delta: Tensor, epsilon: Tensor) -> Tensor:
    """Soft thresholding: every number moves towards zero by the same amount and stops there (Duchi, Shalev-Shwartz, Singer and
    Chandra 2008, "Efficient projections onto the l1-ball for learning in high dimensions").

    With the sizes in falling order u_1, u_2, ..., the j largest remain where the amount (u_1 + .. + u_j - epsilon) / j is below u_j.
    """
    sizes = delta.flatten(1).abs()
    falling = sizes.sort(dim=1, descending=True).values
    amounts = (falling.cumsum(1) - epsilon[:, None]) / torch.arange(1, sizes.shape[1] + 1, device=delta.device)
    remaining = (falling > amounts).sum(1, keepdim=True).clamp_min(1)  # none in the ball of radius 0
    amount = amounts.gather(1, remaining - 1).clamp_min(0)  # 0 in the ball
    return delta.sign() * (sizes - amount).clamp_min(0).reshape(delta.shape)


def ascent_direction(gradient: Tensor, norm: Literal["Linf", "L2"]) -> Tensor:
    """The direction of steepest ascent of unit norm: the sign for L-inf, the normalised gradient for L2. Zero where it is zero."""
    if norm == "Linf":
        return gradient.sign()
    return gradient / per_example(norm_of(gradient, "L2"), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def random_in_ball(
    norm: Literal["Linf", "L2"], shape: Sequence[int], *, seed: int, purpose: str, ids: Sequence[int], block: int = 0
) -> Tensor:
    """Points uniform in the unit ball, one for each id, keyed as in `randomness`: float32 (len(ids), *shape) on the CPU."""
    if norm == "Linf":
        return uniform(seed, purpose, ids, shape, block) * 2 - 1
    directions = ascent_direction(normal(seed, purpose, ids, shape, block), "L2")
    fraction = uniform(seed, purpose + ", distance from the centre", ids, (), block)
    return directions * per_example(fraction ** (1 / math.prod(shape)), directions)


def within_box(
    images: Tensor, direction: Tensor, length: Tensor, norm: Literal["Linf", "L2"], halvings: int = 40
) -> Tensor:
    """A perturbation along `direction` that stays in [0, 1] and has a norm of `length` after clipping.

    Where a pixel would leave the box, its sign is turned inwards; what clipping still takes from the norm is made up by going further
    along the direction (the clipped norm grows with the step, so bisection finds it). A length that no point of the box reaches ends
    in the furthest point along the direction.

    Args:
        images: (B, C, H, W) in [0, 1].
        direction: (B, C, H, W), any length but zero.
        length: the norm asked for, (B,), pixel units.

    Returns:
        The perturbation (B, C, H, W), with images + perturbation in [0, 1].
    """
    direction = direction / per_example(norm_of(direction, norm), direction).clamp_min(
        torch.finfo(direction.dtype).tiny
    )
    outside = (images + per_example(length, images) * direction - 0.5).abs() > 0.5
    inside = (images - per_example(length, images) * direction - 0.5).abs() <= 0.5
    direction = torch.where(outside & inside, -direction, direction)

    def clipped(step: Tensor) -> Tensor:
        return (images + per_example(step, images) * direction).clamp(0, 1) - images

    low, high = torch.zeros_like(length), length.clone()
    for _ in range(20):  # double until long enough, or until nothing more can be gained
        high = torch.where(norm_of(clipped(high), norm) < length, high * 2, high)
    for _ in range(halvings):
        middle = (low + high) / 2
        short = norm_of(clipped(middle), norm) < length
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return clipped(high)
