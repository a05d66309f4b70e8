"""Gaussian perturbations of points at a ladder of radii, additive or multiplicative.

    z + r s n    or    z (1 + r n)

with n standard normal and s the spread of the space. Each (example, sample) has one n, for all
radii and both kinds, and for the sphere of `spherical`: comparisons are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from tasks.parts.noise.input_noise import moved
from tasks.parts.samplers.common.directions import ladder, normals


def gaussian(
    points: Tensor,
    radii: Sequence[float],
    *,
    ids: Sequence[int],
    seed: int,
    samples: int,
    kind: Literal["additive", "multiplicative"] = "additive",
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Points around each of some points.

    Args:
        points: (B, d).
        radii: R of them, at least 0: the standard deviation in units of the spread, or relative to
            each coordinate where `multiplicative`.
        ids: the examples' ids, which key the random numbers.
        seed: keys the random numbers.
        samples: S, how many an example and radius.
        kind: of the noise.
        scale: s, a number, or one for each coordinate (d,). It plays no part in `multiplicative`.

    Returns:
        (B, R, S, d).

    Raises:
        UserError: a number is out of its bounds.
    """
    n = normals(points, ids=ids, seed=seed, samples=samples)[:, None]  # (B, 1, S, d)
    r = ladder(radii, scale if kind == "additive" else 1.0, points)  # (R, 1, d or 1)
    return moved(points[:, None, None], r, n, kind, clip=False)
