"""The arguments of an attack that have one entry an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

PER_EXAMPLE = ("targets", "start", "epsilon", "ids")


def rows_of(arguments: Mapping[str, object], rows: Tensor, count: int) -> dict[str, object]:
    """The arguments for some of the examples.

    Args:
        arguments: keyword arguments of an attack.
        rows: (n,) of the examples.
        count: how many examples there are.

    >>> import torch
    >>> rows_of({"ids": [7, 8, 9], "epsilon": 0.1, "steps": 5}, torch.tensor([2, 0]), 3)
    {'ids': [9, 7], 'epsilon': 0.1, 'steps': 5}
    """
    some = dict(arguments)
    for name in PER_EXAMPLE:
        value = some.get(name)
        if isinstance(value, Tensor) and value.ndim and len(value) == count:
            some[name] = value[rows.to(value.device)]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            some[name] = [value[row] for row in rows.tolist()]
    return some
