"""The line search to the boundary ends where it must and never loses a success.

It costs what it says.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tasks.parts.attacks.common.line_search import reached, to_boundary
from tasks.parts.geometry.balls import norm_of, per_example

SHAPE = (1, 4, 4)


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).requires_grad_(False)
    for i, p in enumerate(model.parameters()):
        p.copy_(gaussian(1000 * seed + i, *p.shape))
    return model.eval()


def problem(seed: int, count: int = 20) -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """A network, images, their classes, random perturbations within the box, and which of them
    succeed.
    """
    model, images = network(seed % 5), torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))
    labels = reached_class(model, images)
    delta = (images + gaussian(seed + 1, count, *SHAPE)).clamp(0, 1) - images
    return model, images, labels, delta, reached_class(model, images + delta) != labels


def reached_class(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).argmax(1)


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("halvings", [0, 1, 7, 14])
def test_ends_where_the_boundary_is(halvings: int, batch: int) -> None:
    """One number and a threshold: the share that is kept is the next multiple of 2^-halvings beyond
    it.
    """
    thresholds = torch.linspace(0.03, 0.97, 10)

    def model(x: Tensor) -> Tensor:
        height = x[:, 0, 0, 0] - x[:, 0, 0, 1]  # each image carries its own threshold
        return torch.stack([-height, height], 1)

    images = torch.stack([torch.zeros(10), thresholds], 1).reshape(10, 1, 1, 2)
    delta = torch.tensor([1.0, 0.0]).expand(10, 1, 1, 2)
    labels, success = torch.zeros(10, dtype=torch.long), torch.ones(10, dtype=torch.bool)
    found, forwards = to_boundary(model, images, labels, delta, success, halvings=halvings, batch=batch)
    wanted = (thresholds * 2**halvings).ceil() / 2**halvings
    assert found[:, 0, 0, 0].tolist() == wanted.tolist()
    assert not found[:, 0, 0, 1].any()
    assert forwards.tolist() == [halvings] * 10


@given(seed=st.integers(0, 10_000), halvings=st.integers(0, 12), batch=st.integers(1, 30), sparse=st.booleans())
@settings(max_examples=60, deadline=None)
def test_never_loses_a_success_and_never_grows(seed: int, halvings: int, batch: int, sparse: bool) -> None:
    model, images, labels, delta, success = problem(seed)
    before, norm = delta.clone(), "L0" if sparse else "L2"
    found, forwards = to_boundary(model, images, labels, delta, success, halvings=halvings, batch=batch, norm=norm)
    moved = images + found
    assert torch.equal(delta, before)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(reached(model, moved, labels, None, batch), success)
    assert torch.equal(found[~success], delta[~success])
    assert (norm_of(found, norm) <= norm_of(delta, norm)).all()
    assert torch.equal(forwards, torch.where(success, halvings, 0))
    if sparse:  # what is left is as it was
        assert ((found == delta) | (found == 0)).all()
    else:  # the next smaller share was looked at and failed, or is the image itself
        share = norm_of(found, "L2") / norm_of(delta, "L2")
        smaller = ((share * 2**halvings).round() - 1) / 2**halvings
        failed = images + per_example(smaller, delta) * delta
        assert not reached(model, failed, labels, None, batch)[success].any()


def test_fewest_of_the_largest_changes() -> None:
    """On a linear model the count that bisection ends in is the least that succeeds."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
    model[1].bias.copy_(torch.tensor([4.0, -4.0]))  # the second class from a sum of 4
    images, delta = torch.zeros(1, *SHAPE), torch.linspace(0.1, 0.9, 16).reshape(1, *SHAPE)
    found, _ = to_boundary(model, images, torch.tensor([0]), delta, torch.tensor([True]), norm="L0")
    least = int((delta.flatten().flip(0).cumsum(0) < 4).sum()) + 1
    assert torch.equal(found.flatten() != 0, torch.arange(16) >= 16 - least)


def test_targets_and_zero_perturbations() -> None:
    model, images, labels, delta, _ = problem(3)
    targets = reached_class(model, images + delta)
    targets[::4] = (targets[::4] + 1) % 4  # not reached
    delta[1] = 0
    targets[1] = labels[1]  # there already
    success = reached(model, images + delta, labels, targets, 8)
    assert success.tolist() == [i % 4 > 0 for i in range(20)]
    found, forwards = to_boundary(model, images, labels, delta, success, targets=targets, halvings=9, batch=8)
    assert torch.equal(reached(model, images + found, labels, targets, 8), success)
    assert not found[1].any()
    assert torch.equal(forwards, torch.where(success & delta.flatten(1).any(1), 9, 0))
    assert forwards[1] == 0


@pytest.mark.usefixtures("eight_rows")
def test_costs_what_it_says_and_wants_no_gradient() -> None:
    model, images, labels, delta, success = problem(7)
    rows: list[int] = []

    def counted(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        rows.append(len(x))
        return model(x)

    _, forwards = to_boundary(counted, images, labels, delta, success, halvings=5, batch=8)
    count = int(success.sum())
    assert 8 < count < 20
    assert int(forwards.sum()) == 5 * count
    assert sum(rows) == 5 * (-(-count // 8) * 8)  # rows are padded to a multiple of 8


def test_the_same_in_any_company() -> None:
    model, images, labels, delta, success = problem(11)
    together, _ = to_boundary(model, images, labels, delta, success)
    for i in range(20):
        one = slice(i, i + 1)
        alone, _ = to_boundary(model, images[one], labels[one], delta[one], success[one])
        assert torch.equal(alone[0], together[i])
