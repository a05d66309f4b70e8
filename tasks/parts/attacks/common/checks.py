"""What every attack refuses before any work.

That is arguments that make no sense, and networks that cannot be searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tasks.parts.batching import padded
from tasks.parts.finite import GRADIENT, checked
from tasks.parts.geometry.balls import PIXELS, Box, clipped
from tasks.parts.losses import of_each
from tasks.parts.messages import did_you_mean
from tasks.parts.settings import UserError

PROBES = 8
"""How many points a network is tried at."""


def check_arguments(
    attack: str,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor | None = None,
    norm: str | None = None,
    norms: Sequence[str] = (),
    targets: Tensor | None = None,
    box: Box = PIXELS,
) -> None:
    """Checks what an attack was called with; runs no network.

    Args:
        attack: its name, for the message.
        images: (N, ...), all in the box.
        labels: (N,) classes.
        epsilon: radius, one for all or (N,); unchecked where None.
        norm: one of `norms`; unchecked where None.
        norms: those that the attack has.
        targets: (N,) classes, none of them the label; unchecked where None.
        box: the least and the largest number a point may have.

    Raises:
        UserError: what is wrong, with the argument at fault as its field.

    >>> check_arguments("pgd", torch.zeros(1, 1, 2, 2), torch.tensor([3]), epsilon=0.0)
    Traceback (most recent call last):
    tasks.parts.settings.UserError: epsilon: pgd needs a radius above 0, not 0.0
    """
    if norm is not None and norm not in norms:
        hint = did_you_mean(norm, norms, cutoff=0.5)
        raise UserError(f"{attack} has no norm {norm}; it has {', '.join(norms)}{hint}", "norm")
    if epsilon is not None:
        _check_epsilon(attack, epsilon, len(images))
    if not images.is_floating_point():
        raise UserError(f"{attack} needs images of floating point numbers, not {_dtype(images)}", "images")
    _check_classes(attack, labels, len(images), "label")
    if targets is not None:
        _check_classes(attack, targets, len(images), "target")
        if (same := targets == labels).any():
            row = int(same.nonzero()[0])
            raise UserError(f"a target must differ from the label; both are {int(labels[row])} in row {row}", "targets")
    if len(images) and not ((images >= box[0]) & (images <= box[1])).all():
        if images.isnan().any():
            raise UserError("the images have numbers that are not a number (NaN)", "images")
        low, high = images.amin(), images.amax()
        raise UserError(
            f"images must lie in [{box[0]:g}, {box[1]:g}], these reach from {low:.4g} to {high:.4g}; the network normalises",
            "images",
        )


def check_network(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, box: Box = PIXELS, *, follows: bool = True
) -> None:
    """Tries a network at a few of the points: one forward and one backward pass.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks.
        images: (N, ...) in the box.
        labels: (N,) classes.
        box: the least and the largest number a point may have.
        follows: whether the search follows the gradient; else there need be none.

    Raises:
        UserError: it returns something else than logits, or probabilities; a label is not one of
            its classes; its margins have no gradient, so that a search would follow nothing.
        NotFinite: it returns numbers that are not finite, or such is its gradient.
    """
    if not len(images):
        return
    points = images[:PROBES]
    logits, gradient = _probe(model, points, labels[:PROBES])
    if gradient is not None and not gradient.any():  # a flat spot, or a network that is flat everywhere?
        numbers = torch.linspace(-1, 1, points[0].numel(), dtype=points.dtype, device=points.device)
        nearby = clipped(points, 0.1 * numbers.reshape(points.shape[1:]).expand_as(points), box)
        _, gradient = _probe(model, points + nearby, labels[:PROBES])
    classes = logits.shape[-1]
    if int(labels.max()) >= classes:
        raise UserError(
            f"label {int(labels.max())} is out of range: the network has the classes 0..{classes - 1}", "labels"
        )
    if not follows:
        return
    if gradient is None or not gradient.any():
        how = "no gradient with respect to its input" if gradient is None else "a gradient that is zero everywhere"
        raise UserError(
            f"the network has {how}: a search that follows it would be vacuous; take a differentiable network, or square",
            "model",
        )
    checked(gradient, GRADIENT)


def _probe(model: Callable[[Tensor], Tensor], points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
    """The logits, and the gradient of the margins' sum (B, ...).

    The gradient is None where it does not reach the points.
    """
    with torch.enable_grad():
        asked = padded(points, PROBES).detach().clone().requires_grad_(True)
        logits = model(asked)
        if not isinstance(logits, Tensor) or logits.ndim not in (2, 3) or len(logits) != len(asked):
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the network must return logits (B, K) for {len(asked)} points, not {got}", "model")
        if logits.shape[-1] < 2:
            raise UserError("the network has a single class: there is no other to reach", "model")
        rows = checked(logits[: len(points)].detach())
        if ((rows >= 0) & (rows <= 1)).all() and (rows.sum(-1) - 1).abs().max() < 1e-4:
            raise UserError("the network returns probabilities; logits are needed, before the softmax", "model")
        if not logits.requires_grad:
            return rows, None
        known = labels.clamp_max(logits.shape[-1] - 1)
        live = logits[: len(points)]
        if live.ndim == 2:
            live = live[:, None]
        heights = of_each("margin", live, known)  # (B, M)
        weights = torch.arange(1.0, heights.shape[1] + 1).to(heights)  # networks may be each other's opposites
        (gradient,) = torch.autograd.grad((heights * weights).sum(), asked, allow_unused=True)
    return rows, None if gradient is None else gradient[: len(points)]


def _check_epsilon(attack: str, epsilon: float | Tensor, count: int) -> None:
    each = torch.as_tensor(epsilon)
    if each.ndim and each.shape != (count,):
        raise UserError(
            f"{attack} needs one radius, or one for each of {count} images, not {tuple(each.shape)}", "epsilon"
        )
    wrong = each[~((each > 0) & each.isfinite())]
    if wrong.numel():
        came = f"{float(wrong[0])}" if not each.ndim else f"{float(wrong[0])} ({wrong.numel()} of {count})"
        raise UserError(f"{attack} needs a radius above 0, not {came}", "epsilon")


def _check_classes(attack: str, classes: Tensor, count: int, what: str) -> None:
    if classes.shape != (count,) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise UserError(
            f"{attack} needs a whole number, a class, for each of {count} images, not {_dtype(classes)} {tuple(classes.shape)}",
            what + "s",
        )
    if count and int(classes.min()) < 0:
        raise UserError(f"{what} {int(classes.min())} is out of range: classes are 0, 1, ...", what + "s")


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
