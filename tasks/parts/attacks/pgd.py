"""Projected gradient descent in an L-inf or L2 ball, with restarts (Madry et al. 2018, "Towards deep learning models resistant to
adversarial attacks").

    delta <- project(delta + step_size * direction(gradient of the loss)),  clipped so that image + delta stays in [0, 1]

An example leaves the batch as soon as it is fooled, or when its restarts are used up, and the next one takes its place (`slots`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.batching import batch_size
from tasks.parts.geometry import Norm, ascent_direction, project, random_in_ball
from tasks.parts.losses import objective, value_and_gradient
from tasks.parts.search import Found
from tasks.parts.slots import Slots, drawn

Loss = Literal["ce", "margin"]


def pgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "Linf",
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    loss: Loss = "ce",
    targets: Tensor | None = None,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Found:
    """Searches a misclassified (or, with `targets`, a so classified) point within `epsilon` of each image.

    Args:
        model: [0, 1] images (B, C, H, W) to logits (B, K), in evaluation mode.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) true classes.
        epsilon: radius of the ball, pixel units.
        norm: of the ball.
        steps: gradient steps a restart.
        step_size: pixel units; 2.5 epsilon / steps where None, so that the far side of the ball is in reach.
        restarts: independent starts, uniform in the ball; the first starts at the image itself.
        loss: what is maximised: the cross-entropy, or the logit margin (largest other logit minus the label's), whose gradient does
            not vanish on confident networks. Towards a target, the target takes the label's place and the sign turns.
        targets: (N,) classes to reach; any other class than the label where None.
        ids: the examples' ids, which key the random starts; 0, 1, ... where None.
        seed: keys the random starts.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `Found`; where the search failed, the perturbation that came nearest, by margin, to success.
    """
    shape = images.shape[1:]
    ids = range(len(images)) if ids is None else ids
    batch = batch_size(images[0].numel(), images.device) if batch is None else batch
    step_size = 2.5 * epsilon / steps if step_size is None else step_size

    def start(keys: list[int], number: int) -> Tensor:
        return random_in_ball(norm, shape, seed=seed, purpose="pgd start", ids=keys, block=number) * epsilon

    radius = torch.full((1,), epsilon, device=images.device, dtype=images.dtype)
    slots = Slots(images, labels, targets, batch)
    restart, step, delta = slots.zeros(), slots.zeros(), slots.zeros(*shape, dtype=images.dtype)
    while len(slots.example):
        here, label = images[slots.example], labels[slots.example]
        target = None if targets is None else targets[slots.example]
        height = partial(objective, loss, labels=label, targets=target)
        logits, _, gradient = value_and_gradient(model, here + delta, height, batch)
        _, fooled = slots.record(delta, logits, backward=True)

        ended = step >= steps
        finished = fooled | (ended & (restart + 1 >= restarts))
        again = ended & ~finished
        moved = project(delta + step_size * ascent_direction(gradient, norm), radius, norm)
        step = torch.where(again, 0, step + 1)
        restart = restart + again
        if again.any():
            moved[again] = drawn(start, ids, slots.example[again], restart[again]).to(moved)
        delta = (here + moved).clamp(0, 1) - here
        restart, step, delta = slots.refill(finished, restart, step, delta)
    return slots.found(norm)
