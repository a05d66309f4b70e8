"""Reads plain YAML with the line of every entry, and `key=value` overrides.

Unquoted scalars follow the core schema of YAML 1.2: null, true and false, integers, floats (`1e-3`
is a float), and text (`no` is text). A key given twice is an error. A dotted key is a path:
`recipe.seed: 1` means `recipe: {seed: 1}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import JsonValue

from engine.terminal import printable
from tasks.parts.settings import UserError

LARGEST = 100_000
"""Most entries in a sweep file: aliases can make a small file expand without bound."""
DEEPEST = 30
"""Most levels of nesting."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    text: value for value in (True, False) for text in (str(value), str(value).lower(), str(value).upper())
}
_SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_PLAIN = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
}


class SpecError(UserError):
    """A mistake in a sweep file or an override.

    The message is one line and names the file, the line and the field.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message,)


@dataclass
class Source:
    """Where each entry of a sweep was written.

    Attributes:
        file: path of the sweep file.
        lines: dotted path -> line of the file.
        overrides: dotted path -> the override that set it, as text.
        earlier: dotted path of an entry that is written twice -> its first line.
    """

    file: str
    lines: dict[str, int] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, int] = field(default_factory=dict)

    def error(self, path: str, message: str) -> SpecError:
        """The error to raise for the entry at a dotted path.

        Where there is no such entry, it has the line of the first entry below the path, else of the
        nearest above.
        """
        at = path
        if path and not self.knows(path):
            at = next((name for name in (*self.overrides, *self.lines) if name.startswith(f"{path}.")), path)
        while at and not self.knows(at):
            at = at.rpartition(".")[0]
        if at in self.overrides:
            return SpecError(f"override {self.overrides[at]}: {_named(path)}{message}")
        return self.error_in(self.lines.get(at), path, message)

    def error_in(self, line: int | None, path: str, message: str) -> SpecError:
        """The error to raise for an entry at a line of the file."""
        return SpecError(f"{self.file}{f':{line}' if line else ''}: {_named(path)}{message}")

    def knows(self, path: str) -> bool:
        """Whether the file or an override has an entry at a path."""
        return path in self.lines or path in self.overrides

    def forget(self, path: str) -> None:
        """Removes the entry at a path, and all entries below it."""
        for known in (self.lines, self.overrides):
            for name in [name for name in known if name == path or name.startswith(f"{path}.")]:
                del known[name]


class _Override(Source):
    """The source of a single override: `file` is the override, and there are no lines."""

    def error_in(self, line: int | None, path: str, message: str) -> SpecError:
        return SpecError(f"{self.file}: {_named(path)}{message}")


def one_line(text: str) -> str:
    r"""Text in one line, with unprintable characters as escapes.

    >>> one_line("two\nlines, \x1b[0m")
    'two lines, \\x1b[0m'
    """
    return printable(" ".join(text.split()))


def read(file: str | Path) -> tuple[dict[str, JsonValue], Source]:
    """Reads the entries of a sweep file as nested mappings, and where each was written.

    Raises:
        SpecError: there is no such file, it is not text, not YAML or not a mapping, or a key is
            given twice.
    """
    source = Source(str(file))
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(f"{file}: no such file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{file}: not a text file in UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise SpecError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    node = _composed(text, source)
    if not isinstance(node, yaml.MappingNode):
        raise source.error_in(1, "", f"a sweep is a mapping such as `task: input_flatness`, not {_kind(node)}")
    count = [0]
    _check(node, "", source, count)
    return _mapping(node, "", source, count), source


def dump(entries: Mapping[str, object]) -> str:
    """Entries as YAML text; `read` gives back the same entries.

    >>> print(dump({"radii": [0, "8/255"], "name": "1e3", "rate": 1e-05}), end="")
    radii: [0, 8/255]
    name: '1e3'
    rate: 1.0e-05
    """
    return yaml.dump(entries, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)


def scalar(text: str) -> JsonValue:
    """The value of an unquoted scalar.

    >>> [scalar(text) for text in ("1", "1e-3", "no", "true", "", "8/255")]
    [1, 0.001, 'no', True, None, '8/255']
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text.lstrip("+-")) < 20 else float(text)  # beyond 64 bits
    return float(text) if _FLOAT.fullmatch(text) else text


def override(text: str) -> tuple[str, JsonValue]:
    """Splits `key=value` into the key and the value, which is written as in a sweep file.

    Raises:
        SpecError: there is no `=`, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SpecError(f"override {text}: not of the form key=value, such as recipe.epochs=5")
    if not all(key.split(".")):
        raise SpecError(f"override {text}: a key is a name, or names joined by dots")
    source = _Override(f"override {text}")
    node = _composed(value, source)
    return key, None if node is None else _value(node, key, source, [0])


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text, quoted where it would be read as another value."""
    style = "'" if scalar(text) != text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _named(path: str) -> str:
    return f"{path}: " if path else ""


def _composed(text: str, source: Source) -> yaml.Node | None:
    """The root node of a YAML document."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not with tabs" if "'\\t'" in problem else ""
        raise source.error_in(line, "", f"not valid YAML: {problem}{hint}") from None
    except yaml.YAMLError as error:
        raise source.error_in(None, "", f"not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise source.error_in(None, "", "nested too deeply") from None
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode, which PyYAML does not catch
        raise source.error_in(None, "", f"not valid YAML: {error}") from None


def _kind(node: yaml.Node | None) -> str:
    return {yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}.get(type(node), "an empty file")


def _check(node: yaml.Node, path: str, source: Source, count: list[int]) -> None:
    """Counts a node; refuses too many, nested too deeply, or not plain YAML."""
    count[0] += 1
    line = node.start_mark.line + 1
    if count[0] > LARGEST:
        raise source.error_in(None, "", f"more than {LARGEST} entries")
    if path.count(".") >= DEEPEST:
        raise source.error_in(line, "", f"nested more than {DEEPEST} levels deep")
    if node.tag not in _PLAIN:
        raise source.error_in(line, path, f"the tag {node.tag} is not known; plain YAML is")


def _value(node: yaml.Node, path: str, source: Source, count: list[int]) -> JsonValue:
    _check(node, path, source, count)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source, count)
    if isinstance(node, yaml.SequenceNode):
        values: list[JsonValue] = []
        for number, item in enumerate(node.value):
            source.lines[f"{path}.{number}"] = item.start_mark.line + 1
            values.append(_value(item, f"{path}.{number}", source, count))
        return values
    assert isinstance(node, yaml.ScalarNode)
    return node.value if node.style else scalar(node.value)


def _mapping(node: yaml.MappingNode, path: str, source: Source, count: list[int]) -> dict[str, JsonValue]:
    """A mapping in which dotted keys are nested mappings.

    `grid` and `search` keep their dotted keys, since each of their entries is one setting.
    """
    entries: dict[str, JsonValue] = {}
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
        if not key or not all(key.split(".")):
            raise source.error_in(line, path, "a key is a name, or names joined by dots")
        names = [key] if path in ("grid", "search") else key.split(".")
        full = f"{path}.{key}" if path else key
        if key in seen:
            raise source.error_in(line, full, f"given twice, first in line {seen[key]}")
        seen[key] = line
        for depth in range(1, len(names)):
            source.lines.setdefault(".".join([path, *names[:depth]]).lstrip("."), line)
        if full in source.lines:  # dotted and nested: allowed where both are mappings
            source.earlier[full] = source.lines[full]
        source.lines[full] = line
        twice = _joined(entries, names, _value(value_node, full, source, count))
        if twice is not None:
            at = f"{path}.{twice}" if path else twice
            here = source.lines[at] if at in source.earlier else line
            raise source.error_in(here, at, f"given twice, first in line {source.earlier.get(at, source.lines[at])}")
    return entries


def _joined(entries: dict[str, JsonValue], path: Sequence[str], value: JsonValue) -> str | None:
    """Puts a value at a path, and merges mappings.

    Returns the dotted path of an entry that is there already and cannot be merged; None where there
    is none.
    """
    first, rest = path[0], path[1:]
    if rest:
        value = _nested(rest, value)
    if first not in entries:
        entries[first] = value
        return None
    existing = entries[first]
    if not (isinstance(existing, dict) and isinstance(value, dict)):
        return first
    for name, item in value.items():
        below = _joined(existing, [name], item)
        if below is not None:
            return f"{first}.{below}"
    return None


def _nested(path: Sequence[str], value: JsonValue) -> JsonValue:
    for name in reversed(path):
        value = {name: value}
    return value
