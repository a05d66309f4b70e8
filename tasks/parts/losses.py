"""Losses that adversarial searches climb: each rises as the prediction leaves the label (or nears a target).

With logits z (B, K), z_(1) >= z_(2) >= ... the same in descending order, label y and target t:

    cross_entropy   log sum_i exp(z_i) - z_y
    margin          max_{i != y} z_i - z_y                        positive beyond the decision boundary
    dlr             (max_{i != y} z_i - z_y) / (z_(1) - z_(3))
    targeted_dlr    (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)

The last two, the difference of logits ratio (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks"), do not change when the logits are shifted or scaled, so that a network cannot hide its gradient by
being confident.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.batching import padded
from tasks.parts.settings import UserError

Loss = Literal["ce", "margin", "dlr"]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy (B,), in nats, of logits (B, K) at labels (B,)."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the largest other logit is above the label's, (B,), for logits (B, K) and labels (B,).

    >>> margin(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([1]))
    tensor([-2.])
    """
    return without(logits, labels).amax(1) - at(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin as a share of the distance between the largest and the third largest logit, (B,).

    Raises:
        UserError: there are less than 3 classes.

    >>> dlr(torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([1]))
    tensor([-0.5000])
    """
    _wants_classes(logits, 3, "the DLR loss")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """How far the target's logit is above the label's, as a share of how far the largest is above the third and fourth, (B,).

    Raises:
        UserError: there are less than 4 classes.

    >>> targeted_dlr(torch.tensor([[1.0, 5.0, 3.0, 1.0]]), torch.tensor([1]), torch.tensor([2]))
    tensor([-0.5000])
    """
    _wants_classes(logits, 4, "the targeted DLR loss")
    top = logits.topk(4, dim=1).values
    return (at(logits, targets) - at(logits, labels)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)


def objective(loss: Loss, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """What a search maximises, (B,): away from the labels, or towards the targets where there are any.

    Towards a target, cross-entropy and margin are those of the target with the sign turned.
    """
    match loss:
        case "ce":
            return cross_entropy(logits, labels) if targets is None else -cross_entropy(logits, targets)
        case "margin":
            return margin(logits, labels) if targets is None else -margin(logits, targets)
        case "dlr":
            return dlr(logits, labels) if targets is None else targeted_dlr(logits, labels, targets)


def value_and_gradient(
    model: Callable[[Tensor], Tensor], points: Tensor, height: Callable[[Tensor], Tensor], batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One forward and one backward pass.

    Args:
        model: [0, 1] images (B, C, H, W) to logits (B, K).
        points: (B, C, H, W).
        height: logits (B, K) to what is climbed (B,), each row on its own.
        batch: the shape that the points are padded to.

    Returns:
        The logits (B, K), their heights (B,), and the gradients of the heights at the points (B, C, H, W).
    """
    count = len(points)
    with torch.enable_grad():
        points = padded(points, batch).detach().requires_grad_(True)
        logits = model(points)[:count]
        values = height(logits)
        (gradient,) = torch.autograd.grad(values.sum(), points)
    return logits.detach(), values.detach(), gradient[:count]


def at(logits: Tensor, classes: Tensor) -> Tensor:
    """Each row's logit of its class: (B, K), (B,) -> (B,)."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def without(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits (B, K), minus infinity at each row's class (B,)."""
    return logits.scatter(1, classes[:, None], -torch.inf)


def _wants_classes(logits: Tensor, least: int, what: str) -> None:
    if logits.shape[1] < least:
        raise UserError(
            f"{what} needs {least} classes, the classifier has {logits.shape[1]}; take ce or margin", "loss"
        )
