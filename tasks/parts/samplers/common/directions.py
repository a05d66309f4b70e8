"""The directions and the radii of perturbations around points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.parts.randomness import normal
from tasks.parts.settings import UserError


def normals(points: Tensor, *, ids: Sequence[int], seed: int, samples: int) -> Tensor:
    """Normal numbers (B, S, d) for points (B, d); more samples begin with the same ones."""
    if samples < 1:
        raise UserError(f"must be at least 1, not {samples}", "samples")
    if len(ids) != len(points):
        raise UserError(f"{len(ids)} ids of {len(points)} points", "ids")
    return normal(seed, "perturbation of points", ids, (samples, points.shape[1])).to(points)


def ladder(radii: Sequence[float], scale: float | Tensor, points: Tensor) -> Tensor:
    """The radii times the spread, (R, 1, 1) or (R, 1, d), for points (B, d)."""
    for radius in radii:
        if not 0 <= radius < math.inf:
            raise UserError(f"must be finite and at least 0, not {radius}", "radii")
    return torch.as_tensor(list(radii)).to(points)[:, None, None] * torch.as_tensor(scale).to(points)
