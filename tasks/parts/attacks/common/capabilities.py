"""What an attack can do: its file declares it as `ATTACK`, beside its `VERSION`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, get_args, get_origin, get_type_hints

from tasks.parts.geometry.balls import Norm
from tasks.parts.members import wrong_version
from tasks.parts.settings import UserError


@dataclass(frozen=True)
class Capabilities:
    """What an attack can do.

    Attributes:
        norms: the norms of a perturbation that it works with, those of its argument `norm`; a
            single one where it has no such argument.
        radius: `fixed`, within the radius `epsilon` around each image; `smallest`, for the smallest
            perturbation; or `free`, for a perturbation of any length.
        gradients: whether it follows gradients; else what the network returns is enough.
        spaces: where it can search. Points of a hidden space have no box: its argument `box` says
            so.
        targets: whether it can aim at classes, by its argument `targets`.
        weight_noise: whether the network may have other weights at each call: all examples of a
            batch must then be at the same step at each call.
    """

    norms: tuple[Norm, ...]
    radius: Literal["fixed", "smallest", "free"]
    gradients: bool = True
    spaces: tuple[Literal["pixel", "hidden"], ...] = ("pixel", "hidden")
    targets: bool = True
    weight_noise: bool = True


def capabilities_of(attack: Callable[..., object]) -> Capabilities:
    """What an attack can do, as it is declared.

    Its file declares it or, for an attack of a library, the function itself.

    Raises:
        UserError: nothing is.

    >>> from tasks.parts.attacks import ddn
    >>> capabilities_of(ddn).norms
    ('L2',)
    """
    for holder in (attack, sys.modules.get(getattr(attack, "__module__", ""))):
        declared = getattr(holder, "ATTACK", None)
        if isinstance(declared, Capabilities):
            return declared
    name = getattr(attack, "__name__", repr(attack))
    raise UserError(f"{name} declares no capabilities: its file needs ATTACK = Capabilities(...)", "attack")


def misdeclared(module: ModuleType) -> str | None:
    """What is wrong with the file of an attack, in one line; None where nothing is.

    It must have a function of the file's name, `VERSION` and `ATTACK`, and what `ATTACK` says must
    go with the function's arguments.
    """
    name = module.__name__.rpartition(".")[2]
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        return f"a function {name} is missing"
    if wrong := wrong_version(getattr(module, "VERSION", None)):
        return wrong
    declared = getattr(module, "ATTACK", None)
    if not isinstance(declared, Capabilities):
        return f"ATTACK must be Capabilities(norms=..., radius=...), not {declared!r}"
    return contradiction(function, declared)


def contradiction(function: Callable[..., object], declared: Capabilities) -> str | None:
    """What an attack declares and its signature does not bear out."""
    parameters = inspect.signature(function).parameters
    if list(parameters)[:3] != ["model", "images", "labels"]:
        return f"{function.__name__} must begin with (model, images, labels)"
    for argument, wanted, said in (
        ("epsilon", declared.radius == "fixed", f"radius {declared.radius}"),
        ("targets", declared.targets, f"targets {declared.targets}"),
        ("box", "hidden" in declared.spaces, f"spaces {', '.join(declared.spaces)}"),
    ):
        if wanted is not (argument in parameters):
            return f"ATTACK declares {said}, but {function.__name__} has {'no' if wanted else 'an'} argument {argument}"
    hint = get_type_hints(function).get("norm")
    norms = get_args(hint) if get_origin(hint) is Literal else ("one norm",)
    if set(declared.norms) != set(norms) and (hint is not None or len(declared.norms) != 1):
        return f"ATTACK declares the norms {', '.join(declared.norms)}, but {function.__name__} has {', '.join(norms)}"
    return None
