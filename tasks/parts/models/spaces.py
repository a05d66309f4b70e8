"""The spaces in which an input can be searched or moved: pixels, an autoencoder's latent space, a classifier's hidden layers.

A space turns images into points and gives points their logits, so that whatever works on images and a classifier works on `encode(images)`
and `classify` as well. Points of a latent or hidden space are divided by `unit`, the root mean square of the numbers that the space
has at training images: a radius of 0.1 is a tenth of what is typical there, in every layer of every network.
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
    """Whatever turns images (B, C, H, W) in [0, 1] into codes (B, ...) and codes into images.

    It may have an attribute `magnitude`, the root mean square of its codes of training images.
    """

    def encode(self, images: Tensor, /) -> Tensor: ...

    def decode(self, latent: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Space:
    """A space of points, each of which a classifier gives logits.

    Attributes:
        name: as a user writes it: `pixel`, `latent`, `hidden:3`.
        encode: images (B, C, H, W) in [0, 1] to points (B, ...).
        decode: points (B, ...) to images (B, C, H, W) in [0, 1]; None for a hidden space, whose points need be no image's.
        classify: points (B, ...) to logits (B, K), with gradients to the points.
        box: between which numbers all those of a point may lie.
        unit: what a 1 of a point is in the numbers of the network or autoencoder itself; 1 for pixels.
        residual: points (B, ...) to how far each is off the manifold of images (B,), see `off_manifold`; NaN where no autoencoder is
            known.
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
        autoencoder: against which the residual of a point is taken.
    """

    def residual(images: Tensor) -> Tensor:
        return _unknown(images) if autoencoder is None else off_manifold(autoencoder, images)

    return Space("pixel", _same, _same, model, (0.0, 1.0), 1.0, residual)


def hidden(model: Classifier, k: int | str) -> Space:
    """The values between two stages of a classifier, as the layers up to there make them of images.

    Args:
        model: with `magnitudes`, in evaluation mode.
        k: how many stages lie before, or the name of the last of them. At 0 there are the pixels.

    Raises:
        UserError: there is no such stage, the network has no hidden spaces, or their magnitudes are not known.
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
    """The codes of an autoencoder: a point is classified as the image it is decoded to, so a search there stays on its manifold.

    Args:
        model: [0, 1] images (B, C, H, W) to logits (B, K).
        autoencoder: whose images are clamped to [0, 1].
        unit: the root mean square of its codes of training images (`magnitude(autoencoder.encode, images)`); its attribute
            `magnitude` where None.

    Raises:
        UserError: no unit is given and the autoencoder has none, or it is not positive.
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
    """How far images (B, C, H, W) are from their own reconstructions, L2, pixel units: (B,).

    Of a linear autoencoder that is the distance from the plane of its principal components (as far as that lies in [0, 1]).
    """
    with torch.no_grad():
        again = autoencoder.decode(autoencoder.encode(images)).clamp(0, 1)
        return (images - again).flatten(1).norm(dim=1)


def parse(text: str) -> tuple[Kind, int | str | None]:
    """What a user's `space` says: its kind and, for a hidden space, its stage.

    Raises:
        UserError: none of the three; whether the stage exists is seen by `hidden`.

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
        autoencoder: for the latent space; in pixels, for the residual.

    Raises:
        UserError: as for `parse`, `hidden` and `latent`; or the latent space of no autoencoder.
    """
    kind, stage = parse(text)
    if kind == "hidden":
        return hidden(model, 0 if stage is None else stage)
    if kind == "pixel":
        return pixels(model, autoencoder)
    if autoencoder is None:
        raise UserError(
            "there is no autoencoder whose latent space could be searched; take pixel or hidden:<k>", "space"
        )
    return latent(model, autoencoder)


def magnitudes(model: Classifier, images: Tensor, *, batch: int | None = None) -> tuple[float, ...]:
    """The root mean square of the numbers in hidden space k = 1, 2, ..., to the logits, over images (N, C, H, W).

    Returns:
        One number a stage, for `Classifier.magnitudes`; empty for a network without hidden spaces.

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
    """The root mean square of all numbers of `encode(images)`, for images (N, C, H, W), N > 0.

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
        raise UserError(f"{where} cannot be searched: the typical size of its numbers is {unit}", "space")
    return unit


def _same(x: Tensor) -> Tensor:
    return x


def _unknown(points: Tensor) -> Tensor:
    return points.new_full((len(points),), torch.nan)
