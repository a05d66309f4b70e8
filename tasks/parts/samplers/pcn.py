"""The preconditioned Crank-Nicolson algorithm (Cotter, Roberts, Stuart and White 2013).

In standard coordinates u, with the step h in (0, 1] and normal numbers xi, it proposes

    u' = sqrt(1 - h^2) u + h xi / sqrt(a)

which leaves the prior to the power a, N(0, I / a), as it is. So the acceptance is decided by the
likelihood alone, min(1, exp(beta l(u') - beta l(u))), and does not fall with the dimension. No
gradients are needed. With h = 1 the proposals are independent draws from the prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from tasks.parts.samplers.common.chains import Chains, State, checked_start, run
from tasks.parts.samplers.common.target import Target

ACCEPTANCE = 0.25


def pcn(
    target: Target,
    start: Tensor,
    *,
    ids: Sequence[int],
    seed: int,
    samples: int,
    warmup: int = 500,
    thin: int = 1,
    step_size: float = 0.5,
) -> Chains:
    """Samples from the target of each example with C chains.

    Args:
        target: of B examples.
        start: points where the chains start (B, C, d).
        ids: the examples' ids, which key the random numbers.
        seed: keys the random numbers.
        samples: S, how many points of each chain are kept.
        warmup: steps before, in which step sizes are adapted by example, towards an acceptance rate
            of 0.25.
        thin: one step of so many is kept.
        step_size: h at the start, at most 1; with no warm-up, of all steps.

    Raises:
        UserError: a number is out of its bounds, or what is given is not of the same examples.
        NotFinite: the classifier returns NaN or infinity.
    """
    u = target.standard(checked_start(start, ids, target))
    return run(
        target,
        partial(step, target),
        at(target, u),
        name="pcn",
        ids=ids,
        seed=seed,
        warmup=warmup,
        samples=samples,
        thin=thin,
        step_size=step_size,
        wanted=ACCEPTANCE,
        largest=1.0,
    )


def at(target: Target, u: Tensor) -> State:
    """The state of chains at u (B, C, d), without gradients."""
    return State(u, target.log_prior(u), target.log_likelihood(u), u.new_empty(0))


def step(target: Target, state: State, step_size: Tensor, xi: Tensor) -> tuple[State, Tensor]:
    """What is proposed, and the log ratio of its acceptance (B, C), float64.

    Args:
        target: the distribution.
        state: of the chains.
        step_size: h (B,), at most 1.
        xi: normal numbers (B, C, d).
    """
    h = step_size.clamp_max(1)[:, None, None].to(xi)
    proposal = at(target, torch.sqrt(1 - h**2) * state.u + h / math.sqrt(target.a) * xi)
    return proposal, proposal.log_likelihood - state.log_likelihood
