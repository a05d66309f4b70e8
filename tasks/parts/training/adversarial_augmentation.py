"""Adversarial augmentation: training examples are moved before the network sees them.

They are moved in pixels, or in a hidden layer before the rest of the network sees it.

    h = head(x, k)                          the pixels, or the values after the first k stages
    h <- h + delta                          for the examples chosen, |delta| <= epsilon
    loss = cross_entropy(tail(h, k), y)     one batch of moved and unmoved examples

delta climbs the logit of a class, the same class at every step: of the runner-up (the likeliest
besides the true one, before the move) or of a random other class; or it descends the true class's
logit (`away`). `random` is the control: a random sign vector (L-inf) or a normal direction (L2) of
length epsilon. Each example has its own class and its own gradient: the logits of all are gathered
and summed, and since no example feels another in evaluation mode (`projected_gradient`), one
backward pass gives all gradients. delta is a constant for the training's own backward pass.

Beyond a plain step, this costs `steps` forward passes of the tail, and backward passes to h but not
to the weights, for the chosen examples alone; the head runs once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tasks.parts.geometry.balls import PIXELS, UNBOUNDED, Box, ascent_direction, clipped, per_example
from tasks.parts.losses import margin
from tasks.parts.models.classifier import Classifier, hidden_stage
from tasks.parts.randomness import torch_generator
from tasks.parts.settings import UserError
from tasks.parts.training.augmentation_targets import eligible, weights_of_logits
from tasks.parts.training.projected_gradient import Classify, climb, gradient_of_logits, without_trace
from tasks.parts.training.recipes import AdversarialAugmentation, Recipe
from tasks.parts.training.reports import Tally


class Random(NamedTuple):
    """CPU generators of an epoch's random numbers, one for each purpose.

    So the same examples are moved in whatever direction.

    Attributes:
        who: draws who is moved.
        where: draws random classes and directions.
    """

    who: torch.Generator
    where: torch.Generator


def random_numbers(seed: int, epoch: int, purpose: str = "adversarial augmentation") -> Random:
    """The random numbers of an epoch, counted from 0, decided by the arguments alone."""
    return Random(
        torch_generator(seed, f"{purpose}, who is moved", epoch), torch_generator(seed, f"{purpose}, where to", epoch)
    )


class Moves(NamedTuple):
    """What was done to n examples of a batch.

    Attributes:
        rows: their places in the batch (n,).
        delta: their perturbations (n, ...), detached; zero where `chosen` is false.
        chosen: whether they pass the condition of `only` (n,); None where there is none.
        before: their logits (n, K) before the move, in evaluation mode; None where nothing needed
            them.
    """

    rows: Tensor
    delta: Tensor
    chosen: Tensor | None
    before: Tensor | None

    @property
    def kept(self) -> Tensor:
        """Which of them are moved (n,)."""
        return torch.ones_like(self.rows, dtype=torch.bool) if self.chosen is None else self.chosen


def check(recipe: Recipe, model: nn.Module) -> None:
    """Refuses a hidden layer that the network does not have, before any training.

    Args:
        recipe: of the network.
        model: the recipe's network, with weights in memory; trained or not.

    Raises:
        UserError: lists the stages, with the field; also for the recipes that this one finetunes
            from.
    """
    field = ""
    while True:
        settings = recipe.adversarial_augmentation
        try:
            stage(settings, model)
        except UserError as error:
            raise UserError(error.message, f"{field}adversarial_augmentation.space") from error
        if recipe.finetune_from is None:
            return
        recipe, field = recipe.finetune_from, f"{field}finetune_from."


def stage(settings: AdversarialAugmentation, model: nn.Module) -> int:
    """How many stages of the network come before the values that are moved.

    Raises:
        UserError: the network has no such stage, or no stages at all.
    """
    if settings.space == "pixel":
        return 0
    if not isinstance(model, Classifier):
        raise UserError(f"a {type(model).__name__} has no hidden layers, a Classifier has")
    return hidden_stage(model, settings.stage)


def radius_in(settings: AdversarialAugmentation, epoch: int, epochs: int) -> float:
    """The radius of the moves in an epoch, counted from 0, of so many.

    >>> rising = AdversarialAugmentation(epsilon=1, schedule="rising")
    >>> [radius_in(rising, epoch, 4) for epoch in range(4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    match settings.schedule:
        case "constant":
            return settings.epsilon
        case "rising":
            return settings.epsilon * (epoch + 1) / epochs
        case "falling":
            return settings.epsilon * (epochs - epoch) / epochs


def forward(
    settings: AdversarialAugmentation,
    model: nn.Module,
    k: int,
    images: Tensor,
    labels: Tensor,
    *,
    radius: float,
    random: Random,
    look: bool = False,
) -> tuple[Tensor, Tally]:
    """The logits of a training batch of which some examples are moved.

    Args:
        settings: of the recipe.
        model: in training mode; its logits have gradients to the parameters.
        k: what `stage` gave.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) true classes.
        radius: what `radius_in` gave.
        random: what `random_numbers` gave for the epoch, drawn from by its batches in turn.
        look: classify the moved examples once more, in evaluation mode, to see what the move does.

    Returns:
        Logits (B, K), and what is told of the moves.
    """
    points = model.head(images, k) if k and isinstance(model, Classifier) else images
    classify = tail(model, k)
    moves = moved(settings, model, classify, points, labels, radius=radius, random=random, clip=k == 0)
    if not len(moves.rows):
        return classify(points), Tally(0)
    everyone = len(moves.rows) == len(points)  # adding to a part of the rows takes four times as long
    there = points + moves.delta if everyone else points.index_add(0, moves.rows, moves.delta)
    if k == 0:
        there.clamp_(0, 1)
    looked = _looked(model, classify, points, there, labels, moves) if look else None
    return classify(there), Tally(len(moves.rows) if moves.chosen is None else moves.chosen.sum(), looked)


def tail(model: nn.Module, k: int) -> Classify:
    """The part of the network after k stages."""
    if k == 0:
        return model
    assert isinstance(model, Classifier)
    return lambda points: model.tail(points, k)


def moved(
    settings: AdversarialAugmentation,
    model: nn.Module,
    classify: Classify,
    points: Tensor,
    labels: Tensor,
    *,
    radius: float,
    random: Random,
    clip: bool,
) -> Moves:
    """Chooses examples of a batch and finds their perturbations.

    Args:
        settings: of the recipe.
        model: the network.
        classify: points to logits, through `model`.
        points: representations (B, ...) of the whole batch, whose root mean square is the unit of a
            relative radius.
        labels: (B,) true classes.
        radius: what `radius_in` gave, or in other units of the points.
        random: what `random_numbers` gave.
        clip: the points are images, which stay in [0, 1].
    """
    everything, count = points.detach(), len(points)
    # All are drawn for the whole batch: where an example goes does not depend on who else is moved.
    who = torch.rand(count, generator=random.who) if settings.probability < 1 else None
    normal = torch.randn(points.shape, generator=random.where) if settings.direction == "random" else None
    lots = torch.rand(count, generator=random.where) if settings.direction == "random_class" else None
    if who is None:
        rows, start, label = torch.arange(count, device=points.device), everything, labels
    else:
        (places,) = torch.nonzero(who < settings.probability, as_tuple=True)
        rows = places.to(points.device)
        start, label = everything.index_select(0, rows), labels.index_select(0, rows)
        normal, lots = (None if drawn is None else drawn[places] for drawn in (normal, lots))
    if not len(rows):
        return Moves(rows, start, None, None)
    unit = torch.linalg.vector_norm(everything) / everything.numel() ** 0.5 if settings.relative else 1.0
    kept: Tensor | None = None
    before: Tensor | None = None
    delta = None if normal is None else radius * unit * ascent_direction(normal.to(start), settings.norm)
    with without_trace(model, points.device):
        if delta is None or settings.equal_cost:
            before, kept, climbed = _climbed(
                settings, classify, start, label, lots, radius, unit, PIXELS if clip else UNBOUNDED
            )
            delta = climbed if delta is None else delta
        elif settings.only != "all":
            with torch.no_grad():
                before = classify(start)
            kept = eligible(settings, before, label)
    if kept is not None:
        delta = delta.masked_fill_(per_example(~kept, delta), 0)
    return Moves(rows, delta, kept, before)


def _climbed(
    settings: AdversarialAugmentation,
    classify: Classify,
    start: Tensor,
    labels: Tensor,
    lots: Tensor | None,
    radius: float,
    unit: Tensor | float,
    box: Box,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The logits (n, K) at the start, who is eligible (n,), and the perturbations (n, ...).

    The perturbations of all who are not eligible are unfinished. `lots` are numbers uniform in [0,
    1) (n,), on the CPU, that decide random classes; `unit`, one number, is that of the radius.
    """
    step_size = 2.5 * radius / settings.steps
    if settings.step_size is not None:
        step_size = settings.step_size * radius / settings.epsilon  # shrinks with the radius of a schedule

    aims: list[Tensor] = []

    def weights(logits: Tensor) -> Tensor:
        aims.append(weights_of_logits(settings, logits, labels, lots))
        return aims[0]

    before, gradient = gradient_of_logits(classify, start, weights)
    kept = eligible(settings, before, labels)
    delta = ascent_direction(gradient, settings.norm).mul_(min(step_size, radius) * unit)
    if settings.steps == 1:
        return before, kept, delta
    still = slice(None) if kept is None else kept.nonzero().flatten()
    here, there = start[still], delta[still]
    if len(here):
        uphill = aims[0][still]  # the same at every step
        delta[still] = climb(
            lambda points: gradient_of_logits(classify, points, uphill)[1],
            here,
            clipped(here, there, box),
            steps=settings.steps - 1,
            epsilon=start.new_full((1,), radius) * unit,
            step_size=step_size * unit,
            norm=settings.norm,
            box=box,
        )
    return before, kept, delta


def _looked(
    model: nn.Module, classify: Classify, points: Tensor, there: Tensor, labels: Tensor, moves: Moves
) -> Tensor:
    """The sums of `Tally`, for points (B, ...) that were moved to `there`."""
    label, kept = labels[moves.rows], moves.kept
    with without_trace(model, points.device), torch.no_grad():
        before = classify(points[moves.rows]) if moves.before is None else moves.before
        after = classify(there[moves.rows])
    changed = before.argmax(1) != after.argmax(1)
    values = [kept, changed, -margin(before, label), -margin(after, label)]
    return torch.stack([torch.where(kept, value, 0).sum().double() for value in values])
