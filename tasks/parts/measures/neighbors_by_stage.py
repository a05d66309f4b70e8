"""The nearest training examples of moved images at each stage of a classifier.

An image, or a point of a hidden space, is passed on through the classifier's stages; at each of
them its neighbours are found among the representations of the training examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tasks.parts.batching import in_batches
from tasks.parts.finite import NotFinite
from tasks.parts.measures.neighbors import Bank, Metric, distances, nearest, typical_norm
from tasks.parts.models.classifier import Classifier, hidden_stage
from tasks.parts.settings import UserError


class LabelledBank(Bank, Protocol):
    """Representations of examples whose labels are known."""

    @property
    def labels(self) -> np.ndarray:
        """True classes, (N,) int64."""
        ...

    @property
    def ids(self) -> np.ndarray:
        """The examples' ids in their split, (N,) int64."""
        ...


def depths_of(model: Classifier, stages: Mapping[str, int | str]) -> dict[str, int]:
    """How many stages lie before each of some hidden spaces.

    Args:
        model: the classifier.
        stages: number or name of a stage, by the setting that holds it.

    Raises:
        UserError: there is no such stage, or two settings name the same; the field is the setting.
    """
    depths: dict[str, int] = {}
    for field, stage in stages.items():
        try:
            depth = hidden_stage(model, stage)
        except UserError as error:
            raise UserError(error.message, field) from None
        same = next((stages[other] for other, known in depths.items() if known == depth), None)
        if same is not None:
            raise UserError(f"{stage} is the same stage as {same}, which is given", field)
        depths[field] = depth
    return depths


class Move(NamedTuple):
    """What a move made of B examples.

    Attributes:
        name: of the move.
        depth: how many stages lie before the space in which it was made.
        values: (B, ...) the values there after the move, as the classifier has them.
        found: (B,) whether it succeeded.
    """

    name: str
    depth: int
    values: Tensor
    found: Tensor


class Passed(NamedTuple):
    """What a classifier makes of moved examples.

    Attributes:
        values: by depth, ascending: (B, ...) the values after so many stages.
        classes: (B,) that it predicts.
    """

    values: dict[int, Tensor]
    classes: Tensor


def passed(model: Classifier, move: Move, depths: Sequence[int], batch: int) -> Passed:
    """Runs the stages from where a move was made to the logits, each once.

    Args:
        model: in evaluation mode.
        move: the moved examples.
        depths: ascending; those before the move are left out, as there it changed nothing.
        batch: examples in one pass.
    """
    values, at, h = dict[int, Tensor](), move.depth, move.values
    for depth in depths:
        if depth >= move.depth:
            values[depth] = h = in_batches(partial(model.between, start=at, end=depth), h, batch)
            at = depth
    return Passed(values, in_batches(partial(model.tail, k=at), h, batch).argmax(1))


def unit_of(bank: Bank, metric: Metric, device: torch.device) -> float:
    """What distances are told in: the root mean square norm of a bank; 1 for cosine.

    Raises:
        NotFinite: all representations are 0.
    """
    unit = 1.0 if metric == "cosine" else typical_norm(bank, device)
    if not unit:
        raise NotFinite("all training representations of a stage are 0, which is no unit of distances")
    return unit


class Neighborhood(NamedTuple):
    """The k nearest training examples of B values at one stage, and how far the values moved.

    Attributes:
        ids: of the neighbours, nearest first, (B, k).
        labels: their true classes, (B, k).
        distances: (B, k) float64, in the stage's unit.
        moved: (B,) float64 distance of each value from the unmoved one, in that unit.
        entropy: (B,) of the k labels, in nats.
    """

    ids: Tensor
    labels: Tensor
    distances: Tensor
    moved: Tensor
    entropy: Tensor


def neighborhood(
    h: Tensor, unmoved: Tensor, bank: LabelledBank, k: int, metric: Metric, unit: float, own: Tensor | None = None
) -> Neighborhood:
    """Finds the neighbours of some values.

    Args:
        h: (B, ...) at one stage, after a move.
        unmoved: (B, ...) before it.
        bank: training representations at that stage.
        k: neighbours of each.
        metric: of the distances.
        unit: as of `unit_of`.
        own: row of the bank that each example is, (B,), as of `nearest`.
    """
    found = nearest(h, bank, k, metric, own)
    rows = found.rows.cpu().numpy()
    labels, ids = (torch.from_numpy(values[rows]).to(h.device) for values in (bank.labels, bank.ids))
    return Neighborhood(ids, labels, found.distances / unit, distances(h, unmoved, metric) / unit, entropy_of(labels))


def entropy_of(labels: Tensor) -> Tensor:
    """The entropy (B,) in nats of the labels (B, k) in each line, float64.

    It is the mean of -log(share of the line that has the same label).

    >>> entropy_of(torch.tensor([[1, 1, 1, 1], [0, 0, 2, 2]])).round(decimals=4).tolist()
    [0.0, 0.6931]
    """
    alike = (labels[:, :, None] == labels[:, None, :]).double().mean(2)
    return (1 / alike).log().mean(1)


def depth_of_change(rows: pd.DataFrame, stages: int) -> pd.Series:
    """The share of the stages that lie before the change, by example.

    The change is at the first stage from which on, up to the last, no majority of an example's
    neighbours is of the old class. 0: at the first stage already; 1: never.

    Args:
        rows: of one move, with `id`, `depth` and `old_class` (the neighbour is of the old class).
        stages: how many were asked for. Those without rows lie before a hidden move, which changed
            nothing there.
    """
    stays = rows.groupby(["id", "depth"])["old_class"].mean().unstack("depth").sort_index(axis=1) > 0.5
    changed = np.logical_and.accumulate(~stays.to_numpy()[:, ::-1], axis=1).sum(1)  # stages from the change on
    return pd.Series(1 - changed / stages, index=stays.index)
