"""Norms, balls and directions in the space of images, or in another one.

Images lie in the box [0, 1], points of other spaces in no box. Radii are in pixel units, or in
those of the other space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.randomness import normal, uniform

Norm = Literal["Linf", "L2", "L1", "L0"]
"""L0 counts the numbers that change: the three channels of a pixel are three numbers."""
Convex = Literal["Linf", "L2", "L1"]
"""The norms whose balls are convex."""
Ball = Literal["Linf", "L2"]
Box = tuple[float, float]
"""The least and the largest number that a point may have; `UNBOUNDED` where there is no box."""
PIXELS: Box = (0.0, 1.0)
UNBOUNDED: Box = (-math.inf, math.inf)


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
    """Soft thresholding: every number moves towards zero by the same amount and stops there.

    After Duchi, Shalev-Shwartz, Singer and Chandra 2008, "Efficient projections onto the l1-ball
    for learning in high dimensions". With the sizes in falling order u_1, u_2, ..., the j largest
    remain where the amount (u_1 + .. + u_j - epsilon) / j is below u_j.
    """
    sizes = delta.flatten(1).abs()
    falling = sizes.sort(dim=1, descending=True).values
    amounts = (falling.cumsum(1) - epsilon[:, None]) / torch.arange(1, sizes.shape[1] + 1, device=delta.device)
    remaining = (falling > amounts).sum(1, keepdim=True).clamp_min(1)  # none in the ball of radius 0
    amount = amounts.gather(1, remaining - 1).clamp_min(0)  # 0 in the ball
    return delta.sign() * (sizes - amount).clamp_min(0).reshape(delta.shape)


def radii(epsilon: float | Tensor, images: Tensor) -> Tensor:
    """One radius for each of the images (N, ...), from one for all or one each: float64 (N,)."""
    each = torch.as_tensor(epsilon, dtype=torch.float64, device=images.device)
    return each.expand(len(images))


def clipped(images: Tensor, delta: Tensor, box: Box) -> Tensor:
    """The perturbation of images in the box (B, ...), cut off where it leaves the box."""
    return delta if box == UNBOUNDED else (images + delta).clamp_(*box).sub_(images)


def inside(images: Tensor, delta: Tensor, epsilon: Tensor, norm: Convex, box: Box) -> Tensor:
    """A perturbation near `delta` that stays in the ball around each image and in the box.

    In L-inf and L1 it is the nearest one in L2. In L2 it is the nearest of the ball, cut off where
    it leaves the box, which is not always the nearest of both. In L1 that would not do: what the
    box cuts off of a ball's corner is most of it (Croce and Hein 2021, "Mind the box: l1-APGD for
    sparse adversarial attacks on image classifiers").

    Args:
        images: (B, ...) in the box.
        delta: (B, ...).
        epsilon: radii of the balls, (B,) or (1,).
        norm: of the balls.
        box: the least and the largest number that a point may have.
    """
    if norm == "L1" and box != UNBOUNDED:
        delta = _project_l1_in_box(delta, epsilon, torch.where(delta > 0, box[1] - images, images - box[0]))
    else:
        delta = project(delta, epsilon, norm)
    return clipped(images, delta, box)


def _project_l1_in_box(delta: Tensor, epsilon: Tensor, room: Tensor) -> Tensor:
    """The nearest point of the L1 ball in which no number is larger than its `room`.

    The room (B, ...) is at least 0. The point's sizes are

        max(|v_i| - a, 0) - max(|v_i| - room_i - a, 0)

    with the smallest amount a >= 0 for which they sum up to epsilon or less. Between two of the
    values |v_i| and |v_i| - room_i that sum is linear in a: they are put in falling order, and a
    lies between the last at which the sum is still at most epsilon and the next.
    """
    sizes, room = delta.flatten(1).abs().double(), room.flatten(1).double()
    bends, order = torch.cat([sizes, sizes - room], 1).sort(dim=1, descending=True, stable=True)
    slope = torch.where(order < sizes.shape[1], 1.0, -1.0).to(bends).cumsum(1)
    weighted = torch.where(order < sizes.shape[1], bends, -bends).cumsum(1)
    radius = epsilon.double()[:, None].expand(len(delta), 1)
    sums = weighted - slope * bends  # at each bend, rising; up to the rounding
    last = (sums <= radius).sum(1, keepdim=True).clamp_min(1) - 1
    steepness = slope.gather(1, last)
    amount = (weighted.gather(1, last) - radius) / steepness.clamp_min(1)
    amount = torch.where(steepness > 0, amount, bends.gather(1, last)).clamp_min(0)
    near = (sizes - amount).clamp_min(0).minimum(room).to(delta.dtype)
    return delta.sign() * near.reshape(delta.shape)


def ascent_direction(gradient: Tensor, norm: Literal["Linf", "L2"]) -> Tensor:
    """The direction of steepest ascent, of unit norm; zero where the gradient is zero.

    For L-inf it is the gradient's sign, for L2 the normalised gradient.
    """
    if norm == "Linf":
        return gradient.sign()
    return gradient / per_example(norm_of(gradient, "L2"), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def sparse_ascent(gradient: Tensor, room: Tensor, share: float) -> Tensor:
    """A step of steep ascent, of unit L1 norm, that changes only a share of the numbers.

    It goes equally far along the steepest of those that have room to go. The very steepest ascent
    moves one number alone; moving a share of them takes far fewer steps (Tramer and Boneh 2019,
    "Adversarial training and robustness for multiple perturbations").

    Args:
        gradient: (B, ...).
        room: how far each number can go uphill, (B, ...).
        share: of the numbers that move, at least one of them.

    >>> gradient, room = torch.tensor([[3.0, -2.0, 1.0, 0.5]]), torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    >>> sparse_ascent(gradient, room, 0.5)
    tensor([[ 0.0000, -0.5000,  0.5000,  0.0000]])
    """
    sizes = torch.where(room > 0, gradient.abs(), 0).flatten(1)
    count = max(1, round(share * sizes.shape[1]))
    steepest = torch.zeros_like(sizes).scatter(1, sizes.topk(count, dim=1).indices, 1.0)
    step = steepest * (sizes > 0) * gradient.flatten(1).sign()
    return (step / step.abs().sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)


def ascent_step(
    images: Tensor,
    delta: Tensor,
    gradient: Tensor,
    *,
    epsilon: Tensor,
    step_size: Tensor | float,
    norm: Convex,
    box: Box,
    share: float = 0.01,
) -> Tensor:
    """The perturbation (B, ...) after one step of projected gradient ascent from `delta`.

        delta <- project(delta + step_size * direction(gradient))

    The projection is onto ball and box, see `inside`.

    Args:
        images: (B, ...) in the box.
        delta: (B, ...) the perturbation before the step.
        gradient: (B, ...) at images + delta.
        epsilon: radii of the balls, (B,) or (1,).
        step_size: in the units of the radius; a number, or a tensor that broadcasts over the
            images.
        norm: of the ball. The direction is that of `ascent_direction`, in L1 that of
            `sparse_ascent`.
        box: the least and the largest number that a point may have.
        share: in L1, of the numbers that move.

    >>> x, zero, one = torch.tensor([[0.5, 0.9]]), torch.zeros(1, 2), torch.ones(1)
    >>> gradient = torch.tensor([[-2.0, 1.0]])
    >>> ascent_step(x, zero, gradient, epsilon=one, step_size=0.25, norm="Linf", box=PIXELS)
    tensor([[-0.2500,  0.1000]])
    """
    if norm == "L1":
        point = images + delta
        direction = sparse_ascent(gradient, torch.where(gradient > 0, box[1] - point, point - box[0]), share)
    else:
        direction = ascent_direction(gradient, norm)
    return inside(images, direction.mul_(step_size).add_(delta), epsilon, norm, box)


def random_in_ball(
    norm: Convex, shape: Sequence[int], *, seed: int, purpose: str, ids: Sequence[int], block: int = 0
) -> Tensor:
    """Points uniform in the unit ball, one for each id: float32 (len(ids), *shape) on the CPU.

    The random numbers are keyed as in `randomness`.
    """
    if norm == "Linf":
        return uniform(seed, purpose, ids, shape, block) * 2 - 1
    if norm == "L1":  # numbers of a Laplace distribution have directions uniform on the surface
        centred = uniform(seed, purpose, ids, shape, block) - 0.5
        laplace = -centred.sign() * torch.log1p(-2 * centred.abs().clamp_max(0.5 - 2**-25))
        fraction = uniform(seed, purpose + ", distance from the centre", ids, (), block)
        length = fraction ** (1 / math.prod(shape)) / norm_of(laplace, "L1").clamp_min(torch.finfo(laplace.dtype).tiny)
        return laplace * per_example(length, laplace)
    directions = ascent_direction(normal(seed, purpose, ids, shape, block), "L2")
    fraction = uniform(seed, purpose + ", distance from the centre", ids, (), block)
    return directions * per_example(fraction ** (1 / math.prod(shape)), directions)


def within_box(images: Tensor, direction: Tensor, length: Tensor, norm: Convex, halvings: int = 40) -> Tensor:
    """A perturbation along `direction` of norm `length` that stays in [0, 1].

    Where a pixel would leave the box, its sign is turned inwards; what clipping still takes from
    the norm is made up by going further along the direction (the clipped norm grows with the step,
    so bisection finds it). A length that no point of the box reaches ends in the furthest point
    along the direction.

    Args:
        images: (B, C, H, W) in [0, 1].
        direction: (B, C, H, W), any length but zero.
        length: the norm asked for, (B,), pixel units.
        norm: in which it is measured.
        halvings: of the bisection.

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
