"""Rows of a measurement: one for each combination along named axes, such as example and radius."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


def spread(axes: Mapping[str, int], columns: Mapping[str, tuple[Any, ...]]) -> dict[str, np.ndarray]:
    """Columns of the rows, of which the last axis varies fastest.

    Args:
        axes: the length of each axis, by name, in the order of the rows.
        columns: of each column its values, a tensor or what NumPy makes an array of, and the names
            of the axes along which they vary; it is repeated along the others.

    >>> found = spread({"example": 2, "radius": 2}, {"id": ([7, 9], "example"), "radius": ([0.1, 0.2], "radius")})
    >>> found["id"].tolist(), found["radius"].tolist()
    ([7, 7, 9, 9], [0.1, 0.2, 0.1, 0.2])
    """
    shape, found = tuple(axes.values()), {}
    for name, (values, *along) in columns.items():
        array = as_array(values)
        order = [axis for axis in axes if axis in along]
        array = array.reshape([axes[axis] for axis in along]).transpose([along.index(axis) for axis in order])
        array = array.reshape([length if axis in along else 1 for axis, length in axes.items()])
        found[name] = np.broadcast_to(array, shape).reshape(-1)
    return found


def as_array(values: Any) -> np.ndarray:
    """Values as a NumPy array, from whatever device they are on."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
