"""Auto-PGD: projected gradient ascent that chooses its own step size.

Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks". From x_0, with the step size eta = 2 epsilon at first, P the projection
onto ball and box, and the momentum a = 0.75:

    z       = P(x_k + eta direction(gradient of the loss at x_k))
    x_{k+1} = P(x_k + a (z - x_k) + (1 - a) (x_k - x_{k-1})),    x_1 = z

At checkpoints, which come closer and closer, eta is halved and the walk goes back to its best
point, if since the last checkpoint the loss rose in less than 3 of 4 steps, or if eta was not
halved there and the best loss has not risen since.

Examples leave the batch once they are fooled, and the next ones take their place (`active_batch`);
each slot has its own step size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from tasks.parts.attacks.common.active_batch import ActiveBatch, keyed_draws
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import (
    PIXELS,
    Ball,
    Box,
    ascent_step,
    clipped,
    inside,
    per_example,
    radii,
    random_in_ball,
)
from tasks.parts.losses import Loss, Objective, likeliest, objective, pooled, value_and_gradient, without
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=get_args(Ball), radius="fixed")

MOMENTUM = 0.75
RISING = 0.75
"""The step size stays where the loss rose in this share of the steps between two checkpoints."""


def apgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    norm: Ball = "Linf",
    steps: int = 100,
    restarts: int = 1,
    start: Tensor | None = None,
    loss: Loss | Objective = "ce",
    targets: Tensor | None = None,
    target_classes: int = 0,
    box: Box = PIXELS,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> AttackResult:
    """Searches a misclassified point within `epsilon` of each image.

    With `targets`, it searches a point that is given its target instead.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks that are to be fooled by
            one point, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        epsilon: radius of the ball, pixel units; one for all, or one each (N,).
        norm: of the ball.
        steps: gradient steps a walk.
        restarts: walks; the first starts at the image itself, the others at points uniform in the
            ball.
        start: (N, ...) the perturbations at which the first walk begins instead, once the image has
            been evaluated; those outside ball and box are projected.
        loss: what is maximised, by name or as a function of one's own, see `losses`: the
            cross-entropy, the logit margin, or the difference of logits ratio (DLR).
        targets: (N,) classes to reach; any other class than the label where None. The loss is then
            the targeted one.
        target_classes: where it is n > 0, each restart is n walks, which aim in turn at the n
            classes other than the label that are the most likely at the image (of M networks: of
            the largest mean log-probability), with the targeted loss; whatever other class is met
            on the way counts.
        box: the least and the largest number that a point may have.
        ids: the examples' ids, which key the random starts; 0, 1, ... where None.
        seed: keys the random starts.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`; where the search failed, the perturbation that came nearest, by margin, to
        success.

    Raises:
        UserError: as `check_arguments`; both `targets` and `target_classes`; more target classes
            than other classes; too few classes for the DLR.
    """
    check_arguments("apgd", images, labels, epsilon=epsilon, norm=norm, norms=ATTACK.norms, targets=targets, box=box)
    if targets is not None and target_classes:
        raise UserError("the targets are given: no target_classes can be chosen", "target_classes")
    shape, walks = images.shape[1:], restarts * max(1, target_classes)
    ids = range(len(images)) if ids is None else ids
    batch = pass_size(images) if batch is None else batch
    radius = radii(epsilon, images)
    first_size, radius = (2 * radius).to(images.dtype), radius.to(images.dtype)
    plan = _Plan.of(steps, images.device)

    def uniform(keys: list[int], number: int) -> Tensor:
        return random_in_ball(norm, shape, seed=seed, purpose="apgd start", ids=keys, block=number)

    evaluated = None if start is None else in_batches(model, images, batch)
    active = ActiveBatch(images, labels, targets, batch, evaluated=evaluated)
    ranking = active.zeros(target_classes)  # (S, n) the most likely other classes, filled at the image
    walk = _Walk.beginning(active, shape, images.dtype)
    while len(active.example):
        here, label, limit = images[active.example], labels[active.example], radius[active.example]
        target = None if targets is None else targets[active.example]
        at_first = (walk.number == 0) & (walk.step == 0)
        if start is not None and evaluated is not None and at_first.any():
            given = inside(here, start[active.example].to(here), limit, norm, box)
            walk = walk._replace(delta=torch.where(per_example(at_first, here), given, walk.delta))
            if target_classes:
                ranked = likeliest(evaluated[active.example], label, target_classes)
                ranking = torch.where(at_first[:, None], ranked, ranking)
        if target_classes:
            target = ranking.gather(1, (walk.number % target_classes)[:, None]).squeeze(1)
            if start is None:
                target = torch.where(at_first, -1, target)
        height = partial(_height, loss=loss, labels=label, targets=target)
        logits, value, gradient = value_and_gradient(model, here + walk.delta, height, batch)
        _, fooled = active.record(walk.delta, logits, backward=True)
        if target_classes and start is None and at_first.any():
            ranking = torch.where(at_first[:, None], likeliest(logits, label, target_classes), ranking)

        ended = walk.step >= steps
        finished = fooled | (ended & (walk.number + 1 >= walks))
        again = ended & ~finished
        walk, gradient = _checked(walk, value, gradient, first_size[active.example], plan)
        walk = _moved(walk, gradient, here, limit, norm, box)
        walk = walk._replace(number=walk.number + again, step=torch.where(again, 0, walk.step))
        if again.any():
            points = keyed_draws(uniform, ids, active.example[again], walk.number[again]).to(here)
            walk.delta[again] = clipped(here[again], points * per_example(limit[again], points), box)
        ranking, *states = active.replace_finished(finished, ranking, *walk)
        walk = _Walk(*states)
    return active.result(norm, box)


class _Walk(NamedTuple):
    """Where each slot is on its walk.

    All is zero at the start of an example; at the start of a further walk only what `_checked` does
    not set anew.
    """

    number: Tensor  # (S,) walks of this example before this one
    step: Tensor  # (S,) k
    delta: Tensor  # (S, C, H, W) x_k, from the image
    previous: Tensor  # (S, C, H, W) x_{k-1}
    value: Tensor  # (S,) the loss at x_{k-1}
    step_size: Tensor  # (S,) eta
    best: Tensor  # (S, C, H, W) the best point of this walk
    best_gradient: Tensor
    best_value: Tensor  # (S,)
    rises: Tensor  # (S,) steps since the last checkpoint in which the loss rose
    halved: Tensor  # (S,) whether the step size was halved at the last checkpoint
    best_then: Tensor  # (S,) best_value at the last checkpoint

    @staticmethod
    def beginning(active: ActiveBatch, shape: Sequence[int], dtype: torch.dtype) -> _Walk:
        count, number, image = active.zeros(), active.zeros(dtype=dtype), active.zeros(*shape, dtype=dtype)
        no = active.zeros(dtype=torch.bool)
        return _Walk(count, count, image, image, number, number, image, image, number, count, no, number)


class _Plan(NamedTuple):
    """The checkpoints of a walk.

    For each step k, (steps + 1,): whether it is a checkpoint, and how many steps the last one lies
    back.
    """

    check: Tensor
    since: Tensor

    @staticmethod
    def of(steps: int, device: torch.device) -> _Plan:
        at = checkpoints(steps)
        check = torch.zeros(steps + 1, dtype=torch.bool)
        since = torch.zeros(steps + 1)
        check[at] = True
        since[at] = torch.tensor(at, dtype=since.dtype).diff(prepend=torch.zeros(1))
        return _Plan(check.to(device), since.to(device))


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step size may be halved.

    They are ceil(p_j steps) with p_0 = 0, p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03,
    0.06), the first left out.

    >>> checkpoints(100), checkpoints(10)
    ([22, 41, 57, 70, 80, 87, 93, 99], [3, 5, 6, 7, 8, 9, 10])
    """
    percent, gap = 22, 22
    found = []
    while percent < 100:
        found.append(-(-percent * steps // 100))
        gap = max(gap - 3, 6)
        percent += gap
    return sorted(set(found))


def _height(logits: Tensor, *, loss: Loss | Objective, labels: Tensor, targets: Tensor | None) -> Tensor:
    """The loss (B,); a target of -1 is the most likely class but the label."""
    if targets is not None:
        targets = torch.where(targets < 0, without(pooled(logits), labels).argmax(1), targets)
    return objective(loss, logits, labels, targets)


def _checked(walk: _Walk, value: Tensor, gradient: Tensor, first_size: Tensor, plan: _Plan) -> tuple[_Walk, Tensor]:
    """Takes the loss at x_k into account.

    At checkpoints it halves the step size and goes back to the best point, or not.

    Returns:
        The walk, and the gradient to follow.
    """
    first = walk.step == 0
    better = first | (value > walk.best_value)
    pixels = per_example(better, gradient)
    best = torch.where(pixels, walk.delta, walk.best)
    best_gradient = torch.where(pixels, gradient, walk.best_gradient)
    best_value = torch.where(better, value, walk.best_value)
    step_size = torch.where(first, first_size, walk.step_size)
    rises = torch.where(first, 0, walk.rises + (value > walk.value))

    check = plan.check[walk.step]
    unsteady = rises < RISING * plan.since[walk.step]
    stuck = ~walk.halved & (best_value <= walk.best_then)
    halve = check & (unsteady | stuck)
    back = per_example(halve, gradient)
    walk = walk._replace(
        delta=torch.where(back, best, walk.delta),
        value=torch.where(halve, best_value, value),
        step_size=torch.where(halve, step_size / 2, step_size),
        best=best,
        best_gradient=best_gradient,
        best_value=best_value,
        rises=torch.where(check, 0, rises),
        halved=torch.where(check, halve, walk.halved & ~first),
        best_then=torch.where(check | first, best_value, walk.best_then),
    )
    return walk, torch.where(back, best_gradient, gradient)


def _moved(walk: _Walk, gradient: Tensor, here: Tensor, radius: Tensor, norm: Ball, box: Box) -> _Walk:
    """One step from x_k to x_{k+1}."""
    size = per_example(walk.step_size, gradient)
    straight = ascent_step(here, walk.delta, gradient, epsilon=radius, step_size=size, norm=norm, box=box)
    momentum = MOMENTUM * (straight - walk.delta) + (1 - MOMENTUM) * (walk.delta - walk.previous)
    first = per_example(walk.step == 0, gradient)
    moved = torch.where(first, straight, inside(here, walk.delta + momentum, radius, norm, box))
    return walk._replace(step=walk.step + 1, delta=moved, previous=walk.delta)
