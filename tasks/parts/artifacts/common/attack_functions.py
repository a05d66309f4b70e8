"""Finds the function of an attack by name, and reads its settings off its signature and file.

An attack is a function in `tasks/parts/attacks/` that has the name of its file. The attacks of
other packages are called `foolbox:<class>` and `art:<class>` (`libraries`).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tasks.parts import attacks
from tasks.parts.attacks.common import libraries
from tasks.parts.attacks.common.capabilities import misdeclared
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.members import Members
from tasks.parts.settings import UserError

ATTACKS = Members(attacks.__name__, "attack", ("VERSION", "ATTACK"), "tasks/parts/attacks/common/capabilities.py")
RESERVED = {"model", "images", "labels", "ids", "seed", "batch", "targets", "box", "start"}
"""Arguments of an attack's function that users do not set, unless they are one of several words."""
Arguments = Mapping[str, Any]
"""Keyword arguments of an attack's function; the function says of which type each is."""


def names() -> list[str]:
    """The attacks on disk."""
    return list(ATTACKS.names())


def is_of_library(name: str) -> bool:
    """Whether an attack is one of another package.

    >>> is_of_library("foolbox:LinfPGD"), is_of_library("pgd")
    (True, False)
    """
    return ":" in name


@cache
def function_of(name: str) -> Callable[..., AttackResult]:
    """The attack's function.

    Raises:
        UserError: its file cannot be imported or lacks what an attack declares; or a library has
            no such class, as for `libraries.find`.
    """
    if is_of_library(name):
        return libraries.library_attack(name)
    path = f"{attacks.__name__}.{name}"
    try:
        module = importlib.import_module(path)
        wrong = misdeclared(module)
    except Exception as error:  # whatever a file of the user's own runs into
        wrong = f"cannot be imported: {type(error).__name__}: {error}"
    if wrong:
        raise UserError(f"its file tasks/parts/attacks/{name}.py is not as it should be: {wrong}", "attack.name")
    return getattr(module, name)


def arguments_of(name: str) -> Arguments:
    """The arguments of an attack that users may set, with their defaults."""
    return {
        argument: default
        for argument, default in parameters_of(name).items()
        if argument not in RESERVED or argument in choices_of(name)
    }


@cache
def versions_of(name: str) -> dict[str, int]:
    """The versions of an attack and of the attacks that it consists of, by name.

    >>> sorted(versions_of("bisection"))
    ['apgd', 'bisection']
    """
    if is_of_library(name):
        return {name: libraries.VERSION}
    module = importlib.import_module(f"{attacks.__name__}.{name}")
    versions = {name: module.VERSION}
    for part in vars(module).values():
        folder, _, other = getattr(part, "__module__", "").rpartition(".")
        if folder == attacks.__name__ and other != name:
            versions |= versions_of(other)
    return versions


@cache
def parameters_of(name: str) -> Arguments:
    """All arguments of an attack's function with their defaults, None if there is none."""
    parameters = inspect.signature(function_of(name)).parameters
    return {
        name: None if parameter.default is parameter.empty else parameter.default
        for name, parameter in parameters.items()
    }


@cache
def choices_of(name: str) -> Mapping[str, tuple[str, ...]]:
    """The words that are allowed, by argument, for the arguments that are one of several words."""
    found: dict[str, tuple[str, ...]] = {}
    for argument, hint in hints_of(name).items():
        literal = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal), None)
        if literal is not None:
            found[argument] = get_args(literal)
    return found


@cache
def hints_of(name: str) -> Mapping[str, object]:
    """The annotations of an attack's function.

    Of a library's attack it is the norm's alone: the library checks the other arguments.
    """
    return get_type_hints(function_of(name))
