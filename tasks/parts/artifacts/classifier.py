"""A trained classifier, by its recipe."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tasks.parts.artifacts.common.kind import Attachment, Given, Product, Progress, Saved
from tasks.parts.data.load import Split, choose, fingerprint, is_own_code, take
from tasks.parts.data.load import check as check_dataset
from tasks.parts.data.load import load as load_split
from tasks.parts.finite import NotFinite
from tasks.parts.models.build import NETWORKS, build
from tasks.parts.models.build import check as check_network
from tasks.parts.models.classifier import Classifier
from tasks.parts.models.spaces import magnitudes
from tasks.parts.own_code import explained
from tasks.parts.settings import Settings, UserError, below
from tasks.parts.training import adversarial_augmentation, augmentation_tiles, training
from tasks.parts.training.identity import of_recipe
from tasks.parts.training.recipes import Recipe
from tasks.parts.user_code import is_own

PER_EXAMPLE = False
VERSION = 1
DOING = "training"

EXAMPLES_FOR_MAGNITUDES = 512
"""Training images over which the typical magnitudes of hidden spaces are taken."""
SMALL = 10_000_000
"""Parameters up to which a network of ours is tried out with memory for them."""


class Request(Settings):
    """The network that a recipe makes."""

    recipe: Recipe
    weights: str = Field(
        default_factory=lambda given: _full_path(given["recipe"].weights),
        description="the recipe's, a file by its full path: each worker has another working folder",
    )


def _full_path(weights: str) -> str:
    return weights if weights in ("none", "DEFAULT") else str(Path(weights).expanduser().absolute())


class Facts(BaseModel):
    """What is kept of a classifier beside its weights.

    Attributes:
        shape: of an image, (C, H, W).
        classes: number of classes.
        magnitudes: typical magnitudes of the hidden spaces; none if the network has no such spaces.
        test: loss and accuracy on the test split.
    """

    shape: tuple[int, int, int]
    classes: int
    magnitudes: tuple[float, ...]
    test: dict[str, float]


def needs(request: Request) -> dict[str, Settings]:
    """The network from which the training starts, if it is finetuned."""
    base = request.recipe.finetune_from
    return {} if base is None else {"start": Request(recipe=base)}


def identity(request: Request, root: str | None) -> dict[str, object]:
    """What decides the network. What is switched off, such as an augmentation, does not count."""
    with below("recipe"):
        return of_recipe(request.recipe.effective(), root)


def cost(request: Request) -> Mapping[str, int]:
    """The work of its training."""
    return {"networks to train": 1, "epochs": request.recipe.epochs}


def check(request: Request, root: str | None) -> None:
    """Refuses data, weights or a network that do not exist, or do not fit each other."""
    with below("recipe"):
        _check(request.recipe, root)


def _check(recipe: Recipe, root: str | None) -> None:
    with explained("dataset", recipe.dataset, own_code=is_own_code(recipe.dataset)):
        check_dataset(recipe.dataset, root=root)
        split = split_of(recipe, "test", root)
        if recipe.train_examples is not None:
            choose(split_of(recipe, "train", root), recipe.train_examples, field="train_examples")
    with explained("weights", recipe.weights):
        check_network(recipe.network, weights=recipe.weights, options=recipe.network_options)
    weights = "none" if recipe.weights == "DEFAULT" else recipe.weights  # nothing is downloaded yet
    options = json.dumps(recipe.network_options)
    with explained("network", recipe.network, own_code=is_own(recipe.network)):
        _fit(recipe.network, options, weights, recipe.freeze_backbone, split.shape, len(split.classes))
    if recipe.adversarial_augmentation.space != "pixel":
        adversarial_augmentation.check(recipe, before_training(recipe, root))


def make(request: Request, given: Given, root: str | None, device: str) -> Iterator[Progress | Product]:
    """Trains the network; yields its numbers after every epoch."""
    with below("recipe"):
        yield from _made(request.recipe.model_copy(update={"weights": request.weights}), given, root, device)


def _made(recipe: Recipe, given: Given, root: str | None, device: str) -> Iterator[Progress | Product]:
    train = split_of(recipe, "train", root)
    start = given["start"].state_dict() if "start" in given else None
    model = training.untrained(recipe, train, start)
    for epoch in training.epochs(recipe, model, train, device):
        yield Progress(epoch["epoch"], recipe.epochs, cast(Mapping[str, float], dict(epoch)))
    try:
        loss, accuracy = training.score(model, split_of(recipe, "test", root), device)
    except NotFinite as error:
        raise NotFinite(f"{error.message} for images of the test split") from error
    facts = Facts(
        shape=train.shape,
        classes=len(train.classes),
        magnitudes=_magnitudes(model, train, device),
        test={"loss": loss, "accuracy": accuracy},
    )
    shown = augmentation_tiles.of(recipe, model, train)
    attachments = {} if shown is None else {"augmentation": Attachment(*shown)}
    arrays = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    yield Product(arrays, facts.model_dump(), attachments)


def load(request: Request, saved: Saved, device: str) -> Classifier:
    """The network in evaluation mode, without gradients of its parameters."""
    recipe, facts = request.recipe, Facts.model_validate(saved.facts)
    mean, std = (0.0,) * facts.shape[0], (1.0,) * facts.shape[0]  # the state has the true ones
    with below("recipe"):
        model = build(recipe.network, facts.shape, facts.classes, mean=mean, std=std, options=recipe.network_options)
    model.load_state_dict({name: torch.tensor(value) for name, value in saved.arrays.items()})  # torch.tensor copies
    model.magnitudes = facts.magnitudes
    return model.to(device).eval().requires_grad_(False)


def split_of(recipe: Recipe, split: str, root: str | None) -> Split:
    """The images that a recipe's network classifies."""
    return load_split(recipe.dataset, split, root=root, image_size=recipe.image_size, classes=recipe.classes)


def images_identity(recipe: Recipe, root: str | None) -> dict[str, object]:
    """What decides which images a recipe's network is trained on and classifies, as JSON."""
    names = ("image_size", "classes", "train_examples")
    asked = {name: value for name, value in recipe.model_dump(mode="json").items() if name in names}
    return {"dataset": fingerprint(recipe.dataset, root=root), **asked}


def before_training(recipe: Recipe, root: str | None) -> Classifier:
    """The recipe's network with arbitrary weights: a network must be built to know its layers."""
    return for_images(recipe, split_of(recipe, "test", root))


def for_images(recipe: Recipe, split: Split) -> Classifier:
    """The same of images that are at hand: for their shape and classes."""
    return _built(recipe.network, json.dumps(recipe.network_options), split.shape, len(split.classes))


@lru_cache(maxsize=4)
def _built(network: str, options: str, shape: tuple[int, int, int], classes: int) -> Classifier:
    return build(network, shape, classes, options=json.loads(options)).eval()


@lru_cache
def _fit(network: str, options: str, weights: str, freeze: bool, shape: tuple[int, int, int], classes: int) -> None:
    """Raises `UserError` unless the network can be built for such images and the weights fit it.

    Large networks whose code we know are built without memory for their weights, on torch's device
    "meta". The first operation there makes torch load its compiler, which takes two seconds.
    """
    given = json.loads(options)
    with_memory = is_own(network) or (network in NETWORKS.names() and _size(network, given, shape, classes) <= SMALL)
    with torch.device("cpu" if with_memory else "meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights that are copied to nowhere
        build(network, shape, classes, weights=weights, freeze_backbone=freeze, options=given)


def _size(network: str, options: Mapping[str, float], shape: tuple[int, int, int], classes: int) -> int:
    """The parameters of a network of ours; 0 where it cannot be built."""
    with torch.device("meta"), _Undrawn():
        try:
            built = NETWORKS.module(network).build(shape=shape, classes=classes, **options)
        except Exception:  # `build` says what is wrong
            return 0
    return sum(parameter.numel() for parameter in built.parameters())


class _Undrawn(TorchFunctionMode):
    """Weights are not drawn: on the device "meta" even that makes torch load its compiler."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def _magnitudes(model: Classifier, split: Split, device: str) -> tuple[float, ...]:
    """The magnitudes of the hidden spaces, if it has any, over the first training images."""
    images, _ = take(split, split.ids[:EXAMPLES_FOR_MAGNITUDES], device=device)
    try:
        return magnitudes(model, images)
    except UserError:
        return ()
