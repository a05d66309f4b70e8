"""Maximises the probability of a class, with any optimiser of torch that treats each number on its own.

    x <- clip(optimiser step(x, gradient of the objective at x), box)

from the image, from noise or from zeros (Szegedy et al. 2014, "Intriguing properties of neural networks"; for images of a class from
nothing, Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks"). There is no ball: how far the walk goes is up to
the optimiser. All its steps are taken, also beyond the decision boundary, and the way there is told: objective and gradient norm at each
point, and some of the points.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from tasks.parts.attacks.common import checks
from tasks.parts.attacks.common.result import Found
from tasks.parts.batching import batch_size
from tasks.parts.geometry.balls import PIXELS, Box, norm_of, per_example
from tasks.parts.losses import pooled, value_and_gradient, verdict, without
from tasks.parts.randomness import normal, uniform
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

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
"""The element-wise optimisers of torch.optim, with their learning rates: for the next number they look at no other number."""

MIXING = {
    "Adafactor": "scales a step by the whole tensor's root mean square",
    "LBFGS": "takes inner products over the whole tensor",
    "Muon": "orthogonalises the whole tensor as one matrix",
    "SparseAdam": "wants sparse gradients",
}
"""Optimisers with which an example's walk would depend on the other examples of its batch."""

OWN = ("params", "lr", "maximize", "differentiable")
"""Arguments of optimisers that are not options."""


@dataclass(frozen=True)
class Trace(Found):
    """What was found, and the way there.

    The perturbation leads from the image to the point of the highest objective; `distance` is its L2 norm.

    Attributes:
        targets: (N,) the classes whose probability was maximised.
        objective: (N, steps + 1), at the start and after each step.
        gradient_norm: (N, steps + 1), L2 norm of the objective's gradient at these points.
        kept: (N, keep, ...) points on the way, not perturbations.
        kept_steps: (keep,) after how many steps each was reached.
    """

    targets: Tensor
    objective: Tensor
    gradient_norm: Tensor
    kept: Tensor
    kept_steps: Tensor


def class_probability(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    optimiser: str = "adamw",
    learning_rate: float | None = None,
    optimiser_options: Mapping[str, Any] | None = None,
    start: Start = "image",
    objective: Objective = "probability",
    steps: int = 100,
    keep: int = 0,
    box: Box = PIXELS,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Trace:
    """Climbs from each image, or from noise or zeros, to points that the model gives to a class with high probability.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks, over which the objective is averaged; in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        targets: (N,) classes to make probable. Where None, the most likely class other than the label at the start, and any other class
            than the label is a success; images that are misclassified from the start are then left alone.
        optimiser: name in torch.optim, in small letters or capitals: one of `LEARNING_RATES`.
        learning_rate: of the optimiser, in the points' units where it normalises the gradient (Adam and the like) and per gradient where
            it does not (SGD); as in `LEARNING_RATES` where None.
        optimiser_options: its other arguments. Weight decay, which would pull points to zero, is 0 unless it is given here.
        start: the `image`; `noise`, uniform in the box, or standard normal where there is no box; or `zeros` (or the number of the box
            that is nearest to it).
        objective: the target's `probability`, whose gradient vanishes where it is near 0; its `log_probability`; or its `logit`.
        steps: of the optimiser, at least 1.
        keep: how many points to keep, evenly spread over the steps, the first and the last among them (of one, the last).
        box: the least and the largest number of a point.
        ids: the examples' ids, which key the noise; 0, 1, ... where None.
        seed: keys the noise.
        batch: points in one pass; chosen for the device where None.

    Returns:
        `Trace`. Success says whether the target (without targets: another class than the label) has the largest logit at the point
        of the highest objective.

    Raises:
        UserError: as `checks.arguments`, but away from the image a target may be the label; an optimiser that torch does not have or
            that mixes examples, an option it does not have, an unknown start or objective, or a number out of its bounds.
    """
    _check(start, objective, steps, keep, learning_rate)
    checks.arguments("class_probability", images, labels, targets=targets if start == "image" else None, box=box)
    build = _optimiser(optimiser, learning_rate, optimiser_options or {})
    batch = batch_size(images.shape[1:].numel(), images.device) if batch is None else batch
    ids = range(len(images)) if ids is None else ids
    begin = _begin(start, images, box, ids, seed) - images
    walks = _Walks.starting(model, images, begin, labels, targets, objective, steps, keep, batch)
    left = walks.fooled & (targets is None) & (start == "image")
    for rows in (~left).nonzero().flatten().split(batch):
        if len(rows):
            walks.go(model, rows, build, box, batch)
    passes = torch.where(left, 1, steps + 1)
    return Trace(
        perturbation=walks.best,
        success=walks.success,
        distance=norm_of(walks.best, "L2"),
        forwards=passes,
        backwards=passes.clone(),
        targets=walks.targets,
        objective=walks.value,
        gradient_norm=walks.gradient_norm,
        kept=walks.kept,
        kept_steps=torch.tensor(walks.kept_steps, dtype=torch.long),
    )


def for_all_classes(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Repeats each example for every target class but its label.

    Args:
        images: (N, ...).
        labels: (N,).
        classes: K.

    Returns:
        Images (N (K - 1), ...), labels and targets (N (K - 1),), and which row of `images` each is (N (K - 1),), example by example.

    >>> _, labels, targets, rows = for_all_classes(torch.zeros(2, 1, 4, 4), torch.tensor([1, 0]), 3)
    >>> labels.tolist(), targets.tolist(), rows.tolist()
    ([1, 1, 0, 0], [0, 2, 1, 2], [0, 0, 1, 1])
    """
    rows = torch.arange(len(images), device=labels.device).repeat_interleave(classes - 1)
    others = torch.arange(classes - 1, device=labels.device).repeat(len(images))
    targets = others + (others >= labels[rows])  # the label is left out
    return images[rows], labels[rows], targets, rows


@dataclass(frozen=True)
class _Walks:
    """All examples' walks. Tensors are filled row by row as the walks go."""

    aim: Callable[[Tensor, Tensor], Tensor]  # the objective: logits, targets (B,) -> (B,)
    untargeted: bool
    labels: Tensor
    targets: Tensor
    images: Tensor  # (N, ...)
    delta: Tensor  # (N, ...) where each walk begins, from the image
    gradient: Tensor  # (N, ...) there
    fooled: Tensor  # (N,) there
    best: Tensor  # (N, ...) of the highest objective, from the image
    success: Tensor  # (N,) at the best point
    value: Tensor  # (N, steps + 1)
    gradient_norm: Tensor  # (N, steps + 1)
    kept: Tensor  # (N, keep, ...)
    kept_steps: list[int]

    @staticmethod
    def starting(
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        delta: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        objective: Objective,
        steps: int,
        keep: int,
        batch: int,
    ) -> _Walks:
        """The first pass at every point; what would be told of a walk that stays there."""
        points = images + delta
        aims = torch.zeros_like(labels) if targets is None else targets.clone()
        value, gradient = points.new_zeros(len(points)), torch.zeros_like(points)
        fooled = torch.zeros_like(labels, dtype=torch.bool)

        def aim(logits: Tensor, classes: Tensor) -> Tensor:
            return height(logits, classes, objective)

        for rows in torch.arange(len(points), device=points.device).split(batch):
            if not len(rows):
                continue

            def first(logits: Tensor, rows: Tensor = rows) -> Tensor:
                if targets is None:
                    aims[rows] = without(pooled(logits.detach()), labels[rows]).argmax(1)
                elif int(aims[rows].max()) >= logits.shape[-1]:
                    raise UserError(
                        f"target {int(aims[rows].max())} is out of range: the network has the classes 0..{logits.shape[-1] - 1}",
                        "targets",
                    )
                return aim(logits, aims[rows])

            logits, value[rows], gradient[rows] = value_and_gradient(model, points[rows], first, batch)
            _, fooled[rows] = verdict(logits, labels[rows], None if targets is None else targets[rows])
        kept_steps = [steps] if keep == 1 else [round(i * steps / (keep - 1)) for i in range(keep)]
        return _Walks(
            aim=aim,
            untargeted=targets is None,
            labels=labels,
            targets=aims,
            images=images,
            delta=delta,
            gradient=gradient,
            fooled=fooled,
            best=delta.clone(),
            success=fooled.clone(),
            value=value[:, None].repeat(1, steps + 1),
            gradient_norm=norm_of(gradient, "L2")[:, None].repeat(1, steps + 1),
            kept=points[:, None].repeat(1, keep, *[1] * (points.ndim - 1)),
            kept_steps=kept_steps,
        )

    def go(
        self,
        model: Callable[[Tensor], Tensor],
        rows: Tensor,
        build: Callable[[Tensor], torch.optim.Optimizer],
        box: Box,
        batch: int,
    ) -> None:
        """Takes all the steps of some of the walks."""
        images, labels, targets = self.images[rows], self.labels[rows], self.targets[rows]
        best, success, highest = self.delta[rows], self.fooled[rows], self.value[rows, 0]
        gradient = self.gradient[rows]
        point = (images + best).requires_grad_(True)
        stepper = build(point)
        for step in range(1, self.value.shape[1]):
            point.grad = -gradient  # optimisers descend
            stepper.step()
            with torch.no_grad():
                delta = point.clamp(*box) - images
                point.copy_(images + delta)  # what is judged is the sum that the caller will form
            logits, value, gradient = value_and_gradient(
                model, point.detach(), lambda logits: self.aim(logits, targets), batch
            )
            _, fooled = verdict(logits, labels, None if self.untargeted else targets)
            better = value > highest
            best = torch.where(per_example(better, best), delta, best)
            success = torch.where(better, fooled, success)
            highest = torch.where(better, value, highest)
            self.value[rows, step] = value
            self.gradient_norm[rows, step] = norm_of(gradient, "L2")
            for place, wanted in enumerate(self.kept_steps):
                if wanted == step:
                    self.kept[rows, place] = point.detach()
        self.best[rows], self.success[rows] = best, success


def height(logits: Tensor, classes: Tensor, objective: Objective) -> Tensor:
    """The objective of each row at its class (B,), for logits (B, K), or (B, M, K) where it is the mean over M networks.

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
    name: str, learning_rate: float | None, options: Mapping[str, Any]
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
            f"unknown optimiser '{name}'; there are {', '.join(LEARNING_RATES)}{_hint(name.lower(), known)}",
            "optimiser",
        )
    kind: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, proper)
    has = [option for option in list(inspect.signature(kind).parameters) if option not in OWN]
    for option in options:
        if option not in has:
            instead = "; the rate is learning_rate" if option == "lr" else _hint(option, has)
            raise UserError(f"{proper} has no option '{option}'; it has {', '.join(has)}{instead}", "optimiser_options")
    chosen: dict[str, Any] = {"lr": LEARNING_RATES[proper] if learning_rate is None else learning_rate}
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


def _check(start: str, objective: str, steps: int, keep: int, learning_rate: float | None) -> None:
    for came, allowed, field in ((start, get_args(Start), "start"), (objective, get_args(Objective), "objective")):
        if came not in allowed:
            raise UserError(f"unknown {field} '{came}'; {', '.join(allowed)}{_hint(came, allowed)}", field)
    if steps < 1:
        raise UserError(f"at least 1 step is needed, not {steps}", "steps")
    if not 0 <= keep <= steps + 1:
        raise UserError(f"of {steps} steps 0 to {steps + 1} points can be kept, not {keep}", "keep")
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise UserError(f"a learning rate above 0 is needed, not {learning_rate}", "learning_rate")


def _hint(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
