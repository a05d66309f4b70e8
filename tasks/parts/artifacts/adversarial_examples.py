"""Adversarial examples as tasks ask for them: the request, the attack around each image, and what it leaves for each example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tasks.parts.artifacts.common.attack_settings import Attack, arguments_of, parameters_of
from tasks.parts.attacks.common import checks
from tasks.parts.attacks.common.security_curve import security_curve
from tasks.parts.attacks.common.weight_noise import unseen_share, with_weight_noise
from tasks.parts.losses import joint
from tasks.parts.models import spaces
from tasks.parts.models.classifier import Classifier
from tasks.parts.settings import Positive, Settings, UserError
from tasks.parts.training.recipes import Recipe

VERSION = 1
"""Raised by hand when its numbers change on purpose."""


class Adversarial(Settings):
    """Adversarial examples that must exist: all that decides them.

    `networks` are fooled by the perturbations of one search; the first says which images there are. With `radii` the search is for the
    smallest radius of this ladder at which it succeeds, in place of the attack's radius.
    """

    networks: tuple[Recipe, ...] = Field(min_length=1)
    attack: Attack
    radii: tuple[Positive, ...] | None = None
    split: Literal["test", "train"] = "test"
    seed: int = 0
    batch: int | None = None

    @model_validator(mode="after")
    def _possible(self) -> Adversarial:
        if self.radii is not None and not self.attack.fixed_radius:
            object.__setattr__(self, "radii", None)  # the smallest perturbation says it for every radius
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the examples, as JSON, but for the networks, which have identities of their own.

        Defaults are written out, so that settings that mean the same are the same.
        """
        attack, resolved = self.attack, self.attack.resolve()
        defaults = {} if ":" in attack.name else arguments_of(attack.name)  # those of peers need be no JSON
        arguments = {**defaults, "norm": attack.norm, **resolved.arguments}
        noise = attack.weight_noise
        search = {
            "name": attack.name,
            "arguments": {name: value for name, value in arguments.items() if name != "epsilon"},
            "radius": resolved.radius if self.radii is None else sorted(set(self.radii)),
            "target": attack.target,
            "space": attack.space,
            "weight_noise": noise.model_dump() if noise.sigma else None,
            "joint": attack.joint if len(self.networks) > 1 else None,
        }
        return {"search": search, "split": self.split, "seed": self.seed}


@dataclass(frozen=True)
class Searched:
    """What a search left for B examples.

    Attributes:
        points: (B, ...) the best point found: an image in [0, 1], or a point of the search's space (`spaces`).
        success: (B,) bool: the point is not given its label, or is given the target; by every network, where there are several.
        distance: (B,) how far it is from where it began, in the search's norm and the units of its space; 0 where the image was
            misclassified to begin with.
        radius: (B,) the smallest radius at which the search succeeded: of the ladder where there was one, else the attack's, else the
            distance. Infinite where it failed, 0 where the image was misclassified to begin with.
        forwards, backwards: (B,) passes of a network.
        unseen: (B,) share of noisy networks, not met in the search, that the point fools; NaN without weight noise.
    """

    points: Tensor
    success: Tensor
    distance: Tensor
    radius: Tensor
    forwards: Tensor
    backwards: Tensor
    unseen: Tensor

    def __getitem__(self, rows: Any) -> Searched:
        return Searched(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class Together(nn.Module):
    """Several networks as one: images (B, C, H, W) to the logits of each, (B, M, K)."""

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks], 1)


def made(
    wanted: Adversarial, networks: Sequence[nn.Module], images: Tensor, labels: Tensor, ids: Sequence[int]
) -> Searched:
    """The adversarial examples of a batch, as `search` finds them.

    Args:
        networks: those of `wanted`, in the same order.
    """
    return search(
        wanted.attack, networks, images, labels, ids, radii=wanted.radii, seed=wanted.seed, batch=wanted.batch
    )


def search(
    attack: Attack,
    networks: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    ids: Sequence[int],
    *,
    radii: Sequence[float] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Searched:
    """Searches around each image, in the space that the attack names.

    Args:
        networks: one, or several that are to be fooled at once, with the same classes; in evaluation mode.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) true classes.
        ids: the examples' ids, which key the random numbers.
        radii: ladder of radii in place of the attack's; for an attack at a fixed radius.
        batch: images in one pass; chosen for the device where None.

    Raises:
        UserError: for a network, images or labels that cannot be searched with.
    """
    model = networks[0] if len(networks) == 1 else Together(networks)
    space = space_of(attack, networks)
    targets = None if attack.target is None else torch.full_like(labels, attack.target)
    resolved = attack.resolve()
    arguments = {**resolved.arguments} | {"seed": seed, "ids": ids, "batch": batch, "targets": targets}
    if attack.space != "pixel":
        arguments["box"] = space.box
    if len(networks) > 1 and attack.joint != "mean" and "loss" in arguments_of(attack.name):
        arguments["loss"] = joint(arguments.get("loss", arguments_of(attack.name)["loss"]), attack.joint)
    function = resolved.function
    arguments = {name: value for name, value in arguments.items() if name in parameters_of(attack.name)}
    with torch.no_grad():
        begin = space.encode(images)
    checks.check_network(space.classify, begin, labels, space.box, follows=resolved.capabilities.gradients)

    noise = attack.weight_noise
    function = with_weight_noise(function, model, noise.sigma, noise.draws, seed)
    if radii is not None:
        arguments.pop("epsilon", None)
        found, radius = security_curve(function, space.classify, begin, labels, radii, **arguments)
    else:
        found = function(space.classify, begin, labels, **arguments)
        reached = found.distance if resolved.radius is None else torch.full_like(found.distance, resolved.radius)
        radius = torch.where(found.success, reached, torch.inf)
    radius = torch.where(found.success & (found.distance == 0), 0, radius)
    points = found.images
    unseen = torch.full_like(radius, torch.nan)
    if noise.sigma:
        unseen = unseen_share(
            model,
            points,
            labels,
            targets=targets,
            sigma=noise.sigma,
            seed=seed,
            batch=batch,
            classify=None if attack.space == "pixel" else space.classify,
        )
    return Searched(points, found.success, found.distance, radius, found.forwards, found.backwards, unseen)


def space_of(attack: Attack, networks: Sequence[nn.Module]) -> spaces.Space:
    """The space that an attack searches in.

    Raises:
        UserError: a hidden space of several networks at once, or one that the network does not have.
    """
    kind, _ = spaces.parse(attack.space)
    if kind == "pixel":
        return spaces.pixels(networks[0] if len(networks) == 1 else Together(networks))
    if len(networks) > 1:
        raise UserError("several networks share no hidden space; search for all at once in pixel", "attack.space")
    network = networks[0]
    if not isinstance(network, Classifier):
        raise UserError(f"a {type(network).__name__} has no hidden spaces, a Classifier has", "attack.space")
    return spaces.of(attack.space, network)
