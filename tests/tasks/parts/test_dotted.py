"""Dotted names in nested mappings and in models of settings."""

from __future__ import annotations

from typing import Any

from tasks.parts.dotted import blocked_by, set_at


def test_a_value_is_set_where_nothing_is_in_its_way() -> None:
    entries: dict[str, Any] = {"a": {"b": 1}, "c": None}
    assert blocked_by(entries, ["a", "x", "y"]) is None
    set_at(entries, ["a", "x", "y"], 2)
    assert entries == {"a": {"b": 1, "x": {"y": 2}}, "c": None}
    assert blocked_by(entries, ["a", "b"]) is None  # to be replaced
    assert blocked_by(entries, ["a", "b", "z"]) == ["a", "b"]
    assert blocked_by(entries, ["c", "z"]) == ["c"]
