"""PGD: projected gradient descent in an L-inf, L2 or L1 ball.

    delta <- project(delta + step_size * direction(gradient of the loss))
    with momentum mu, the direction is that of  g <- mu g + gradient / |gradient|_1

It may have restarts (Madry et al. 2018, "Towards deep learning models resistant to adversarial
attacks"), momentum (Dong et al. 2018, "Boosting adversarial attacks with momentum") and a schedule
of step sizes. The projection, see `inside`, keeps image + delta in the box too.

In L1 the direction moves a share of the numbers, the steepest ones (Tramer and Boneh 2019), and the
projection is onto ball and box at once (Croce and Hein 2021).

An example leaves the batch as soon as it is fooled, or when its restarts are used up, and the next
one takes its place (`active_batch`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from tasks.parts.attacks.common.active_batch import ActiveBatch, keyed_draws
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import (
    PIXELS,
    Box,
    Convex,
    ascent_step,
    inside,
    norm_of,
    per_example,
    radii,
    random_in_ball,
)
from tasks.parts.losses import Loss, Objective, objective, value_and_gradient
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=get_args(Convex), radius="fixed")

Stop = Literal["first", "last"]
Schedule = Literal["constant", "cosine", "linear"]


def pgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    norm: Convex = "Linf",
    steps: int = 20,
    step_size: float | None = None,
    schedule: Schedule = "constant",
    momentum: float = 0.0,
    share: float = 0.01,
    restarts: int = 1,
    start: Tensor | None = None,
    loss: Loss | Objective = "ce",
    stop: Stop = "first",
    targets: Tensor | None = None,
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
        steps: gradient steps a restart.
        step_size: pixel units; 2.5 epsilon / steps where None, so that the far side of the ball is
            in reach, and twice that as the first of a falling schedule, whose steps then sum up to
            the same.
        schedule: of the step sizes of a restart: `constant`, or falling to 0 in half a `cosine`
            wave or a `linear` way.
        momentum: mu, the share of the accumulated gradient that is kept at each step; 0 leaves
            momentum out.
        share: in L1, of the numbers that one step moves.
        restarts: independent starts, uniform in the ball; the first starts at the image itself.
        start: (N, ...) the perturbations at which the first restart begins instead, once the image
            has been evaluated; those outside ball and box are projected.
        loss: what is maximised, by name (see `losses`) or as a function of one's own: the
            cross-entropy, or the logit margin (largest other logit minus the label's), whose
            gradient does not vanish on confident networks, or the DLR. Towards a target, the target
            takes the label's place and the sign turns.
        stop: at the `first` point that succeeds, which lies just beyond the boundary, or after the
            `last` step of the restart that succeeds, with the point furthest beyond the boundary,
            by margin.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        ids: the examples' ids, which key the random starts; 0, 1, ... where None.
        seed: keys the random starts.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`; where the search failed, the perturbation that came nearest, by margin, to
        success.

    Raises:
        UserError: as `check_arguments`; an unknown loss or schedule.
    """
    check_arguments("pgd", images, labels, epsilon=epsilon, norm=norm, norms=ATTACK.norms, targets=targets, box=box)
    shape = images.shape[1:]
    ids = range(len(images)) if ids is None else ids
    batch = pass_size(images) if batch is None else batch
    factors = falling(schedule, steps).to(images)
    whole = 2.5 if schedule == "constant" else 5.0
    radius = radii(epsilon, images)
    first_size = (whole * radius / steps if step_size is None else torch.full_like(radius, step_size)).to(images.dtype)
    radius = radius.to(images.dtype)

    def uniform(keys: list[int], number: int) -> Tensor:
        return random_in_ball(norm, shape, seed=seed, purpose="pgd start", ids=keys, block=number)

    evaluated = None if start is None else in_batches(model, images, batch)
    active = ActiveBatch(images, labels, targets, batch, evaluated=evaluated)
    restart, step, delta = active.zeros(), active.zeros(), active.zeros(*shape, dtype=images.dtype)
    gathered = active.zeros(*shape if momentum else (0,), dtype=images.dtype)
    while len(active.example):
        here, label, limit = images[active.example], labels[active.example], radius[active.example]
        target = None if targets is None else targets[active.example]
        if start is not None and (first := step + restart == 0).any():
            given = start[active.example[first]].to(delta)
            delta[first] = inside(here[first], given, limit[first], norm, box)
        height = partial(objective, loss, labels=label, targets=target)
        logits, _, gradient = value_and_gradient(model, here + delta, height, batch)
        _, fooled = active.record(delta, logits, backward=True)

        ended = step >= steps
        if stop == "first":
            finished = fooled | (ended & (restart + 1 >= restarts))
        else:  # misclassified to begin with, or at the end of a restart that succeeded, or of the last
            finished = ended & (active.succeeded | (restart + 1 >= restarts))
            if start is None:
                finished |= fooled & (step + restart == 0)
        again = ended & ~finished
        if momentum:
            gradient = gathered = momentum * gathered + gradient / per_example(
                norm_of(gradient, "L1"), gradient
            ).clamp_min(torch.finfo(gradient.dtype).tiny)
        size = first_size[active.example] * factors[step.clamp_max(steps - 1)]
        step = torch.where(again, 0, step + 1)
        restart = restart + again
        if again.any():  # a restart is a step along no gradient from a random point
            gradient = torch.where(per_example(again, gradient), 0, gradient)
            gathered = torch.where(per_example(again, gathered), 0, gathered)
            points = keyed_draws(uniform, ids, active.example[again], restart[again]).to(delta)
            delta[again] = points * per_example(limit[again], points)
        size = per_example(size, delta)
        delta = ascent_step(here, delta, gradient, epsilon=limit, step_size=size, norm=norm, box=box, share=share)
        restart, step, delta, gathered = active.replace_finished(finished, restart, step, delta, gathered)
    return active.result(norm, box)


def falling(schedule: Schedule, steps: int) -> Tensor:
    """The share of the first step size that each step has, float64 (steps,).

    >>> falling("linear", 4).tolist(), falling("constant", 2).tolist()
    ([1.0, 0.75, 0.5, 0.25], [1.0, 1.0])
    """
    done = torch.arange(steps, dtype=torch.float64) / max(steps, 1)
    match schedule:
        case "constant":
            return torch.ones_like(done)
        case "linear":
            return 1 - done
        case "cosine":
            return (1 + (math.pi * done).cos()) / 2
    raise UserError(f"unknown schedule '{schedule}'; {', '.join(get_args(Schedule))}", "schedule")
