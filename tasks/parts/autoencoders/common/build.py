"""Autoencoders by the name of their kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType

import torch

from tasks.parts.autoencoders.common.autoencoder import Autoencoder
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.members import Members
from tasks.parts.messages import did_you_mean, validated
from tasks.parts.settings import Settings, UserError, below

AUTOENCODERS = Members(
    "tasks.parts.autoencoders", "autoencoder", ("Options", "build", "VERSION"), "tasks/parts/autoencoders/__init__.py"
)


def names() -> tuple[str, ...]:
    """The kinds of autoencoders.

    >>> names()
    ('linear', 'plain', 'topk', 'vae', 'vqvae')
    """
    return AUTOENCODERS.names()


def member(kind: str) -> ModuleType:
    """The module of a kind.

    Raises:
        UserError: there is no such kind.
    """
    if kind not in names():
        hint = did_you_mean(kind, names())
        raise UserError(f"unknown autoencoder '{kind}'; there are {', '.join(names())}{hint}", "kind")
    return AUTOENCODERS.module(kind)


def options_of(recipe: AutoencoderRecipe) -> Settings:
    """The options of a recipe's kind, checked, with their defaults.

    Raises:
        UserError: as `member`; or the kind has no such option, or it cannot have such a value.
    """
    kind = member(recipe.kind)
    with below("options"):
        options = validated(kind.Options, recipe.options, recipe.kind)
        if hasattr(kind, "check"):
            kind.check(recipe, options)
    return options


def identity(recipe: AutoencoderRecipe) -> Mapping[str, object]:
    """What decides an autoencoder, beside the representations and its seed, as JSON."""
    settings = recipe.model_dump(mode="json", exclude={"stage", "pooled", "dtype", "seed"})
    options = options_of(recipe).model_dump(mode="json")
    return settings | {"options": options, "version": member(recipe.kind).VERSION}


def build(recipe: AutoencoderRecipe, shape: Sequence[int], seed: int = 0) -> Autoencoder:
    """An autoencoder with its initial weights.

    Args:
        recipe: which, and how large.
        shape: of one representation.
        seed: decides the weights, whatever the state of torch's generator, which stays as it was.

    Raises:
        UserError: as `options_of`; or the bottleneck does not fit the shape.
    """
    options = options_of(recipe)
    fits(recipe, shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        coder = member(recipe.kind).build(tuple(shape), recipe.bottleneck, options)
    return Autoencoder(coder, shape, recipe.standardise)


def fits(recipe: AutoencoderRecipe, shape: Sequence[int]) -> None:
    """Refuses a bottleneck that is larger than a representation.

    Raises:
        UserError: it is.
    """
    if recipe.bottleneck > math.prod(shape):
        said = f"{recipe.bottleneck} is more than the {math.prod(shape)} numbers of a representation"
        raise UserError(said, "bottleneck")
