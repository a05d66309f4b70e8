"""Classifiers by name: a network for images of one shape, with its initial or with stored weights.

The name is that of a file in `tasks/parts/models/networks/`, torchvision's name of a classification
network, or the user's own `package.module:function`. The function is called with `shape=`
(channels, height, width), `classes=` and the options. It returns a module from normalised images
(B, C, H, W) to logits (B, classes).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from tasks.parts.members import Members
from tasks.parts.messages import did_you_mean
from tasks.parts.models.checkpoints import load_weights
from tasks.parts.models.classifier import Classifier, hidden_stage
from tasks.parts.models.modes import evaluating
from tasks.parts.models.tracing import first_line
from tasks.parts.settings import UserError
from tasks.parts.user_code import function_of, is_own

Kind = Literal["own", "torchvision", "user"]

NETWORKS = Members("tasks.parts.models.networks", "network", ("build",), "tasks/parts/models/networks/__init__.py")

__all__ = ["Classifier", "build", "check", "hidden_stage", "load_weights", "names"]


def names() -> tuple[str, ...]:
    """The names of the networks that have a file in `networks/`.

    >>> names()
    ('convnet', 'linear', 'mlp', 'resnet20', 'resnet32', 'resnet44', 'resnet56', 'resnet9')
    """
    return NETWORKS.names()


def check(name: str, *, weights: str = "none", options: Mapping[str, object] | None = None) -> None:
    """Finds a user's mistakes without building the network.

    Args:
        name: of the network; see the module's docstring.
        weights: `none` (initial weights, decided by the seed), `DEFAULT` (torchvision's own), or a
            file with a state dict.
        options: keyword arguments for the network's build function.

    Raises:
        UserError: there is no such network, no such weights file or no such option, or an option
            has the wrong type.

    >>> check("mlp", options={"widht": 64})
    Traceback (most recent call last):
    tasks.parts.settings.UserError: ...widht: unknown option; mlp has depth, width; did you mean ...
    """
    kind, function = _find(name)
    _check_options(name, kind, function, options or {})
    if weights == "DEFAULT" and kind != "torchvision":
        raise UserError(f"{name} has no weights DEFAULT, only torchvision's networks have; none or a file", "weights")
    if weights not in ("none", "DEFAULT") and not Path(weights).expanduser().is_file():
        raise UserError(f"no such weights file: '{weights}'; none, DEFAULT (torchvision's own) or a file", "weights")


def build(
    name: str,
    shape: tuple[int, int, int],
    classes: int,
    *,
    weights: str = "none",
    freeze_backbone: bool = False,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    options: Mapping[str, object] | None = None,
    generator_seed: int = 0,
) -> Classifier:
    """A classifier for images of one shape.

    torchvision's networks take three channels: a grey image's channel is repeated. With `weights`
    `DEFAULT` their last layer is replaced unless there are 1000 classes, and `mean` and `std`
    should be those the weights were made with (ImageNet's).

    Args:
        name: as for `check`.
        shape: (channels, height, width) of the images.
        classes: the number of classes.
        weights: as for `check`.
        freeze_backbone: as for `Classifier`.
        mean: as for `Classifier`.
        std: as for `Classifier`.
        options: as for `check`.
        generator_seed: decides all initial weights. torch's own generator is left as it was.

    Raises:
        UserError: as for `check`; or the network cannot be built for these images, or its weights
            do not load.

    >>> build("linear", (1, 8, 8), 10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    check(name, weights=weights, options=options)
    kind, function = _find(name)
    given = dict(options or {})
    colours = 3 if kind == "torchvision" else shape[0]
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU.
        torch.default_generator.manual_seed(generator_seed)
        try:
            if kind == "torchvision":
                network = _torchvision().build(name, shape, classes, pretrained=weights == "DEFAULT", **given)
            else:
                network = function(shape=shape, classes=classes, **given)
            _try_out(network, torch.zeros(2, colours, *shape[1:]), classes)
        except UserError:
            raise
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            wanted = f"{shape[0]}x{shape[1]}x{shape[2]} images, {classes} classes" + (f" and {given}" if given else "")
            raise UserError(f"network '{name}' cannot be had for {wanted}: {first_line(error)}", "network") from error
    mean, std = (tuple(values) * (colours if len(values) == 1 else 1) for values in (mean, std))
    if len(mean) != colours or len(std) != colours:
        raise UserError(f"normalisation with {len(mean)} channels for images with {colours}", "normalisation")
    model = Classifier(network, shape, classes, mean=mean, std=std, freeze_backbone=freeze_backbone)
    if weights not in ("none", "DEFAULT"):
        load_weights(model, weights)
    return model


def _torchvision() -> ModuleType:
    """Imported only when needed: torchvision takes over a second, and most workers do without."""
    return importlib.import_module("tasks.parts.models.torchvision_networks")


def _find(name: str) -> tuple[Kind, Callable[..., nn.Module]]:
    """What kind of network a name stands for, and the function that builds it."""
    if name in names():
        return "own", NETWORKS.module(name).build
    if name in _torchvision().names():
        return "torchvision", _torchvision().builder(name)
    if not is_own(name):
        hint = did_you_mean(name, [*names(), *_torchvision().names()])
        raise UserError(
            f"unknown network '{name}'; there are {', '.join(names())}, the classification networks of torchvision, "
            f"and package.module:function of your own{hint}",
            "network",
        )
    try:
        return "user", function_of(name)
    except UserError as error:
        raise error.below("network") from None


def _check_options(name: str, kind: Kind, function: Callable[..., nn.Module], options: Mapping[str, object]) -> None:
    """Checks names by the function's signature; for a network of `networks/` also the values."""
    field = "network_options"
    signature = inspect.signature(function)
    if kind == "torchvision":
        allowed, anything = _torchvision().options(name), False
    else:
        named = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        allowed = {p.name for p in named} - {"shape", "classes"}
        anything = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())
    for option, value in options.items():
        if option not in allowed and (not anything or option in ("shape", "classes")):
            has = f"{name} has {', '.join(sorted(allowed))}" if allowed else f"{name} has none"
            raise UserError(f"unknown option; {has}{did_you_mean(option, allowed)}", f"{field}.{option}")
        if kind == "own":
            whole = isinstance(signature.parameters[option].default, int)
            fits = isinstance(value, int) and value >= 1 if whole else isinstance(value, int | float)
            if isinstance(value, bool) or not fits:
                wanted = "a whole number of at least 1" if whole else "a number"
                raise UserError(f"{wanted} is needed, not {value!r}", f"{field}.{option}")
    if kind == "user":
        try:
            signature.bind(shape=(), classes=0, **options)
        except TypeError as error:
            raise UserError(
                f"network '{name}' cannot be called with shape, classes and its options: {error}", field
            ) from error


def _try_out(network: nn.Module, images: Tensor, classes: int) -> None:
    """Runs a network once, in evaluation mode.

    Raises:
        TypeError: it is no module.
        ValueError: it does not return one row of logits an image.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"its function returned {type(network).__name__}, not a torch.nn.Module")
    with evaluating(network), torch.no_grad():
        logits = network(images)
    if not isinstance(logits, Tensor) or logits.shape != (len(images), classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{len(images)} images give {got}, not logits {(len(images), classes)}")
