"""Reading a sweep file: plain YAML with the line of every entry, and `key=value` overrides from the command line.

Unquoted scalars follow the core schema of YAML 1.2: null, true and false, integers, floats (`1e-3` is one), and text (`no` is).
A key given twice is an error. A dotted key is a path: `recipe.seed: 1` says the same as `recipe: {seed: 1}`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.parts.settings import UserError

LARGEST = 100_000
"""Entries in a sweep file at most: aliases can make a small file expand without bound."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    text: value for value in (True, False) for text in (str(value), str(value).lower(), str(value).upper())
}
_SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}


class SpecError(UserError):
    """A mistake in a sweep file or an override; the message is whole, with file, line and field."""


@dataclass
class Source:
    """Where each entry of a sweep came from: dotted path -> line of the file, or the override that set it."""

    file: str
    lines: dict[str, int] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)

    def error(self, path: str, message: str) -> SpecError:
        """The error to raise for the entry at a dotted path (or, where it is absent, for the nearest entry above it)."""
        above = path
        while above and above not in self.lines and above not in self.overrides:
            above = above.rpartition(".")[0]
        name = f"{path}: " if path else ""
        if above in self.overrides:
            return SpecError(f"override {self.overrides[above]}: {name}{message}")
        line = f":{self.lines[above]}" if above in self.lines else ""
        return SpecError(f"{self.file}{line}: {name}{message}")


def meant(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean x?` where an allowed name is close, else nothing.

    >>> meant("radiii", ["radii", "seed"])
    '; did you mean radii?'
    """
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def read(file: str | Path) -> tuple[dict[str, Any], Source]:
    """A sweep file's entries as nested mappings, and where each came from.

    Raises:
        SpecError: no such file, not text, not YAML, not a mapping, a key twice.
    """
    source = Source(str(file))
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise SpecError(f"{file}: no such file") from None
    except OSError as error:
        raise SpecError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{file}: not a text file in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise SpecError(f"{file}{line}: not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{file}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise SpecError(f"{file}: nested too deeply") from None
    if not isinstance(node, yaml.MappingNode):
        raise SpecError(f"{file}:1: a sweep is a mapping such as `task: input_flatness`, not {_kind(node)}")
    try:
        return _mapping(node, "", source, [0]), source
    except RecursionError:
        raise SpecError(f"{file}: nested too deeply") from None


def scalar(text: str) -> Any:
    """The value of an unquoted scalar.

    >>> [scalar(text) for text in ("1", "1e-3", "no", "true", "", "8/255")]
    [1, 0.001, 'no', True, None, '8/255']
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 20 else float(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def override(text: str, source: Source) -> tuple[str, Any]:
    """Splits `key=value`; the value is written as in the file.

    Raises:
        SpecError: there is no `=`, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SpecError(f"override {text}: not of the form key=value, such as recipe.epochs=5")
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
        plain = Source(source.file)
        return key, None if node is None else _value(node, key, plain, [0])
    except (yaml.YAMLError, RecursionError):
        raise SpecError(f"override {text}: the value is not valid YAML") from None


def place(entries: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Puts a value at a path of nested mappings, in place of what is there."""
    for name in path[:-1]:
        below = entries.get(name)
        if not isinstance(below, dict):
            below = entries[name] = {}
        entries = below
    entries[path[-1]] = value


def _kind(node: yaml.Node | None) -> str:
    return {yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}.get(type(node), "an empty file")


def _value(node: yaml.Node, path: str, source: Source, count: list[int]) -> Any:
    count[0] += 1
    if count[0] > LARGEST:
        raise SpecError(f"{source.file}: more than {LARGEST} entries")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source, count)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            source.lines[f"{path}.{number}"] = item.start_mark.line + 1
        return [_value(item, f"{path}.{number}", source, count) for number, item in enumerate(node.value)]
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise source.error(path, f"the tag {node.tag} is not known; plain YAML is")
    assert isinstance(node, yaml.ScalarNode)
    return node.value if node.style else scalar(node.value)


def _mapping(node: yaml.MappingNode, path: str, source: Source, count: list[int]) -> dict[str, Any]:
    """A mapping with its dotted keys taken apart; `grid` and `search` keep theirs, since each entry is one setting."""
    entries: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
        if not key or not all(key.split(".")):
            raise SpecError(
                f"{source.file}:{line}: {path + ': ' if path else ''}a key is a name, or names joined by dots"
            )
        full = f"{path}.{key}" if path else key
        before = source.lines.get(full)
        source.lines[full] = line
        names = [key] if path in ("grid", "search") else key.split(".")
        if not _joined(entries, names, _value(value_node, full, source, count)):
            where = f", first in line {before}" if before else ""
            raise SpecError(f"{source.file}:{line}: {full}: given twice{where}")
    return entries


def _joined(entries: dict[str, Any], path: Sequence[str], value: Any) -> bool:
    """Puts a value at a path; mappings join. False where something stands there already."""
    first, rest = path[0], path[1:]
    if rest:
        below = entries.setdefault(first, {})
        return isinstance(below, dict) and _joined(below, rest, value)
    if first not in entries:
        entries[first] = value
        return True
    if isinstance(entries[first], dict) and isinstance(value, dict):
        return all(_joined(entries[first], [name], item) for name, item in value.items())
    return False
