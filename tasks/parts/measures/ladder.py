"""Curves along a ladder of points, such as radii."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mean_height(points: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """The mean height of each curve: the area under it (trapezoids) over the length of the ladder.

    Args:
        points: (R,) ascending.
        values: (..., R) the curves; of a single point, its value is the height.

    >>> mean_height([0, 1, 3], [[1, 0, 0], [1, 1, 1]]).round(3).tolist()
    [0.167, 1.0]
    >>> mean_height([2], [[5]]).tolist()
    [5.0]
    """
    radii, heights = np.asarray(points, np.float64), np.asarray(values, np.float64)
    if len(radii) < 2:
        return heights.reshape(heights.shape[:-1])
    return np.trapezoid(heights, radii, axis=-1) / (radii[-1] - radii[0])
