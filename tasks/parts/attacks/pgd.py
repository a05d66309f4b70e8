"""Projected gradient descent in an L-inf or L2 ball, with restarts (Madry et al. 2018, "Towards deep learning models resistant to
adversarial attacks").

    delta <- project(delta + step_size * direction(gradient of the loss)),  clipped so that image + delta stays in [0, 1]

An example leaves the batch as soon as it is fooled, or when its restarts are used up, and the next one takes its place, so no pass is
spent on a finished example and the batch stays full to the end of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.batching import batch_size, padded
from tasks.parts.geometry import ascent_direction, norm_of, project, random_in_ball
from tasks.parts.search import Found

Loss = Literal["ce", "margin"]


def pgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Literal["Linf", "L2"] = "Linf",
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
    device, shape = images.device, images.shape[1:]
    total = len(images)
    ids = range(total) if ids is None else ids
    batch = batch_size(images[0].numel(), device) if batch is None else batch
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    aims = labels if targets is None else targets
    sign = 1.0 if targets is None else -1.0  # both losses rise as the prediction moves away from the aim

    best = torch.zeros_like(images)
    best_margin = torch.full((total,), -torch.inf, device=device)
    success = torch.zeros(total, dtype=torch.bool, device=device)
    forwards = torch.zeros(total, dtype=torch.long, device=device)
    backwards = torch.zeros(total, dtype=torch.long, device=device)

    # The slots of the batch: which example each works on, at which restart and step. Examples `waiting ..` have had no slot yet.
    waiting = min(batch, total)
    example = torch.arange(waiting, device=device)
    restart = torch.zeros(waiting, dtype=torch.long, device=device)
    step = torch.zeros(waiting, dtype=torch.long, device=device)
    delta = torch.zeros_like(images[:waiting])
    radius = torch.full((waiting,), epsilon, device=device, dtype=images.dtype)

    while len(example):
        here, aim = images[example], aims[example]
        margin, fooled, gradient = _look(model, here + delta, aim, loss, sign, batch)
        forwards[example] += 1
        backwards[example] += 1

        better = fooled | (margin > best_margin[example])
        best[example[better]] = delta[better]
        best_margin[example[better]] = margin[better]
        success[example[fooled]] = True

        ended = step >= steps
        finished = fooled | (ended & (restart + 1 >= restarts))
        moved = delta + step_size * ascent_direction(gradient, norm)
        delta = (here + project(moved, radius[: len(example)], norm)).clamp(0, 1) - here
        step = step + 1

        again = ended & ~finished
        for number in restart[again].unique().tolist():
            rows = (again & (restart == number)).nonzero().flatten()
            keys = [ids[row] for row in example[rows].tolist()]
            start = (
                random_in_ball(norm, shape, seed=seed, purpose="pgd start", ids=keys, block=number + 1).to(device)
                * epsilon
            )
            delta[rows] = (here[rows] + start).clamp(0, 1) - here[rows]
        restart = restart + again
        step = torch.where(again, 0, step)

        if finished.any():
            fresh = min(int(finished.sum()), total - waiting)
            keep = (~finished).nonzero().flatten()
            example = torch.cat([example[keep], torch.arange(waiting, waiting + fresh, device=device)])
            delta = torch.cat([delta[keep], delta.new_zeros(fresh, *shape)])
            restart = torch.cat([restart[keep], restart.new_zeros(fresh)])
            step = torch.cat([step[keep], step.new_zeros(fresh)])
            waiting += fresh

    return Found(best, success, norm_of(best, norm), forwards, backwards)


def _look(
    model: Callable[[Tensor], Tensor], points: Tensor, aim: Tensor, loss: Loss, sign: float, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """How far each point is beyond the boundary (B,), whether it succeeds (B,), and the gradient of the loss (B, C, H, W).

    On the boundary itself two logits are equal: there the class is the one that `argmax` gives, as everywhere else.
    """
    count = len(points)
    with torch.enable_grad():
        points = padded(points, batch).detach().requires_grad_(True)
        aim = padded(aim, batch)
        logits = model(points)
        others = logits.scatter(1, aim[:, None], -torch.inf).amax(1)
        margin = sign * (others - logits.gather(1, aim[:, None]).squeeze(1))
        objective = (
            margin if loss == "margin" else sign * torch.nn.functional.cross_entropy(logits, aim, reduction="none")
        )
        (gradient,) = torch.autograd.grad(objective.sum(), points)
    fooled = (logits.argmax(1) == aim) == (sign < 0)
    return margin.detach()[:count], fooled[:count], gradient[:count]
