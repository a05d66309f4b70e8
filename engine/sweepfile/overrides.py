"""Puts overrides from the command line into the entries of a sweep file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

from pydantic import JsonValue

from engine.sweepfile.schema import Sweep
from engine.sweepfile.yaml_lines import Source, SpecError, override
from tasks.parts.dotted import blocked_by, flatten, is_below, set_at
from tasks.parts.messages import quote


def overridden(
    entries: Mapping[str, JsonValue], source: Source, overrides: Iterable[str]
) -> tuple[dict[str, JsonValue], Source]:
    """Copies of a file's entries and source, with overrides put in, in order.

    Args:
        entries: of the file.
        source: where each entry was written.
        overrides: `key=value`, as in `load`.

    Raises:
        SpecError: an override does not fit, or the grid or search is empty.
    """
    changed, source = copy.deepcopy(dict(entries)), copy.deepcopy(source)
    _flatten_grid(changed, source)
    for text in overrides:
        _put(text, changed, source)
    return changed, source


def _flatten_grid(entries: dict[str, JsonValue], source: Source) -> None:
    """Gives the entries of a grid their dotted names, and refuses an empty grid or search."""
    for section in ("grid", "search"):
        if section in entries and not entries[section]:
            raise source.error(section, "is empty; name a setting and its values, or leave it out")
    if isinstance(grid := entries.get("grid"), dict):
        flat: dict[str, JsonValue] = {}
        for name, values in _varied(grid):
            if name in flat:
                raise source.error(f"grid.{name}", "given twice, with a dotted and with a nested name")
            flat[name] = values
        entries["grid"] = flat


def _varied(grid: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """The entries of a grid by dotted name; a name may come twice."""
    for name, values in grid.items():
        if isinstance(values, dict) and values:
            yield from _varied(values, f"{prefix}{name}.")
        else:
            yield prefix + name, values


def _put(text: str, entries: dict[str, JsonValue], source: Source) -> None:
    key, value = override(text)
    path = key.split(".")
    if path[0] in ("grid", "search") and len(path) > 1:
        path = [path[0], ".".join(path[1:])]
    elif path[0] not in Sweep.model_fields:
        _fix(key, entries, source)
        path = ["fixed", *path]
    full = ".".join(path)
    if barrier := blocked_by(entries, path):
        at = ".".join(barrier)
        held = quote(flatten(entries)[at])
        raise SpecError(f"override {text}: {full}: {at} is {held}, which has no entries to set")
    set_at(entries, path, value)
    source.forget(full)
    source.overrides[full] = text
    if path[0] in ("grid", "search"):
        _flatten_grid(entries, source)


def _fix(key: str, entries: dict[str, JsonValue], source: Source) -> None:
    """Removes a setting that is now fixed from the grid or search.

    With the last setting of a search, the entries that belong to a search are removed too.
    """
    for section in ("grid", "search"):
        varied = entries.get(section)
        if not isinstance(varied, dict):
            continue
        for name in [name for name in varied if is_below(name, key)]:
            del varied[name]
            source.forget(f"{section}.{name}")
    if not entries.get("search"):
        for entry in ("trials", "searcher", "scheduler", "storage"):
            entries.pop(entry, None)
