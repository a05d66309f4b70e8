"""What tasks that attack their classifiers share: settings, and the request of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator

from tasks.parts.artifacts.adversarial_examples import Request
from tasks.parts.artifacts.autoencoder import Request as AutoencoderRequest
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
from tasks.parts.artifacts.common.attack_spaces import check_codes_of_images, decoded, space_of
from tasks.parts.artifacts.common.kind import Attachment, Given
from tasks.parts.artifacts.common.pictures import Mark, Word, difference, pictures, scale
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.batching import Batch
from tasks.parts.contract import TaskConfig
from tasks.parts.data.load import Split, class_indices
from tasks.parts.settings import UserError, below
from tasks.parts.training.recipes import Recipe


class AttackConfig(TaskConfig):
    """The settings of a task that attacks its classifiers.

    A task that measures images alone says in `pixels_only` why it refuses an attack in a hidden
    space, and in `spaces_of_images` in which spaces points are images or are decoded to be.
    """

    pixels_only: ClassVar[str] = ""
    spaces_of_images: ClassVar[tuple[str, ...]] = ("pixel",)

    attack: Attack = Field(default=Attack(), description="how adversarial examples are found")

    @model_validator(mode="after")
    def _pixels_only(self) -> Self:
        if self.pixels_only and self.attack.space not in self.spaces_of_images:
            raise UserError(f"{self.pixels_only}; take {' or '.join(self.spaces_of_images)}", "attack.space")
        return self

    def check_attack(self, split: Split) -> None:
        """Refuses a target or a loss that does not suit the classes that are measured."""
        measured = None if self.classes is None else class_indices(split.classes, self.classes, "classes")
        with below("attack"):
            check_classes(self.attack, split, measured)

    def adversarial(
        self, networks: Sequence[Recipe] = (), *, attack: Attack | None = None, radii: Sequence[float] | None = None
    ) -> Request:
        """Adversarial examples of the task's examples.

        Args:
            networks: those that are attacked at once; the recipe's alone if there are none.
            attack: in place of the setting.
            radii: a ladder, in place of the attack's radius.
        """
        return Request(
            networks=tuple(networks or [self.recipe]),
            attack=attack or self.attack,
            radii=None if radii is None else tuple(radii),
            split=self.split,
            seed=self.seed,
            batch=self.batch,
        )


class LatentAttackConfig(AttackConfig):
    """The settings of a task whose attacks may also move in the latent space of an autoencoder.

    The autoencoder is one of the pixels, so that each point of that space is decoded to an image.
    """

    spaces_of_images: ClassVar[tuple[str, ...]] = ("pixel", "latent")

    autoencoder: AutoencoderRecipe | None = Field(
        default=None,
        description="how the autoencoder of the pixels is made whose codes are moved in latent space; it plays no part"
        " in other spaces",
    )

    @model_validator(mode="after")
    def _decodes(self) -> Self:
        if self.latent_by is not None:
            check_codes_of_images(self.autoencoder, self.latent_by)
        return self

    @property
    def latent_by(self) -> str | None:
        """The setting that asks for the latent space; None where none does."""
        return "attack.space" if self.attack.space == "latent" else None

    @property
    def unused(self) -> frozenset[str]:
        """The autoencoder, where nothing moves in its latent space."""
        return frozenset() if self.latent_by else frozenset({"autoencoder"})

    @property
    def coder(self) -> AutoencoderRequest | None:
        """The autoencoder whose codes are moved; None where nothing moves in its latent space.

        Networks that are trained with other seeds have the same one.
        """
        if self.latent_by is None or self.autoencoder is None:
            return None
        seed = self.recipe.seed if self.autoencoder.seed is None else self.autoencoder.seed
        return AutoencoderRequest(recipe=self.recipe, autoencoder=self.autoencoder.model_copy(update={"seed": seed}))

    def adversarial(
        self, networks: Sequence[Recipe] = (), *, attack: Attack | None = None, radii: Sequence[float] | None = None
    ) -> Request:
        """Adversarial examples of the task's examples, with the autoencoder if its codes are moved.

        The arguments are those of `AttackConfig.adversarial`.
        """
        asked = super().adversarial(networks, attack=attack, radii=radii)
        return asked if self.coder is None else asked.model_copy(update={"autoencoder": self.coder.autoencoder})


def adversarial_pictures(config: AttackConfig, given: Given, batch: Batch) -> dict[str, Attachment]:
    """Images, what the attack added, and the adversarial images, for a task to show.

    There is nothing to show of a hidden layer, or where no image was attacked.

    Args:
        config: the task's settings.
        given: `classifier`, and there may be `adversarial`, what the attack found for the batch,
            and an `autoencoder`.
        batch: B examples.
    """
    if "adversarial" not in given:
        return {}
    model, adversarial, images = given["classifier"], given["adversarial"], batch.images
    space = space_of(config.attack, [model], given.get("autoencoder"))
    if space.decode is None:
        return {}
    points = decoded(space, adversarial.points, config.batch_for(images))
    with torch.no_grad():
        before, after = (model(x).double().softmax(1).max(1) for x in (images, points))
    apart, largest = difference(points, images)
    norm, where = config.attack.norm, "" if space.name == "pixel" else f" in the {space.name} space"
    columns: list[dict[str, Word]] = [
        {
            "example": int(batch.ids[i]),
            "true class": int(batch.labels[i]),
            "predicted before": int(before.indices[i]),
            "its probability": float(before.values[i]),
            "predicted after": int(after.indices[i]),
            "its probability there": float(after.values[i]),
            f"{norm} distance{where}": float(adversarial.distance[i]),
        }
        for i in range(len(images))
    ]
    changed: list[Mark] = ["changed" if bool(one) else None for one in before.indices != after.indices]
    caption = (
        f"Genuine images, what {config.attack.name} added to them (norm {norm}{where}), and the adversarial images. "
        f"{scale(largest)} Orange frame: another class is predicted."
    )
    rows = {"image": images, "difference": apart, "adversarial": points}
    classes = ["true class", "predicted before", "predicted after"]
    shown = pictures(rows, columns, caption=caption, classes=classes, marks={"adversarial": changed})
    return {"adversarial_images": shown}
