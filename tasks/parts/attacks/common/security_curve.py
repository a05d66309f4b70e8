"""A security curve: the smallest radius of a ladder at which an attack succeeds, by example.

Biggio and Roli 2018, "Wild patterns: ten years after the rise of adversarial machine learning", ask
for the curve in place of one radius.

The largest radius comes first: where it fails, so will the smaller ones. What succeeds is projected
onto the smaller balls, by bisection over the ladder and with forward passes alone, which often
settles several radii at once. Then the next smaller radius is attacked, from the projection, with
fewer steps, and so on until an attack fails. So an example sees one attack that fails, and the
attacks that succeed are short.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tasks.parts.attacks.common.arguments import rows_of
from tasks.parts.attacks.common.capabilities import capabilities_of
from tasks.parts.attacks.common.line_search import reached
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.geometry.balls import PIXELS, Box, Norm, clipped, norm_of, project
from tasks.parts.settings import UserError


def security_curve(
    attack: Callable[..., AttackResult],
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    *,
    steps_between: float = 0.25,
    **arguments: Any,
) -> tuple[AttackResult, Tensor]:
    """Runs an attack at each radius of a ladder, each from what was found at its neighbours.

    Args:
        attack: a function of `tasks/parts/attacks/`. One without a fixed radius runs once, and what
            it finds beyond the largest radius is no success. One that has no `start` begins anew at
            each radius.
        model: points (B, ...) to logits, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        radii: the ladder, in any order, pixel units.
        steps_between: the share of the attack's steps (at least 3) that it gets at a radius where
            it has a start. Its step sizes then fall, if it has a schedule and none is given.
        arguments: further ones of the attack, but for `epsilon` and `stop`.

    Returns:
        What was found at the smallest radius that succeeds (where none does, the best try at the
        largest), with all passes of the whole ladder, and that radius (N,), float64, infinite where
        none succeeds. An image that is misclassified to begin with has the smallest radius. At any
        radius r of the ladder the robust examples are those whose radius is larger.

    Raises:
        UserError: a ladder that is none, or an argument that the ladder decides; and what the
            attack raises.

    >>> from tasks.parts.attacks.pgd import pgd
    >>> def model(x):  # the second class above a mean of 0.5
    ...     return torch.stack([0.5 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 0.5], 1)
    >>> grey = torch.tensor([0.6, 0.27, 0.05]).reshape(3, 1, 1, 1)
    >>> security_curve(pgd, model, grey, torch.tensor([0, 0, 0]), [0.1, 0.2, 0.3])[1].tolist()
    [0.1, 0.3, inf]
    """
    ladder = _ladder(radii, images, arguments)
    parameters = inspect.signature(attack).parameters
    norm: Norm = arguments.get("norm", parameters["norm"].default if "norm" in parameters else "L2")
    box: Box = arguments.get("box", PIXELS)
    batch = arguments.get("batch") or pass_size(images)
    if "ids" in parameters:
        arguments["ids"] = list(range(len(images))) if arguments.get("ids") is None else list(arguments["ids"])
    none = len(ladder)

    if capabilities_of(attack).radius != "fixed":
        found = attack(model, images, labels, **arguments)
        place = torch.where(found.success, _place(found.perturbation, ladder, norm), none)
        return replace(found, success=place < none), _radius(place, ladder)

    found = attack(model, images, labels, epsilon=float(ladder[-1]), **arguments)
    best, forwards, backwards = found.perturbation.clone(), found.forwards.clone(), found.backwards.clone()
    place = torch.where(found.success, _place(best, ladder, norm).clamp_max(none - 1), none)  # (N,) succeeds there
    failed = torch.full_like(place, -1)  # (N,) the largest place at which an attack failed
    if "start" in parameters:
        steps = arguments.get("steps", parameters["steps"].default if "steps" in parameters else None)
        if "schedule" in parameters:  # the walks begin near their end: their steps shorten
            arguments.setdefault("schedule", "cosine")
        arguments |= {} if steps is None else {"steps": min(steps, max(3, math.ceil(steps_between * steps)))}
    while True:
        left = ((place < none) & (place - 1 > failed)).nonzero().flatten()
        if not len(left):
            break
        aims = None if arguments.get("targets") is None else arguments["targets"][left]
        best[left], place[left], looks = _lowered(
            model, images[left], labels[left], aims, best[left], place[left], failed[left], ladder, norm, box, batch
        )
        forwards[left] += looks
        left = left[place[left] - 1 > failed[left]]
        if not len(left):
            continue
        below = place[left] - 1
        given = rows_of(arguments, left, len(images))
        if "start" in parameters:
            given["start"] = _onto(images[left], best[left], ladder[below], norm, box)
        found = attack(model, images[left], labels[left], epsilon=ladder[below], **given)
        forwards[left] += found.forwards
        backwards[left] += found.backwards
        won, lost = left[found.success], left[~found.success]
        best[won] = found.perturbation[found.success]
        place[won] = torch.minimum(_place(best[won], ladder, norm), below[found.success])
        failed[lost] = below[~found.success]
    result = AttackResult.of(images, best, place < none, norm=norm, forwards=forwards, backwards=backwards, box=box)
    return result, _radius(place, ladder)


def _ladder(radii: Sequence[float], images: Tensor, arguments: Mapping[str, object]) -> Tensor:
    for name in ("epsilon", "stop"):
        if name in arguments and arguments[name] != "first":
            raise UserError(f"a security curve takes no {name}: its ladder of radii decides", name)
    ladder = torch.tensor(sorted(set(radii)), dtype=torch.float64, device=images.device)
    if not len(ladder) or not ((ladder > 0) & ladder.isfinite()).all():
        raise UserError(f"a security curve needs radii above 0, not {list(radii)}", "radii")
    return ladder


def _place(delta: Tensor, ladder: Tensor, norm: Norm) -> Tensor:
    """The smallest place of the ladder whose ball holds each perturbation, up to rounding.

    It is the ladder's length where none does.
    """
    return torch.searchsorted(ladder * (1 + 1e-6) + 1e-9, norm_of(delta, norm).double())


def _radius(place: Tensor, ladder: Tensor) -> Tensor:
    return torch.cat([ladder, ladder.new_tensor([torch.inf])])[place]


def _onto(images: Tensor, delta: Tensor, radius: Tensor, norm: Norm, box: Box) -> Tensor:
    """The projection of perturbations of images in the box onto smaller balls, (B, ...)."""
    return clipped(images, project(delta, radius.to(delta.dtype), norm), box)


def _lowered(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    best: Tensor,
    place: Tensor,
    failed: Tensor,
    ladder: Tensor,
    norm: Norm,
    box: Box,
    batch: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Projects perturbations that succeed at `place` (B,) onto smaller balls.

    It bisects the places above `failed` (B,).

    Returns:
        The perturbations, the smallest places at which a projection was seen to succeed, and the
        forward passes taken (B,).
    """
    best, high, low, looks = best.clone(), place.clone(), failed.clone(), torch.zeros_like(place)
    while True:
        open_ = (high - low > 1).nonzero().flatten()
        if not len(open_):
            return best, high, looks
        middle = (high[open_] + low[open_]) // 2
        delta = _onto(images[open_], best[open_], ladder[middle], norm, box)
        there = reached(model, images[open_] + delta, labels[open_], None if targets is None else targets[open_], batch)
        looks[open_] += 1
        high[open_] = torch.where(there, middle, high[open_])
        low[open_] = torch.where(there, low[open_], middle)
        best[open_[there]] = delta[there]
