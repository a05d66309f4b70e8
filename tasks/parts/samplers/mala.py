"""The Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996).

In standard coordinates u, with the step epsilon and normal numbers xi, it proposes

    u' = u + epsilon^2 / 2 grad log pi(u) + epsilon xi

and accepts with the probability min(1, pi(u') q(u given u') / (pi(u) q(u' given u))), where

    log q(u' given u) = -||u' - u - epsilon^2 / 2 grad log pi(u)||^2 / (2 epsilon^2)

The acceptance rate aimed at is 0.574, the best in high dimensions (Roberts and Rosenthal 1998).

Where the gradient grows steeply, as against a class deep inside it, proposals overshoot and a chain
may stay for long. A smaller `step_size` without a warm-up, or pCN, is then the better choice; R-hat
tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from tasks.parts.samplers.common.chains import Chains, State, checked_start, run
from tasks.parts.samplers.common.target import Target

ACCEPTANCE = 0.574


def mala(
    target: Target,
    start: Tensor,
    *,
    ids: Sequence[int],
    seed: int,
    samples: int,
    warmup: int = 500,
    thin: int = 1,
    step_size: float | None = None,
) -> Chains:
    """Samples from the target of each example with C chains.

    Args:
        target: of B examples.
        start: points where the chains start (B, C, d).
        ids: the examples' ids, which key the random numbers.
        seed: keys the random numbers.
        samples: S, how many points of each chain are kept.
        warmup: steps before, in which step sizes are adapted by example.
        thin: one step of so many is kept.
        step_size: epsilon at the start, in units of the spread; with no warm-up, of all steps.
            d^(-1/6) where None.

    Raises:
        UserError: a number is out of its bounds, or what is given is not of the same examples.
        NotFinite: the classifier returns NaN or infinity.
    """
    u = target.standard(checked_start(start, ids, target))
    return run(
        target,
        partial(step, target),
        at(target, u),
        name="mala",
        ids=ids,
        seed=seed,
        warmup=warmup,
        samples=samples,
        thin=thin,
        step_size=start.shape[2] ** (-1 / 6) if step_size is None else step_size,
        wanted=ACCEPTANCE,
        largest=math.inf,
    )


def at(target: Target, u: Tensor) -> State:
    """The state of chains at u (B, C, d), with gradients."""
    log_likelihood, gradient = target.likelihood_and_gradient(u)
    return State(u, target.log_prior(u), log_likelihood, gradient - target.a * u)


def step(target: Target, state: State, step_size: Tensor, xi: Tensor) -> tuple[State, Tensor]:
    """What is proposed, and the log ratio of its acceptance (B, C), float64.

    Args:
        target: the distribution.
        state: of the chains, with gradients.
        step_size: epsilon (B,).
        xi: normal numbers (B, C, d).
    """
    epsilon = step_size[:, None, None].to(xi)
    proposal = at(target, state.u + epsilon**2 / 2 * state.gradient + epsilon * xi)
    back = (state.u - proposal.u - epsilon**2 / 2 * proposal.gradient) / epsilon
    log_q = (xi.double().square() - back.double().square()).sum(-1) / 2  # of the way back, less the way there
    climbed = proposal.log_prior - state.log_prior + proposal.log_likelihood - state.log_likelihood
    return proposal, climbed + log_q
