"""An ensemble for the smallest perturbation: of several searches, the nearest success is kept.

    1  the search that fits the norm, to any other class        ALMA in L2, FMN in the other norms
    2  short ones, towards each of the likeliest other classes   a third of the steps
    3  long ones, towards the classes that came nearest in 2
    4  in L-inf and L2, the bisection of Auto-PGD

The bisection is seldom the nearest but copes with gradients that mislead. Which class's region
comes nearest is decided far from the image, where one search goes one way: aimed at every class,
the searches do not depend on that choice (after the targeted attacks of Gowal et al. 2019, "An
alternative surrogate loss for PGD-based adversarial testing", and Croce and Hein 2020). A class
that is not near is known after a short walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from tasks.parts.attacks.alma import alma
from tasks.parts.attacks.bisection import bisection
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.attacks.fmn import fmn
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import PIXELS, Box, Norm, per_example
from tasks.parts.losses import likeliest

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=get_args(Norm), radius="smallest", weight_noise=False)

SHORT = 3
"""So many times shorter are the walks towards every class."""
ROUNDS = 6
"""So many times shorter is the walk of each search of the bisection.

There are ten searches or more, and most end early.
"""


def nearest(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "L2",
    steps: int = 200,
    target_classes: int = 9,
    finalists: int = 2,
    targets: Tensor | None = None,
    box: Box = PIXELS,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> AttackResult:
    """Searches the misclassified point that is nearest to each image, with several attacks.

    With `targets`, it searches the nearest point that is given its target instead.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks that are to be fooled by
            one point, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        norm: that is to be small.
        steps: gradient steps of a long walk.
        target_classes: how many other classes are aimed at, the likeliest first; all where there
            are not so many.
        finalists: towards how many of them a long walk goes.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        ids: the examples' ids, which key the random numbers; 0, 1, ... where None.
        seed: keys the random numbers.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`, with the passes of all searches; where all failed, the perturbation of the
        first.

    Raises:
        UserError: as `check_arguments`.
    """
    check_arguments("nearest", images, labels, norm=norm, norms=ATTACK.norms, targets=targets, box=box)
    batch = pass_size(images) if batch is None else batch
    kept = _Nearest.of(images, norm, box)
    if not len(images):
        return kept.result()
    walk: partial[AttackResult] = partial(
        alma if norm == "L2" else partial(fmn, norm=norm), steps=steps, box=box, batch=batch
    )
    here = torch.arange(len(images), device=images.device)

    def search(rows: Tensor, attack: partial[AttackResult], aims: Tensor | None) -> Tensor:
        return kept.add(rows, attack(model, images[rows], labels[rows], targets=aims))

    search(here, walk, targets)
    rows = (kept.distance > 0).nonzero().flatten()  # the images that do not succeed themselves
    if targets is None and len(rows):
        logits = in_batches(model, images[rows], batch)
        kept.forwards[rows] += 1
        others = likeliest(logits, labels[rows], min(target_classes, logits.shape[-1] - 1))  # (n, C)
        short = partial(walk, steps=max(1, steps // SHORT))
        lengths = torch.stack([search(rows, short, aims) for aims in others.T], 1) if others.numel() else others
        for column in lengths.argsort(dim=1, stable=True).T[:finalists]:
            search(rows, walk, others.gather(1, column[:, None]).squeeze(1))
    if (norm == "Linf" or norm == "L2") and len(rows):
        keys = [(range(len(images)) if ids is None else ids)[row] for row in rows.tolist()]
        careful = partial(
            bisection, norm=norm, steps=max(1, steps // ROUNDS), ids=keys, seed=seed, box=box, batch=batch
        )
        search(rows, careful, None if targets is None else targets[rows])
    return kept.result()


@dataclass
class _Nearest:
    """What was found so far for each of N examples, and the passes of all attacks.

    It is the nearest success, or else the first try.
    """

    images: Tensor  # (N, ...)
    norm: Norm
    box: Box
    best: Tensor  # (N, ...) perturbations
    distance: Tensor  # (N,) infinite before the first success
    forwards: Tensor  # (N,)
    backwards: Tensor  # (N,)

    @staticmethod
    def of(images: Tensor, norm: Norm, box: Box) -> _Nearest:
        none = torch.zeros(len(images), dtype=torch.long, device=images.device)
        distance = torch.full_like(none, torch.inf, dtype=images.dtype)
        return _Nearest(images, norm, box, torch.zeros_like(images), distance, none, none.clone())

    def add(self, rows: Tensor, found: AttackResult) -> Tensor:
        """Takes in the result of an attack on these rows (n,).

        Returns its distances, infinite where it failed.
        """
        distance = torch.where(found.success, found.distance, torch.inf)
        first = self.forwards[rows] == 0
        taken = per_example(first | (distance < self.distance[rows]), found.perturbation)
        self.best[rows] = torch.where(taken, found.perturbation, self.best[rows])
        self.distance[rows] = torch.minimum(distance, self.distance[rows])
        self.forwards[rows] += found.forwards
        self.backwards[rows] += found.backwards
        return distance

    def result(self) -> AttackResult:
        return AttackResult.of(
            self.images,
            self.best,
            self.distance.isfinite(),
            norm=self.norm,
            forwards=self.forwards,
            backwards=self.backwards,
            box=self.box,
        )
