"""An autoencoder of the representations of a classifier, at one stage.

At stage 0 it is one of the images, and knows of no classifier unless the logits count. It is
trained on the training images of the classifier's recipe; a share of them is held out for its
validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from tasks.parts.artifacts import classifier, representations
from tasks.parts.artifacts.common.kind import Attachment, Given, Product, Progress, Saved
from tasks.parts.artifacts.common.pictures import Word, difference, pictures, scale
from tasks.parts.artifacts.representations import Representations
from tasks.parts.autoencoders.common import build, training
from tasks.parts.autoencoders.common.autoencoder import Autoencoder
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.data.splits import gather
from tasks.parts.finite import NotFinite, all_finite
from tasks.parts.measures.neighbors import nearest
from tasks.parts.randomness import generator
from tasks.parts.settings import Settings, UserError, below
from tasks.parts.training.recipes import Recipe

PER_EXAMPLE = False
VERSION = 1
"""Raised by hand when its numbers change on purpose."""
DOING = "training an autoencoder"

SHOWN = 8
"""Images that are shown beside their reconstructions."""


class Request(Settings):
    """The autoencoder that a recipe makes for a classifier."""

    recipe: Recipe
    autoencoder: AutoencoderRecipe = AutoencoderRecipe()

    @property
    def seed(self) -> int:
        """Of initial weights, order and noise."""
        return self.recipe.seed if self.autoencoder.seed is None else self.autoencoder.seed

    @property
    def bank(self) -> representations.Request:
        """The representations that it is trained on."""
        how = self.autoencoder
        return representations.Request(recipe=self.recipe, stage=how.stage, pooled=how.pooled, dtype=how.dtype)


class Facts(BaseModel):
    """What is kept of an autoencoder beside its weights.

    Attributes:
        shape: of a representation.
        training: numbers of the kind over the training representations, such as the perplexity of a
            codebook.
        explained_variance_by_channel: over the representations that were held out.
    """

    shape: tuple[int, ...]
    training: dict[str, float]
    explained_variance_by_channel: list[float]


def needs(request: Request) -> dict[str, Settings]:
    """The bank; and the classifier, where the logits count."""
    found: dict[str, Settings] = {"representations": request.bank}
    return found | ({"classifier": classifier.Request(recipe=request.recipe)} if _tailed(request) else {})


def identity(request: Request, root: str | None) -> dict[str, object]:
    """How it is made, and the seed; the representations have an identity of their own."""
    return {**build.identity(request.autoencoder), "seed": request.seed}


def check(request: Request, root: str | None) -> None:
    """Refuses a kind, an option or a stage that there is not, and a bottleneck that does not fit.

    Raises:
        UserError: one of these, with its field.
    """
    how = request.autoencoder
    with below("autoencoder"):
        build.options_of(how)
        representations.check(request.bank, root)
        if how.pooled and how.logits_weight:
            said = "a pooled representation has no logits behind it; set pooled: false, or this to 0"
            raise UserError(said, "logits_weight")
        build.fits(how, shape(request, root))


def cost(request: Request) -> Mapping[str, int]:
    """One, and the epochs that it is trained for."""
    return {"autoencoders to train": 1, "epochs": request.autoencoder.epochs}


def shape(request: Request, root: str | None) -> tuple[int, ...]:
    """Of one of the representations."""
    stage = representations.stage_number(request.recipe, request.autoencoder.stage, root)
    whole = representations.shape_of(request.recipe, stage, root)
    return whole[:1] if request.autoencoder.pooled else whole


def make(request: Request, given: Given, root: str | None, device: str) -> Iterator[Progress | Product]:
    """Trains it, epoch by epoch."""
    how, bank = request.autoencoder, given["representations"]
    autoencoder = build.build(how, bank.shape, request.seed)
    rows, held_out = divided(len(bank), how.validation, request.seed)
    tail = partial(given["classifier"].tail, k=how.stage) if _tailed(request) else None
    for epoch in training.epochs(how, autoencoder, bank, rows, held_out, seed=request.seed, tail=tail, device=device):
        yield Progress(int(epoch["epoch"]), how.epochs, epoch)
    weights = {name: value.cpu() for name, value in autoencoder.state_dict().items()}
    if not all_finite(list(weights.values())):
        raise NotFinite("the weights of the autoencoder are not finite any more; take a smaller learning rate")
    judged = held_out if len(held_out) else rows
    facts = Facts(
        shape=bank.shape,
        training=training.facts(autoencoder, bank, rows, device),
        explained_variance_by_channel=training.explained_by_channel(autoencoder, bank, judged, device),
    )
    shown = judged[np.linspace(0, len(judged) - 1, min(SHOWN, len(judged))).astype(int)]
    if representations.stage_number(request.recipe, how.stage, root):
        name, picture = "nearest_images", _nearest_images(request, autoencoder, bank, shown, root, device)
    else:
        name, picture = "reconstructions", _reconstructions(autoencoder, bank, shown, device)
    yield Product({name: value.numpy() for name, value in weights.items()}, facts.model_dump(), {name: picture})


def load(request: Request, saved: Saved, device: str) -> Autoencoder:
    """The autoencoder in evaluation mode, without gradients of its parameters."""
    autoencoder = build.build(request.autoencoder, Facts.model_validate(saved.facts).shape)
    autoencoder.load_state_dict({name: torch.tensor(value) for name, value in saved.arrays.items()})
    return autoencoder.to(device).eval().requires_grad_(False)


def divided(count: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a bank to train on, and a share that is held out, both in increasing order.

    Args:
        count: rows that there are.
        share: held out, rounded down; one at least stays to train on.
        seed: decides which.

    >>> [len(rows) for rows in divided(100, 0.1, seed=0)]
    [90, 10]
    """
    order = generator(seed, "representations held out").permutation(count)
    held_out = min(int(share * count), count - 1)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _tailed(request: Request) -> bool:
    return request.autoencoder.logits_weight > 0


def _reconstructions(
    autoencoder: Autoencoder, bank: Representations, rows: NDArray[np.int64], device: str
) -> Attachment:
    """Images of the bank above their reconstructions, and the differences."""
    images = bank.take(rows, device)
    with torch.no_grad():
        again = autoencoder(images).clamp(0, 1)
    apart, largest = difference(again, images)
    caption = f"Training images that were held out, and their reconstructions. {scale(largest)}"
    shown = {"image": images, "reconstruction": again, "difference": apart}
    return pictures(shown, _columns(bank, rows), caption=caption, classes=["true class"])


def _nearest_images(
    request: Request,
    autoencoder: Autoencoder,
    bank: Representations,
    rows: NDArray[np.int64],
    root: str | None,
    device: str,
) -> Attachment:
    """Images above those that are nearest to them, and to their reconstructions, at the stage."""
    images = representations.chosen(request.bank, root)
    h = bank.take(rows, device)
    with torch.no_grad():
        again = autoencoder(h)
    own = torch.from_numpy(rows)
    of_this, of_again = (nearest(queries, bank, 1, own=own) for queries in (h, again))
    columns = _columns(bank, rows)
    for column, before, after in zip(columns, of_this.distances[:, 0], of_again.distances[:, 0], strict=True):
        norm = float(autoencoder.typical_norm)
        column |= {"distance to nearest": float(before) / norm, "of reconstruction": float(after) / norm}
    shown = {
        "image": gather(images, rows),
        "nearest": gather(images, of_this.rows[:, 0]),
        "nearest to reconstruction": gather(images, of_again.rows[:, 0]),
    }
    caption = (
        f"Training images that were held out, the other training images whose representations at stage "
        f"{request.autoencoder.stage} are nearest to theirs, and those nearest to the reconstruction of theirs. "
        "Distances are shares of the typical norm of a representation."
    )
    return pictures(shown, columns, caption=caption, classes=["true class"])


def _columns(bank: Representations, rows: NDArray[np.int64]) -> list[dict[str, Word]]:
    return [{"example": int(bank.ids[row]), "true class": int(bank.labels[row])} for row in rows]
