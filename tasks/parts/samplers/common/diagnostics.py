"""Whether chains have converged: rank-normalised split R-hat, and the bulk effective sample size.

Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021, "Rank-normalization, folding, and
localization: an improved R-hat for assessing convergence of MCMC", as computed by ArviZ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from torch import Tensor

LEAST = 4
"""Samples of a chain, of which each half has two."""


class Diagnosis(NamedTuple):
    """Of a set of chains.

    Attributes:
        ess: bulk effective sample size, of all chains together.
        r_hat: rank-normalised split R-hat; 1 where the chains agree, and above 1.01 they do not.
    """

    ess: float
    r_hat: float


def diagnosed(samples: Tensor | NDArray[np.float64]) -> Diagnosis:
    """The diagnosis of C chains of one quantity.

    Both are NaN where nothing can be said: where the samples are all equal, or fewer than 4 a
    chain, or some are not finite. One chain that stands still among others that move makes R-hat
    large.

    Args:
        samples: (C, S).

    >>> numbers = np.random.default_rng(0).standard_normal((4, 500))
    >>> ess, r_hat = diagnosed(numbers)
    >>> 1600 < ess < 2400, 0.99 < r_hat < 1.01
    (True, True)
    >>> diagnosed(numbers + 5 * np.arange(4)[:, None]).r_hat > 1.5
    True
    """
    values = np.asarray(samples.cpu() if isinstance(samples, Tensor) else samples, dtype=np.float64)
    if values.shape[1] < LEAST or not np.isfinite(values).all() or (values == values.flat[0]).all():
        return Diagnosis(np.nan, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that all stand still, at different points
        ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk")
        r_hat = array_stats.rhat(values, chain_axis=0, draw_axis=1, method="rank")
    return Diagnosis(float(ess), float(r_hat))
