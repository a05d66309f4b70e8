"""The way back from an adversarial example to the boundary, straight towards its image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.parts.attacks.common.result import pass_size
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import Norm, norm_of, per_example, project
from tasks.parts.losses import verdict


def reached(
    model: Callable[[Tensor], Tensor], points: Tensor, labels: Tensor, targets: Tensor | None, batch: int
) -> Tensor:
    """Whether each point (N, ...) succeeds, as `losses.verdict` has it: (N,) bool."""
    return verdict(in_batches(model, points, batch), labels, targets)[1]


def to_boundary(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    perturbation: Tensor,
    success: Tensor,
    *,
    halvings: int = 12,
    norm: Norm = "L2",
    batch: int | None = None,
    targets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Shortens successful perturbations by bisection, with forward passes only.

    What comes out succeeds and is never longer. The share t of a perturbation that is kept lies
    between one that fails (0 at first) and one that succeeds (1 at first); each pass halves what is
    between them. On the way there may be other boundaries: the one found is as good as any, not
    always the nearest.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks, in evaluation mode.
        images: (N, ...), the points that the perturbations begin at.
        labels: (N,) true classes.
        perturbation: (N, ...).
        success: (N,) bool: which perturbations succeed. The others, and those that are zero, are
            returned as they are.
        halvings: passes for each example; t is found to 2^-halvings.
        norm: which way is short. A shorter perturbation changes as many numbers as a longer one, so
            in L0 the share t is of the changed numbers, the largest changes first; in every other
            norm it is of the length.
        batch: images in one pass; chosen for the device where None.
        targets: (N,) classes that were to be reached; any other class than the label where None.

    Returns:
        The perturbations (N, C, H, W), and how many forward passes each example took (N,).

    >>> def model(x):  # the first class below a mean of 0.5, the second above
    ...     return torch.stack([0.5 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 0.5], 1)
    >>> dark, label, found = torch.zeros(1, 1, 1, 1), torch.tensor([0]), torch.ones(1, 1, 1, 1)
    >>> delta, forwards = to_boundary(model, dark, label, found, torch.tensor([True]), halvings=3)
    >>> float(delta), int(forwards)
    (0.625, 3)
    """
    batch = pass_size(images) if batch is None else batch
    shortened = perturbation.clone()
    rows = (success & perturbation.flatten(1).any(1)).nonzero().flatten()
    forwards = torch.zeros_like(labels)
    forwards[rows] = halvings
    for some in rows.split(batch) if len(rows) else ():
        whole, count = perturbation[some], norm_of(perturbation[some], "L0")
        low, high = torch.zeros_like(count), torch.ones_like(count)
        for _ in range(halvings):
            share = (low + high) / 2
            part = project(whole, (share * count).ceil(), "L0") if norm == "L0" else per_example(share, whole) * whole
            there = reached(
                model, images[some] + part, labels[some], targets if targets is None else targets[some], batch
            )
            low, high = torch.where(there, low, share), torch.where(there, share, high)
            shortened[some] = torch.where(per_example(there, part), part, shortened[some])
    return shortened, forwards
