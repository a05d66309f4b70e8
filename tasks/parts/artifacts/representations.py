"""A bank of hidden representations: what a classifier makes of the images of a split, at one stage.

It is made once, in parts, and shared by autoencoders, nearest neighbours and statistics. The
workers read a large bank memory-mapped, so that it is in memory once a node, however many read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tasks.parts.artifacts import classifier
from tasks.parts.artifacts.common.kind import Given, Saved
from tasks.parts.batching import Batch, batch_size, in_batches
from tasks.parts.data import splits
from tasks.parts.finite import NotFinite, all_finite
from tasks.parts.models.classifier import Classifier, hidden_stage
from tasks.parts.settings import Settings, Stage, UserError
from tasks.parts.training.recipes import Recipe

PER_EXAMPLE = True
VERSION = 1
"""Raised by hand when its numbers change on purpose."""
DOING = "representing"


class Request(Settings):
    """The representations of the images that a recipe trains on, or of a whole test split."""

    recipe: Recipe
    stage: Stage = Field(
        default=0, description="stage whose values are kept, its number or name; 0: the pixels, of no network"
    )
    split: Literal["train", "test"] = Field(
        default="train", description="train: the recipe's training images; test: all test images"
    )
    pooled: bool = Field(
        default=False, description="keep the mean over all positions of a representation of channels and positions"
    )
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="of the numbers kept; float16 takes half the room, at 3 decimal digits"
    )


@dataclass(frozen=True)
class Representations:
    """A bank, as `measure` and makers receive it. Its arrays are shared: read, never written.

    Attributes:
        values: (N, ...), float32 or float16, memory-mapped where the bank is large.
        labels: true classes, (N,) int64.
        ids: of the examples in their split, (N,), increasing.
    """

    values: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one representation."""
        return self.values.shape[1:]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray | slice, device: str | torch.device = "cpu") -> Tensor:
        """Some of the representations, (B, ...) float32, as a copy on a device.

        Args:
            rows: which, as NumPy indexes: 0 .. N - 1.
            device: where they are wanted.
        """
        return torch.tensor(self.values[rows]).to(device, torch.float32)

    def rows_of(self, ids: Sequence[int]) -> Tensor:
        """The row of each of B examples of the bank's split, (B,) int64; -1 of those not in it."""
        rows = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return torch.from_numpy(np.where(self.ids[rows] == np.asarray(ids), rows, -1))


def needs(request: Request) -> dict[str, Settings]:
    """The classifier; none for the pixels, which are the same for every network."""
    return {} if request.stage == 0 else {"classifier": classifier.Request(recipe=request.recipe)}


def identity(request: Request, root: str | None) -> dict[str, object]:
    """The stage by its number. Of the pixels: which images they are of."""
    recipe = request.recipe
    stage = stage_number(recipe, request.stage, root)
    found: dict[str, object] = {
        "stage": stage,
        "split": request.split,
        "pooled": request.pooled,
        "dtype": request.dtype,
    }
    return found if stage else found | {"images": classifier.images_identity(recipe, root)}


def check(request: Request, root: str | None) -> None:
    """Refuses a stage that the network lacks, and pooling where there are no positions.

    Raises:
        UserError: one of these, with its field.
    """
    stage = stage_number(request.recipe, request.stage, root)
    shape = shape_of(request.recipe, stage, root)
    if request.pooled and len(shape) < 2:
        raise UserError(f"a representation of {shape[0]} numbers has no positions to pool over", "pooled")


def cost(request: Request) -> Mapping[str, int]:
    """Of one example."""
    return {"representations": 1}


def split(request: Request, root: str | None) -> splits.Split:
    """The split that the recipe's classes and image size leave."""
    return classifier.split_of(request.recipe, request.split, root)


def examples(request: Request, ids: Sequence[int], root: str | None) -> Sequence[int]:
    """All that the recipe trains on, or all of the test split, whatever a trial measures."""
    return [int(i) for i in chosen(request, root).ids]


def chosen(request: Request, root: str | None) -> splits.Split:
    """The images of a bank as a split of their own."""
    whole, count = split(request, root), request.recipe.train_examples
    if request.split == "test" or count is None:
        return whole
    return splits.subset(whole, splits.choose(whole, count, field="recipe.train_examples"))


def make(request: Request, given: Given, batch: Batch) -> dict[str, Tensor]:
    """The representations of a batch, and the labels."""
    size = batch_size(batch.images[0].numel(), batch.images.device)
    model: Classifier | None = given.get("classifier")

    def represented(images: Tensor) -> Tensor:
        values = images if model is None else model.head(images, request.stage)
        return values.flatten(2).mean(2) if request.pooled else values

    values = in_batches(represented, batch.images, size)
    if request.dtype == "float16":
        values = values.half()
        if not all_finite([values]):
            raise NotFinite("a representation is too large for float16; take dtype: float32")
    return {"value": values, "label": batch.labels}


def load(request: Request, saved: Saved, device: str) -> Representations:
    """The bank, on the CPU whatever the device: it may be larger than the device's memory."""
    assert saved.ids is not None
    return Representations(saved.arrays["value"], saved.arrays["label"], saved.ids)


def stage_number(recipe: Recipe, stage: Stage, root: str | None) -> int:
    """The number of a stage of the recipe's network, 0 for the pixels.

    Raises:
        UserError: the network has no such stage; the message names those that it has.
    """
    if stage == 0:
        return 0
    try:
        return hidden_stage(classifier.before_training(recipe, root), stage)
    except UserError as error:
        raise UserError(error.message, "stage") from None


def shape_of(recipe: Recipe, stage: int, root: str | None) -> tuple[int, ...]:
    """The shape of one representation at a stage, known before the network is trained."""
    model = classifier.before_training(recipe, root)
    with torch.inference_mode():
        return tuple(model.head(torch.zeros(1, *model.shape), stage).shape[1:])
