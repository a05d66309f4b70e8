"""Settings models seen by dotted names, and their validation errors told in one line."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engine.sweepfile.yaml_lines import meant

_Model = TypeVar("_Model", bound=BaseModel)

WHOLE = "a whole number"
"""What messages call an int."""
_WANTED = {
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
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "model_attributes_type": "a mapping of names to values",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}
"""Kind of a validation error -> what is allowed."""
_BOUNDS = ("greater", "less", "too_", "value_error")


class Mistake(Exception):
    """Entries that a model refuses: the dotted path to the first at fault, and one line on what came and what is allowed."""

    def __init__(self, path: str, message: str):
        super().__init__(f"{path}: {message}")
        self.path, self.message = path, message


def settings_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Dotted name -> label of every setting, those of nested groups included. The label is the field's title, else its name."""
    names: dict[str, str] = {}
    for field, info in model.model_fields.items():
        name = info.alias or field
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names |= settings_of(info.annotation, f"{prefix}{name}.")
        else:
            names[prefix + name] = info.title or prefix + name
    return names


def inner_settings(model: type[BaseModel], names: Iterable[str]) -> dict[str, str]:
    """Of dotted names those that lie inside a setting, with their labels: entries of a free mapping such as `recipe.network_options`,
    and the settings of `recipe.finetune_from`, which is one itself."""
    outer, found = settings_of(model), {}
    for name in names:
        holder = next((setting for setting in outer if name.startswith(f"{setting}.")), None)
        if holder is not None:
            owner = _model_at(model, holder.split("."))
            inner = name.removeprefix(f"{holder}.")
            label = settings_of(owner).get(inner, inner) if owner else inner
            found[name] = name if label == inner else f"{label} of {holder.rpartition('.')[2]}"
    return found


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


def validated(model: type[_Model], entries: dict[str, Any], owner: str) -> _Model:
    """A model of entries. Stricter than the model alone: true is not the number 1, and numbers are finite.

    Args:
        owner: who has the fields, for messages.

    Raises:
        Mistake: for the first entry that the model refuses.
    """
    try:
        settings = model.model_validate(entries)
    except ValidationError as error:
        raise explain(error, model, entries, owner) from None
    refuse_odd_numbers(entries, settings.model_dump(by_alias=True))
    return settings


def explain(error: ValidationError, model: type[BaseModel], entries: Any, owner: str) -> Mistake:
    """The first mistake of a validation; an unknown field before all others, since a misspelt one may cause them."""
    items = [(_path_in(item["loc"], entries), item) for item in error.errors(include_url=False)]
    for path, item in items:
        if item["type"] == "extra_forbidden":
            return Mistake(path, _unknown_field(model, path, owner))
    first = items[0][0]
    at = next((path for path, _ in items if path.startswith(f"{first}.")), first) if first else first
    mine = [item for path, item in items if path == at]  # several: each kind of a union refuses in its own words
    value = mine[0]["input"]
    if mine[0]["type"] == "missing" and isinstance(mine[0]["loc"][-1], str):
        return Mistake(at, "is missing")
    own = _own_words(mine[0])
    if own and isinstance(value, dict):
        name, colon, rest = own.partition(": ")
        return Mistake(f"{at}.{name}".lstrip("."), rest) if colon and _holds(value, name) else Mistake(at, own)
    if own and not own.endswith(" is needed"):
        return Mistake(at, own if own.endswith(")") or shown(value) in own else f"{own}, not {shown(value)}")
    if any(
        item["type"].startswith(_BOUNDS) for item in mine
    ):  # the kind is right, and what else it might be is no help
        mine = [item for item in mine if item["type"].startswith((*_BOUNDS, "literal"))]
    wanted = " or ".join(dict.fromkeys(map(_wanted, mine)))
    return Mistake(at, f"must be {wanted}, not {shown(value)}{_close(mine, value)}")


def refuse_odd_numbers(came: Any, became: Any, path: str = "") -> None:
    """A `Mistake` where true or false became a number, or a number is not finite."""
    below = f"{path}." if path else ""
    if isinstance(came, dict) and isinstance(became, dict):
        for name in came:
            refuse_odd_numbers(came[name], became.get(name), f"{below}{name}")
    elif isinstance(came, list) and isinstance(became, list | tuple):
        for number, (one, other) in enumerate(zip(came, became, strict=False)):
            refuse_odd_numbers(one, other, f"{below}{number}")
    elif isinstance(became, float) and not math.isfinite(became):
        raise Mistake(path, f"must be a finite number, not {shown(came)}")
    elif isinstance(came, bool) and isinstance(became, int | float) and not isinstance(became, bool):
        raise Mistake(path, f"must be a number, not {shown(came)}")


def shown(value: Any) -> str:
    """A value as a user would write it, cut to a length that fits a line."""
    text = value if isinstance(value, str) and value.strip() else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def alike(name: str, names: Iterable[str]) -> str:
    """`; did you mean x?` for a name that is close, or that is the last part of one.

    >>> alike("epochs", ["recipe", "recipe.epochs"])
    '; did you mean recipe.epochs?'
    """
    names = list(names)
    ends = [known for known in names if known.endswith(f".{name}")]
    return f"; did you mean {ends[0]}?" if ends and name not in names else meant(name, names)


def _unknown_field(model: type[BaseModel], path: str, owner: str) -> str:
    holder, _, name = path.rpartition(".")
    parent = _model_at(model, holder.split(".")) if holder else model
    fields = [info.alias or field for field, info in parent.model_fields.items()] if parent else []
    hint = meant(name, fields) or (alike(name, settings_of(parent)) if parent else "")
    return f"unknown field; {holder or owner} has {', '.join(fields)}{hint}"


def _wanted(item: Any) -> str:
    """What is allowed, as words that follow `must be`."""
    kind, limits = item["type"], item.get("ctx", {})
    if kind == "literal_error":
        names = _names(item)
        return f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    if kind in ("too_short", "too_long"):
        most, count = ("least", limits["min_length"]) if kind == "too_short" else ("most", limits["max_length"])
        return f"a list of at {most} {count} {'entry' if count == 1 else 'entries'}"
    if kind == "missing":
        return "a list of more entries"
    if kind in _WANTED:
        return _WANTED[kind].format(**{name: f"{v:g}" if isinstance(v, float) else v for name, v in limits.items()})
    message = _own_words(item) or item["msg"].removeprefix("Input should be ").removeprefix("Input ")
    return message.removesuffix(" is needed")


def _own_words(item: Any) -> str | None:
    """What a validator of ours says, such as `a finite number is needed`."""
    if item["type"] != "value_error":
        return None
    return re.sub(r" is needed, not .*", " is needed", item["msg"].removeprefix("Value error, "))


def _holds(value: Any, name: str) -> bool:
    """Whether nested mappings or lists have an entry at a dotted name."""
    for part in name.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return False
    return True


def _names(item: Any) -> list[str]:
    """The values that a literal allows."""
    return re.findall(r"'([^']*)'", item["ctx"]["expected"])


def _close(items: list[Any], value: Any) -> str:
    names = [name for item in items if item["type"] == "literal_error" for name in _names(item)]
    return meant(value, names) if isinstance(value, str) else ""


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
    """The settings model at a dotted path; of a mapping of models, whose names may have dots, the model of its values."""
    for name in path:
        if name.isdecimal():
            continue  # an entry of a list of models
        info = model.model_fields.get(name) if model else None
        model = next(_models_in(info.annotation), None) if info else None
        if info and typing.get_origin(info.annotation) is dict:
            return model
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)
