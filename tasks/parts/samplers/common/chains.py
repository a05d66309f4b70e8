"""Markov chains that accept or reject proposals, many an example, with steps adapted in a warm-up.

A kernel proposes the next point and says how likely it is accepted (Metropolis et al. 1953,
Hastings 1970). While the chains warm up, the step size of each example follows its acceptance rate
(Robbins and Monro 1951; Andrieu and Thoms 2008, "A tutorial on adaptive MCMC"):

    log epsilon <- log epsilon + t^-0.6 (mean acceptance over the chains - wanted)

The steps after it have one size, the geometric mean of those of the warm-up's second half. So what
is sampled is a Markov chain, with the target as its stationary distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.parts.randomness import normal, uniform
from tasks.parts.samplers.common.target import Target
from tasks.parts.settings import UserError

DECAY = 0.6
"""Of the adaptation; between 1/2 and 1 it ends, and forgets where it began."""
BLOCK, NUMBERS = 32, 2**15
"""Steps, and numbers an example, that are drawn at once."""


class State(NamedTuple):
    """Where C chains an example are.

    Attributes:
        u: standard coordinates (B, C, d).
        log_prior: (B, C) float64.
        log_likelihood: beta l, (B, C) float64.
        gradient: of log pi at u, (B, C, d); of no numbers where a kernel needs none.
    """

    u: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    gradient: Tensor


Kernel = Callable[[State, Tensor, Tensor], tuple[State, Tensor]]
"""From a state, step sizes (B,) and normal numbers (B, C, d) to a proposal and a log ratio (B, C).

The proposal is accepted with the probability min(1, exp(log ratio)).
"""


@dataclass(frozen=True)
class Chains:
    """What C chains an example have sampled after the warm-up.

    Attributes:
        samples: points of the space (B, C, S, d).
        log_density: log pi at the samples, without its constant, (B, C, S) float64.
        acceptance: share of all proposals after the warm-up that were accepted, (B, C) float64.
        step_size: after the warm-up, (B,) float64.
    """

    samples: Tensor
    log_density: Tensor
    acceptance: Tensor
    step_size: Tensor

    @property
    def failed(self) -> Tensor:
        """Chains that never moved, (B, C): their samples are one point, and estimate nothing."""
        return self.acceptance == 0


def prior_starts(target: Target, d: int, chains: int, *, ids: Sequence[int], seed: int) -> Tensor:
    """Points where chains may start, drawn from the prior to the power a: float32 (B, C, d)."""
    u = normal(seed, "start of the chains", ids, (chains, d)).to(target.classes.device)
    return target.points(u / math.sqrt(target.a))


def run(
    target: Target,
    kernel: Kernel,
    first: State,
    *,
    name: str,
    ids: Sequence[int],
    seed: int,
    warmup: int,
    samples: int,
    thin: int,
    step_size: float,
    wanted: float,
    largest: float,
) -> Chains:
    """Walks all chains of all examples at once.

    Args:
        target: what the chains sample from.
        kernel: proposes the steps.
        first: where the chains start.
        name: of the sampler, which keys the random numbers.
        ids: the examples' ids, which key them too.
        seed: keys them too.
        warmup: steps in which step sizes are adapted, and which are thrown away; 0 for steps of
            `step_size`.
        samples: S, how many points of each chain are kept.
        thin: one step of so many is kept.
        step_size: the first.
        wanted: acceptance rate that the adaptation aims at.
        largest: step size that is not exceeded.

    Raises:
        UserError: a number is out of its bounds.
        NotFinite: the classifier returns NaN or infinity.
    """
    for field, number, least in (("warmup", warmup, 0), ("samples", samples, 1), ("thin", thin, 1)):
        if number < least:
            raise UserError(f"must be at least {least}, not {number}", field)
    if not 0 < step_size <= largest or step_size == math.inf:
        bound = "" if largest == math.inf else f" and at most {largest:g}"
        raise UserError(f"must be finite, above 0{bound}, not {step_size}", "step_size")
    state, draws = first, Draws(first.u, name, ids, seed)
    accepts = torch.zeros_like(first.log_prior)
    log_step = accepts.new_full((len(accepts),), math.log(step_size))
    total, averaged = torch.zeros_like(log_step), warmup // 2
    points = first.u.new_empty(*first.u.shape[:2], samples, first.u.shape[2])
    log_density = accepts.new_empty(*accepts.shape, samples)
    for t in range(-warmup, samples * thin):
        if t == 0 and warmup:
            log_step = total / (warmup - averaged)
        xi, threshold = draws.at(t + warmup)
        proposal, log_ratio = kernel(state, log_step.exp(), xi)
        accepted = threshold.log() < log_ratio
        state = _chosen(accepted, proposal, state)
        if t < 0:
            excess = log_ratio.clamp_max(0).exp().mean(1) - wanted
            log_step = (log_step + (t + warmup + 1) ** -DECAY * excess).clamp_max(math.log(largest))
            total += log_step if t + warmup >= averaged else 0
        else:
            accepts += accepted
            if (t + 1) % thin == 0:
                points[:, :, t // thin] = target.points(state.u)
                log_density[:, :, t // thin] = state.log_prior + state.log_likelihood
    return Chains(points, log_density, accepts / (samples * thin), log_step.exp())


class Draws:
    """The random numbers of all steps of chains, which depend on (seed, sampler, example, step).

    Args:
        like: numbers (B, C, d) on the device, and of the precision, of the chains.
        name: of the sampler.
        ids: of the examples.
        seed: of the measurement.
    """

    def __init__(self, like: Tensor, name: str, ids: Sequence[int], seed: int):
        self._like, self._name, self._seed, self._ids = like, name, seed, [int(i) for i in ids]
        self._length = max(1, min(BLOCK, NUMBERS // like[0].numel())) if len(like) else 1
        self._block = -1
        self._normal = self._uniform = like

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Normal numbers (B, C, d), and numbers uniform in [0, 1), (B, C) float64, of a step."""
        block, row = divmod(step, self._length)
        if block != self._block:
            chains, d = self._like.shape[1:]
            shape, key = (self._length, chains), (self._ids,)
            self._normal = normal(self._seed, f"{self._name}, proposal", *key, (*shape, d), block).to(self._like)
            drawn = uniform(self._seed, f"{self._name}, acceptance", *key, shape, block)
            self._uniform, self._block = drawn.double().to(self._like.device), block
        return self._normal[:, row], self._uniform[:, row]


def checked_start(start: Tensor, ids: Sequence[int], target: Target) -> Tensor:
    """Where chains start (B, C, d), once it is known to fit the target.

    Raises:
        UserError: it does not.
    """
    if start.ndim != 3 or not start.shape[1] or not start.is_floating_point():
        raise UserError(f"wants points (B, C, d) with at least one chain, not {tuple(start.shape)}", "start")
    if not len(start) == len(ids) == len(target.classes):
        message = f"{len(start)} starts, {len(ids)} ids and {len(target.classes)} classes; there must be as many"
        raise UserError(message, "start")
    return start


def _chosen(accepted: Tensor, proposal: State, state: State) -> State:
    wide = accepted[..., None]
    gradient = torch.where(wide, proposal.gradient, state.gradient) if state.gradient.numel() else state.gradient
    return State(
        torch.where(wide, proposal.u, state.u),
        torch.where(accepted, proposal.log_prior, state.log_prior),
        torch.where(accepted, proposal.log_likelihood, state.log_likelihood),
        gradient,
    )
