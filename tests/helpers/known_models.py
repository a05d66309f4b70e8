"""Models for the tests of attacks.

Linear ones, whose distances are known, smooth ones, and one that counts its passes.

The smallest perturbation that moves a linear model of margin m and weight difference d across its
boundary is m / |d| in L2 and m / |d|_1 in L-inf.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.batching import in_batches

NORMS = ["Linf", "L2"]
SHAPE = (1, 4, 4)


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth(seed: int = 0, classes: int = 4) -> nn.Module:
    """A network without kinks, so that float32 and float64 take the same path."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, classes))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(gaussian(1000 * seed + i, *p.shape) * (0.5 if p.ndim == 2 else 0.1))
    return model.eval()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


def predicted(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The classes (B,) as the attacks see them.

    On the boundary itself they depend on the last bit, and so on the batch.
    """
    return in_batches(model, x, 64).argmax(1)


class Meter:
    """Counts the calls, the rows that go forwards, and the rows that come backwards."""

    def __init__(self, model: Callable[[Tensor], Tensor]):
        self.model, self.calls, self.backwards = model, list[int](), 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self.seen)
        return logits

    def seen(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def same(found: AttackResult, other: AttackResult, rows: Tensor | slice = slice(None)) -> bool:
    return all(torch.equal(getattr(found, field)[rows], getattr(other, field)) for field in vars(found))


def linear(count: int) -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """A linear model of two classes, and images in the middle of the box.

    Beside them the labels and margins (count,), and the weight difference (16,).
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False)
    model[1].weight.copy_(gaussian(5, 2, 16))
    points = 0.5 + 0.04 * gaussian(6, count, *SHAPE)
    model[1].bias.copy_(-model[1].weight.sum(1) / 2 + torch.tensor([0.0, 0.1]))  # the boundary goes near the middle
    logits = model.double()(points.double())
    difference = model[1].weight[0] - model[1].weight[1]
    model.float()
    assert set(logits.argmax(1).tolist()) == {0, 1}
    return model, points, logits.argmax(1), (logits[:, 0] - logits[:, 1]).abs(), difference


def linear_with_distances(norm: str, count: int = 9) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The linear model, its images and labels, and how far each is from the boundary (count,)."""
    model, points, labels, margins, difference = linear(count)
    distance = margins / (difference.abs().sum() if norm == "Linf" else difference.norm())
    assert distance.max() < 0.3
    return model, points, labels, distance
