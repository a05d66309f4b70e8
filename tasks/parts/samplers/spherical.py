"""Points uniform on spheres around points, at a ladder of radii.

    z + r s n / ||n||

with n standard normal, the same as for `gaussian`, and s the spread of the space. Where s has one
number for each coordinate, the sphere is one in the coordinates z / s.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tasks.parts.noise.input_noise import direction, moved
from tasks.parts.samplers.common.directions import ladder, normals


def spherical(
    points: Tensor,
    radii: Sequence[float],
    *,
    ids: Sequence[int],
    seed: int,
    samples: int,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Points at given L2 distances from each of some points.

    Args:
        points: (B, d).
        radii: R of them, at least 0: the L2 distance in units of the spread.
        ids: the examples' ids, which key the random numbers.
        seed: keys the random numbers.
        samples: S, how many an example and radius.
        scale: s, a number, or one for each coordinate (d,).

    Returns:
        (B, R, S, d).

    Raises:
        UserError: a number is out of its bounds.
    """
    n = normals(points, ids=ids, seed=seed, samples=samples)
    along = direction(n[..., None, None], "sphere")[..., 0, 0]  # its three axes of an image: (d, 1, 1)
    return moved(points[:, None, None], ladder(radii, scale, points), along[:, None], "sphere", clip=False)
