"""Dotted names (`recipe.input_noise.radius`) in nested mappings and in models of settings."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

Value = TypeVar("Value")


def is_below(name: str, path: str) -> bool:
    """Whether a dotted name is a path, or lies below it.

    >>> is_below("recipe.seed", "recipe"), is_below("recipes", "recipe")
    (True, False)
    """
    return name == path or name.startswith(f"{path}.")


def flatten(values: Mapping[str, Value], prefix: str = "") -> dict[str, Value]:
    """What nested mappings hold, by dotted name.

    >>> flatten({"seed": 1, "recipe": {"epochs": 2, "robust": {}}})
    {'seed': 1, 'recipe.epochs': 2}
    """
    flat: dict[str, Value] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def merged(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Nested mappings with the entries of others put in.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    result = dict(values)
    for name, value in changes.items():
        inside = result.get(name)
        result[name] = merged(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return result


def blocked_by(entries: Mapping[str, object], path: Sequence[str]) -> list[str] | None:
    """The part of a path that holds something other than a mapping, so that nothing fits below it.

    >>> blocked_by({"recipe": 3}, ["recipe", "seed"])
    ['recipe']
    """
    for depth, name in enumerate(path[:-1], 1):
        if name not in entries:
            return None
        held = entries[name]
        if not isinstance(held, dict):
            return list(path[:depth])
        entries = held
    return None


def set_at(entries: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Puts a value at a path of nested mappings, in place of what is there; see `blocked_by`."""
    for name in path[:-1]:
        entries = entries.setdefault(name, {})
    entries[path[-1]] = value


def holds(value: object, path: str) -> bool:
    """Whether nested mappings or lists have an entry at a dotted path, such as `radii.0`."""
    for part in path.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return False
    return True


def settings_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every setting by dotted name, also inside groups, with its title, or its name."""
    names: dict[str, str] = {}
    for field, info in model.model_fields.items():
        name = info.alias or field
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names |= settings_of(info.annotation, f"{prefix}{name}.")
        else:
            names[prefix + name] = info.title or prefix + name
    return names


def inner_settings(model: type[BaseModel], names: Iterable[str]) -> dict[str, str]:
    """The names that address an entry inside a setting, with their labels.

    Such are the entries of a free mapping (`recipe.network_options.width`), and the settings of a
    group that may be null (`recipe.finetune_from.epochs`).
    """
    outer, found = settings_of(model), {}
    for name in names:
        holder = next((setting for setting in outer if name.startswith(f"{setting}.")), None)
        if holder is not None:
            owner = model_at(model, holder)
            inner = name.removeprefix(f"{holder}.")
            label = settings_of(owner).get(inner, inner) if owner else inner
            found[name] = name if label == inner else f"{label} of {holder.rpartition('.')[2]}"
    return found


def is_setting(model: type[BaseModel], path: str) -> bool:
    """Whether a dotted name is a setting of the model, or an entry of one of its free mappings."""
    parent, _, name = path.rpartition(".")
    owner = model_at(model, parent)
    if owner is not None:
        return name in owner.model_fields
    holder, _, field = parent.rpartition(".")  # a free mapping, such as recipe.network_options
    above = model_at(model, holder)
    info = above.model_fields.get(field) if above else None
    return info is not None and any(typing.get_origin(part) is dict for part in _parts_of(info.annotation))


def model_at(model: type[BaseModel] | None, path: str) -> type[BaseModel] | None:
    """The model at a dotted path, itself at the empty one; None where there is none.

    In a mapping of models the rest of the path is one name, which may have dots.
    """
    for name in path.split(".") if path else ():
        if name.isdecimal():
            continue  # an entry of a list of models
        info = model.model_fields.get(name) if model else None
        parts = _parts_of(info.annotation) if info else iter(())
        model = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
        if info and typing.get_origin(info.annotation) is dict:
            return model
    return model


def _parts_of(annotation: object) -> Iterator[object]:
    """A type and all types that it is made of."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _parts_of(part)
