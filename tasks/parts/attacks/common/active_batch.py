"""The active batch of an attack, in which a finished example makes room for the next.

It leaves the batch, and the next one waiting takes its slot. So no pass is spent on a finished
example, and the batch stays full to the end of the list. An attack keeps what it knows about each
slot in tensors of its own (S, ...), all zero at the start of an example, and hands them to
`replace_finished`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.geometry.balls import PIXELS, Box, Norm
from tasks.parts.losses import verdict


@final
class ActiveBatch:
    """Which example each of S slots works on, and for all N examples the best point seen so far.

    Args:
        images: (N, ...).
        labels: (N,) true classes.
        targets: (N,) classes to reach; any other class than the label where None.
        batch: the number of slots.
        evaluated: the images' own logits, (N, K) or (N, M, K), where a forward pass has evaluated
            them already; those that succeed then get no slot.

    Attributes:
        example: (S,) rows of `images`; empty once all are finished.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, targets: Tensor | None, batch: int, *, evaluated: Tensor | None = None
    ):
        total, device = len(images), images.device
        self._images, self._labels, self._targets = images, labels, targets
        self._best = torch.zeros_like(images)
        self._margin = torch.full((total,), -torch.inf, dtype=images.dtype, device=device)
        self._success = torch.zeros(total, dtype=torch.bool, device=device)
        self._forwards = torch.zeros(total, dtype=torch.long, device=device)
        self._backwards = torch.zeros(total, dtype=torch.long, device=device)
        if evaluated is not None:
            self._margin, self._success = verdict(evaluated, labels, targets)
            self._margin, self._forwards = self._margin.to(images.dtype), self._forwards + 1
        self._queue = (~self._success).nonzero().flatten()
        self.example = self._queue[:batch]
        self._started = len(self.example)

    @property
    def succeeded(self) -> Tensor:
        """Whether each slot's example has had a point that succeeds, (S,)."""
        return self._success[self.example]

    def zeros(self, *shape: int, dtype: torch.dtype = torch.long) -> Tensor:
        """A state of the slots as it is at the start of an example, (S, *shape)."""
        return torch.zeros(len(self.example), *shape, dtype=dtype, device=self.example.device)

    def record(self, delta: Tensor, logits: Tensor, *, backward: bool) -> tuple[Tensor, Tensor]:
        """Notes one pass over the points at `delta` (S, ...) from each slot's image.

        Their logits are (S, K) or (S, M, K).

        Returns:
            As `losses.verdict`.
        """
        targets = None if self._targets is None else self._targets[self.example]
        beyond, fooled = verdict(logits, self._labels[self.example], targets)
        self._forwards[self.example] += 1
        self._backwards[self.example] += int(backward)
        better = (fooled & ~self._success[self.example]) | (beyond > self._margin[self.example])
        self._best[self.example[better]] = delta[better]
        self._margin[self.example[better]] = beyond[better]
        self._success[self.example[fooled]] = True
        return beyond, fooled

    def replace_finished(self, finished: Tensor, *states: Tensor) -> list[Tensor]:
        """Gives the slots that have finished (S,) to the examples that wait.

        Where none is left, the slots close.

        Returns:
            The states (S', ...) of the slots there are now, zero for the examples that begin.
        """
        if not finished.any():
            return list(states)
        fresh = min(int(finished.sum()), len(self._queue) - self._started)
        begin = self._queue[self._started : self._started + fresh]
        kept = (~finished).nonzero().flatten()
        self.example = torch.cat([self.example[kept], begin])
        self._started += fresh
        return [torch.cat([state[kept], state.new_zeros(fresh, *state.shape[1:])]) for state in states]

    def result(self, norm: Norm, box: Box = PIXELS) -> AttackResult:
        """The outcome of the attack.

        Where it failed, it is the point that came nearest, by margin, to success.
        """
        return AttackResult.of(
            self._images,
            self._best,
            self._success,
            norm=norm,
            forwards=self._forwards,
            backwards=self._backwards,
            box=box,
        )


def keyed_draws(
    draw: Callable[[list[int], int], Tensor], ids: Sequence[int], examples: Tensor, blocks: Tensor
) -> Tensor:
    """Keyed random numbers for examples, each at a block of its own.

    Args:
        draw: the ids of some examples and a block to random numbers (rows, ...).
        ids: the id of every example, by row.
        examples: (B,) rows of `ids`, B > 0.
        blocks: (B,).

    Returns:
        The numbers (B, ...), on the device of `examples`.
    """
    keys = [ids[row] for row in examples.tolist()]
    numbers = blocks.tolist()
    place: list[int] = []
    pieces: list[Tensor] = []
    for number in sorted(set(numbers)):
        rows = [row for row, block in enumerate(numbers) if block == number]
        pieces.append(draw([keys[row] for row in rows], number))
        place += rows
    order = torch.tensor(place).argsort()
    return torch.cat(pieces)[order].to(examples.device)
