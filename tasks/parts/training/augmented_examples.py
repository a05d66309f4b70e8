"""Some training images and what adversarial augmentation makes of them, for people to look at.

In pixels these are images. A point moved in a hidden layer is no image's: what it has become is
told by the training images whose representations in that layer are nearest to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.parts.batching import batch_size, in_batches
from tasks.parts.data import load as data
from tasks.parts.losses import margin
from tasks.parts.models.classifier import Classifier
from tasks.parts.models.modes import evaluating
from tasks.parts.training.adversarial_augmentation import moved, random_numbers, stage, tail
from tasks.parts.training.recipes import Recipe

AMONG, NUMBERS = 1024, 2**26
"""Among so many training images examples are chosen and neighbours are sought.

There are fewer where their representations are so large that all have more than `NUMBERS` numbers.
"""
MOVED = 64
"""At most so many of these images are moved, in one batch, but no more than in a training step."""


@dataclass(frozen=True)
class Examples:
    """Training images before and after the move, n of them, on the CPU.

    Attributes:
        ids: in the training split (n,).
        labels, predicted, moved_to: true class, and class predicted before and after the move (n,).
        margin_before, margin_after: true class's logit minus the largest other (n,).
        images: (n, C, H, W) in [0, 1].
        moved: the moved images (n, C, H, W) in [0, 1]; None where a hidden layer is moved.
        neighbours: ids of the training images nearest to the moved representation (n, neighbours),
            nearest first, the image itself among them where it is near; None where pixels are
            moved.
        neighbour_labels: their classes (n, neighbours).
        distances: L2, from the moved representation to the neighbours' (n, neighbours), in units of
            the root mean square of the layer's values; None where pixels are moved.
        distance: the same to the image's own representation, how far it was moved (n,).
    """

    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    moved_to: np.ndarray
    margin_before: np.ndarray
    margin_after: np.ndarray
    images: np.ndarray
    moved: np.ndarray | None
    neighbours: np.ndarray | None
    neighbour_labels: np.ndarray | None
    distances: np.ndarray | None
    distance: np.ndarray | None


def examples_of(
    recipe: Recipe, model: Classifier, train: data.Split, count: int = 8, neighbours: int = 3
) -> Examples | None:
    """What the recipe's augmentation does, at its full epsilon, to some training images.

    None for a recipe without, and where the option `only` lets no example through.

    Args:
        recipe: of the network.
        model: trained by the recipe, on any device; it is used in evaluation mode, and keeps its
            mode.
        train: the whole training split. Examples and neighbours are of the first 1024 images or
            fewer, balanced over the classes, that were trained on.
        count: examples at most: fewer where the option `only` lets fewer through.
        neighbours: nearest training images that are listed for each, where a hidden layer is moved.
    """
    settings = recipe.adversarial_augmentation
    if not settings.active:
        return None
    if recipe.train_examples is not None:
        train = data.subset(train, data.choose(train, recipe.train_examples))
    train, _ = data.divide(train, recipe.validation)
    device = next(model.parameters()).device
    k = stage(settings, model)
    with evaluating(model), torch.no_grad():
        first, _ = data.take(train, train.ids[:1], device=device)
        widest = max(first.numel(), model.head(first, k).numel())
    ids = data.choose(train, min(AMONG, max(MOVED, NUMBERS // widest), len(train)))
    images, labels = data.take(train, ids, device=device)
    size = batch_size(images[0].numel(), device)
    with evaluating(model):
        points = in_batches(
            lambda x: model.head(x, k), images, size
        ).clone()  # no tensor of inference mode has gradients
        classify = tail(model, k)
        tried = _spread(labels, torch.ones_like(labels, dtype=torch.bool), min(MOVED, recipe.batch_size))
        unit = points.square().mean().sqrt()
        moves = moved(
            settings.model_copy(update={"probability": 1.0, "relative": False}),
            model,
            classify,
            points[tried],
            labels[tried],
            radius=settings.epsilon * (float(unit) if settings.relative else 1.0),
            random=random_numbers(recipe.seed, 0, "examples of adversarial augmentation"),
            clip=k == 0,
        )
        chosen = _spread(labels[tried], moves.kept, count)
        if not len(chosen):
            return None
        rows = tried[chosen]
        there = points[rows] + moves.delta[chosen]
        if k == 0:
            there = there.clamp(0, 1)
        before, after = (in_batches(classify, x, size) for x in (points[rows], there))
    near = distances = distance = None
    if k:
        apart = torch.cdist(there.flatten(1), points.flatten(1), compute_mode="donot_use_mm_for_euclid_dist") / unit
        near = apart.argsort(dim=1, stable=True)[:, :neighbours]
        distances, distance = apart.gather(1, near), apart.gather(1, rows[:, None]).flatten()
    label = labels[rows]
    return Examples(
        ids=ids[_array(rows)],
        labels=_array(label),
        predicted=_array(before.argmax(1)),
        moved_to=_array(after.argmax(1)),
        margin_before=_array(-margin(before, label)),
        margin_after=_array(-margin(after, label)),
        images=_array(images[rows]),
        moved=None if k else _array(there),
        neighbours=None if near is None else ids[_array(near)],
        neighbour_labels=None if near is None else _array(labels[near]),
        distances=None if distances is None else _array(distances),
        distance=None if distance is None else _array(distance),
    )


def _spread(labels: Tensor, kept: Tensor, count: int) -> Tensor:
    """Rows of `count` examples that are kept, taken in turn from each class."""
    rows = kept.nonzero().flatten()
    of_class = torch.zeros_like(rows)
    for label in labels[rows].unique():
        mine = labels[rows] == label
        of_class[mine] = torch.arange(int(mine.sum()), device=rows.device)
    order = torch.argsort(of_class * (int(labels.max()) + 1) + labels[rows])
    return rows[order[:count]]


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
