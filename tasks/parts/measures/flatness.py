"""How the output of a classifier varies in a noise ball around points of its input space.

The unit of work is the *cell*: one centre, one kind of noise, one radius. All cells of an example
see the same noise directions, so everything compared between cells is paired. Cells are filled in
rounds of replicates; with a tolerance, a cell whose interval is narrow enough drops out after its
round, and the forward passes go to those that still need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.parts.batching import batch_size, in_batches
from tasks.parts.measures.wilson import wilson
from tasks.parts.noise.input_noise import Kind, direction, moved
from tasks.parts.randomness import BLOCK, normal

ROUND = 16
"""Replicates between two looks at the intervals, with a tolerance; divides `BLOCK`."""


class Cell(NamedTuple):
    """What is sampled together: one kind of noise of one radius around one centre (its row)."""

    centre: int
    kind: Kind
    radius: float


@dataclass(frozen=True)
class Statistics:
    """Sums over the noisy samples of each of K cells, float64 unless said otherwise.

    The last axis of `p` and `p_squared` is: true class, class predicted at the centre, target
    class.
    """

    samples: Tensor  # (K,) long
    p: Tensor  # (K, 3)
    p_squared: Tensor  # (K, 3)
    hits: Tensor  # (K,) samples given the true class
    stays: Tensor  # (K,) samples given the class of the centre
    loss: Tensor  # (K,)
    largest_loss: Tensor  # (K,)
    confidence: Tensor | None = None  # (K,) of the largest probability; None where it is not asked for

    @staticmethod
    def empty(cells: int, device: torch.device, *, confidence: bool = False) -> Statistics:
        """The statistics of K cells that have no samples yet.

        With `confidence`, the sums of the largest probability are kept as well.
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        samples = torch.zeros(cells, dtype=torch.long, device=device)
        lowest = torch.full((cells,), -torch.inf, dtype=torch.float64, device=device)
        p, p_squared, hits, stays, loss = (zeros(cells, *more) for more in ((3,), (3,), (), (), ()))
        more = zeros(cells) if confidence else None
        return Statistics(samples, p, p_squared, hits, stays, loss, lowest, more)

    def add(self, cells: Tensor, logits: Tensor, classes: Tensor) -> None:
        """Adds samples to some cells, each of which is once in `cells` (k,).

        The logits (k, S, C) are those of S samples each; the classes (k, 3) are as in `p`.
        """
        log_p = logits.log_softmax(-1)
        chosen = log_p.gather(2, classes[:, None].expand(-1, logits.shape[1], -1)).double()  # (k, S, 3)
        p, loss, predicted = chosen.exp(), -chosen[..., 0], logits.argmax(-1)
        self.samples[cells] += logits.shape[1]
        self.p[cells] += p.sum(1)
        self.p_squared[cells] += p.square().sum(1)
        self.hits[cells] += (predicted == classes[:, :1]).sum(1)
        self.stays[cells] += (predicted == classes[:, 1:2]).sum(1)
        self.loss[cells] += loss.sum(1)
        self.largest_loss[cells] = torch.maximum(self.largest_loss[cells], loss.amax(1))
        if self.confidence is not None:
            self.confidence[cells] += log_p.amax(-1).double().exp().sum(1)

    @property
    def mean(self) -> Tensor:
        """Mean probabilities (K, 3)."""
        return self.p / self.samples[:, None]

    @property
    def standard_error(self) -> Tensor:
        """Standard errors of the mean probabilities (K, 3).

        0 where there is one sample only (the centre itself).
        """
        n = self.samples[:, None].double()
        variance = (self.p_squared - self.p.square() / n).clamp_min(0) / (n - 1).clamp_min(1)
        return (variance / n).sqrt()

    @property
    def bounds(self) -> Tensor:
        """Ends (K, 2) of the 95 % interval of the true class's mean probability, see `wilson`."""
        centre, half = self._centre_and_half()
        return torch.stack([centre - half, centre + half], 1).clamp(0, 1)

    @property
    def interval(self) -> Tensor:
        """Width (K,) of the 95 % interval of the true class's mean probability."""
        return 2 * self._centre_and_half()[1]

    def _centre_and_half(self) -> tuple[Tensor, Tensor]:
        n, total = self.samples.double(), self.p[:, 0]
        variance = (self.p_squared[:, 0] / n - (total / n).square()).clamp_min(0)
        return wilson(total, n, variance)


def statistics(
    model: Callable[[Tensor], Tensor],
    cells: Sequence[Cell],
    centres: Tensor,
    ids: Sequence[int],
    classes: Tensor,
    *,
    samples: int,
    tolerance: float | None = None,
    clip: bool = True,
    seed: int = 0,
    batch: int | None = None,
    confidence: bool = False,
) -> Statistics:
    """Samples the noise of every cell and sums up what the network returns.

    Args:
        model: [0, 1] images (B, C, H, W) to logits (B, K), in evaluation mode.
        cells: grouped by the example of their centre, then by kind (for speed alone).
        centres: (P, C, H, W).
        ids: the example of each centre, which keys its noise.
        classes: (P, 3) true class, class predicted at the centre, target class.
        samples: forward passes a cell (with a tolerance: at most).
        tolerance: the width of the interval at which a cell is done.
        clip: noisy images into [0, 1].
        seed: keys the noise.
        batch: images in one forward pass; chosen for the device where None.
        confidence: sum up the largest probability as well.
    """
    shape, device = centres.shape[1:], centres.device
    batch = batch_size(centres[0].numel(), device) if batch is None else batch
    totals = Statistics.empty(len(cells), device, confidence=confidence)
    rows = torch.tensor([cell.centre for cell in cells], dtype=torch.long, device=device)
    radii = torch.tensor([cell.radius for cell in cells], dtype=centres.dtype, device=device)[:, None, None, None, None]
    cell_classes = classes[rows]
    active = list(range(len(cells)))
    size = BLOCK if tolerance is None else ROUND
    for first in range(0, samples, size):
        count = min(size, samples - first)
        directions = _Directions(seed, shape, first, count, device)
        per_pass = max(1, batch // count)
        for start in range(0, len(active), per_pass):
            chosen = active[start : start + per_pass]
            noisy = centres.new_empty(len(chosen), count, *shape)
            done = 0
            for (example, kind), run in groupby(chosen, key=lambda c: (ids[cells[c].centre], cells[c].kind)):
                some = list(run)
                out = noisy[done : done + len(some)]
                moved(centres[rows[some], None], radii[some], directions(example, kind), kind, clip=clip, out=out)
                done += len(some)
            logits = in_batches(model, noisy.flatten(0, 1), batch)
            index = torch.tensor(chosen, device=device)
            totals.add(index, logits.unflatten(0, (len(chosen), count)), cell_classes[index])
        if tolerance is not None:
            wide = (totals.interval > tolerance).tolist()
            active = [cell for cell in active if wide[cell]]
    return totals


def at_centres(logits: Tensor, classes: Tensor) -> Statistics:
    """The same statistics at the centres themselves, from their logits (P, K).

    These are P cells of radius 0, of one sample each.
    """
    totals = Statistics.empty(len(logits), logits.device)
    totals.add(torch.arange(len(logits), device=logits.device), logits[:, None], classes)
    return totals


class _Directions:
    """The noise directions (S, C, H, W) of some replicates of one block, from `first` on.

    They are drawn when first asked for. Remembers the example asked for last: cells come grouped by
    example.
    """

    def __init__(self, seed: int, shape: torch.Size, first: int, count: int, device: torch.device):
        self._seed, self._shape, self._device = seed, shape, device
        self._block, self._rows = first // BLOCK, slice(first % BLOCK, first % BLOCK + count)
        self._example: int | None = None
        self._normal = torch.empty(0)

    def __call__(self, example: int, kind: Kind) -> Tensor:
        if example != self._example:
            drawn = normal(self._seed, "flatness", [example], (BLOCK, *self._shape), self._block)[0]
            self._normal, self._example = drawn[self._rows].to(self._device), example
        return direction(self._normal, kind)
