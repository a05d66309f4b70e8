"""Random moves are as long as asked and stay in the box.

They go one way for each example, whatever their length.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tasks.parts.geometry.balls import Norm, norm_of
from tasks.parts.noise.random_control import randomly_moved

IDS = [5, 0, 17]
ENDLESS = (-math.inf, math.inf)


def points() -> Tensor:
    """Images of which many pixels are black or white, as real ones have."""
    drawn = torch.rand((3, 2, 5, 5), generator=torch.Generator().manual_seed(0))
    return (3 * drawn - 1).clamp(0, 1)


@pytest.mark.parametrize(
    ("norm", "lengths"), [("Linf", [0.02, 0.2, 0.5]), ("L2", [0.1, 0.7, 2.0]), ("L1", [0.3, 2, 6])]
)
def test_the_length_is_exact_and_the_image_stays_in_the_box(norm: Norm, lengths: list[float]) -> None:
    distance = torch.tensor(lengths)
    images = points()
    moved = randomly_moved(images, distance, norm, ids=IDS, seed=0)
    assert norm_of(moved, norm).numpy() == pytest.approx(distance.numpy(), rel=1e-4)
    assert (images + moved).min() >= -1e-6
    assert (images + moved).max() <= 1 + 1e-6
    free = randomly_moved(10 * images, distance, norm, ids=IDS, seed=0, box=ENDLESS)
    assert norm_of(free, norm).numpy() == pytest.approx(distance.numpy(), rel=1e-5)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_direction_is_that_of_the_example(norm: Norm) -> None:
    grey = torch.full((3, 1, 6, 6), 0.5)
    near, far = (randomly_moved(grey, torch.full((3,), d), norm, ids=IDS, seed=0) for d in (0.01, 0.1))
    assert torch.allclose(far, 10 * near, atol=1e-6)
    one = randomly_moved(grey[:1], torch.tensor([0.1]), norm, ids=IDS[1:2], seed=0)
    assert torch.allclose(one[0], far[1], atol=1e-7)  # in whatever company
    assert not torch.allclose(far[0].sign(), far[1].sign())
    assert not torch.allclose(far, randomly_moved(grey, torch.full((3,), 0.1), norm, ids=IDS, seed=1))


def test_linf_moves_every_number_as_far() -> None:
    moved = randomly_moved(torch.full((3, 1, 6, 6), 0.5), torch.tensor([0.1, 0.2, 0.3]), "Linf", ids=IDS, seed=0)
    assert moved.abs().flatten(1).numpy() == pytest.approx(torch.tensor([[0.1], [0.2], [0.3]]).expand(3, 36).numpy())
    assert -0.5 < moved.sign().mean() < 0.5


@pytest.mark.parametrize("box", [(0.0, 1.0), ENDLESS])
def test_l0_changes_so_many_numbers(box: tuple[float, float]) -> None:
    images = points()
    few = randomly_moved(images, torch.tensor([1.0, 7.0, 0.0]), "L0", ids=IDS, seed=0, box=box)
    assert norm_of(few, "L0").tolist() == [1, 7, 0]
    more = randomly_moved(images, torch.tensor([4.9, 50.0, 1.0]), "L0", ids=IDS, seed=0, box=box)
    assert norm_of(more, "L0").tolist() == [4, 50, 1]  # no further than the length
    there = few != 0
    assert torch.equal(more[there], few[there])  # and the same ones first
    if box == (0.0, 1.0):
        assert (images + more).min() >= 0
        assert (images + more).max() <= 1


def test_a_length_beyond_the_box_ends_at_its_wall() -> None:
    white = torch.ones((1, 1, 2, 2))
    moved = randomly_moved(white, torch.tensor([9.0]), "Linf", ids=[0], seed=0)
    assert norm_of(moved, "Linf").item() == 1  # the furthest that there is
    assert set((white + moved).flatten().tolist()) <= {0.0, 1.0}


def test_no_length_is_no_move() -> None:
    for norm in ("Linf", "L2", "L1", "L0"):
        for box in ((0.0, 1.0), ENDLESS):
            assert not randomly_moved(points(), torch.zeros(3), norm, ids=IDS, seed=0, box=box).any()
