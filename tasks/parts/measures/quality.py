"""How good an autoencoder's reconstructions are, example by example.

The error of a reconstruction means little on its own. Here it is a share of what is typical: of the
norm of a representation, of how much representations vary, of the distance to the nearest other
one. And it is what the error does to the classifier behind it: recovered loss, accuracy and
agreement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks.parts.autoencoders.common.autoencoder import Autoencoder


class Errors(NamedTuple):
    """Of the reconstructions of B representations h, (B,) float64 each.

    Attributes:
        distance: L2 norm of reconstruction - h.
        over_magnitude: `distance` over the typical norm of a training representation.
        over_variation: squared distance over the mean squared distance of training representations
            from their mean. 1 minus its mean over examples is the explained variance.
    """

    distance: Tensor
    over_magnitude: Tensor
    over_variation: Tensor


class Behind(NamedTuple):
    """What a classifier makes of B representations and of their reconstructions, (B,) each.

    Attributes:
        loss: cross-entropy (nats) of the true class, behind the representation.
        loss_reconstructed: behind its reconstruction.
        loss_mean: behind the mean of the training representations, the same for all.
        predicted: class predicted behind the representation.
        predicted_reconstructed: behind its reconstruction.
    """

    loss: Tensor
    loss_reconstructed: Tensor
    loss_mean: Tensor
    predicted: Tensor
    predicted_reconstructed: Tensor


def errors(autoencoder: Autoencoder, h: Tensor, reconstructed: Tensor) -> Errors:
    """The errors of reconstructions.

    Args:
        autoencoder: which made them.
        h: representations (B, *shape).
        reconstructed: (B, *shape).
    """
    squared = (reconstructed.double() - h.double()).square().flatten(1).sum(1)
    distance = squared.sqrt()
    return Errors(distance, distance / autoencoder.typical_norm.double(), squared / autoencoder.variance.double().sum())


def behind(
    tail: Callable[[Tensor], Tensor], autoencoder: Autoencoder, h: Tensor, reconstructed: Tensor, labels: Tensor
) -> Behind:
    """What the classifier makes of representations and of their reconstructions.

    Args:
        tail: from representations (B, *shape) to logits (B, K), each row on its own.
        autoencoder: of whose training representations the mean is taken.
        h: representations (B, *shape).
        reconstructed: (B, *shape).
        labels: true classes (B,).
    """
    with torch.no_grad():
        logits, after = tail(h).double(), tail(reconstructed).double()
        mean = tail(autoencoder.center).double().expand(len(labels), -1)
    return Behind(
        cross_entropy(logits, labels, reduction="none"),
        cross_entropy(after, labels, reduction="none"),
        cross_entropy(mean, labels, reduction="none"),
        logits.argmax(1),
        after.argmax(1),
    )


def recovered_loss(loss: float, loss_reconstructed: float, loss_mean: float) -> float:
    """Mean losses as the share that the reconstruction keeps of what the representation knows.

    1 where the reconstruction is as good as the representation, 0 where it is no better than the
    mean representation (Bricken et al. 2023); above 1 or below 0 where it is better or worse than
    these. NaN where the classifier is no better behind the representation than behind the mean.

    >>> recovered_loss(0.1, 0.3, 2.1)
    0.9
    """
    lost = loss_mean - loss
    return (loss_mean - loss_reconstructed) / lost if lost > 0 else float("nan")
