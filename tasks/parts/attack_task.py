"""What tasks that attack their classifiers share: settings, and the request of the examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tasks.parts.artifacts.adversarial_examples import AdversarialExamples, Request
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
from tasks.parts.artifacts.common.kind import Attachment
from tasks.parts.artifacts.common.pictures import Mark, Word, difference, pictures, scale
from tasks.parts.batching import Batch
from tasks.parts.contract import TaskConfig
from tasks.parts.data.load import Split, class_indices
from tasks.parts.settings import UserError, below
from tasks.parts.training.recipes import Recipe


class AttackConfig(TaskConfig):
    """The settings of a task that attacks its classifiers.

    A task that measures images alone says in `pixels_only` why it refuses an attack in a hidden
    space.
    """

    pixels_only: ClassVar[str] = ""

    attack: Attack = Field(default=Attack(), description="how adversarial examples are found")

    @model_validator(mode="after")
    def _pixels_only(self) -> Self:
        if self.pixels_only and self.attack.space != "pixel":
            raise UserError(f"{self.pixels_only}; take pixel", "attack.space")
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


def adversarial_pictures(
    config: AttackConfig, model: Callable[[Tensor], Tensor], adversarial: AdversarialExamples, batch: Batch
) -> dict[str, Attachment]:
    """Images, what the attack added, and the adversarial images; none of a hidden space.

    Args:
        config: the task's settings.
        model: [0, 1] images (B, C, H, W) to logits (B, K).
        adversarial: what the attack found for the batch.
        batch: B examples.
    """
    if config.attack.space != "pixel":
        return {}
    images, points = batch.images, adversarial.points
    with torch.no_grad():
        before, after = (model(x).double().softmax(1).max(1) for x in (images, points))
    apart, largest = difference(points, images)
    norm = config.attack.norm
    columns: list[dict[str, Word]] = [
        {
            "example": int(batch.ids[i]),
            "true class": int(batch.labels[i]),
            "predicted before": int(before.indices[i]),
            "its probability": float(before.values[i]),
            "predicted after": int(after.indices[i]),
            "its probability there": float(after.values[i]),
            f"{norm} distance": float(adversarial.distance[i]),
        }
        for i in range(len(images))
    ]
    changed: list[Mark] = ["changed" if bool(one) else None for one in before.indices != after.indices]
    caption = (
        f"Genuine images, what {config.attack.name} added to them (norm {norm}), and the adversarial images. "
        f"{scale(largest)} Orange frame: another class is predicted."
    )
    rows = {"image": images, "difference": apart, "adversarial": points}
    classes = ["true class", "predicted before", "predicted after"]
    shown = pictures(rows, columns, caption=caption, classes=classes, marks={"adversarial": changed})
    return {"adversarial_images": shown}
