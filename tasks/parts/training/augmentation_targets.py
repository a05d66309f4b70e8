"""Whom adversarial augmentation moves, and towards which classes."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.parts.losses import at, without
from tasks.parts.training.recipes import AdversarialAugmentation


def weights_of_logits(settings: AdversarialAugmentation, logits: Tensor, labels: Tensor, lots: Tensor | None) -> Tensor:
    """The weights (n, K) of the sum of logits that each example climbs.

    Args:
        settings: its direction decides.
        logits: (n, K) before the move.
        labels: (n,) true classes.
        lots: (n,) uniform in [0, 1), that decide random classes; None for other directions.
    """
    match settings.direction:
        case "runner_up":
            others = without(logits, labels)
            runner_up = others.argmax(1, keepdim=True)
            return others.zero_().scatter_(1, runner_up, 1.0)
        case "random_class":
            assert lots is not None
            count = logits.shape[1] - 1
            other = (lots.to(logits.device) * count).long().clamp_max(count - 1)
            other += other >= labels
            return torch.zeros_like(logits).scatter_(1, other[:, None], 1.0)
        case "away" | "random":  # the random direction only takes the time
            return torch.zeros_like(logits).scatter_(1, labels[:, None], -1.0)


def eligible(settings: AdversarialAugmentation, logits: Tensor, labels: Tensor) -> Tensor | None:
    """Which examples the option `only` lets through (n,), None where it lets all."""
    match settings.only:
        case "all":
            return None
        case "correct":
            return logits.argmax(1) == labels
        case "confident":
            return at(logits.softmax(1), labels) >= settings.confidence
