"""An ensemble within a radius: several attacks in turn, each on the examples still standing.

After AutoAttack (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks").

    L-inf, L2   Auto-PGD with the cross-entropy;
                Auto-PGD with the targeted DLR towards each of the most likely other classes;
                Square Attack on images, FMN on points of other spaces
    L1          PGD with the cross-entropy; PGD with the DLR, restarted; FMN

With less than four classes, which the targeted DLR wants (the DLR: three), the logit margin takes
its place. Where targets are given, all stages aim at them. The attack without gradients comes last,
and few examples are left for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.result import AttackResult, pass_size
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.attacks.square import square
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import PIXELS, Box, Convex, inside, per_example, radii
from tasks.parts.losses import Loss, verdict

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

ATTACK = Capabilities(norms=get_args(Convex), radius="fixed", weight_noise=False)


def auto(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    norm: Convex = "Linf",
    steps: int = 100,
    restarts: int = 1,
    target_classes: int = 9,
    queries: int = 1000,
    targets: Tensor | None = None,
    box: Box = PIXELS,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> AttackResult:
    """Searches a misclassified point within `epsilon` of each image, with several attacks.

    With `targets`, it searches a point that is given its target instead.

    Args:
        model: points (B, ...) to logits (B, K), or (B, M, K) of M networks that are to be fooled by
            one point, in evaluation mode.
        images: (N, ...) in the box.
        labels: (N,) true classes.
        epsilon: radius of the ball, pixel units; one for all, or one each (N,).
        norm: of the ball.
        steps: gradient steps of each walk.
        restarts: walks of each attack, and towards each class.
        target_classes: how many other classes are aimed at, the most likely first; all where there
            are not so many.
        queries: of the Square Attack; 0 leaves the last stage out, whichever it is.
        targets: (N,) classes to reach; any other class than the label where None.
        box: the least and the largest number that a point may have.
        ids: the examples' ids, which key the random numbers; 0, 1, ... where None.
        seed: keys the random numbers.
        batch: images in one pass; chosen for the device where None.

    Returns:
        `AttackResult`, with the passes of all stages; where all failed, the perturbation that came
        nearest, by margin, to success.

    Raises:
        UserError: as `check_arguments`.
    """
    check_arguments("auto", images, labels, epsilon=epsilon, norm=norm, norms=ATTACK.norms, targets=targets, box=box)
    ids = range(len(images)) if ids is None else ids
    batch = pass_size(images) if batch is None else batch
    radius = radii(epsilon, images)
    best = torch.zeros_like(images)
    highest = torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device)
    success = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    forwards, backwards = torch.zeros_like(labels), torch.zeros_like(labels)
    if not len(images):
        return AttackResult.of(images, best, success, norm=norm, forwards=forwards, backwards=backwards, box=box)

    classes = in_batches(model, images[:1], batch).shape[-1]
    untargeted = targets is None
    given = {"steps": steps, "restarts": restarts, "target_classes": target_classes, "queries": queries}
    for stage in _stages(norm, classes, untargeted, images.ndim == 4 and box == PIXELS, given):
        left = (~success).nonzero().flatten()
        if not len(left):
            break
        here, label, aims = images[left], labels[left], None if targets is None else targets[left]
        how: dict[str, object] = {"norm": norm, "targets": aims, "batch": batch}
        if stage.func is not fmn:
            how |= {"epsilon": radius[left], "ids": [ids[row] for row in left.tolist()], "seed": seed}
        if stage.func is not square:
            how["box"] = box
        found: AttackResult = stage(model, here, label, **how)
        delta = found.perturbation
        if stage.func is fmn:  # its points may lie outside the ball
            delta = inside(here, delta, radius[left].to(delta.dtype), norm, box)
        margin, fooled = verdict(in_batches(model, here + delta, batch), label, aims)
        nearer = fooled | (margin > highest[left])
        best[left] = torch.where(per_example(nearer, delta), delta, best[left])
        highest[left] = torch.where(nearer, margin.to(highest.dtype), highest[left])
        success[left] = fooled
        forwards[left] += found.forwards + 1
        backwards[left] += found.backwards
    return AttackResult.of(images, best, success, norm=norm, forwards=forwards, backwards=backwards, box=box)


def _stages(
    norm: Convex, classes: int, untargeted: bool, pixels: bool, given: dict[str, int]
) -> list[partial[AttackResult]]:
    """The attacks in turn, but for what they are called with at each stage alike."""
    steps, restarts = given["steps"], given["restarts"]
    ratio: Loss
    if norm == "L1":
        ratio = "dlr" if classes >= (3 if untargeted else 4) else "margin"
        stages = [
            partial(pgd, loss="ce", steps=steps, restarts=restarts, schedule="cosine", share=0.05),
            partial(pgd, loss=ratio, steps=steps, restarts=restarts + 1, schedule="cosine", share=0.05),
        ]
    else:
        ratio = "dlr" if classes >= 4 else "margin"
        others = min(given["target_classes"], classes - 1) if untargeted else 0
        stages = [
            partial(apgd, loss="ce", steps=steps, restarts=restarts),
            partial(apgd, loss=ratio, steps=steps, restarts=restarts, target_classes=others),
        ]
    if given["queries"]:
        stages.append(
            partial(square, queries=given["queries"]) if pixels and norm != "L1" else partial(fmn, steps=steps)
        )
    return stages
