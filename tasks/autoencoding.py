"""How good is an autoencoder of a classifier's representations?

Each image's representation is encoded and decoded. The error is compared with the size of
representations, with how much they vary over the data set and with the distance to the nearest
training example; and the classifier goes on from the reconstruction: its loss, its class.

Rows: one for each example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from tasks.parts.artifacts import autoencoder, classifier, representations
from tasks.parts.artifacts.autoencoder import Request
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.batching import in_batches
from tasks.parts.columns import EXAMPLE
from tasks.parts.contract import Batch, Needs, TaskConfig
from tasks.parts.measures import quality
from tasks.parts.measures.neighbors import nearest
from tasks.parts.rows import example_columns, means, spread

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

COLUMNS = {
    **EXAMPLE,
    "error_over_magnitude": "error (share of the typical norm of a representation)",
    "error_over_variation": "squared error (share of the mean squared distance from the mean representation)",
    "error_over_neighbor": "error (share of the distance to the nearest training representation)",
    "neighbor": "distance to the nearest training representation (share of the typical norm)",
    "loss": "cross-entropy behind the representation (nats)",
    "loss_reconstructed": "cross-entropy behind the reconstruction (nats)",
    "loss_mean": "cross-entropy behind the mean training representation (nats)",
    "correct_reconstructed": "reconstruction is classified correctly",
    "agrees": "reconstruction is given the class of the representation",
    "active_features": "active features of the code",
    "rate": "rate: divergence of the code's distribution from the prior (nats)",
    "distortion": "distortion: negative log-likelihood of the representation given its code (nats)",
}
SHARES = (
    *("correct", "correct_reconstructed", "agrees"),
    *("accuracy", "accuracy_reconstructed", "agreement"),
)
"""Row columns and scalars that lie between 0 and 1."""
BEHIND = ("loss_reconstructed", "loss_mean", "correct_reconstructed", "agrees")
SUBJECT = "autoencoder"
DETAILS = ("active_features", "rate", "distortion")
MAY_BE_MISSING = frozenset({"error_over_neighbor", "neighbor", *BEHIND, *DETAILS})
"""What was not asked for, what only other kinds have, and all behind a pooled representation."""


class Config(TaskConfig):
    """Settings of `autoencoding`."""

    autoencoder: AutoencoderRecipe = Field(default=AutoencoderRecipe(), description="how the autoencoder is made")
    neighbor: bool = Field(
        default=True, description="also compare with the distance to the nearest training representation"
    )

    @property
    def request(self) -> Request:
        """The autoencoder that is judged."""
        return Request(recipe=self.recipe, autoencoder=self.autoencoder)


def needs(config: Config) -> Needs:
    """The classifier, the autoencoder, and where neighbours are asked for, the representations."""
    found: dict[str, Any] = {"classifier": config.recipe, "autoencoder": config.request}
    return found | ({"representations": config.request.bank} if config.neighbor else {})


def check_settings(config: Config, root: str | None) -> None:
    """Refuses a stage that the network lacks, and an autoencoder that does not fit it.

    Raises:
        UserError: one of these, with its field.
    """
    classifier.check(classifier.Request(recipe=config.recipe), root)
    autoencoder.check(config.request, root)


def passes(config: Config) -> int:
    """Forward passes for one example: up to the stage, and on from there three times."""
    return 3


def measure(config: Config, given: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """One row for each example.

    Args:
        config: the settings.
        given: `classifier`, a `Classifier`; `autoencoder`, an `Autoencoder` of its representations;
            and where the nearest is asked for, `representations`, the bank.
        batch: the examples.

    Returns:
        Columns, NumPy arrays of one length, as `COLUMNS` names them.
    """
    how, model, coder = config.autoencoder, given["classifier"], given["autoencoder"]
    images, labels, size = batch.images, batch.labels, config.batch_for(batch.images)
    whole = in_batches(lambda x: model.head(x, how.stage), images, size)
    h = whole.flatten(2).mean(2) if how.pooled else whole
    again = in_batches(coder, h, size)
    error = quality.errors(coder, h, again)

    def tail(values: Tensor) -> Tensor:
        return in_batches(lambda some: model.tail(some, how.stage), values, size)

    columns: dict[str, Any] = {
        "error_over_magnitude": error.over_magnitude,
        "error_over_variation": error.over_variation,
    }
    if config.neighbor:
        bank: representations.Representations = given["representations"]
        own = bank.rows_of(batch.ids) if config.split == "train" else None
        distance = nearest(h, bank, 1, own=own).distances[:, 0]
        columns["error_over_neighbor"] = torch.where(distance > 0, error.distance / distance, torch.nan)
        columns["neighbor"] = distance / coder.typical_norm.double()
    if how.pooled:
        logits = tail(whole).double()
        columns["loss"] = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        columns["predicted"] = logits.argmax(1)
    else:
        found = quality.behind(tail, coder, h, again, labels)
        columns |= {name: getattr(found, name) for name in ("loss", "loss_reconstructed", "loss_mean", "predicted")}
        columns["correct_reconstructed"] = (found.predicted_reconstructed == labels).double()
        columns["agrees"] = (found.predicted_reconstructed == found.predicted).double()
    with torch.no_grad():
        columns |= coder.coder.details(coder.standardised(h), list(batch.ids), config.seed)
    known = example_columns(batch, columns.pop("predicted"))
    missing = np.full(len(labels), np.nan)
    of_this = {name: (columns.get(name, missing), "example") for name in COLUMNS if name not in known}
    return spread({"example": len(labels)}, {**known, **of_this})


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Means over the examples, and what they amount to.

    `explained_variance` is 1 minus the mean squared error over the mean squared distance of
    training representations from their mean. `recovered_loss` is 1 where the classifier's loss
    behind the reconstruction is that behind the representation, and 0 where it is that behind the
    mean one.
    """
    scalars = means(scores(config, rows))
    if rows["loss_mean"].notna().any():
        losses = (float(rows[name].mean()) for name in ("loss", "loss_reconstructed", "loss_mean"))
        scalars["recovered_loss"] = quality.recovered_loss(*losses)
    return scalars


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What the trial's scalars are the means of, by example; the recovered loss is none."""
    by_id = rows.set_index("id")
    found = {
        "explained_variance": 1 - by_id["error_over_variation"],
        "error_over_magnitude": by_id["error_over_magnitude"],
        "error_over_neighbor": by_id["error_over_neighbor"].dropna(),
        "accuracy": by_id["correct"],
        "accuracy_reconstructed": by_id["correct_reconstructed"],
        "agreement": by_id["agrees"],
        **{name: by_id[name] for name in DETAILS},
    }
    return {name: values for name, values in found.items() if values.notna().any()}


def checks(config: Config, rows: pd.DataFrame) -> dict[str, str | None]:
    """What must hold for the numbers to mean anything."""
    explained = 1 - rows["error_over_variation"].mean()
    told = f"it explains {explained:.1%} of the variance"
    return {"the autoencoder does better than the mean representation": told if explained <= 0 else None}
