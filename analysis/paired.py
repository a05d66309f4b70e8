"""Differences by example: the same images measured under two conditions.

S seeds, N examples, R points along a ladder (radii). NaN stands for "not measured".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from analysis.stats import DIFFERENCE, SHARE, Bounds, Estimate, Floats, Ints, crossed_mean


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test by example, at each of R points.

    Attributes:
        p: (R,) p-values; 1 where every difference is zero, NaN where nothing was measured.
        p_holm: (R,) corrected for the R tests (Holm, 1979).
        n: (R,) how many examples were compared.
    """

    p: Floats
    p_holm: Floats
    n: Ints


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = 0.95,
    bounds: Bounds = None,
    method: str = "wilcoxon",
) -> tuple[Estimate, PairedTest]:
    """First minus second where both were measured, with its interval and its test.

    Args:
        first: (S, N, R).
        second: (S, N, R), the same seeds, examples and points in the same order.
        level: of the interval (`crossed_mean`).
        bounds: what both lie between.
        method: of the test (`paired_test`).

    >>> estimate, test = paired_difference(np.ones((1, 6, 1)), np.zeros((1, 6, 1)), method="sign")
    >>> float(estimate.mean[0]), float(test.p[0])
    (1.0, 0.03125)
    """
    differences = np.asarray(first, float) - np.asarray(second, float)
    estimate = crossed_mean(differences, level=level, bounds=of_difference(bounds))
    return estimate, paired_test(differences, method)


def of_difference(bounds: Bounds) -> Bounds:
    """What the difference of two numbers with these bounds lies between.

    >>> of_difference(SHARE), of_difference(None)
    ((-1.0, 1.0), None)
    """
    return DIFFERENCE if bounds == SHARE else None


def paired_test(differences: ArrayLike, method: str = "wilcoxon") -> PairedTest:
    """Whether differences by example are centred on zero, at each point, corrected over the points.

    Seeds are averaged within an example first, since the examples are the independent units.

    Args:
        differences: (S, N, R).
        method: "wilcoxon" (signed ranks, Wilcoxon 1945; zeros as in Pratt, 1959) or "sign" (exact
            binomial, no zeros).

    Raises:
        ValueError: an unknown method.
    """
    if method not in ("wilcoxon", "sign"):
        raise ValueError(f"method {method!r}: wilcoxon or sign")
    cube = np.asarray(differences, float)
    known = np.isfinite(cube)
    with np.errstate(invalid="ignore"):
        by_example = np.where(known, cube, 0).sum(0) / known.sum(0)  # (N, R)
    test = _wilcoxon if method == "wilcoxon" else _sign
    columns = [column[np.isfinite(column)] for column in by_example.T]
    p = np.array([test(column) if len(column) else np.nan for column in columns])
    return PairedTest(p, holm(p), np.array([len(column) for column in columns]))


def _wilcoxon(differences: Floats) -> float:
    if not differences.any():
        return 1.0
    from scipy.stats import wilcoxon  # slow to import, and only needed here

    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def _sign(differences: Floats) -> float:
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    return float(min(1.0, 2 * special.bdtr(min(above, below), above + below, 0.5))) if above + below else 1.0


def holm(p: ArrayLike) -> Floats:
    """P-values corrected for their number (Holm, 1979); NaN is not counted.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, float)
    corrected = np.full(raw.shape, np.nan)
    order = np.argsort(raw)[: int(np.isfinite(raw).sum())]
    steps = raw[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return corrected
