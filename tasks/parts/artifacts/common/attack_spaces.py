"""The space in which an attack moves: pixels, a hidden layer, or the codes of an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.parts.artifacts.classifier import for_images
from tasks.parts.artifacts.common.attack_settings import Attack
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.batching import in_batches
from tasks.parts.data.load import Split
from tasks.parts.models import spaces
from tasks.parts.models.classifier import Classifier, hidden_stage
from tasks.parts.settings import UserError, below
from tasks.parts.training.recipes import Recipe

IMAGES = ("dataset", "image_size", "classes")
"""The settings of a recipe that decide which images its network classifies."""


class Together(nn.Module):
    """Several networks as one: images (B, C, H, W) to the logits of each, (B, M, K)."""

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, M, K)."""
        return torch.stack([network(x) for network in self.networks], 1)


def space_of(
    attack: Attack, networks: Sequence[nn.Module], autoencoder: spaces.Autoencoder | None = None
) -> spaces.Space:
    """The space in which an attack moves.

    Args:
        attack: names it.
        networks: that are attacked at once.
        autoencoder: of their images, whose codes the latent space is.

    Raises:
        UserError: it is a hidden space of several networks at once, or one that the network lacks;
            or a latent space without an autoencoder, or of one whose codes are all 0.
    """
    kind, _ = spaces.parse(attack.space)
    together = networks[0] if len(networks) == 1 else Together(networks)
    if kind == "pixel":
        return spaces.pixels(together)
    if kind == "latent":
        if autoencoder is None:
            raise _no_autoencoder("attack.space")
        with below("attack"):
            return spaces.latent(together, autoencoder)
    if len(networks) > 1:
        raise UserError("several networks share no hidden space; attack all at once in pixel", "attack.space")
    network = networks[0]
    if not isinstance(network, Classifier):
        raise UserError(f"a {type(network).__name__} has no hidden spaces, a Classifier has", "attack.space")
    return spaces.of(attack.space, network)


def encoded(space: spaces.Space, images: Tensor, batch: int) -> Tensor:
    """The points (B, ...) of a space at which attacks on images (B, C, H, W) begin."""
    return images if space.name == "pixel" else in_batches(space.encode, images, batch).clone()


def decoded(space: spaces.Space, points: Tensor, batch: int) -> Tensor:
    """The images (B, C, H, W) that points of the pixels or of a latent space are."""
    if space.name == "pixel":
        return points
    assert space.decode is not None, f"a point of {space.name} need not belong to any image"
    return in_batches(space.decode, points, batch).clone()


def check_space(space: str, recipe: Recipe, images_of: Split) -> None:
    """Refuses the space of a hidden layer that the recipe's network lacks.

    Raises:
        UserError: with the field `space`.
    """
    kind, stage = spaces.parse(space)
    if kind == "hidden" and stage is not None:
        try:
            hidden_stage(for_images(recipe, images_of), stage)
        except UserError as error:
            raise UserError(error.message, "space") from None


def check_codes_of_images(autoencoder: AutoencoderRecipe | None, field: str = "attack.space") -> None:
    """Refuses to go on without an autoencoder, or with one whose codes are not those of images.

    Args:
        autoencoder: how it is made.
        field: the setting that asks for a latent space.

    Raises:
        UserError: with that field, or one of `autoencoder`.
    """
    if autoencoder is None:
        raise _no_autoencoder(field)
    if autoencoder.stage != 0:
        wrong = f"images are decoded from codes of the pixels, not of stage {autoencoder.stage}; take stage: 0"
        raise UserError(wrong, "autoencoder.stage")
    if autoencoder.pooled:
        raise UserError("means over all pixels decode to no image; take pooled: false", "autoencoder.pooled")


def check_same_images(networks: Sequence[Recipe]) -> None:
    """Refuses networks that classify other images than the first does.

    Raises:
        UserError: with the setting that differs.
    """
    first = networks[0]
    for recipe in networks[1:]:
        for name in IMAGES:
            value, wanted = getattr(recipe, name), getattr(first, name)
            if value != wanted:
                said = f"an autoencoder has one kind of images: {value} here, {wanted} in the first network"
                raise UserError(said, f"recipe.{name}")


def _no_autoencoder(field: str) -> UserError:
    write = "autoencoder: {kind: vae, bottleneck: 16}"
    return UserError(f"the latent space is that of an autoencoder of the pixels; also write {write}", field)
