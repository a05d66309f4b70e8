"""The nearest of many representations, exactly, in bounded memory.

Scores of all pairs come from products of matrices in single precision, block by block; of the best
candidates the distances are then computed in double precision. Where rounding could have hidden a
nearer one, which a bound on the error tells, the query is compared with all of them exactly.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

Metric = Literal["l2", "cosine"]

QUERIES, ROWS = 1024, 16384
"""Of one block of scores."""
NUMBERS = 2**20
"""Of candidates that are compared in double precision at a time."""
GROUP = 16
"""Scores of which only the smallest is looked at first."""
SPARE = 8
"""Candidates beyond those wanted whose distances are computed in double precision."""


class Bank(Protocol):
    """Representations by row, of which a copy can be had on a device."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def take(self, rows: np.ndarray | slice, device: str | torch.device) -> Tensor:
        """Some of them (B, ...), float32."""
        ...


class Neighbors(NamedTuple):
    """The k nearest of a bank for Q queries, nearest first; of equal ones the first in the bank.

    Attributes:
        rows: of the bank, (Q, k) int64.
        distances: L2, or 1 - cosine, (Q, k) float64.
    """

    rows: Tensor
    distances: Tensor


def nearest(queries: Tensor, bank: Bank, k: int, metric: Metric = "l2", own: Tensor | None = None) -> Neighbors:
    """The k nearest representations of each query, exactly.

    Args:
        queries: (Q, ...) float32, where the work is done.
        bank: of representations of the same shape; at least k, or k + 1 with `own`.
        k: how many are wanted, at least 1.
        metric: `l2`, or `cosine`: 1 - the cosine of the angle, where 0 is orthogonal to all.
        own: row of the bank that each query is, (Q,), which is left out; -1 where it is none.

    Raises:
        ValueError: k is larger than the bank.
    """
    count = len(bank) - (own is not None)
    if not 1 <= k <= count:
        raise ValueError(f"{k} neighbours of a bank of {count} representations")
    flat = queries.flatten(1)
    own = torch.full((len(flat),), -1, dtype=torch.long) if own is None else own
    own = own.to(flat.device)
    candidates, bound = _candidates(flat, bank, min(k + SPARE, len(bank)), metric, own)
    rows, distances = _sorted(candidates, _exact(flat, bank, candidates, metric), k)
    for q in (distances[:, -1] >= bound).nonzero().flatten().tolist():
        rows[q], distances[q] = _compared_with_all(flat[q], bank, k, metric, int(own[q]))
    return Neighbors(rows, distances / 2 if metric == "cosine" else distances.sqrt())


def distances(first: Tensor, second: Tensor, metric: Metric = "l2") -> Tensor:
    """The distance of each point from its partner, as `nearest` measures it.

    Args:
        first: (B, ...).
        second: (B, ...), the partners.
        metric: as of `nearest`.

    Returns:
        (B,) float64.

    >>> distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
    [5.0]
    """
    one, other = (_prepared(x.flatten(1).double(), metric)[:, None] for x in (first, second))
    squared = _squared(one, other, metric)[:, 0]
    return squared / 2 if metric == "cosine" else squared.sqrt()


def typical_norm(bank: Bank, device: str | torch.device = "cpu") -> float:
    """The root mean square L2 norm of a bank's representations, which are read block by block."""
    blocks = (_taken(bank, first, torch.device(device)) for first in range(0, len(bank), ROWS))
    return math.sqrt(sum(float(block.double().square().sum()) for block in blocks) / len(bank))


def _candidates(queries: Tensor, bank: Bank, count: int, metric: Metric, own: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (Q, count) that are nearest in single precision.

    Beside them the squared distance (Q,) below which no other row can be.

    The bank is read once, and all queries are compared with each block of it.
    """
    best = queries.new_full((len(queries), count), math.inf)
    rows = torch.full(best.shape, len(bank), device=queries.device)
    ones = queries.new_ones(len(queries), 1)
    factors = torch.cat([_prepared(queries, metric), ones], 1)
    norms = factors[:, :-1].square().sum(1)
    largest = 0.0
    for first in range(0, len(bank), ROWS):
        block = _prepared(_taken(bank, first, queries.device), metric)
        squares = block.square().sum(1) if metric == "l2" else block.new_ones(len(block))
        largest = max(largest, float(squares.max()))
        block = torch.cat([-2 * block, squares[:, None]], 1).T
        for start in range(0, len(queries), QUERIES):
            some = slice(start, start + QUERIES)
            scores = factors[some] @ block  # ||b||^2 - 2 q.b, (Q, R)
            inside = ((own[some] >= first) & (own[some] < first + len(squares))).nonzero().flatten()
            scores[inside, own[some][inside] - first] = math.inf
            values, places = smallest(scores, min(count, len(squares)))
            merged = torch.cat([best[some], values], 1).topk(count, largest=False)
            rows[some] = torch.cat([rows[some], places + first], 1).gather(1, merged.indices)
            best[some] = merged.values
    rows = torch.where(best.isfinite(), rows, len(bank))  # without the query's own
    # Rounding of sums of D products, by a bound that fails with negligible probability (Higham and
    # Mary 2019).
    error = 8 * math.sqrt(factors.shape[1]) * 2.0**-24 * (norms + largest)
    norms = norms if metric == "l2" else torch.ones_like(norms)
    bound = best.amax(1).double() + norms - error
    return rows, bound if count < len(bank) else torch.full_like(bound, math.inf)


def smallest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The smallest scores of each line (Q, R) and their places, (Q, count) each, in no order.

    The smallest of each group of scores are looked at first: no more groups than scores are wanted
    can hold one of them.

    >>> smallest(torch.tensor([[3.0, 1.0, 2.0]]), 1)
    (tensor([[1.]]), tensor([[1]]))
    """
    lines, length = scores.shape
    groups = length // GROUP
    if groups * GROUP != length or groups <= count:
        found = scores.topk(count, largest=False, sorted=False)
        return found.values, found.indices
    grouped = scores.view(lines, GROUP, groups)  # every groups-th score is of one group
    chosen = grouped.amin(1).topk(count, largest=False, sorted=False).indices  # (Q, count)
    inside = grouped.gather(2, chosen[:, None].expand(-1, GROUP, -1)).flatten(1)
    best = inside.topk(count, largest=False, sorted=False)
    places = chosen.gather(1, best.indices % count) + best.indices // count * groups
    return best.values, places


def _prepared(x: Tensor, metric: Metric) -> Tensor:
    """For cosine, points of norm 1: 1 - cosine is then half the squared L2 distance."""
    return x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) if metric == "cosine" else x


def _taken(bank: Bank, first: int, device: torch.device) -> Tensor:
    return bank.take(slice(first, min(first + ROWS, len(bank))), device).flatten(1)


def _squared(queries: Tensor, points: Tensor, metric: Metric) -> Tensor:
    """Squared distances along the last axis.

    For cosine the points have norm 1, or 0, which has a right angle to all.
    """
    if metric == "cosine":
        return (2 - 2 * (queries * points).sum(-1)).clamp_min(0)
    return torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")[..., 0, :].square()


def _exact(queries: Tensor, bank: Bank, rows: Tensor, metric: Metric) -> Tensor:
    """Squared distances of queries (Q, D) to rows of the bank (Q, m), in double precision.

    They are infinite for rows beyond its end.
    """
    found = torch.full(rows.shape, math.inf, dtype=torch.float64, device=rows.device)
    step = max(1, NUMBERS // (rows.shape[1] * queries.shape[1]))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        points = bank.take(some.clamp_max(len(bank) - 1).flatten().cpu().numpy(), rows.device).flatten(1)
        points = _prepared(points.double(), metric).unflatten(0, some.shape)
        squared = _squared(_prepared(queries[start : start + step].double(), metric)[:, None], points, metric)
        found[start : start + step] = torch.where(some < len(bank), squared, math.inf)
    return found


def _sorted(rows: Tensor, distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest, equal ones in the order of the bank."""
    by_row = rows.argsort(dim=1)
    rows, distances = rows.gather(1, by_row), distances.gather(1, by_row)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return rows.gather(1, order), distances.gather(1, order)


def _compared_with_all(query: Tensor, bank: Bank, k: int, metric: Metric, own: int) -> tuple[Tensor, Tensor]:
    """Rows and squared distances (k,) of one query (D,), in double precision throughout."""
    q, pieces = _prepared(query[None].double(), metric), []
    for first in range(0, len(bank), ROWS):
        pieces.append(_squared(q, _prepared(_taken(bank, first, query.device).double(), metric), metric))
    distances = torch.cat(pieces)
    if own >= 0:
        distances[own] = math.inf
    rows = distances.argsort(stable=True)[:k]
    return rows, distances[rows]
