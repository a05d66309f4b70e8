"""The distribution from which Markov chains sample: a Gaussian prior times what a classifier says.

    log pi(z) = a log N(z; 0, s^2 I) + beta l(z) + constant

with l one of

| goal | l(z) |
|---|---|
| class | log p(c given z) |
| not_class | log(1 - p(c given z)) |
| boundary | -(logit_c(z) - logit_o(z))^2 / (2 tau^2) |

for the class c of an example and another class o. The chains move in standard coordinates u = z /
s, in which the prior to the power a is N(0, I / a).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

import torch
from torch import Tensor

from tasks.parts.batching import batch_size, in_batches
from tasks.parts.losses import at, value_and_gradient, without
from tasks.parts.messages import did_you_mean
from tasks.parts.settings import UserError

Goal = Literal["class", "not_class", "boundary"]


@dataclass(frozen=True)
class Target:
    """An unnormalised distribution for each of B examples.

    Attributes:
        classify: points (N, d) to logits (N, K), each row on its own, with gradients to the points.
        classes: the class c of each example, (B,).
        goal: see the module.
        others: the class o of each example, (B,), for the boundary alone.
        a: power of the prior, above 0. Without a prior there might be no distribution at all.
        beta: power of the probability, at least 0; with 0 the target is the prior.
        tau: width of the boundary, in logits.
        scale: s, the spread of the space: a number, or one for each coordinate (d,). It is 1 where
            points are in units of the spread, as those of `spaces` are.
        batch: points in one pass; chosen for the device where None.

    Raises:
        UserError: on making it, where a number is out of its bounds, or classes do not fit the
            goal.
    """

    classify: Callable[[Tensor], Tensor]
    classes: Tensor
    goal: Goal = "class"
    others: Tensor | None = None
    a: float = 1.0
    beta: float = 1.0
    tau: float = 1.0
    scale: float | Tensor = 1.0
    batch: int | None = None

    def __post_init__(self) -> None:
        """Refuses what is out of bounds."""
        if self.goal not in get_args(Goal):
            goals = get_args(Goal)
            raise UserError(f"unknown goal '{self.goal}'; {', '.join(goals)}{did_you_mean(self.goal, goals)}", "goal")
        for name, number in (("a", self.a), ("tau", self.tau)):
            if not 0 < number < math.inf:
                raise UserError(f"must be finite and above 0, not {number}", name)
        if not 0 <= self.beta < math.inf:
            raise UserError(f"must be finite and at least 0, not {self.beta}", "beta")
        scale = torch.as_tensor(self.scale)
        if not bool(((scale > 0) & scale.isfinite()).all()):
            raise UserError("the spread of a space must be finite and above 0", "scale")
        if (self.others is not None) != (self.goal == "boundary"):
            raise UserError("another class is needed for the boundary, and for no other goal", "others")
        if self.others is not None and bool((self.others == self.classes).any()):
            raise UserError("a class has no boundary with itself", "others")

    def standard(self, z: Tensor) -> Tensor:
        """Points (..., d) in standard coordinates."""
        return z / self._scale(z)

    def points(self, u: Tensor) -> Tensor:
        """Standard coordinates (..., d) as points of the space."""
        return u * self._scale(u)

    def log_prior(self, u: Tensor) -> Tensor:
        """The log of N(u; 0, I)^a, without its constant: (..., d) to (...), float64."""
        return -self.a / 2 * u.double().square().sum(-1)

    def log_likelihood(self, u: Tensor) -> Tensor:
        """Beta times l, for C chains an example: (B, C, d) to (B, C), float64.

        Raises:
            NotFinite: the classifier returns NaN or infinity.
            UserError: it does not have the classes.
        """
        flat = u.flatten(0, 1)
        logits = in_batches(self._logits, flat, self._batch(flat))
        return self.beta * self._l(logits, *self._rows(u)).view(u.shape[:2])

    def likelihood_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """As `log_likelihood`, with its gradient at u (B, C, d).

        All chains take one backward pass, in batches.
        """
        flat, (classes, others) = u.flatten(0, 1), self._rows(u)
        batch = self._batch(flat)
        values, gradients = u.new_empty(len(flat), dtype=torch.float64), torch.empty_like(flat)
        for some in torch.arange(len(flat), device=u.device).split(batch):
            height = partial(self._l, classes=classes[some], others=others[some])
            _, values[some], gradients[some] = value_and_gradient(self._logits, flat[some], height, batch)
        return self.beta * values.view(u.shape[:2]), self.beta * gradients.view(u.shape)

    def _l(self, logits: Tensor, classes: Tensor, others: Tensor) -> Tensor:
        """The l of each row (N,), float64, from logits (N, K)."""
        logits = logits.double()
        if self._furthest >= (known := logits.shape[1]):
            raise UserError(
                f"class {self._furthest} is out of range: the network has the classes 0..{known - 1}", "classes"
            )
        if self.goal == "class":
            return at(logits.log_softmax(1), classes)
        if self.goal == "not_class":
            return without(logits, classes).logsumexp(1) - logits.logsumexp(1)
        return -(at(logits, classes) - at(logits, others)).square() / (2 * self.tau**2)

    def _logits(self, u: Tensor) -> Tensor:
        return self.classify(self.points(u))

    @cached_property
    def _furthest(self) -> int:
        """The largest class, looked up once: a GPU would wait for it at each step."""
        return int(torch.stack([self.classes, self.classes if self.others is None else self.others]).max())

    def _rows(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The classes c and o of each chain, (B * C,); o is c where there is none."""
        others = self.classes if self.others is None else self.others
        return self.classes.repeat_interleave(u.shape[1]), others.repeat_interleave(u.shape[1])

    def _batch(self, flat: Tensor) -> int:
        return self.batch or batch_size(flat.shape[1], flat.device)

    def _scale(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.scale).to(like)
