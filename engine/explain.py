"""Settings models seen by dotted names, and their validation errors told in one line."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.source import meant


def settings_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Dotted name -> label of every setting, those of nested groups included. The label is the field's title, else its name."""
    names: dict[str, str] = {}
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names |= settings_of(info.annotation, f"{prefix}{name}.")
        else:
            names[prefix + name] = info.title or prefix + name
    return names


def unknown(model: type[BaseModel], path: str) -> bool:
    """Whether a dotted name is no setting of the model, nor an entry of one of its free mappings."""
    parent, _, name = path.rpartition(".")
    owner = _model_at(model, parent.split(".")) if parent else model
    if owner is not None:
        return name not in owner.model_fields
    holder, _, field = parent.rpartition(".")  # inside a free mapping, such as recipe.network_options.width
    free = _model_at(model, holder.split(".")) if holder else model
    return free is None or field not in free.model_fields or "dict" not in str(free.model_fields[field].annotation)


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of what nested mappings hold."""
    names: list[str] = []
    for name, value in values.items():
        names += leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return names


def explain(error: ValidationError, model: type[BaseModel], entries: Any, owner: str) -> tuple[str, str]:
    """The first error of a validation: the dotted path to it, and one line that says what came and what is allowed."""
    found: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for item in error.errors(include_url=False):
        path = _path_in(item["loc"], entries)
        values.setdefault(path, item["input"])
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if item["type"] == "extra_forbidden":
            parent = _model_at(model, path.split(".")[:-1])
            name = path.rpartition(".")[2]
            fields = list(parent.model_fields) if parent else []
            where = owner if "." not in path else path.rpartition(".")[0]
            message = f"unknown field; {where} has {', '.join(fields)}{meant(name, fields)}"
            return path, message
        if item["type"] == "missing":
            return path, "is missing"
        if message not in found.setdefault(path, []):
            found[path].append(message)
    path, messages = next(iter(found.items()))
    said = " or ".join(messages)
    if error.errors()[0]["type"] != "value_error" or not isinstance(values[path], dict):
        said += f", not {shown(values[path])}"
    return path, said


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _path_in(loc: tuple[int | str, ...], entries: Any) -> str:
    """A validation error's location without the parts that are no entries, such as the member of a union that was tried."""
    path: list[str] = []
    for depth, part in enumerate(loc):
        if isinstance(entries, dict) and (part in entries or depth == len(loc) - 1):
            path.append(str(part))
            entries = entries.get(part)
        elif isinstance(entries, list) and isinstance(part, int) and part < len(entries):
            path.append(str(part))
            entries = entries[part]
    return ".".join(path)


def _model_at(model: type[BaseModel] | None, path: Iterable[str]) -> type[BaseModel] | None:
    for name in path:
        info = model.model_fields.get(name) if model else None
        candidates = [info.annotation, *typing.get_args(info.annotation)] if info else []
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return model
