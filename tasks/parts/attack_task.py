"""What tasks that attack their classifiers share: settings, and the request of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from tasks.parts.artifacts.adversarial_examples import Request
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
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
