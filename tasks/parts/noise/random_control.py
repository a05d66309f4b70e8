"""The control of an adversarial search: the same images, moved as far in a random direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.parts.geometry.balls import Norm, norm_of, per_example, within_box
from tasks.parts.randomness import normal, uniform


def randomly_moved(
    points: Tensor,
    distance: Tensor,
    norm: Norm,
    *,
    ids: Sequence[int],
    seed: int,
    box: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """A perturbation of each point in a random direction, of a given norm.

    The direction is random signs for L-inf and normal numbers for L2 and L1; for L0, numbers chosen
    at random get random values. Each example has one direction, whatever the distance.

    Args:
        points: (B, ...) in the box.
        distance: (B,) the length of the perturbation; what no point of the box reaches ends in the
            furthest along the direction.
        norm: in which the distance is measured.
        ids: the examples' ids, which key the random numbers.
        seed: keys the random numbers.
        box: (0, 1) for images, (-inf, inf) for points of a hidden space.

    Returns:
        The perturbations (B, ...), with points + perturbation in the box.
    """
    straight = normal(seed, "random control", ids, points.shape[1:]).to(points)
    if norm == "L0":
        fresh = uniform(seed, "random control, values", ids, points.shape[1:]).to(points)
        fresh = fresh if box == (0.0, 1.0) else points + straight
        rank = straight.flatten(1).argsort(dim=1).argsort(dim=1).reshape(points.shape)
        return torch.where(rank < per_example(distance.floor(), points), fresh - points, 0)
    straight = straight.sign() if norm == "Linf" else straight
    if box == (0.0, 1.0):
        return within_box(points, straight, distance, norm)
    return straight * per_example(distance / norm_of(straight, norm), points)
