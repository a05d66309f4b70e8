"""Rows of a measurement: one for each combination along named axes, such as example and radius."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tasks.parts.batching import Batch

Values = tuple[ArrayLike | Tensor, *tuple[str, ...]]
"""Values of a column, and the names of the axes along which they vary."""
Columns = dict[str, np.ndarray]


def example_columns(batch: Batch, predicted: Tensor) -> dict[str, Values]:
    """The values of the columns that `columns.EXAMPLE` describes, along the axis `example`.

    Args:
        batch: B examples.
        predicted: (B,) the class of each unchanged image.
    """
    return {
        "id": (np.asarray(batch.ids, dtype=np.int64), "example"),
        "label": (batch.labels, "example"),
        "predicted": (predicted, "example"),
        "correct": (predicted == batch.labels, "example"),
    }


def spread(axes: Mapping[str, int], columns: Mapping[str, Values]) -> Columns:
    """Repeats values along the axes on which they do not depend, to the columns of all rows.

    The last axis varies fastest.

    Args:
        axes: the length of each axis, by name, in the order of the rows.
        columns: the values of each column, with the axes in their own order. Values are repeated
            along the other axes.

    >>> values = {"id": ([7, 9], "example"), "radius": ([0.1, 0.2], "radius")}
    >>> found = spread({"example": 2, "radius": 2}, values)
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


def as_array(values: ArrayLike | Tensor) -> NDArray[np.generic]:
    """Values as a NumPy array, from whatever device they are on."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def means(scores: Mapping[str, pd.Series]) -> dict[str, float]:
    """The mean of each score over its examples.

    >>> means({"accuracy": pd.Series([True, False])})
    {'accuracy': 0.5}
    """
    return {name: float(values.mean()) for name, values in scores.items()}
