"""How codes lie in their space: moments, percentiles, principal components, intrinsic dimension.

The intrinsic dimension is estimated from the distances r_1 <= r_2 <= ... of each code to its
nearest others, in two ways.

| name | from | after |
|---|---|---|
| two_nn | r_2 / r_1, whose distribution is F(mu) = 1 - mu^-d | Facco et al. 2017 |
| mle | r_k / r_j for j < k, maximum likelihood | Levina and Bickel 2004 |

Both take the codes to be of constant density on a plane, as far as so few neighbours go. An edge
makes them too low and curvature too high, the more the higher the dimension and the fewer the
codes. The intervals know nothing of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.parts.finite import checked
from tasks.parts.measures.neighbors import nearest
from tasks.parts.measures.wilson import Z
from tasks.parts.randomness import generator

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
NEIGHBORS = 10
"""k of the maximum-likelihood estimate."""
KEPT = 0.9
"""Share of the smallest ratios to which the distribution is fitted; the largest spoil the fit."""
RESAMPLES = 20

Numbers = NDArray[np.float64]


class Dimension(NamedTuple):
    """An intrinsic dimension with a 95 % interval, all NaN where codes are too few or too alike."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SpaceStatistics:
    """Of N codes (N, d).

    Attributes:
        count: N.
        mean: of each coordinate, (d,).
        spread: standard deviation of each coordinate, (d,).
        percentiles: of each coordinate, at `PERCENTILES`, (P, d).
        correlations: between the coordinates, (d, d); NaN for a coordinate that does not vary.
        norms: percentiles of the codes' L2 norms, (P,).
        spectrum: variances along the principal components, largest first, (min(N, d),).
        two_nn: intrinsic dimension, from two neighbours.
        mle: intrinsic dimension, from k neighbours.
    """

    count: int
    mean: Numbers
    spread: Numbers
    percentiles: Numbers
    correlations: Numbers
    norms: Numbers
    spectrum: Numbers
    two_nn: Dimension
    mle: Dimension


def space_statistics(
    codes: Tensor, *, seed: int, k: int = NEIGHBORS, resamples: int = RESAMPLES, name: str = "all"
) -> SpaceStatistics:
    """The statistics of codes.

    Args:
        codes: (N, ...) with N > 0, flattened here to (N, d).
        seed: keys the random halves for the intervals.
        k: neighbours of the maximum-likelihood estimate, at least 2.
        resamples: how many halves, at least 2.
        name: of the set of codes, which keys the halves too.

    Raises:
        NotFinite: some codes are NaN or infinite.
        ValueError: there are no codes.
    """
    if not len(codes):
        raise ValueError("no codes to take statistics of")
    flat = checked(codes.detach().flatten(1), "the codes have numbers that are not finite (NaN or infinite)")
    values = flat.double().cpu().numpy()
    centred = values - values.mean(0)
    spread = values.std(0)
    small = centred.T @ centred if values.shape[1] <= len(values) else centred @ centred.T  # of the same spectrum
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(spread > 0, centred / spread, np.nan)
    two_nn, mle = dimensions(flat, seed=seed, k=k, resamples=resamples, name=name)
    return SpaceStatistics(
        count=len(values),
        mean=values.mean(0),
        spread=spread,
        percentiles=np.percentile(values, PERCENTILES, axis=0),
        correlations=scaled.T @ scaled / len(values),
        norms=np.percentile(np.linalg.norm(values, axis=1), PERCENTILES),
        spectrum=np.linalg.eigvalsh(small / len(values))[::-1].clip(min=0),
        two_nn=two_nn,
        mle=mle,
    )


def by_class(
    codes: Tensor, labels: Tensor, *, seed: int, k: int = NEIGHBORS, resamples: int = RESAMPLES
) -> dict[int, SpaceStatistics]:
    """The statistics of the codes (N, ...) of each class that occurs among the labels (N,)."""
    return {
        label: space_statistics(codes[labels == label], seed=seed, k=k, resamples=resamples, name=f"class {label}")
        for label in labels.unique().tolist()
    }


def dimensions(
    codes: Tensor, *, seed: int, k: int = NEIGHBORS, resamples: int = RESAMPLES, name: str = "all"
) -> tuple[Dimension, Dimension]:
    """The intrinsic dimension by both estimates, `two_nn` and `mle`, with intervals.

    An interval is the estimate plus or minus 1.96 standard deviations of the estimates of random
    halves of the codes, drawn without repeats (a delete-half jackknife: Shao and Wu 1989). That of
    a half varies about that of the whole as much as that of the whole about its own mean, or, as
    measured on known densities, by a quarter more. A bootstrap would not do: a code that is drawn
    twice is its own nearest neighbour. All halves together cost five times as much as the estimate.

    Args:
        codes: (N, d).
        seed: keys the halves.
        k: neighbours of the maximum-likelihood estimate.
        resamples: how many halves.
        name: of the set of codes, which keys the halves too.

    >>> line = torch.rand(400, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(5)
    >>> all(each.low < 1 < each.high for each in dimensions(line, seed=0))
    True
    """
    halves = []
    for number in range(resamples):
        rows = generator(seed, f"half of {name}", number).permutation(len(codes))[: len(codes) // 2]
        halves.append(estimates(codes[torch.from_numpy(rows).to(codes.device)], k))
    errors = Z * np.std(np.array(halves), axis=0, ddof=1)
    found = zip(estimates(codes, k), errors.tolist(), strict=True)
    two_nn, mle = (Dimension(value, value - error, value + error) for value, error in found)
    return _known(two_nn), _known(mle)


def estimates(codes: Tensor, k: int) -> tuple[float, float]:
    """The intrinsic dimension of codes (N, d) by `two_nn` and `mle`.

    Codes that occur more than once have no nearest neighbour at a distance, and are left out.
    Estimates are NaN where there are k codes or fewer.
    """
    if len(codes) <= max(k, 2):
        return math.nan, math.nan
    values = codes.float()
    own = torch.arange(len(values))
    r = nearest(values, _Bank(values), max(k, 2), own=own).distances.cpu().numpy()  # (N, k)
    r = np.log(r[r[:, 0] > 0])
    return _two_nn(r[:, 1] - r[:, 0]), _mle(r[:, k - 1 : k] - r[:, : k - 1])


def _two_nn(log_mu: Numbers) -> float:
    """The slope d of -log(1 - F) over log mu, through the origin."""
    count = int(KEPT * len(log_mu))
    x = np.sort(log_mu)[:count]
    y = -np.log1p(-np.arange(1, count + 1) / max(len(log_mu), 1))
    return float((x @ y) / (x @ x)) if x.any() else math.nan


def _mle(log_ratios: Numbers) -> float:
    """One over the mean of log(r_k / r_j), over j and the codes.

    The inverses of the codes' estimates are averaged (MacKay and Ghahramani 2005), which is the
    maximum of the likelihood of all codes together.
    """
    return float(1 / log_ratios.mean()) if log_ratios.any() else math.nan


def _known(dimension: Dimension) -> Dimension:
    return dimension if all(math.isfinite(number) for number in dimension) else Dimension(*[math.nan] * 3)


class _Bank:
    """Codes in memory."""

    def __init__(self, values: Tensor):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64] | slice, device: str | torch.device) -> Tensor:
        """Some of them."""
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.values.device)
        return self.values[chosen].to(device)
