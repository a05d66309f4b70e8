"""What the attacks of all libraries share.

That is what an attack is like, how it is run batch by batch, and what it is held to.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.line_search import reached
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.geometry.balls import Norm, per_example, project
from tasks.parts.randomness import generator
from tasks.parts.settings import UserError

RESERVED = {
    "epsilon",
    "norm",
    "targets",
    "loss",
    "restarts",
    "stop",
    "tensorboard",
    "summary_writer",
    "verbose",
    "distance",
}
"""Arguments of constructors that are no options: we set them, or have settings of that name."""


@dataclass(frozen=True)
class LibraryAttack:
    """What an attack of another package is like.

    Attributes:
        name: `foolbox:<class>` or `art:<class>`.
        type: the class.
        capabilities: what it can do; its default norm first.
        options: the arguments of its constructor that are the user's to set, with their defaults.
        names: the library's names of those arguments that we set, by our names for them.
    """

    name: str
    type: Callable[..., Any]
    capabilities: Capabilities
    options: Mapping[str, object]
    names: Mapping[str, str]


Run = Callable[[nn.Module, Tensor, Tensor, int, float | None, bool], Tensor]
"""A library's attack on a batch; returns the adversarial images.

It is given the network, the images, their classes (labels or targets), the number of classes, the
radius, and whether the classes are targets.
"""


def imported(module: str, package: str, distribution: str) -> ModuleType:
    """A module of an optional package.

    Raises:
        UserError: the package is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:
            raise UserError(f"{package} cannot be imported: {error}", "name") from error
        raise UserError(f"{distribution} is not installed: pip install 'inputscape[peers]'", "name") from error


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """A context in which what the constructor of an attack refuses is the user's mistake."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"{name} refuses its options: {lines[0] if lines else type(error).__name__}", "options"
        ) from error


def in_turn(
    name: str,
    run: Run,
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    radii: Tensor | None,
    norm: Norm,
    ids: Sequence[int],
    seed: int,
    batch: int,
) -> AttackResult:
    """Runs an attack batch by batch on the images that are not misclassified.

    All images of a batch have one radius.
    """
    best = torch.zeros_like(images)
    success = torch.ones(len(images), dtype=torch.bool, device=images.device)
    forwards = success.long()
    backwards = torch.zeros_like(forwards)
    if len(images):
        with torch.no_grad():
            logits = model(images[:1])
        if logits.ndim != 2:
            raise UserError(f"{name} faces one network only, not {logits.shape[1]} at once", "name")
        success = reached(model, images, labels, targets, batch)
    standing = (~success).nonzero().flatten()
    each = images.new_zeros(len(images)) if radii is None else radii
    for radius in each[standing].unique().tolist():
        for rows in standing[each[standing] == radius].split(batch):
            counted = _Counted(model)
            classes = labels[rows] if targets is None else targets[rows]
            within = None if radii is None else radius
            with _seeded(seed, name, int(ids[int(rows[0])]), images.device), _said(name, [ids[int(i)] for i in rows]):
                points = run(counted, images[rows], classes, logits.shape[1], within, targets is not None)
            points = points.detach().to(images)
            points = torch.where(points.isfinite(), points, images[rows])  # some attacks mark a failure so
            delta = points - images[rows]
            if radii is not None:
                delta = project(delta, each[rows], norm)
            best[rows] = (images[rows] + delta).clamp(0, 1) - images[rows]
            forwards[rows] += _shared(counted.forwards, len(rows), images.device) + 1
            backwards[rows] += _shared(counted.backwards, len(rows), images.device)
    if len(standing):
        some = None if targets is None else targets[standing]
        success[standing] = reached(model, images[standing] + best[standing], labels[standing], some, batch)
    return AttackResult.of(images, best, success, norm=norm, forwards=forwards, backwards=backwards)


@contextmanager
def _said(name: str, ids: Sequence[int]) -> Iterator[None]:
    """A context in which what goes wrong in a library says where."""
    try:
        yield
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs the package {error.name}, which is not installed", "name") from error
    except Exception as error:
        error.add_note(f"in {name}, on the examples {', '.join(map(str, ids))}")
        raise


def _shared(total: int, among: int, device: torch.device) -> Tensor:
    """`total` passes among so many examples, as evenly as whole numbers allow: (among,).

    >>> _shared(7, 3, torch.device("cpu"))
    tensor([3, 2, 2])
    """
    return total // among + (torch.arange(among, device=device) < total % among).long()


@contextmanager
def _seeded(seed: int, name: str, first: int, device: torch.device) -> Iterator[None]:
    """A context in which the arguments decide the global random states."""
    number = int(generator(seed, f"peer {name}", first).integers(2**31))
    numpy_state, python_state = np.random.get_state(), random.getstate()  # it is the state that libraries draw from
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


class _Counted(nn.Module):
    """A network as libraries see it: it counts the rows that pass.

    It lets no gradient reach its parameters.
    """

    def __init__(self, model: Callable[[Tensor], Tensor]):
        super().__init__()
        self._call = (model,)  # in a tuple, so that it is no part of this module and nobody can change its mode
        self.forwards = self.backwards = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if x.requires_grad and torch.is_grad_enabled():
            return _Pass.apply(x, self)
        with torch.no_grad():
            return self.ask(x)

    def ask(self, x: Tensor) -> Tensor:
        """The logits, NaN for points that are not finite.

        Some attacks go to such points, which the network is not shown.
        """
        lost = ~x.isfinite().flatten(1).all(1)
        logits = self._call[0](torch.where(per_example(lost, x), 0, x))
        return logits.masked_fill(lost[:, None], torch.nan)


class _Context(torch.autograd.function.FunctionCtx):
    """What a forward pass keeps for its backward pass."""

    points: Tensor
    logits: Tensor
    counted: _Counted


class _Pass(torch.autograd.Function):
    """A forward pass whose backward pass ends at the points."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, counted: _Counted) -> Tensor:
        with torch.enable_grad():
            ctx.points = x.detach().requires_grad_(True)
            ctx.logits = counted.ask(ctx.points)
        ctx.counted = counted
        return ctx.logits.detach().clone()

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.counted.backwards += len(ctx.points)
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.points, gradients[0], retain_graph=True)
        return gradient, None
