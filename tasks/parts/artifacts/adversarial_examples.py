"""Adversarial examples: what a task asks for, how the attack is run, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tasks.parts.artifacts import classifier
from tasks.parts.artifacts.autoencoder import Request as AutoencoderRequest
from tasks.parts.artifacts.common.attack_functions import arguments_of, is_of_library, parameters_of, versions_of
from tasks.parts.artifacts.common.attack_settings import Attack
from tasks.parts.artifacts.common.attack_spaces import (
    Together,
    check_codes_of_images,
    check_same_images,
    check_space,
    space_of,
)
from tasks.parts.artifacts.common.kind import Given, Saved
from tasks.parts.attacks.common import checks
from tasks.parts.attacks.common.security_curve import security_curve
from tasks.parts.attacks.common.weight_noise import unseen_share, with_weight_noise
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.batching import Batch, batch_size, in_batches
from tasks.parts.data.load import Split, take
from tasks.parts.finite import NotFinite
from tasks.parts.losses import joint
from tasks.parts.models import spaces
from tasks.parts.models.build import build
from tasks.parts.models.classifier import Classifier
from tasks.parts.own_code import explained
from tasks.parts.settings import Positive, Settings, UserError, below
from tasks.parts.training.identity import of_recipe
from tasks.parts.training.recipes import Recipe
from tasks.parts.user_code import is_own

PER_EXAMPLE = True
VERSION = 1
DOING = "attacking"
OFF_MANIFOLD = "off_manifold"
"""The column that is kept of an attack in latent space only."""


class Request(Settings):
    """Adversarial examples of one or several networks: all that decides them.

    One attack fools all `networks` at once; the first says which images there are. With `radii` the
    attack does not use its own radius: it is tried along this ladder, for the smallest radius at
    which it succeeds. In latent space it moves the codes of an autoencoder, of the first network's
    images; elsewhere the autoencoder plays no part.
    """

    networks: tuple[Recipe, ...] = Field(min_length=1)
    attack: Attack = Attack()
    autoencoder: AutoencoderRecipe | None = None
    radii: tuple[Positive, ...] | None = None
    split: Literal["test", "train"] = "test"
    seed: int = 0
    batch: int | None = None

    @property
    def ladder(self) -> tuple[float, ...] | None:
        """The radii to try; None for an attack that minimises the perturbation, and needs none."""
        return self.radii if self.attack.fixed_radius else None

    @property
    def coder(self) -> AutoencoderRequest | None:
        """The autoencoder whose codes the attack moves; None in any other space than the latent."""
        if self.attack.space != "latent" or self.autoencoder is None:
            return None
        return AutoencoderRequest(recipe=self.networks[0], autoencoder=self.autoencoder)


def needs(request: Request) -> dict[str, Settings]:
    """The classifier of each network, by its number, and the autoencoder of a latent space."""
    found: dict[str, Settings] = {name: classifier.Request(recipe=recipe) for name, recipe in _named(request).items()}
    return found if request.coder is None else found | {"autoencoder": request.coder}


def _named(request: Request) -> dict[str, Recipe]:
    return {str(number): recipe for number, recipe in enumerate(request.networks)}


def identity(request: Request, root: str | None) -> dict[str, object]:
    """What decides the examples, with defaults filled in, so that equal attacks are equal here."""
    attack, resolved = request.attack, request.attack.resolve()
    defaults = {} if is_of_library(attack.name) else arguments_of(attack.name)  # those of libraries need be no JSON
    arguments = {**defaults, "norm": attack.norm, **resolved.arguments}
    noise = attack.weight_noise
    found = {
        "name": attack.name,
        "arguments": {name: value for name, value in arguments.items() if name != "epsilon"},
        "radius": resolved.radius if request.ladder is None else sorted(set(request.ladder)),
        "target": attack.target,
        "space": attack.space,
        "weight_noise": noise.model_dump() if noise.sigma else None,
        "joint": attack.joint if len(request.networks) > 1 else None,
    }
    return {"attack": found, "versions": versions_of(attack.name), "split": request.split, "seed": request.seed}


def cost(request: Request) -> Mapping[str, int]:
    """The work for one example."""
    return {"attacks": 1}


def split(request: Request, root: str | None) -> Split:
    """The images that are attacked."""
    with below("recipe"):
        return classifier.split_of(request.networks[0], request.split, root)


def check(request: Request, root: str | None) -> None:
    """Refuses options that the attack does not take, and networks that it cannot attack.

    The latter include a network that lacks the layer whose space is attacked. In latent space there
    must be an autoencoder of the pixels, and networks of the same images.
    """
    with below("attack"):
        request.attack.try_options()
    if request.attack.space == "latent":
        check_codes_of_images(request.autoencoder)
        check_same_images(request.networks)
    images_of = split(request, root)
    with below("attack"):
        check_space(request.attack.space, request.networks[0], images_of)
    with below("recipe"):
        for recipe in request.networks:
            _check_network(recipe, request, root)


def _check_network(recipe: Recipe, request: Request, root: str | None) -> None:
    """Refuses a network with code or weights of the user's own that cannot be attacked."""
    if not is_own(recipe.network) and recipe.weights in ("none", "DEFAULT"):
        return  # our networks return logits, which have gradients
    with explained("network", recipe.network, own_code=is_own(recipe.network)):
        images_of = classifier.split_of(recipe, request.split, root)
        images, labels = take(images_of, images_of.ids[: checks.PROBES])
        options, content = json.dumps(recipe.network_options), of_recipe(recipe, root)["weights"]
        shape, classes = images_of.shape, len(images_of.classes)
        model = _as_trained(recipe.network, options, recipe.weights, content, shape, classes)
        try:
            checks.check_network(model, images, labels, follows=request.attack.capabilities.gradients)
        except (UserError, NotFinite) as error:
            raise UserError(f"{recipe.network}: {error.message}", "network") from None


@lru_cache(maxsize=4)
def _as_trained(
    network: str, options: str, weights: str, _content: str, shape: tuple[int, int, int], classes: int
) -> Classifier:
    """The network as it will be, as far as that is known before training.

    Untrained weights are moved a little. A network may well begin with zeros, through which no
    gradient flows, and not stay there.
    """
    model = build(network, shape, classes, weights=weights, options=json.loads(options)).eval()
    if weights == "none":
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def make(request: Request, given: Given, batch: Batch) -> dict[str, Tensor]:
    """The adversarial examples of a batch: the fields of `AdversarialExamples` by name."""
    networks = [given[name] for name in _named(request)]
    found = run_attack(
        request.attack,
        networks,
        batch.images,
        batch.labels,
        batch.ids,
        radii=request.ladder,
        seed=request.seed,
        batch=request.batch,
        autoencoder=given.get("autoencoder"),
    )
    kept = [field.name for field in fields(found) if field.name != OFF_MANIFOLD or request.coder is not None]
    return {name: getattr(found, name) for name in kept}


def load(request: Request, saved: Saved, device: str) -> AdversarialExamples:
    """The saved examples as tensors; they are copies."""
    names = [field.name for field in fields(AdversarialExamples) if field.name in saved.arrays]
    found = {name: torch.tensor(saved.arrays[name], device=device) for name in names}
    unknown = torch.full_like(found["radius"], torch.nan)
    return AdversarialExamples(**{OFF_MANIFOLD: unknown} | found)


@dataclass(frozen=True)
class AdversarialExamples:
    """What an attack left for B examples.

    Attributes:
        points: (B, ...) the best point found: an image in [0, 1], or a point of the attacked space
            (`spaces`), which of the latent space must be decoded to be an image.
        success: (B,) bool: the network gives the point another class than its label, or the target
            if there is one; of several networks all do.
        distance: (B,) how far the point is from where it began, in the attack's norm and the units
            of its space; 0 where the image was misclassified to begin with.
        radius: (B,) the smallest radius at which the attack succeeded: of the ladder if there was
            one, else the attack's, else the distance. Infinite where it failed, 0 where the image
            was misclassified to begin with.
        forwards: (B,) forward passes of a network.
        backwards: (B,) backward passes.
        unseen: (B,) share of noisy networks, not met in the attack, that the point fools; NaN
            without weight noise.
        off_manifold: (B,) L2 distance of the decoded point from its own reconstruction, in pixel
            units; NaN in any other space than the latent.
    """

    points: Tensor
    success: Tensor
    distance: Tensor
    radius: Tensor
    forwards: Tensor
    backwards: Tensor
    unseen: Tensor
    off_manifold: Tensor

    @property
    def had_to_move(self) -> Tensor:
        """(B,) bool: the attack did not succeed where it began, at image or reconstruction."""
        return ~self.success | (self.distance > 0)

    def __getitem__(self, rows: Tensor) -> AdversarialExamples:
        """Those of some examples, by their rows (b,)."""
        return AdversarialExamples(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def run_attack(
    attack: Attack,
    networks: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    ids: Sequence[int],
    *,
    radii: Sequence[float] | None = None,
    seed: int = 0,
    batch: int | None = None,
    autoencoder: spaces.Autoencoder | None = None,
) -> AdversarialExamples:
    """Attacks each image, in the space that the attack names.

    Args:
        attack: its settings.
        networks: one, or several that are to be fooled at once, with the same classes; in
            evaluation mode.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) true classes.
        ids: the examples' ids, which key the random numbers.
        radii: a ladder in place of the attack's radius, for an attack with a fixed radius.
        seed: keys the random numbers, too.
        batch: images in one pass; chosen for the device where None.
        autoencoder: whose codes an attack in latent space moves.

    Raises:
        UserError: the network, the images or the labels are not as an attack needs them.
    """
    model = networks[0] if len(networks) == 1 else Together(networks)
    space = space_of(attack, networks, autoencoder)
    latent, size = attack.space == "latent", batch or batch_size(images.shape[1:].numel(), images.device)
    batch = size if latent else batch  # a code is small, the image that it is decoded to is not
    targets = None if attack.target is None else torch.full_like(labels, attack.target)
    resolved = attack.resolve()
    arguments = {**resolved.arguments, "seed": seed, "ids": ids, "batch": batch, "targets": targets}
    if attack.space != "pixel":
        arguments["box"] = space.box
    if len(networks) > 1 and attack.joint != "mean" and "loss" in arguments_of(attack.name):
        loss = (arguments if "loss" in arguments else arguments_of(attack.name))["loss"]
        arguments["loss"] = joint(loss, attack.joint)
    function = resolved.function
    arguments = {name: value for name, value in arguments.items() if name in parameters_of(attack.name)}
    if latent:
        begin = in_batches(space.encode, images, size).clone()
    else:
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
    off = in_batches(space.residual, points, size).to(radius) if latent else torch.full_like(radius, torch.nan)
    return AdversarialExamples(
        points, found.success, found.distance, radius, found.forwards, found.backwards, unseen, off
    )
