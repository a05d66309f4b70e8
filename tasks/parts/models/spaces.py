"""The spaces in which an input can be moved: pixels, an autoencoder's codes, hidden layers.

A space turns images into points and points into logits. So whatever works on images and a
classifier also works on `encode(images)` and `classify`. Points of a latent or hidden space are in
units of `unit`, the root mean square of the space's numbers for training images. A radius of 0.1 is
then a tenth of what is typical there, in every layer of every network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from tasks.parts.batching import batch_size
from tasks.parts.messages import closest
from tasks.parts.models.classifier import Classifier, hidden_stage
from tasks.parts.settings import UserError

Kind = Literal["pixel", "latent", "hidden"]

ALLOWED = "pixel, latent or hidden:<k> with k the number or the name of a stage"


class Autoencoder(Protocol):
    """An encoder and a decoder.

    It may have an attribute `magnitude`, the root mean square of its codes of training images.
    """

    def encode(self, images: Tensor, /) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to codes (B, ...)."""

    def decode(self, latent: Tensor, /) -> Tensor:
        """Codes (B, ...) to images (B, C, H, W)."""


@dataclass(frozen=True)
class Space:
    """A space of points that a classifier gives logits.

    Attributes:
        name: as a user writes it: `pixel`, `latent`, `hidden:3`.
        encode: images (B, C, H, W) in [0, 1] to points (B, ...).
        decode: points (B, ...) to images (B, C, H, W) in [0, 1]. None for a hidden space, where a
            point need not belong to any image.
        classify: points (B, ...) to logits (B, K), with gradients to the points.
        box: the lowest and the highest value that a coordinate of a point may have.
        unit: the factor from a point's coordinates to the numbers of the network or autoencoder; 1
            for pixels.
        residual: points (B, ...) to their distances from the manifold of images (B,), see
            `off_manifold`; NaN without an autoencoder.
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor] | None
    classify: Callable[[Tensor], Tensor]
    box: tuple[float, float]
    unit: float
    residual: Callable[[Tensor], Tensor]


def pixels(model: Callable[[Tensor], Tensor], autoencoder: Autoencoder | None = None) -> Space:
    """The images themselves.

    Args:
        model: [0, 1] images (B, C, H, W) to logits (B, K).
        autoencoder: gives the residuals.
    """

    def residual(images: Tensor) -> Tensor:
        return _unknown(images) if autoencoder is None else off_manifold(autoencoder, images)

    return Space("pixel", _same, _same, model, (0.0, 1.0), 1.0, residual)


def hidden(model: Classifier, k: int | str) -> Space:
    """The values between two stages of a classifier.

    Args:
        model: in evaluation mode, with `magnitudes`.
        k: how many stages come before, or the name of the last of them. Space 0 is that of pixels.

    Raises:
        UserError: there is no such stage, the network has no hidden spaces, or its magnitudes are
            unknown.
    """
    try:
        number = hidden_stage(model, k)
    except UserError as error:
        raise UserError(error.message, "space") from error
    if number == 0:
        return pixels(model)
    unit = _hidden_unit(model, number, k)

    def encode(images: Tensor) -> Tensor:
        return model.head(images, number) / unit

    def classify(points: Tensor) -> Tensor:
        return model.tail(points * unit, number)

    return Space(f"hidden:{k}", encode, None, classify, (-math.inf, math.inf), unit, _unknown)


def latent(model: Callable[[Tensor], Tensor], autoencoder: Autoencoder, *, unit: float | None = None) -> Space:
    """The codes of an autoencoder.

    A point is classified as the image it is decoded to, so that all points lie on the
    autoencoder's manifold.

    Args:
        model: [0, 1] images (B, C, H, W) to logits (B, K).
        autoencoder: its images are clamped to [0, 1].
        unit: the root mean square of the codes of training images, as from
            `magnitude(autoencoder.encode, images)`. None for the autoencoder's own `magnitude`.

    Raises:
        UserError: no unit is given and the autoencoder has none, or the unit is not positive.
    """
    size = getattr(autoencoder, "magnitude", None) if unit is None else unit
    if size is None:
        raise UserError(
            "the typical size of the latent space is unknown: give the autoencoder an attribute magnitude, or unit=, as "
            "spaces.magnitude(autoencoder.encode, training images) measures it",
            "space",
        )
    size = _positive(float(size), "the latent space")

    def encode(images: Tensor) -> Tensor:
        return autoencoder.encode(images) / size

    def decode(points: Tensor) -> Tensor:
        return autoencoder.decode(points * size).clamp(0, 1)

    def classify(points: Tensor) -> Tensor:
        return model(decode(points))

    def residual(points: Tensor) -> Tensor:
        with torch.no_grad():
            images = decode(points)
        return off_manifold(autoencoder, images)

    return Space("latent", encode, decode, classify, (-math.inf, math.inf), size, residual)


def off_manifold(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """The L2 distance of images (B, C, H, W) from their reconstructions, in pixel units: (B,).

    For a linear autoencoder it is the distance from the plane of the principal components, as far
    as the plane lies in [0, 1].
    """
    with torch.no_grad():
        again = autoencoder.decode(autoencoder.encode(images)).clamp(0, 1)
        return (images - again).flatten(1).norm(dim=1)


def parse(text: str) -> tuple[Kind, int | str | None]:
    """The kind of space that a user's `space` names and, for a hidden space, its stage.

    Raises:
        UserError: it names no space. Whether a hidden stage exists is for `hidden` to find out.

    >>> parse("pixel"), parse("hidden:3"), parse("hidden:layer2.0")
    (('pixel', None), ('hidden', 3), ('hidden', 'layer2.0'))
    >>> parse("hiden:3")
    Traceback (most recent call last):
    tasks.parts.settings.UserError: space: unknown space 'hiden:3'; pixel, latent or hidden:<k> ...
    """
    kind, colon, stage = str(text).strip().partition(":")
    stage = stage.strip()
    if kind == "pixel" and not colon:
        return "pixel", None
    if kind == "latent" and not colon:
        return "latent", None
    if kind == "hidden":
        if not stage:
            raise UserError(f"'{text}' names no stage; {ALLOWED}: hidden:1, hidden:layer2.0", "space")
        return "hidden", int(stage) if stage.isdecimal() else stage
    near = closest(kind, ["pixel", "latent", "hidden"])
    meant = f"hidden:{stage or '<k>'}" if near == "hidden" else near
    raise UserError(f"unknown space '{text}'; {ALLOWED}" + (f"; did you mean {meant}?" if meant else ""), "space")


def of(text: str, model: Classifier, autoencoder: Autoencoder | None = None) -> Space:
    """The space that a user's `space` names.

    Args:
        text: as for `parse`.
        model: the classifier.
        autoencoder: needed for the latent space; for pixels it gives the residuals.

    Raises:
        UserError: as for `parse`, `hidden` and `latent`; or there is no autoencoder for the latent
            space.
    """
    kind, stage = parse(text)
    if kind == "hidden":
        return hidden(model, 0 if stage is None else stage)
    if kind == "pixel":
        return pixels(model, autoencoder)
    if autoencoder is None:
        raise UserError("there is no autoencoder with a latent space; take pixel or hidden:<k>", "space")
    return latent(model, autoencoder)


def magnitudes(model: Classifier, images: Tensor, *, batch: int | None = None) -> tuple[float, ...]:
    """The root mean square of the numbers in each hidden space, for `Classifier.magnitudes`.

    Args:
        model: the classifier, in evaluation mode.
        images: (N, C, H, W) in [0, 1].
        batch: images a batch; None for as many as suit the device.

    Returns:
        One number for each hidden space k = 1, 2, ... up to the logits; none for a network without
        hidden spaces.

    Raises:
        ValueError: there are no images.
    """
    try:
        stages = model.stages
    except UserError:
        return ()
    if not len(images):
        raise ValueError("no images to measure the magnitudes of hidden spaces with")
    batch = batch_size(images[0].numel(), images.device) if batch is None else batch
    squares, counts = [0.0] * len(stages), [0] * len(stages)
    with torch.inference_mode():
        for some in images.split(batch):
            for k, value in enumerate(model.hidden_values(some)):
                squares[k] += float(value.double().square().sum())
                counts[k] += value.numel()
    return tuple(math.sqrt(square / count) for square, count in zip(squares, counts, strict=True))


def magnitude(encode: Callable[[Tensor], Tensor], images: Tensor, *, batch: int | None = None) -> float:
    """The root mean square of all numbers of `encode(images)`.

    Args:
        encode: images (B, C, H, W) to points (B, ...).
        images: (N, C, H, W) with N > 0.
        batch: images a batch; None for as many as suit the device.

    >>> magnitude(lambda images: 2 * images, torch.ones(3, 1, 4, 4))
    2.0
    """
    batch = batch_size(images[0].numel(), images.device) if batch is None else batch
    with torch.inference_mode():
        values = [encode(some).double().square() for some in images.split(batch)]
    return math.sqrt(sum(float(v.sum()) for v in values) / sum(v.numel() for v in values))


def _hidden_unit(model: Classifier, number: int, k: int | str) -> float:
    known, stages = model.magnitudes, len(model.stages)
    if len(known) != stages:
        has = f"has {len(known)} magnitudes for {stages} stages" if known else "has no magnitudes"
        raise UserError(
            f"the typical size of hidden:{k} is unknown, the network {has}; set "
            "model.magnitudes = spaces.magnitudes(model, training images)",
            "space",
        )
    return _positive(known[number - 1], f"hidden:{k}")


def _positive(unit: float, where: str) -> float:
    if not 0 < unit < math.inf:
        raise UserError(f"{where} has no unit: the typical size of its numbers is {unit}", "space")
    return unit


def _same(x: Tensor) -> Tensor:
    return x


def _unknown(points: Tensor) -> Tensor:
    return points.new_full((len(points),), torch.nan)
