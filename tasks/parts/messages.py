"""Words for mistakes of the user: pydantic's errors in plain English, and the likely name."""

from __future__ import annotations

import difflib
import json
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tasks.parts.dotted import holds, model_at, settings_of
from tasks.parts.settings import Kind, UserError

Model = TypeVar("Model", bound=BaseModel)

WHOLE = "a whole number"
WANTED = {
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_parsing_size": WHOLE,
    "int_from_float": WHOLE,
    "float_type": "a number",
    "float_parsing": "a number or a fraction such as 8/255",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text",
    "string_too_short": "text of at least {min_length} characters",
    "list_type": "a list",
    "tuple_type": "a list",
    "missing": "a list of more entries",  # of a tuple; a missing field has words of its own
    "too_short": "a list of at least {min_length} {entries}",
    "too_long": "a list of at most {max_length} {entries}",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "model_attributes_type": "a mapping of names to values",
    "literal_error": "{one_of}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}
"""Type of a pydantic error -> what is allowed, in words that follow `must be`."""
BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "too_short", "too_long")
"""Errors of a value that has the right type."""


def did_you_mean(name: str, allowed: Iterable[str], cutoff: float = 0.6) -> str:
    """The words `; did you mean x?` with the `closest` name; empty where no name is close.

    >>> did_you_mean("linfpdg", ["LinfPGD", "L2PGD"])
    '; did you mean LinfPGD?'
    >>> did_you_mean("epochs", ["recipe", "recipe.epochs"])
    '; did you mean recipe.epochs?'
    """
    near = closest(name, allowed, cutoff)
    return f"; did you mean {near}?" if near else ""


def closest(name: str, allowed: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The allowed name that is most like a name, whatever the case; None where none is close.

    A dotted name that ends in the name comes first: `recipe.epochs` for `epochs`.

    Args:
        name: as the user wrote it.
        allowed: the names to choose from.
        cutoff: the likeness that counts as close, between 0 and 1.
    """
    names = list(allowed)
    near = [known for known in names if known.endswith(f".{name}") and name not in names]
    by_lower = {known.lower(): known for known in names}
    alike = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=cutoff)
    return next(iter(near or [by_lower[each] for each in alike]), None)


def quote(value: object) -> str:
    """A value as a user would write it, cut to 60 characters."""
    text = value if isinstance(value, str) and value.strip() else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def validated(model: type[Model], entries: Mapping[str, object], owner: str) -> Model:
    """Makes a model from entries, and words its errors for the user.

    Stricter than pydantic: true is not taken for the number 1, and numbers must be finite.

    Args:
        model: the model to make.
        entries: the values of its fields.
        owner: what has the fields, for messages, such as `a sweep`.

    Raises:
        UserError: for the first entry that the model refuses, with its dotted path.
    """
    try:
        settings = model.model_validate(entries)
    except ValidationError as error:
        raise translated(error, model, entries, owner) from None
    _refuse_odd_numbers(entries, settings.model_dump(by_alias=True))
    return settings


def translated(error: ValidationError, model: type[BaseModel], entries: object, owner: str) -> UserError:
    """The first mistake of a validation as a `UserError`.

    An unknown field comes first, since it may be the cause of the others.
    """
    items = [(_path_in(item["loc"], entries), item) for item in error.errors(include_url=False)]
    for path, item in items:
        if item["type"] == "extra_forbidden":
            return UserError(_unknown_field(model, path, owner), path)
    first = items[0][0]
    at = next((path for path, _ in items if path.startswith(f"{first}.")), first) if first else first
    mine = [item for path, item in items if path == at]  # each type of a union has an error of its own
    value = mine[0]["input"]
    if mine[0]["type"] == "missing" and isinstance(mine[0]["loc"][-1], str):
        return UserError("is missing", at)
    for item in mine:
        if "error" in item.get("ctx", {}):
            return _raised(item["ctx"]["error"], value).below(at)
    if any(item["type"] in BOUNDS for item in mine):  # the type is right: errors of other types are no help
        mine = [item for item in mine if item["type"] in (*BOUNDS, "literal_error")]
    names = list(dict.fromkeys(name for item in mine for name in _literals(item, model)))
    wanted = list(dict.fromkeys(_wanted(item, names) for item in mine))
    kind: Kind = "whole number" if WHOLE in wanted else "value"
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    return UserError(f"must be {' or '.join(wanted)}, not {quote(value)}{hint}", at, kind)


def _raised(error: Exception, value: object) -> UserError:
    """The error that a validator raised.

    A validator of the user's own may raise any error, and name a field as in `name: message`.
    """
    if isinstance(error, UserError):
        return error
    name, colon, rest = str(error).partition(": ")
    return UserError(rest, name) if colon and holds(value, name) else UserError(str(error))


def _refuse_odd_numbers(came: object, became: object, path: str = "") -> None:
    """Refuses true or false for a number, and numbers that are not finite."""
    below = f"{path}." if path else ""
    if isinstance(came, dict) and isinstance(became, dict):
        for name in came:
            _refuse_odd_numbers(came[name], became.get(name), f"{below}{name}")
    elif isinstance(came, list) and isinstance(became, list | tuple):
        for number, (one, other) in enumerate(zip(came, became, strict=False)):
            _refuse_odd_numbers(one, other, f"{below}{number}")
    elif isinstance(became, float) and not math.isfinite(became):
        raise UserError(f"must be a finite number, not {quote(came)}", path, "value")
    elif isinstance(came, bool) and isinstance(became, int | float) and not isinstance(became, bool):
        raise UserError(f"must be a number, not {quote(came)}", path, "value")


def _unknown_field(model: type[BaseModel], path: str, owner: str) -> str:
    holder, _, name = path.rpartition(".")
    parent = model_at(model, holder)
    fields = [info.alias or field for field, info in parent.model_fields.items()] if parent else []
    hint = did_you_mean(name, fields) or (did_you_mean(name, settings_of(parent)) if parent else "")
    return f"unknown field; {holder or owner} has {', '.join(fields)}{hint}"


def _wanted(item: ErrorDetails, names: Sequence[str]) -> str:
    """What is allowed, in words that follow `must be`; `names` are the values of literals."""
    if item["type"] not in WANTED:
        return f"valid ({item['msg']})"
    limits = {name: f"{v:g}" if isinstance(v, float) else v for name, v in item.get("ctx", {}).items()}
    count = limits.get("min_length" if item["type"] == "too_short" else "max_length")
    one_of = f"one of {', '.join(names)}" if len(names) > 1 else "".join(names) or limits.get("expected")
    return WANTED[item["type"]].format(entries="entry" if count == 1 else "entries", one_of=one_of, **limits)


def _literals(item: ErrorDetails, model: type[BaseModel]) -> list[str]:
    """The values that the type of a field allows, for an error of a `Literal`; else none."""
    if item["type"] != "literal_error":
        return []
    types: list[object] = [model]
    for part in item["loc"]:  # what is no field, such as a place in a list, stays at the same types
        models = [each for each in types if isinstance(each, type) and issubclass(each, BaseModel)]
        fields = [field for each in models for field in each.model_fields.items()]
        below = [info.annotation for name, info in fields if part in (name, info.alias)]
        types = [each for annotation in below for each in _types_in(annotation)] or types
    literals = [each for each in types if typing.get_origin(each) is Literal]
    return [str(value) for each in literals for value in typing.get_args(each)]


def _types_in(annotation: object) -> Iterator[object]:
    """A type and all types that it is made of, such as those of a union."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _types_in(part)


def _path_in(loc: tuple[int | str, ...], entries: object) -> str:
    """The dotted path of an error: `loc` without its parts that are no entries, such as types."""
    path: list[str] = []
    for depth, part in enumerate(loc):
        if isinstance(entries, dict) and (part in entries or depth == len(loc) - 1):
            path.append(str(part))
            entries = entries.get(part)
        elif isinstance(entries, list) and isinstance(part, int) and part < len(entries):
            path.append(str(part))
            entries = entries[part]
    return ".".join(path)
