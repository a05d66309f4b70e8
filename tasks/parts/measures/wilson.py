"""Wilson's score interval, for shares and for means of numbers in [0, 1].

Wilson 1927, "Probable inference, the law of succession, and statistical inference".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Values = TypeVar("Values", "NDArray[np.float64]", "Tensor")

Z = 1.959963984540054
"""Quantile of the normal distribution that leaves 95 % between -Z and Z."""


def wilson(total: Values, n: Values, variance: Values, z: float = Z) -> tuple[Values, Values]:
    """The centre of the interval of a mean, and half its width.

        centre = (total + z^2 / 2) / (n + z^2)
        half   = z / (1 + z^2 / n) * sqrt(variance / n + z^2 / (4 n^2))

    With p = total / n and the variance p (1 - p) of shares this is Wilson's interval. With the
    variance of other numbers in [0, 1] it is carried over to their mean: it is narrower for steady
    numbers, and never of no width, however alike the first samples are.

    Args:
        total: sums of the numbers; for a share, how many successes.
        n: how many numbers.
        variance: of the numbers, dividing by n.
        z: quantile of the normal distribution, which decides the level.

    Returns:
        Centre and half width, arrays or tensors like the arguments.

    >>> import numpy as np
    >>> n = np.array([10.0])
    >>> centre, half = wilson(0.9 * n, n, np.array([0.9 * 0.1]))
    >>> (centre - half).round(3).tolist(), (centre + half).round(3).tolist()
    ([0.596], [0.982])
    """
    centre = (total + z**2 / 2) / (n + z**2)
    half = z / (1 + z**2 / n) * (variance / n + z**2 / (4 * n**2)) ** 0.5
    return centre, half
