"""Square Attack: random search that changes one square of the image at a time.

Andriushchenko, Croce, Flammarion and Hein 2020, "Square Attack: a query-efficient black-box
adversarial attack via random search".

The first try is a pattern over the whole image. Each further try changes a square of the best one
so far, at a random place, and is kept if the logit margin rises. The squares' area, a share p of
the image, is halved at fixed shares of the budget. No gradient is asked for.

- Linf: vertical stripes of +-epsilon at first; then a square becomes +epsilon or -epsilon, for
  each channel by a sign of its own.
- L2: tiles of the pattern `bump` at first, the whole of norm epsilon. Then a square W1 gets, in
  each channel, the norm that it has together with another square W2 and an equal part of what the
  whole is short of epsilon, in the direction of its present content plus or minus the bump (both of
  norm 1); W2 becomes zero.

Examples leave the batch once they are fooled, and the next ones take their place (`active_batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor

from tasks.parts.attacks.common.active_batch import ActiveBatch, keyed_draws
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import Ball, norm_of, per_example, project, radii
from tasks.parts.randomness import uniform
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=get_args(Ball), radius="fixed", gradients=False, spaces=("pixel",))

BLOCK = 64
"""Tries whose random numbers are drawn at once."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After so many tries of 10,000 the squares' area is halved."""


def square(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    norm: Ball = "Linf",
    queries: int = 5000,
    share: float = 0.8,
    targets: Tensor | None = None,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> AttackResult:
    """Searches a misclassified point within `epsilon` of each image, without gradients.

    With `targets`, it searches a point that is given its target instead.

    Args:
        model: [0, 1] images (B, C, H, W) to logits (B, K), or (B, M, K) of M networks that one
            point is to fool, in evaluation mode.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) true classes.
        epsilon: radius of the ball, pixel units; one for all, or one each (N,).
        norm: of the ball.
        queries: forward passes for an example at most, that of the image itself among them.
        share: p, the share of the image that the first squares cover.
        targets: (N,) classes to reach; any other class than the label where None.
        ids: the examples' ids, which key the random numbers; 0, 1, ... where None.
        seed: keys the random numbers.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`, with no backward passes; where the search failed, the perturbation that came
        nearest, by margin, to success.

    Raises:
        UserError: as `check_arguments`; images that are none.
    """
    check_arguments("square", images, labels, epsilon=epsilon, norm=norm, norms=ATTACK.norms, targets=targets)
    if images.ndim != 4:
        raise UserError(f"square needs images (N, C, H, W), not points {tuple(images.shape)}", "images")
    shape, device = images.shape[1:], images.device
    channels, height, width = shape
    ids = range(len(images)) if ids is None else ids
    batch = pass_size(images) if batch is None else batch
    side = torch.tensor(sides(queries, share, height, width, norm), device=device)  # (queries,)
    bumps = _bumps(side.tolist(), device, images.dtype) if norm == "L2" else None
    radius = radii(epsilon, images).to(images.dtype)
    numbers = 5 + channels  # of a try: two places, an orientation, a sign a channel

    def tries(keys: list[int], block: int) -> Tensor:
        return uniform(seed, "square", keys, (BLOCK, numbers), block)

    def first(keys: list[int], block: int) -> Tensor:
        pattern = uniform(seed, "square start", keys, shape, block)
        return _stripes(pattern) if norm == "Linf" else _tiles(pattern)

    active = ActiveBatch(images, labels, targets, batch)
    query = active.zeros()
    best, delta = (active.zeros(*shape, dtype=images.dtype) for _ in range(2))  # accepted, and tried now
    value = active.zeros(dtype=images.dtype)
    draws = active.zeros(BLOCK, numbers, dtype=torch.float32)
    while len(active.example):
        here = images[active.example]
        logits = in_batches(model, here + delta, batch)
        margin, fooled = active.record(delta, logits, backward=False)
        better = (query <= 1) | (margin > value)  # the pattern at the start need not be better than the image
        best = torch.where(per_example(better, delta), delta, best)
        value = torch.where(better, margin, value)

        query = query + 1
        finished = fooled | (query >= queries)
        query, best, value, draws = active.replace_finished(finished, query, best, value, draws)
        here = images[active.example]
        if (renew := (query > 0) & ((query - 1) % BLOCK == 0)).any():
            draws[renew] = keyed_draws(tries, ids, active.example[renew], (query[renew] - 1) // BLOCK).to(draws)
        draw = draws[torch.arange(len(query), device=device), (query - 1) % BLOCK]  # (S, numbers)
        limit = radius[active.example]
        size = side[query]
        delta = _square_linf(best, draw, size, limit) if bumps is None else _square_l2(best, draw, size, limit, bumps)
        if (begin := query == 1).any():
            pattern = keyed_draws(first, ids, active.example[begin], query[begin]).to(delta)
            delta[begin] = pattern * per_example(limit[begin], pattern)
        delta = torch.where(per_example(query == 0, delta), 0, (here + delta).clamp(0, 1) - here)
    return active.result(norm)


def sides(queries: int, share: float, height: int, width: int, norm: Ball) -> list[int]:
    """The side of the square at each query, in pixels.

    It is the root of p height width; for L2 it is odd and at least 3, where the image is as large.

    >>> [sides(10_000, 0.8, 28, 28, "Linf")[query] for query in (2, 20, 100, 9999)]
    [25, 18, 13, 1]
    """
    largest = min(height, width)
    found = []
    for query in range(queries):
        halvings = sum(query * 10_000 > after * queries for after in HALVINGS)
        side = round((share / 2**halvings * height * width) ** 0.5)
        if norm == "L2":
            found.append(min(max(side, 3) // 2 * 2 + 1, (largest - 1) // 2 * 2 + 1))
        else:
            found.append(min(max(side, 1), largest))
    return found


def bump(side: int) -> Tensor:
    """Two halves of opposite sign, each with a hill in its middle; (side, side), of L2 norm 1.

    A half of height h and width v has n = floor(h / 2), and at pixel (r, s), counted from 1, the
    value

        sum_{k=0}^{m} 1 / (n + 1 - k)^2,    m = n - max(|r - n - 1|, |s - floor(v / 2) - 1|).
    """
    middle = side // 2  # n, and the row of the hills' tops, counted from 0
    halves = []
    for breadth in (middle, side - middle):
        rows = (torch.arange(side) - middle).abs()[:, None]
        columns = (torch.arange(breadth) - breadth // 2).abs()[None, :]
        steps = torch.arange(middle + 1, 0, -1, dtype=torch.float64)  # n + 1 - k
        rising = (1 / steps**2).cumsum(0)
        halves.append(rising[middle - torch.maximum(rows, columns)])
    whole = torch.cat([halves[0], -halves[1]], 1)
    return (whole / whole.norm()).float()


def _bumps(side: list[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """`bump` of every side that occurs, by side, each in the upper left corner.

    The shape is (largest side + 1, largest side, largest side).
    """
    largest = max(side)
    table = torch.zeros(largest + 1, largest, largest)
    for length in set(side):
        table[length, :length, :length] = bump(length)
    return table.to(device, dtype)


def _stripes(numbers: Tensor) -> Tensor:
    """Vertical stripes of -1 and +1 (B, C, H, W), from numbers uniform in [0, 1), (B, C, H, W).

    There is a sign for each channel and column.
    """
    return _signs(numbers[:, :, :1]).expand_as(numbers).contiguous()


def _tiles(numbers: Tensor) -> Tensor:
    """Tiles with the bump, five to the height, the whole of norm 1.

    Each has a sign of its own in each channel.
    """
    height, width = numbers.shape[2:]
    side = min(max(3, height // 5), height, width)  # at least 3: a bump needs a middle
    down, across = -(-height // side), -(-width // side)
    pattern = bump(side).repeat(down, across)[:height, :width]
    sign = _signs(numbers[:, :, :down, :across]).repeat_interleave(side, 2).repeat_interleave(side, 3)
    tiled = pattern * sign[:, :, :height, :width]
    return tiled / per_example(norm_of(tiled, "L2"), tiled)


def _signs(numbers: Tensor) -> Tensor:
    """Fair signs from numbers uniform in [0, 1)."""
    return torch.where(numbers < 0.5, -1.0, 1.0).to(numbers)


def _corner(number: Tensor, side: Tensor, length: int) -> Tensor:
    """The first row (or column) of a square that lies in `length` pixels: (S,), (S,) -> (S,).

    All places have the same probability.
    """
    places = length - side + 1
    return torch.minimum((number * places).long(), places - 1)


def _window(draw: Tensor, side: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random square, from numbers `draw` (S, 2), uniform in [0, 1), and its `side` (S,).

    It is given as the pixels that lie in it (S, 1, H, W), and each pixel's row (S, H) and column
    (S, W) in it.
    """
    down = torch.arange(height, device=draw.device) - _corner(draw[:, 0], side, height)[:, None]
    across = torch.arange(width, device=draw.device) - _corner(draw[:, 1], side, width)[:, None]
    rows, columns = (down >= 0) & (down < side[:, None]), (across >= 0) & (across < side[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None], down, across


def _square_linf(best: Tensor, draw: Tensor, side: Tensor, epsilon: Tensor) -> Tensor:
    """The perturbation (S, C, H, W) with a square of +-epsilon."""
    inside, _, _ = _window(draw[:, :2], side, *best.shape[2:])
    signs = _signs(draw[:, 5:]).to(best)[:, :, None, None]
    return torch.where(inside, per_example(epsilon, best) * signs, best)


def _square_l2(best: Tensor, draw: Tensor, side: Tensor, epsilon: Tensor, bumps: Tensor) -> Tensor:
    """The perturbation (S, C, H, W) with the norm of one square moved to another.

    There a bump is added.
    """
    height, width = best.shape[2:]
    first, down, across = _window(draw[:, :2], side, height, width)
    second, _, _ = _window(draw[:, 2:4], side, height, width)
    turned = (draw[:, 4] < 0.5)[:, None, None]
    limit = bumps.shape[-1] - 1
    row, column = down.clamp(0, limit)[:, :, None], across.clamp(0, limit)[:, None, :]
    one, other = torch.where(turned, column, row), torch.where(turned, row, column)
    added = bumps[side[:, None, None], one, other][:, None] * _signs(draw[:, 5:]).to(best)[:, :, None, None]

    spare = (epsilon**2 - best.square().sum((1, 2, 3))).clamp_min(0) / best.shape[1]  # (S,) for each channel
    both = (best * (first | second)).square().sum((2, 3), keepdim=True)
    available = (both + per_example(spare, best)).sqrt()  # (S, C, 1, 1)
    mixed = _normalised(_normalised(best * first) + added * first)
    moved = torch.where(first, mixed * available, best.masked_fill(second, 0))
    return project(moved, epsilon, "L2")


def _normalised(values: Tensor) -> Tensor:
    """Each channel with L2 norm 1; zero where it is zero."""
    return values / values.square().sum((2, 3), keepdim=True).sqrt().clamp_min(1e-12)
