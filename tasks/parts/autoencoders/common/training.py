"""Training an autoencoder by its recipe, one epoch at a time.

All randomness is keyed by the seed and its purpose. Where an optimum is known in closed form, it is
taken in place of the epochs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from tasks.parts.autoencoders.common.autoencoder import Autoencoder
from tasks.parts.autoencoders.common.coder import Batches, Objective, Step
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.finite import NotFinite
from tasks.parts.randomness import torch_generator
from tasks.parts.training.optimisation import optimiser_of, scheduler_of

SCORED = 512
"""Representations in one batch where nothing is learnt from them."""


Tail = Callable[[Tensor], Tensor]
"""From representations (B, *shape) to logits (B, K)."""


class Bank(Protocol):
    """Representations by row, of which a copy can be had on a device."""

    def take(self, rows: np.ndarray, device: str | torch.device) -> Tensor:
        """Some of them (B, *shape), float32."""


@dataclass(frozen=True)
class _Training:
    """What a training works with, see `epochs`."""

    recipe: AutoencoderRecipe
    autoencoder: Autoencoder
    bank: Bank
    seed: int
    tail: Tail | None


def epochs(
    recipe: AutoencoderRecipe,
    autoencoder: Autoencoder,
    bank: Bank,
    rows: np.ndarray,
    validation: np.ndarray,
    *,
    seed: int = 0,
    tail: Tail | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[dict[str, float]]:
    """Trains an autoencoder in place; yields after each epoch, and leaves it in evaluation mode.

    Args:
        recipe: decides everything but the seed.
        autoencoder: what `build` gave.
        bank: the representations.
        rows: of the bank, those to train on (N,).
        validation: of the bank, those that are held out; may be empty.
        seed: of order and noise.
        tail: from representations (B, *shape) to logits (B, K), where the logits count.
        device: where to train.

    Yields:
        `epoch`, `loss` (what is lowered), `explained_variance` (of the standardised numbers),
        `learning_rate`, the numbers of the kind, and all but the rate of the validation
        representations as `validation_...`.

    Raises:
        NotFinite: the loss is not finite any more, or all representations are the same.
    """
    autoencoder.to(device)

    def raw() -> Iterator[Tensor]:
        return batches(bank, rows, device)

    def standardised() -> Iterator[Tensor]:
        return map(autoencoder.standardised, raw())

    with torch.no_grad():
        try:
            autoencoder.fit(raw)
        except ValueError as error:
            raise NotFinite(str(error)) from None
        solved = autoencoder.coder.solve(standardised, recipe.denoising)
    training = _Training(recipe, autoencoder, bank, seed, tail)
    if solved and not recipe.logits_weight:
        autoencoder.eval()
        held_out = _held_out(training, validation)
        yield {"epoch": 1.0, "learning_rate": 0.0, **_scored(training, rows), **held_out}
    else:
        yield from _trained(training, rows, validation)
    autoencoder.eval()
    with torch.no_grad():
        autoencoder.magnitude.fill_(_magnitude(autoencoder, standardised))


def batches(bank: Bank, rows: np.ndarray, device: str | torch.device) -> Iterator[Tensor]:
    """Some rows of a bank, in their order, as batches (B, *shape) on a device."""
    return (bank.take(some, device) for some in _chunks(rows, SCORED))


def facts(
    autoencoder: Autoencoder, bank: Bank, rows: np.ndarray, device: str | torch.device = "cpu"
) -> dict[str, float]:
    """Numbers of the kind over some rows of a bank, such as the perplexity of a codebook."""
    with torch.no_grad():
        return autoencoder.coder.facts(lambda: map(autoencoder.standardised, batches(bank, rows, device)))


def explained_by_channel(
    autoencoder: Autoencoder, bank: Bank, rows: np.ndarray, device: str | torch.device = "cpu"
) -> list[float]:
    """Explained variance of each channel over some rows of a bank.

    Of a flat representation every number is a channel.

    1 - squared error / squared deviation from the mean training representation; 0 where the channel
    does not vary.
    """
    errors = deviations = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for h in batches(bank, rows, device):
            errors = errors + _by_channel(autoencoder(h) - h)
            deviations = deviations + _by_channel(h - autoencoder.center)
    explained = torch.where(deviations > 0, 1 - errors / deviations, 0.0)
    return [float(value) for value in explained]


def _by_channel(differences: Tensor) -> Tensor:
    """Sums of squares of differences (B, C, ...), (C,)."""
    return differences.double().square().transpose(0, 1).flatten(1).sum(1)


def _trained(training: _Training, rows: np.ndarray, validation: np.ndarray) -> Iterator[dict[str, float]]:
    """The epochs of a training by gradient steps."""
    recipe, autoencoder = training.recipe, training.autoencoder
    parameters, device = list(autoencoder.parameters()), autoencoder.mean.device
    optimiser = optimiser_of(recipe.optimiser, parameters, recipe.learning_rate, recipe.weight_decay)
    steps = max(1, math.ceil(len(rows) / recipe.batch_size) * recipe.epochs)
    scheduler = scheduler_of(recipe.schedule, optimiser, steps)
    best, best_loss, since = None, math.inf, 0
    for epoch in range(recipe.epochs):
        autoencoder.train()
        order = torch.randperm(len(rows), generator=torch_generator(training.seed, "order of representations", epoch))
        rate, totals = float(scheduler.get_last_lr()[0]), _Totals()
        for number, some in enumerate(_chunks(rows[order.numpy()], recipe.batch_size)):
            generator = torch_generator(training.seed, "noise of the autoencoder", epoch, number)
            done = (epoch + number * recipe.batch_size / len(rows)) / recipe.epochs
            h = training.bank.take(some, device)
            optimiser.zero_grad(set_to_none=True)
            objective, loss = _loss(training, h, Step(done, generator))
            loss.mean().backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimiser.step()
            scheduler.step()
            totals.add(loss, objective, autoencoder.standardised(h))
        autoencoder.eval()
        held_out = _held_out(training, validation)
        numbers = {"epoch": epoch + 1.0, **totals.means(), "learning_rate": rate, **held_out}
        if not math.isfinite(numbers.get("validation_loss", 0.0) + numbers["loss"]):
            advice = "take a smaller learning rate, or set clip_norm"
            raise NotFinite(f"training the autoencoder diverged in epoch {epoch + 1}; {advice}")
        if recipe.patience is not None and len(validation):
            since += 1
            if numbers["validation_loss"] < best_loss:
                best, best_loss, since = copy.deepcopy(autoencoder.state_dict()), numbers["validation_loss"], 0
        yield numbers
        if recipe.patience is not None and since >= recipe.patience:
            break
    if best is not None:
        autoencoder.load_state_dict(best)


def _loss(training: _Training, h: Tensor, step: Step) -> tuple[Objective, Tensor]:
    """The kind's objective for representations h (B, *shape), and the whole loss (B,)."""
    recipe, autoencoder, tail = training.recipe, training.autoencoder, training.tail
    target = autoencoder.standardised(h)
    noisy = autoencoder.training and recipe.denoising > 0
    x = target + recipe.denoising * step.normal(target) if noisy else target
    objective = autoencoder.coder.objective(x, target, step)
    if not recipe.logits_weight or tail is None:
        return objective, objective.loss
    behind = tail(objective.reconstruction * autoencoder.scale + autoencoder.mean).log_softmax(1)
    with torch.no_grad():
        predicted = tail(h).log_softmax(1)
    divergence = kl_div(behind, predicted, reduction="none", log_target=True).sum(1)
    return objective, objective.loss + recipe.logits_weight * divergence


class _Totals:
    """Sums over batches, from which the means of an epoch come."""

    def __init__(self) -> None:
        self.examples, self.sums = 0, dict[str, Tensor]()

    def add(self, loss: Tensor, objective: Objective, target: Tensor) -> None:
        count = len(loss)
        found = {name: value.detach().double() * count for name, value in objective.numbers.items()}
        found["loss"] = loss.detach().double().sum()
        found["residual"] = (objective.reconstruction.detach() - target).double().square().sum()
        found["variation"] = target.double().square().sum()
        self.examples += count
        self.sums = {name: value + self.sums.get(name, 0.0) for name, value in found.items()}

    def means(self) -> dict[str, float]:
        means = {name: float(value) / self.examples for name, value in self.sums.items()}
        residual, variation = means.pop("residual"), means.pop("variation")
        return means | {"explained_variance": 1 - residual / variation if variation else math.nan}


def _scored(training: _Training, rows: np.ndarray) -> dict[str, float]:
    """The means of an epoch over rows that are not learnt from; their noise is always the same."""
    totals = _Totals()
    with torch.no_grad():
        for number, some in enumerate(_chunks(rows, SCORED)):
            h = training.bank.take(some, training.autoencoder.mean.device)
            step = Step(1.0, torch_generator(training.seed, "noise of the validation", 0, number))
            objective, loss = _loss(training, h, step)
            totals.add(loss, objective, training.autoencoder.standardised(h))
    return totals.means()


def _held_out(training: _Training, validation: np.ndarray) -> dict[str, float]:
    """The means over the rows that are held out, if there are any, as `validation_...`."""
    found = _scored(training, validation) if len(validation) else {}
    return {f"validation_{name}": value for name, value in found.items()}


def _magnitude(autoencoder: Autoencoder, standardised: Batches) -> float:
    """The root mean square of the numbers of all codes."""
    squares, count = 0.0, 0
    for x in standardised():
        code = autoencoder.coder.encode(x)
        squares, count = squares + float(code.double().square().sum()), count + code.numel()
    return math.sqrt(squares / count)


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
