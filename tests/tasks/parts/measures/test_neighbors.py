"""The nearest of many against a comparison of all pairs in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.parts.measures import neighbors
from tasks.parts.measures.neighbors import Metric, distances, nearest, smallest, typical_norm


class Bank:
    """Representations in memory, which counts how often each was read."""

    def __init__(self, values: Tensor):
        self.values, self.largest = values, 0

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray | slice, device: str | torch.device) -> Tensor:
        taken = self.values[rows if isinstance(rows, slice) else torch.from_numpy(rows)]
        self.largest = max(self.largest, taken.numel())
        return taken.to(device)


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compared(queries: Tensor, values: Tensor, k: int, metric: Metric, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows and distances by comparison of all pairs."""
    q, b = queries.flatten(1).double(), values.flatten(1).double()
    if metric == "cosine":
        q, b = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-300) for x in (q, b))
        distances = 1 - q @ b.T
    else:
        distances = (q[:, None] - b[None]).norm(dim=2)
    if own is not None:
        places = torch.arange(len(q))[own >= 0]
        distances[places, own[own >= 0]] = torch.inf
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return order, distances.gather(1, order)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("count", [9, 700])
@pytest.mark.parametrize("with_own", [False, True])
def test_the_nearest_are_those_of_a_comparison_of_all_pairs(
    metric: Metric, k: int, count: int, with_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "QUERIES", 16)
    monkeypatch.setattr(neighbors, "ROWS", 96)
    values, queries = gaussian(1, count, 3, 4), gaussian(2, 40, 3, 4)
    queries[3] = values[5]
    own = torch.arange(40) % count if with_own else None
    if own is not None:
        own[::3] = -1
    found = nearest(queries, Bank(values), k, metric, own)
    rows, distances = compared(queries, values, k, metric, own)
    assert torch.equal(found.rows, rows)
    torch.testing.assert_close(found.distances, distances, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_what_single_precision_cannot_tell_apart_is_told_apart(metric: Metric) -> None:
    values = 1e4 + gaussian(1, 400, 6)  # the squares are 1e8 of which the distances are the last digits
    queries = 1e4 + gaussian(2, 30, 6)
    found = nearest(queries, Bank(values), 3, metric)
    rows, distances = compared(queries, values, 3, metric, None)
    if metric == "l2":
        assert torch.equal(found.rows, rows)
    torch.testing.assert_close(found.distances, distances, rtol=1e-9, atol=1e-14)


def test_of_equal_ones_the_first_of_the_bank_are_taken() -> None:
    values = gaussian(1, 4, 5).repeat(30, 1)
    found = nearest(values[:4], Bank(values), 12)
    assert found.rows.tolist() == [[row + 4 * copy for copy in range(12)] for row in range(4)]
    assert not found.distances.any()


def test_a_representation_of_zeros_has_a_right_angle_to_all() -> None:
    values = torch.cat([torch.zeros(1, 3), gaussian(1, 5, 3)])
    found = nearest(torch.zeros(1, 3), Bank(values), 6, "cosine")
    assert found.rows.tolist() == [[0, 1, 2, 3, 4, 5]]
    torch.testing.assert_close(found.distances, torch.ones(1, 6).double())


def test_the_smallest_of_each_line_whatever_the_groups() -> None:
    for length in (16, 64, 640, 641):
        scores = gaussian(length, 5, length)
        for count in (1, 3, 16):
            values, places = smallest(scores, count)
            assert torch.equal(scores.gather(1, places), values)
            assert torch.equal(values.sort(1).values, scores.sort(1).values[:, :count])


def test_the_bank_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "ROWS", 64)
    monkeypatch.setattr(neighbors, "NUMBERS", 600)
    bank = Bank(gaussian(1, 5000, 8))
    nearest(gaussian(2, 100, 8), bank, 2)
    assert bank.largest <= 64 * 8 + 600


def test_more_neighbours_than_the_bank_holds_are_refused() -> None:
    bank = Bank(gaussian(1, 5, 3))
    with pytest.raises(ValueError, match="6 neighbours of a bank of 5"):
        nearest(gaussian(2, 2, 3), bank, 6)
    with pytest.raises(ValueError, match="5 neighbours of a bank of 4"):
        nearest(gaussian(2, 2, 3), bank, 5, own=torch.tensor([0, 1]))


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_distances_of_partners_are_those_to_the_nearest(metric: Metric) -> None:
    values, queries = gaussian(1, 5, 3, 4), gaussian(2, 5, 3, 4)
    alone = [nearest(q[None], Bank(v[None]), 1, metric).distances for q, v in zip(queries, values, strict=True)]
    assert torch.allclose(distances(queries, values, metric), torch.cat(alone)[:, 0], rtol=1e-12)
    assert distances(values, values, metric).abs().max() < 1e-12


def test_the_typical_norm_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "ROWS", 16)
    bank = Bank(gaussian(1, 50, 3, 4))
    assert typical_norm(bank) == pytest.approx(
        float(bank.values.double().flatten(1).norm(dim=1).square().mean().sqrt())
    )
    assert bank.largest == 16 * 12
