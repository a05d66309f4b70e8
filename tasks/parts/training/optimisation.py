"""Optimisers and schedules by their names in a sweep file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim import lr_scheduler

Optimiser = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "cosine", "one_cycle"]


def optimiser_of(
    name: Optimiser,
    parameters: Iterable[nn.Parameter],
    rate: float,
    weight_decay: float,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """An optimiser of torch.

    Args:
        name: which.
        parameters: what it changes.
        rate: peak learning rate.
        weight_decay: L2 for sgd and adam, decoupled for adamw.
        momentum: of sgd.
        nesterov: whether sgd's is Nesterov's.
    """
    match name:
        case "sgd":
            return torch.optim.SGD(parameters, rate, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        case "adam":
            return torch.optim.Adam(parameters, rate, weight_decay=weight_decay)
        case "adamw":
            return torch.optim.AdamW(parameters, rate, weight_decay=weight_decay)


def scheduler_of(name: Schedule, optimiser: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    """A schedule of the learning rate.

    Args:
        name: which.
        optimiser: whose rate is its peak.
        steps: of the whole training; the schedule is told of each.
    """
    match name:
        case "constant":
            return lr_scheduler.ConstantLR(optimiser, factor=1.0)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
        case "one_cycle":
            peak = optimiser.defaults["lr"]
            return lr_scheduler.OneCycleLR(optimiser, max_lr=peak, total_steps=steps + 1, cycle_momentum=False)
