"""Losses that attacks climb: each rises as the prediction leaves the label, or nears a target.

With logits z (B, K), the same in descending order z_(1) >= z_(2) >= ..., label y and target t:

    cross_entropy   log sum_i exp(z_i) - z_y
    margin          max_{i != y} z_i - z_y                       positive beyond the boundary
    dlr             (max_{i != y} z_i - z_y) / (z_(1) - z_(3))
    targeted_dlr    (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)

The last two, the difference of logits ratio (Croce and Hein 2020, "Reliable evaluation of
adversarial robustness with an ensemble of diverse parameter-free attacks"), do not change when the
logits are shifted or scaled. So a network cannot hide its gradient by being confident.

An attack on M networks at once has logits (B, M, K). A loss is then the mean over the networks
unless `joint` says otherwise, and a point succeeds where it fools all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from tasks.parts.batching import padded
from tasks.parts.finite import GRADIENT, checked
from tasks.parts.settings import UserError

Loss = Literal["ce", "margin", "dlr"]
Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A loss of one's own, which is climbed, (B,); each row is on its own.

Its arguments are logits (B, K) or (B, M, K), labels (B,), and targets (B,) or None.
"""
How = Literal["mean", "worst", "unfooled"]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy (B,), in nats, of logits (B, K) at labels (B,)."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the largest other logit is above the label's, (B,).

    Args:
        logits: (B, K).
        labels: (B,).

    >>> margin(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([1]))
    tensor([-2.])
    """
    return without(logits, labels).amax(1) - at(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin as a share of the distance between the largest and the third largest logit, (B,).

    Raises:
        UserError: there are fewer than 3 classes.

    >>> dlr(torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([1]))
    tensor([-0.5000])
    """
    _wants_classes(logits, 3, "the DLR loss")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """How far the target's logit is above the label's, relative to the spread of the logits, (B,).

    The spread is the distance of the largest logit from the mean of the third and the fourth.

    Raises:
        UserError: there are fewer than 4 classes.

    >>> targeted_dlr(torch.tensor([[1.0, 5.0, 3.0, 1.0]]), torch.tensor([1]), torch.tensor([2]))
    tensor([-0.5000])
    """
    _wants_classes(logits, 4, "the targeted DLR loss")
    top = logits.topk(4, dim=1).values
    return (at(logits, targets) - at(logits, labels)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)


def objective(loss: Loss | Objective, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """What an attack maximises, (B,): away from the labels, or towards targets if there are any.

    Towards a target, cross-entropy and margin are those of the target with the sign turned. With
    logits (B, M, K), a named loss is the mean over the M networks; a callable gets them as they
    are.

    Raises:
        UserError: an unknown name; too few classes for the DLR.
    """
    if callable(loss):
        return loss(logits, labels, targets)
    if logits.ndim == 3:
        return of_each(loss, logits, labels, targets).mean(1)
    match loss:
        case "ce":
            return cross_entropy(logits, labels) if targets is None else -cross_entropy(logits, targets)
        case "margin":
            return margin(logits, labels) if targets is None else -margin(logits, targets)
        case "dlr":
            return dlr(logits, labels) if targets is None else targeted_dlr(logits, labels, targets)
    raise UserError(f"unknown loss '{loss}'; {', '.join(get_args(Loss))}, or a function of one's own", "loss")


def of_each(loss: Loss | Objective, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The loss of each network alone, (B, M), for logits (B, M, K)."""
    networks = logits.shape[1]
    aims = None if targets is None else targets.repeat_interleave(networks)
    return objective(loss, logits.flatten(0, 1), labels.repeat_interleave(networks), aims).unflatten(0, (-1, networks))


def joint(loss: Loss | Objective, how: How) -> Objective:
    """A loss against M networks at once, for logits (B, M, K); for logits (B, K) the loss itself.

    Args:
        loss: of one network.
        how: the `mean` over the networks; the loss of the `worst` network, for which it is
            smallest; or the mean over the `unfooled` networks alone, so that the attack spends
            nothing on those that it fools already (over all networks where all are fooled).

    >>> logits = torch.tensor([[[3.0, 1.0], [0.0, 1.0]]])  # the second network is fooled
    >>> for how in ("mean", "worst", "unfooled"):
    ...     print(joint("margin", how)(logits, torch.tensor([0]), None).item())
    -0.5
    -2.0
    -2.0
    """
    if how not in get_args(How):
        raise UserError(f"no way '{how}' to join the networks' losses; {', '.join(get_args(How))}", "joint")

    def together(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        if logits.ndim == 2:
            return objective(loss, logits, labels, targets)
        losses = of_each(loss, logits, labels, targets)  # (B, M)
        if how == "mean":
            return losses.mean(1)
        if how == "worst":
            return losses.amin(1)
        left = ~_fooled(logits, labels, targets)
        left = left | ~left.any(1, keepdim=True)
        return torch.where(left, losses, 0).sum(1) / left.sum(1)

    return together


def verdict(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How far points are beyond the boundary, as a margin (B,), and whether they succeed (B,).

    On the boundary itself two logits are equal: there the class is the one that `argmax` gives, as
    everywhere else. With logits (B, M, K) of M networks the margin is the smallest of theirs, and a
    point succeeds where it does for all of them.

    Args:
        logits: (B, K) or (B, M, K), at the points.
        labels: (B,).
        targets: (B,), or None where any class but the label will do.
    """
    if logits.ndim == 3:
        return of_each("margin", logits, labels, targets).amin(1), _fooled(logits, labels, targets).all(1)
    if targets is None:
        return margin(logits, labels), logits.argmax(1) != labels
    return -margin(logits, targets), logits.argmax(1) == targets


def _fooled(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Whether each network is fooled: logits (B, M, K) to (B, M)."""
    return logits.argmax(2) != labels[:, None] if targets is None else logits.argmax(2) == targets[:, None]


def pooled(logits: Tensor) -> Tensor:
    """The mean of several networks' log-probabilities, (B, K); logits (B, K) stay as they are."""
    return logits if logits.ndim == 2 else logits.log_softmax(2).mean(1)


def likeliest(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The most likely classes apart from the label, (B, count), the most likely first.

    Args:
        logits: (B, K), or (B, M, K) of M networks.
        labels: (B,).
        count: how many classes.

    Raises:
        UserError: there are fewer other classes.

    >>> likeliest(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([1]), 2)
    tensor([[2, 0]])
    """
    if count >= logits.shape[-1]:
        raise UserError(f"{count} target classes, the classifier has {logits.shape[-1] - 1} others", "target_classes")
    return without(pooled(logits), labels).sort(dim=1, descending=True, stable=True).indices[:, :count]


def value_and_gradient(
    model: Callable[[Tensor], Tensor], points: Tensor, height: Callable[[Tensor], Tensor], batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The logits at some points, with their heights and the gradients of these.

    Takes one forward and one backward pass.

    Args:
        model: points (B, ...) to logits (B, K) or (B, M, K).
        points: (B, ...).
        height: logits to what is climbed (B,), each row on its own.
        batch: the batch size to which the points are padded.

    Returns:
        The logits, their heights (B,), and the gradients of the heights at the points (B, ...).

    Raises:
        NotFinite: logits or gradients are NaN or infinite. The step would lead nowhere, and look
            like an attack that failed.
    """
    count = len(points)
    with torch.enable_grad():
        points = padded(points, batch).detach().requires_grad_(True)
        logits = model(points)[:count]
        values = height(logits)
        (gradient,) = torch.autograd.grad(values.sum(), points)
    return checked(logits.detach()), values.detach(), checked(gradient[:count], GRADIENT)


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
