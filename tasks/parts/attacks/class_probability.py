"""Maximises the probability of a class, with an optimiser of torch.

    x <- clip(optimiser step(x, gradient of the objective at x), box)

The optimiser is any that treats each number on its own. The walk begins at the image, at noise or
at zeros (Szegedy et al. 2014, "Intriguing properties of neural networks"; for images of a class
from nothing, Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks"). There is
no ball: how far the walk goes is up to the optimiser. All its steps are taken, also beyond the
decision boundary.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.batching import batch_size
from tasks.parts.geometry.balls import PIXELS, Box, per_example
from tasks.parts.losses import pooled, value_and_gradient, verdict, without
from tasks.parts.messages import did_you_mean
from tasks.parts.randomness import normal, uniform
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=("L2",), radius="free")

Start = Literal["image", "noise", "zeros"]
Objective = Literal["probability", "log_probability", "logit"]

LEARNING_RATES: dict[str, float] = {
    "Adadelta": 1.0,
    "Adagrad": 0.01,
    "Adam": 0.01,
    "Adamax": 0.01,
    "AdamW": 0.01,
    "ASGD": 1.0,
    "NAdam": 0.01,
    "RAdam": 0.01,
    "RMSprop": 0.01,
    "Rprop": 0.01,
    "SGD": 1.0,
}
"""The element-wise optimisers of torch.optim, with their learning rates.

For the next value of a number they look at no other number.
"""

MIXING = {
    "Adafactor": "scales a step by the whole tensor's root mean square",
    "LBFGS": "takes inner products over the whole tensor",
    "Muon": "orthogonalises the whole tensor as one matrix",
    "SparseAdam": "wants sparse gradients",
}
"""Optimisers with which an example's walk would depend on the other examples of its batch."""

OWN = ("params", "lr", "maximize", "differentiable")
"""Arguments of optimisers that are not options."""


def class_probability(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    optimiser: str = "adamw",
    learning_rate: float | None = None,
    optimiser_options: Mapping[str, object] | None = None,
    start: Start = "image",
    objective: Objective = "probability",
    steps: int = 100,
    box: Box = PIXELS,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> AttackResult:
    """Climbs from each image to a point that the model gives to a class with high probability.

    It may begin at noise or zeros instead.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks, over which the
            objective is averaged; in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        targets: (N,) classes to make probable. Where None, the most likely class other than the
            label at the start, and any other class than the label is a success; images that are
            misclassified from the start are then left alone.
        optimiser: name in torch.optim, in small letters or capitals: one of `LEARNING_RATES`.
        learning_rate: of the optimiser, in the points' units where it normalises the gradient (Adam
            and the like) and per gradient where it does not (SGD); as in `LEARNING_RATES` where
            None.
        optimiser_options: its other arguments. Weight decay, which would pull points to zero, is 0
            unless it is given here.
        start: the `image`; `noise`, uniform in the box, or standard normal where there is no box;
            or `zeros` (or the number of the box that is nearest to it).
        objective: the target's `probability`, whose gradient vanishes where it is near 0; its
            `log_probability`; or its `logit`.
        steps: of the optimiser, at least 1.
        box: the least and the largest number of a point.
        ids: the examples' ids, which key the noise; 0, 1, ... where None.
        seed: keys the noise.
        batch: points in one pass; chosen for the device where None.

    Returns:
        `AttackResult` of the points of the highest objective, with L2 distances from the images.
        Success says whether the target (without targets: another class than the label) has the
        largest logit there.

    Raises:
        UserError: as `check_arguments`, but away from the image a target may be the label; an
            optimiser that torch does not have or that mixes examples, an option it does not have,
            an unknown start or objective, or a number out of its bounds.
    """
    _check(start, objective, steps, learning_rate)
    check_arguments("class_probability", images, labels, targets=targets if start == "image" else None, box=box)
    build = _optimiser(optimiser, learning_rate, optimiser_options or {})
    batch = batch_size(images.shape[1:].numel(), images.device) if batch is None else batch
    ids = range(len(images)) if ids is None else ids

    best = _begin(start, images, box, ids, seed) - images
    aims = torch.zeros_like(labels) if targets is None else targets
    first, success = torch.zeros_like(images), torch.zeros_like(labels, dtype=torch.bool)
    highest = images.new_zeros(len(images))
    for rows in torch.arange(len(images), device=images.device).split(batch) if len(images) else ():
        aimed = partial(_aimed, aims=aims, rows=rows, labels=labels, objective=objective, chosen=targets is not None)
        logits, highest[rows], first[rows] = value_and_gradient(model, images[rows] + best[rows], aimed, batch)
        _, success[rows] = verdict(logits, labels[rows], None if targets is None else targets[rows])

    alone = success & (targets is None) & (start == "image")
    passes = torch.where(alone, 1, steps + 1)
    walking = (~alone).nonzero().flatten()
    for rows in walking.split(batch) if len(walking) else ():
        here, aim, gradient = images[rows], aims[rows], first[rows]
        climbed = partial(height, classes=aim, objective=objective)
        point = (here + best[rows]).requires_grad_(True)
        stepper = build(point)
        for _ in range(steps):
            point.grad = -gradient  # optimisers descend
            stepper.step()
            with torch.no_grad():
                delta = point.clamp(*box) - here
                point.copy_(here + delta)  # what is judged is the sum that the caller will form
            logits, value, gradient = value_and_gradient(model, point.detach(), climbed, batch)
            _, fooled = verdict(logits, labels[rows], None if targets is None else aim)
            better = value > highest[rows]
            best[rows] = torch.where(per_example(better, delta), delta, best[rows])
            success[rows] = torch.where(better, fooled, success[rows])
            highest[rows] = torch.where(better, value, highest[rows])
    return AttackResult.of(images, best, success, norm="L2", forwards=passes, backwards=passes.clone(), box=box)


def _aimed(logits: Tensor, *, aims: Tensor, rows: Tensor, labels: Tensor, objective: Objective, chosen: bool) -> Tensor:
    """The objective of some rows at the start (B,).

    Unless their classes are chosen, it writes the likeliest into `aims` (N,).
    """
    if not chosen:
        aims[rows] = without(pooled(logits.detach()), labels[rows]).argmax(1)
    elif (furthest := int(aims[rows].max())) >= (classes := logits.shape[-1]):
        raise UserError(f"target {furthest} is out of range: the network has the classes 0..{classes - 1}", "targets")
    return height(logits, aims[rows], objective)


def height(logits: Tensor, classes: Tensor, objective: Objective) -> Tensor:
    """The objective of each row at its class (B,), for logits (B, K).

    For logits (B, M, K) it is the mean over M networks.

    >>> height(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), "probability")
    tensor([0.5000])
    """
    each = logits if logits.ndim == 3 else logits[:, None]
    if objective == "probability":
        each = each.softmax(2)
    elif objective == "log_probability":
        each = each.log_softmax(2)
    return each.gather(2, classes[:, None, None].expand(-1, each.shape[1], 1)).squeeze(2).mean(1)


def _begin(start: Start, images: Tensor, box: Box, ids: Sequence[int], seed: int) -> Tensor:
    """Where the walks begin, (N, ...)."""
    if start == "image":
        return images
    if start == "zeros":
        return torch.zeros_like(images).clamp(*box)
    shape, keys = images.shape[1:], [int(i) for i in ids]
    if math.isfinite(box[1] - box[0]):
        noise = box[0] + (box[1] - box[0]) * uniform(seed, "class probability start", keys, shape)
    else:
        noise = normal(seed, "class probability start", keys, shape)
    return noise.to(images).clamp(*box)


def _optimiser(
    name: str, learning_rate: float | None, options: Mapping[str, object]
) -> Callable[[Tensor], torch.optim.Optimizer]:
    """What makes the named optimiser of a tensor."""
    known = {each.lower(): each for each in [*LEARNING_RATES, *MIXING]}
    proper = known.get(name.lower(), name)
    if proper in MIXING:
        raise UserError(
            f"{proper} {MIXING[proper]}, so that examples would not be independent; take one of {', '.join(LEARNING_RATES)}",
            "optimiser",
        )
    if proper not in LEARNING_RATES:
        raise UserError(
            f"unknown optimiser '{name}'; there are {', '.join(LEARNING_RATES)}{did_you_mean(name.lower(), known)}",
            "optimiser",
        )
    kind: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, proper)
    has = [option for option in list(inspect.signature(kind).parameters) if option not in OWN]
    for option in options:
        if option not in has:
            instead = "; the rate is learning_rate" if option == "lr" else did_you_mean(option, has)
            raise UserError(f"{proper} has no option '{option}'; it has {', '.join(has)}{instead}", "optimiser_options")
    chosen: dict[str, object] = {"lr": LEARNING_RATES[proper] if learning_rate is None else learning_rate}
    if "weight_decay" in has:
        chosen["weight_decay"] = 0.0
    chosen |= options

    def build(point: Tensor) -> torch.optim.Optimizer:
        return kind([point], **chosen)

    try:
        build(torch.zeros(1, requires_grad=True))
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{proper} refuses its options: {error}", "optimiser_options") from error
    return build


def _check(start: str, objective: str, steps: int, learning_rate: float | None) -> None:
    for came, allowed, field in ((start, get_args(Start), "start"), (objective, get_args(Objective), "objective")):
        if came not in allowed:
            raise UserError(f"unknown {field} '{came}'; {', '.join(allowed)}{did_you_mean(came, allowed)}", field)
    if steps < 1:
        raise UserError(f"at least 1 step is needed, not {steps}", "steps")
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise UserError(f"a learning rate above 0 is needed, not {learning_rate}", "learning_rate")
