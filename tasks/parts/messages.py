"""What a user is told of a mistake: pydantic's errors in plain words, and the likely name."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

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
    "missing": "a list of more entries",  # of a tuple; a field that is missing is told apart
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
"""Type of a validation error -> what is allowed, as words that follow `must be`."""
BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "too_short", "too_long")
"""Errors of a value that is of the right type."""


def did_you_mean(name: str, allowed: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean x?` with the `closest` name, or nothing where none is close.

    >>> did_you_mean("linfpdg", ["LinfPGD", "L2PGD"]), did_you_mean("epochs", ["recipe", "recipe.epochs"])
    ('; did you mean LinfPGD?', '; did you mean recipe.epochs?')
    """
    near = closest(name, allowed, cutoff)
    return f"; did you mean {near}?" if near else ""


def closest(name: str, allowed: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The allowed name that ends in this one (`recipe.epochs` for `epochs`), else the most alike, whatever the case.

    Args:
        cutoff: likeness that counts as close, between 0 and 1.
    """
    names = list(allowed)
    near = [known for known in names if known.endswith(f".{name}") and name not in names]
    by_lower = {known.lower(): known for known in names}
    alike = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=cutoff)
    return next(iter(near or [by_lower[each] for each in alike]), None)


def quote(value: object) -> str:
    """A value as a user would write it, cut to a length that fits a line."""
    text = value if isinstance(value, str) and value.strip() else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def validated(model: type[Model], entries: Mapping[str, object], owner: str) -> Model:
    """A model of entries. True is not taken for the number 1, and numbers must be finite.

    Args:
        owner: who has the fields, for messages.

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
    """The first mistake of a validation; an unknown field first, for it may cause the others."""
    items = [(_path_in(item["loc"], entries), item) for item in error.errors(include_url=False)]
    for path, item in items:
        if item["type"] == "extra_forbidden":
            return UserError(_unknown_field(model, path, owner), path)
    first = items[0][0]
    at = next((path for path, _ in items if path.startswith(f"{first}.")), first) if first else first
    mine = [item for path, item in items if path == at]  # each type of a union says what it wants
    value = mine[0]["input"]
    if mine[0]["type"] == "missing" and isinstance(mine[0]["loc"][-1], str):
        return UserError("is missing", at)
    for item in mine:
        if "error" in item.get("ctx", {}):
            return _raised(item["ctx"]["error"], value).below(at)
    if any(item["type"] in BOUNDS for item in mine):  # the type is right: the others are no help
        mine = [item for item in mine if item["type"] in (*BOUNDS, "literal_error")]
    wanted = list(dict.fromkeys(map(_wanted, mine)))
    kind: Kind = "whole number" if WHOLE in wanted else "value"
    return UserError(f"must be {' or '.join(wanted)}, not {quote(value)}{_near(mine)}", at, kind)


def _raised(error: Exception, value: object) -> UserError:
    """What a validator has raised. One of a user's own may say `name: message`, to name a field."""
    if isinstance(error, UserError):
        return error
    name, colon, rest = str(error).partition(": ")
    return UserError(rest, name) if colon and holds(value, name) else UserError(str(error))


def _refuse_odd_numbers(came: object, became: object, path: str = "") -> None:
    """A `UserError` where true or false became a number, or a number is not finite."""
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


def _wanted(item: ErrorDetails) -> str:
    """What is allowed, as words that follow `must be`."""
    if item["type"] not in WANTED:
        return f"valid ({item['msg']})"
    limits = {name: f"{v:g}" if isinstance(v, float) else v for name, v in item.get("ctx", {}).items()}
    count = limits.get("min_length" if item["type"] == "too_short" else "max_length")
    names = _names(item)
    one_of = f"one of {', '.join(names)}" if len(names) > 1 else "".join(names)
    return WANTED[item["type"]].format(entries="entry" if count == 1 else "entries", one_of=one_of, **limits)


def _names(item: ErrorDetails) -> list[str]:
    """The values that a literal allows."""
    return re.findall(r"'([^']*)'", item["ctx"]["expected"]) if item["type"] == "literal_error" else []


def _near(items: Sequence[ErrorDetails]) -> str:
    value = items[0]["input"]
    return did_you_mean(value, [name for item in items for name in _names(item)]) if isinstance(value, str) else ""


def _path_in(loc: tuple[int | str, ...], entries: object) -> str:
    """The dotted path of an error: `loc` without what is no entry, such as the types of a union."""
    path: list[str] = []
    for depth, part in enumerate(loc):
        if isinstance(entries, dict) and (part in entries or depth == len(loc) - 1):
            path.append(str(part))
            entries = entries.get(part)
        elif isinstance(entries, list) and isinstance(part, int) and part < len(entries):
            path.append(str(part))
            entries = entries[part]
    return ".".join(path)
