"""Attacks with weight noise in the loop: each step faces another network around the reference.

A search that climbs with the gradient at w (1 + sigma n), n standard normal and new at each step,
stands to the plain search as stochastic gradient descent stands to gradient descent: a narrow
feature of the landscape, there at w and gone a little beside it, pulls the search nowhere for long,
and what is found lies where many networks around the reference agree. Averaging each step over m
draws is a larger batch in that picture, and brings the search nearer to the one on the mean
landscape. (Averaging gradients over a defence's own randomness is the expectation over
transformation of Athalye, Carlini and Wagner 2018, "Obfuscated gradients give a false sense of
security"; here the randomness is the searcher's.) Normalisation layers keep their parameters.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks.parts.attacks.common.arguments import rows_of
from tasks.parts.attacks.common.capabilities import capabilities_of
from tasks.parts.attacks.common.line_search import reached
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.batching import batch_size, in_batches
from tasks.parts.geometry.balls import PIXELS
from tasks.parts.losses import Loss, Objective, objective, verdict
from tasks.parts.noise.weight_noise import noisy_copy, weights
from tasks.parts.randomness import torch_generator
from tasks.parts.settings import UserError

SEARCH = "weights of a search"
UNSEEN = "unseen weights"


@final
class NoisyNetwork:
    """A network whose weights are others at each call: w (1 + sigma n).

    The noise n is keyed by (seed, number of the call, draw). The network itself is never written
    to. While a call runs, torch puts the noisy weights in the place of its own, so two threads
    cannot share one network.

    Args:
        model: the reference, in evaluation mode: points (B, ...) to logits (B, K), or (B, M, K) of
            M networks.
        sigma: of the noise, relative to each weight, >= 0.
        draws: m noisy networks a call.
        seed: keys the noise.
        classify: what is asked of the network in place of calling it: any function that uses the
            weights of `model`, such as the `classify` of one of its spaces.
        with_reference: whether the reference itself is asked too.

    Attributes:
        calls: how many there have been.

    Raises:
        UserError: a negative sigma, no draws, or a network without a weight that takes noise.
    """

    def __init__(
        self,
        model: nn.Module,
        sigma: float,
        draws: int = 1,
        seed: int = 0,
        *,
        classify: Callable[[Tensor], Tensor] | None = None,
        with_reference: bool = False,
    ):
        _check(model, sigma, draws)
        self._asked = _Asked(model, classify)
        self.sigma, self.draws, self.seed = sigma, draws, seed
        self._with_reference = with_reference
        self.calls = 0

    def __call__(self, points: Tensor) -> Tensor:
        """The logits of the draws at points (B, ...).

        They are (B, K) of a single draw, (B, m, K) of several, (B, m M, K) of M networks. With the
        reference there are always three dimensions: the reference's logits come first (B, 1 + m,
        K), and no gradient flows through them.
        """
        logits = [self._drawn(points, draw) for draw in range(self.draws)]
        self.calls += 1
        if not self._with_reference:
            return logits[0] if self.draws == 1 else torch.cat([_networks(each) for each in logits], 1)
        with torch.no_grad():
            reference = self._asked(points)
        return torch.cat([_networks(each) for each in (reference, *logits)], 1)

    def _drawn(self, points: Tensor, draw: int) -> Tensor:
        generator = torch_generator(self.seed, SEARCH, self.calls, draw)
        return _with_weights(self._asked, noisy_copy(self._asked, self.sigma, generator), points)


def with_weight_noise(
    attack: Callable[..., AttackResult], network: nn.Module, sigma: float, draws: int = 1, seed: int = 0
) -> Callable[..., AttackResult]:
    """An attack like `attack` that faces other networks at each of its steps.

    It has the same arguments, so it can be run at many radii, for one. It climbs the mean loss of
    the `draws` noisy networks of each step. (One without an argument `loss` takes the mean over
    these and the reference; its gradient has the same direction, as none flows through the
    reference.) A point counts as a success on the way where these and the reference are fooled:
    else a search would end, or a smallest perturbation be recorded, wherever one lucky draw puts
    the boundary. (A smallest perturbation is still that of its luckiest step: more draws make it
    less so.) What is returned is judged on the reference alone.

    It goes batch by batch, each with a count of calls from 0 on, so that all examples of a batch
    are at the same step and face the same networks in whatever company they come. Images that the
    reference misclassifies are left alone.

    Args:
        attack: a function of `tasks/parts/attacks/`.
        network: whose weights have noise: in evaluation mode, points (B, ...) to logits (B, K), or
            (B, M, K) of M networks.
        sigma: of the noise, relative to each weight. At 0 the search is the plain one, to the bit.
        draws: noisy networks a step.
        seed: keys the noise.

    Returns:
        A function with the attack's arguments. The `model` that it is called with is the reference,
        and any function that uses the weights of `network`. Its `AttackResult` counts passes
        through single networks: at each step one forward for each draw and for the reference, and a
        backward for each draw.

    Raises:
        UserError: as for `NoisyNetwork`; an ensemble of attacks.
    """
    _check(network, sigma, draws)
    if sigma == 0:
        return attack
    if not capabilities_of(attack).weight_noise:
        raise UserError(
            f"{attack.__name__} runs attacks in turn on what is left, so the networks of a step would depend on the other examples; "
            "weight noise goes with a single attack: pgd, apgd, fmn, ddn, alma, square, class_probability",
            "weight_noise.sigma",
        )
    parameters = inspect.signature(attack).parameters

    @functools.wraps(attack)
    def search(
        model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, batch: int | None = None, **arguments: Any
    ) -> AttackResult:
        batch = batch_size(images.shape[1:].numel(), images.device) if batch is None else batch
        targets: Tensor | None = arguments.get("targets")
        if "loss" in parameters:
            loss = arguments.get("loss", parameters["loss"].default)
            arguments["loss"] = _of_draws(loss, _count(model, images))
        if "ids" in parameters and arguments.get("ids") is None:
            arguments["ids"] = range(len(images))
        already = reached(model, images, labels, targets, batch)
        perturbation, distance = torch.zeros_like(images), images.new_zeros(len(images))
        forwards, backwards = torch.ones_like(labels), torch.zeros_like(labels)
        searched = (~already).nonzero().flatten()
        for rows in searched.split(batch) if len(searched) else ():
            noisy_network = NoisyNetwork(network, sigma, draws, seed, classify=model, with_reference=True)
            some = rows_of(arguments, rows, len(images))
            part = attack(noisy_network, images[rows], labels[rows], batch=batch, **some)
            perturbation[rows], distance[rows] = part.perturbation, part.distance.to(distance)
            forwards[rows] += part.forwards * (1 + draws) + 1  # and once more to be judged
            backwards[rows] += part.backwards * draws
        success = already | reached(model, images + perturbation, labels, targets, batch)
        moved = (images + perturbation).clamp(*arguments.get("box", PIXELS))
        return AttackResult(moved, perturbation, success, distance, forwards, backwards)

    return search


def unseen_share(
    model: nn.Module,
    points: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    sigma: float,
    draws: int = 16,
    seed: int = 0,
    batch: int | None = None,
    classify: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The share of noisy networks that each point (N, ...) fools, (N,).

    They are networks that no search with this seed has faced.

    Args:
        model: the reference, in evaluation mode: points (B, ...) to logits (B, K), or (B, M, K) of
            M networks that each have noise.
        points: (N, ...), such as adversarial examples.
        labels: (N,) true classes.
        targets: (N,) classes that were to be reached; any other than the label where None.
        sigma: of the noise, relative to each weight.
        draws: how many networks, the same for all points.
        seed: keys their noise.
        batch: points at once; chosen for the device where None.
        classify: as for `NoisyNetwork`.

    Raises:
        UserError: as for `NoisyNetwork`.
    """
    _check(model, sigma, draws)
    batch = batch_size(points.shape[1:].numel(), points.device) if batch is None else batch
    asked = _Asked(model, classify)
    count = torch.zeros(len(points), dtype=torch.long, device=points.device)
    for draw in range(draws):
        drawn = noisy_copy(asked, sigma, torch_generator(seed, UNSEEN, 0, draw))
        logits = in_batches(functools.partial(_with_weights, asked, drawn), points, batch)
        count += verdict(logits, labels, targets)[1]
    return count.to(points.dtype) / draws


class _Asked(nn.Module):
    """A function of a network's weights as a module, in which torch can replace the weights."""

    def __init__(self, model: nn.Module, classify: Callable[[Tensor], Tensor] | None):
        super().__init__()
        self.model = model
        self._classify = (classify,)  # not a submodule, should it be one: its weights are those of `model`

    def forward(self, points: Tensor) -> Tensor:
        (classify,) = self._classify
        return self.model(points) if classify is None else classify(points)


def _with_weights(asked: _Asked, drawn: dict[str, Tensor], points: Tensor) -> Tensor:
    """The logits of points (B, ...) with these weights in the place of the network's own."""
    return functional_call(asked, drawn, (points,))


def _networks(logits: Tensor) -> Tensor:
    """Logits (B, K) of one network as (B, 1, K)."""
    return logits if logits.ndim == 3 else logits[:, None]


def _count(reference: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """How many networks the reference is."""
    if not len(images):
        return 1
    with torch.no_grad():
        return _networks(reference(images[:1])).shape[1]


def _of_draws(loss: Loss | Objective, references: int) -> Objective:
    """The loss of the noisy networks alone.

    The reference, which comes first, is asked for the verdict only.
    """

    def drawn(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        return objective(loss, logits[:, references:], labels, targets)

    return drawn


def _check(model: nn.Module, sigma: float, draws: int) -> None:
    if not 0 <= sigma < math.inf:
        raise UserError(f"weight noise needs a sigma of at least 0, not {sigma}", "weight_noise.sigma")
    if draws < 1:
        raise UserError(f"weight noise needs at least 1 draw a step, not {draws}", "weight_noise.draws")
    if sigma > 0 and not weights(model):
        raise UserError(
            "the network has no weights that take noise (normalisation layers are left out)", "weight_noise.sigma"
        )
