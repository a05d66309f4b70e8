"""An attack of another package as a function like those in `attacks`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from tasks.parts.attacks.common.checks import check_arguments
from tasks.parts.attacks.common.libraries import art, foolbox
from tasks.parts.attacks.common.libraries.shared import LibraryAttack, in_turn
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.batching import batch_size
from tasks.parts.geometry.balls import Norm
from tasks.parts.messages import did_you_mean
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

LIBRARIES: dict[str, ModuleType] = {"foolbox": foolbox, "art": art}


def find(name: str) -> LibraryAttack:
    """The attack that `foolbox:<class>` or `art:<class>` names.

    Raises:
        UserError: the package is unknown or not installed, or it has no such attack.
    """
    package, _, wanted = name.partition(":")
    if package not in LIBRARIES:
        allowed = ", ".join(f"{each}:<class>" for each in LIBRARIES)
        raise UserError(f"unknown package {package!r}; allowed: {allowed}{did_you_mean(package, LIBRARIES)}", "name")
    library = LIBRARIES[package]
    known = library.classes()
    if wanted not in known:
        hint = did_you_mean(wanted, known) or "; it has " + ", ".join(sorted(known))
        raise UserError(f"{package} has no attack {wanted!r}{hint}", "name")
    return library.described(name, known[wanted])


def check(name: str, options: Mapping[str, object] | None = None) -> None:
    """Refuses an attack that is not there, and options that it does not have.

    Raises:
        UserError: as `find`; or the attack has no such option.
    """
    attack = find(name)
    for option in options or {}:
        if option in attack.options:
            continue
        ours = next((ours for ours, theirs in attack.names.items() if theirs == option), None)
        if ours is not None:
            raise UserError(f"{name} is given {option} by {ours}", f"options.{option}")
        known = ", ".join(attack.options) or "none"
        hint = did_you_mean(option, attack.options)
        raise UserError(f"{name} has no option {option}; it has {known}{hint}", f"options.{option}")


def library_attack(name: str, options: Mapping[str, object] | None = None) -> Callable[..., AttackResult]:
    """An attack of another package as a function like those in `attacks`.

    The function is called with (model, images, labels, *, norm, targets, ids, seed, batch),
    `epsilon` where the attack searches within a radius, `steps` and `step_size` where it has them
    (by whatever name), and the other options of its class by their own names; `inspect.signature`
    shows them with their defaults. It returns `AttackResult`. An image that is misclassified to
    begin with is not shown to the attack. The forward and backward passes are counted as the attack
    asks for them, with ours before and after, and shared evenly among the images of a batch. A step
    size, where none is given, is to the radius as in the defaults of the class. The function raises
    UserError for what the attack refuses, and for a network that is several at once.

    Args:
        name: `foolbox:<class>` or `art:<class>`, such as `foolbox:LinfPGD`, `foolbox:L2FMNAttack`,
            `art:AutoProjectedGradientDescent`.
        options: arguments of the constructor, which those of a call override.

    Raises:
        UserError: as `check`.
    """
    check(name, options)
    found, fixed = find(name), dict(options or {})
    within = found.capabilities.radius == "fixed"

    def attack(
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        norm: Norm = found.capabilities.norms[0],
        targets: Tensor | None = None,
        ids: Sequence[int] | None = None,
        seed: int = 0,
        batch: int | None = None,
        epsilon: float | Tensor | None = None,
        steps: int | None = None,
        step_size: float | None = None,
        **further: object,
    ) -> AttackResult:
        arguments = _arguments(found, fixed | further, {"steps": steps, "step_size": step_size})
        norms = found.capabilities.norms
        check_arguments(name, images, labels, epsilon=epsilon, norm=norm, norms=norms, targets=targets)
        if within and epsilon is None:
            raise UserError(f"{name} searches within a radius: give epsilon", "epsilon")
        if not within and epsilon is not None:
            raise UserError(f"{name} searches for a small perturbation and takes no radius", "epsilon")
        ids = range(len(images)) if ids is None else ids
        batch = batch_size(images.shape[1:].numel(), images.device) if batch is None else batch
        run = LIBRARIES[name.partition(":")[0]].prepare(found, norm, arguments, batch)
        radii = None
        if epsilon is not None:
            radii = torch.as_tensor(epsilon, dtype=images.dtype).expand(len(images)).to(images.device)
        return in_turn(name, run, model, images, labels, targets, radii, norm, ids, seed, batch)

    attack.__dict__["ATTACK"] = found.capabilities
    attack.__dict__["__signature__"] = _signature(inspect.signature(attack), found, fixed)
    attack.__annotations__ = {"norm": Literal[found.capabilities.norms], "return": AttackResult}
    attack.__name__ = attack.__qualname__ = name
    return attack


def _signature(signature: inspect.Signature, found: LibraryAttack, fixed: Mapping[str, object]) -> inspect.Signature:
    """What a user may set.

    That is of our arguments those that the attack has, then the options of its class.
    """
    kinds: dict[str, object] = {
        "norm": Literal[found.capabilities.norms],
        "steps": int | None,
        "step_size": float | None,
    }
    shown = [
        each.replace(annotation=kinds.get(each.name, each.annotation))
        for each in signature.parameters.values()
        if each.kind is not each.VAR_KEYWORD
        and (each.name != "epsilon" or found.capabilities.radius == "fixed")
        and (each.name not in ("steps", "step_size") or each.name in found.names)
    ]
    taken = {each.name for each in shown}
    shown += [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=fixed.get(option, default))
        for option, default in found.options.items()
        if option not in taken
    ]
    return signature.replace(parameters=shown)


def _arguments(found: LibraryAttack, options: Mapping[str, object], ours: Mapping[str, object]) -> dict[str, object]:
    """The arguments of the constructor that the user has set, by its names.

    The `options` are by the names of the constructor too, `ours` by our names.
    """
    check(found.name, options)
    arguments = {option: value for option, value in options.items() if value is not None}
    for name, value in ours.items():
        if value is None:
            continue
        if name not in found.names:
            raise UserError(f"{found.name} has no {name}; it has {', '.join(found.options) or 'no options'}", name)
        theirs = found.names[name]
        if arguments.get(theirs, value) != value:
            raise UserError(f"{found.name}: {name} and {theirs} are the same; give one of them", name)
        arguments[theirs] = value
    return arguments
