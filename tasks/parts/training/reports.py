"""What a training says of itself: of a batch, and of an epoch."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import torch
from torch import Tensor


class Epoch(TypedDict, total=False):
    """What one epoch of training says of itself; losses in nats, accuracies as shares of 1.

    Loss and accuracy are those of the images trained on: noisy, augmented, or the worst of a ball
    (of TRADES: accuracy of the clean ones). With adversarial augmentation: `augmented`, the share
    of examples that were moved, and of a sample of these `label_changed`, the share whose predicted
    class the move changes, and the mean margin (true class's logit minus the largest other) before
    and after.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    validation_loss: float
    validation_accuracy: float
    augmented: float
    label_changed: float
    margin_before: float
    margin_after: float


class Tally(NamedTuple):
    """What adversarial augmentation did to a batch.

    Attributes:
        moved: how many examples are moved.
        looked: sums over the moved examples that were looked at (4,), float64: their number, how
            many change their predicted class, and their margins (true class's logit minus the
            largest other) before and after; None where nobody looked.
    """

    moved: int | Tensor
    looked: Tensor | None = None


def epoch_report(tallies: list[Tally], examples: int) -> Epoch:
    """What adversarial augmentation did in an epoch of so many examples, as shares and means."""
    report = Epoch(augmented=float(sum(tally.moved for tally in tallies)) / examples)
    looks = [tally.looked for tally in tallies if tally.looked is not None]
    looked, changed, before, after = torch.stack(looks).sum(0).tolist() if looks else [0.0] * 4
    if looked:
        report |= Epoch(label_changed=changed / looked, margin_before=before / looked, margin_after=after / looked)
    return report
