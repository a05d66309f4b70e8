"""ActiveBatch: every example gets its turn, keeps its own numbers, and leaves its best point."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.parts.attacks.common.active_batch import ActiveBatch, keyed_draws


def logits(margin: Tensor) -> Tensor:
    """Two classes, of which the second leads by a margin."""
    return torch.stack([torch.zeros_like(margin), margin], 1)


@pytest.mark.parametrize("batch", [1, 3, 4, 50])
def test_every_example_runs_its_own_course(batch: int) -> None:
    """Example i ends after i % 4 + 1 passes; its state counts them, and its best point is the
    middle one.
    """
    total = 11
    images = torch.zeros(total, 1, 1, 1)
    active = ActiveBatch(images, torch.zeros(total, dtype=torch.long), None, batch)
    age, sizes, order = active.zeros(), [], list[int]()
    while len(active.example):
        sizes.append(len(age))
        order += [i for i in active.example.tolist() if i not in order]
        length = active.example % 4 + 1
        margin = -(2.0 * age - (length - 1)).abs() - 1
        margin = torch.where((age + 1 == length) & (active.example == 7), 1.0, margin)  # one succeeds, at its end
        delta = (10.0 * active.example + age)[:, None, None, None]
        beyond, fooled = active.record(delta, logits(margin), backward=bool(batch % 2))
        assert torch.equal(beyond, margin)
        assert torch.equal(fooled, margin > 0)
        age = age + 1
        (age,) = active.replace_finished(age == length, age)
        assert len(age) == len(active.example)
    assert order == list(range(total))
    assert max(sizes) == min(batch, total)
    assert sum(sizes) == sum(i % 4 + 1 for i in range(total))
    found = active.result("Linf")
    assert found.forwards.tolist() == [i % 4 + 1 for i in range(total)]
    assert torch.equal(found.backwards, found.forwards * (batch % 2))
    assert found.success.tolist() == [i == 7 for i in range(total)]
    best = [73 if i == 7 else 10 * i + (i % 4) // 2 for i in range(total)]
    assert found.perturbation.flatten().tolist() == best
    assert found.distance.tolist() == best


def test_targets_turn_the_margin() -> None:
    active = ActiveBatch(torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.long), torch.tensor([1, 1, 0]), 3)
    beyond, fooled = active.record(torch.zeros(3, 1, 1, 1), logits(torch.tensor([2.0, -2, 2])), backward=False)
    assert beyond.tolist() == [2, -2, -2]
    assert fooled.tolist() == [True, False, False]


def test_drawing_in_groups_of_blocks_keeps_the_order() -> None:
    asked = []

    def draw(keys: list[int], block: int) -> Tensor:
        asked.append((keys, block))
        return torch.tensor([[key, block] for key in keys])

    examples, blocks = torch.tensor([4, 2, 0, 3]), torch.tensor([7, 1, 7, 1])
    got = keyed_draws(draw, [10, 11, 12, 13, 14], examples, blocks)
    assert got.tolist() == [[14, 7], [12, 1], [10, 7], [13, 1]]
    assert asked == [([12, 13], 1), ([14, 10], 7)]


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_images_that_were_looked_at_and_succeed_get_no_slot(batch: int) -> None:
    margins = torch.tensor([-1.0, 2, -3, 4, -5])
    active = ActiveBatch(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long), None, batch, evaluated=logits(margins))
    order = []
    while len(active.example):
        order += active.example.tolist()
        active.record(
            active.zeros(2, dtype=torch.float32) + 1, logits(active.zeros(dtype=torch.float32) - 2), backward=True
        )
        active.replace_finished(torch.ones(len(active.example), dtype=torch.bool))
    assert order == [0, 2, 4]
    found = active.result("Linf")
    assert found.success.tolist() == [False, True, False, True, False]
    assert found.distance.tolist() == [0, 0, 1, 0, 1]  # the first image itself was nearer than what was tried
    assert found.forwards.tolist() == [2, 1, 2, 1, 2]
    assert found.backwards.tolist() == [1, 0, 1, 0, 1]
