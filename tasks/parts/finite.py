"""Finds NaN and infinity in what a network returns. They are a failure, never a result.

NaN and infinity survive a sum. So one sum over the numbers says whether all are finite. It is in
double precision, in which sums of single-precision numbers do not overflow. A sum of such sums says
it of many forward passes at once, so that the program waits for a GPU once and not at each pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch._C import _functorch

NETWORK = "the network returns numbers that are not finite (NaN or infinite)"
GRADIENT = "the network's gradient has numbers that are not finite (NaN or infinite)"
KEPT = 256
"""How many sums a watch keeps before it adds them up."""


class NotFinite(RuntimeError):
    """Numbers that had to be finite are not.

    Args:
        message: what is not finite, without a full stop; users read it as it is.
        example: the id of an example for which that is so, where it is known.
    """

    def __init__(self, message: str, example: int | None = None):
        super().__init__(message if example is None else f"{message} for example {example}")
        self.message, self.example = message, example

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.example)


class Watchable(Protocol):
    """A network that shows its logits to `watch` if it is set, such as `classifier.Classifier`."""

    watch: Watch | None


def checked(values: Tensor, what: str = NETWORK) -> Tensor:
    """The values, once it is known that all are finite; on a GPU this waits for them.

    Args:
        values: of any shape.
        what: the message of the error.

    Raises:
        NotFinite: some are NaN or infinite.

    >>> checked(torch.tensor([1.0, torch.inf]))
    Traceback (most recent call last):
    tasks.parts.finite.NotFinite: the network returns numbers that are not finite (NaN or infinite)
    """
    if values.is_floating_point() and not math.isfinite(float(_sum(values))):
        raise NotFinite(what)
    return values


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of some tensors, on one device, are finite."""
    sums = [_sum(values) for values in tensors if values.is_floating_point()]
    return not sums or math.isfinite(float(torch.stack(sums).sum()))


class Watch:
    """Sees the outputs of networks, and says at the end whether all of them were finite."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def __call__(self, logits: object) -> None:
        """Takes note of what a network returned; what is no tensor of numbers does not count."""
        if isinstance(logits, Tensor) and logits.is_floating_point():
            if len(self._sums) == KEPT:
                self._sums = [torch.stack(self._sums).sum()]
            self._sums.append(_sum(logits))

    def check(self) -> None:
        """Raises `NotFinite` if some number was not finite."""
        if not all_finite(self._sums):
            raise NotFinite(NETWORK)


@contextmanager
def watched(networks: Iterable[Watchable]) -> Iterator[None]:
    """Checks at its end that the networks returned finite numbers alone, whoever called them.

    Raises:
        NotFinite: it was not, and nothing else was raised.
    """
    watch, networks = Watch(), list(networks)
    for network in networks:
        network.watch = watch
    try:
        yield
    finally:
        for network in networks:
            network.watch = None
    watch.check()


def _sum(values: Tensor) -> Tensor:
    """The sum in double precision, also of values that `torch.func` has wrapped for a transform."""
    return _plain(_plain(values.detach()).sum(dtype=torch.float64))


def _plain(values: Tensor) -> Tensor:
    while _functorch.is_functorch_wrapped_tensor(values):
        values = _functorch.get_unwrapped(values)
    return values
