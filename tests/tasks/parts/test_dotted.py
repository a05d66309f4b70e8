"""Dotted names in nested mappings and in models of settings."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from tasks.parts.dotted import blocked_by, inner_settings, is_setting, model_at, set_at, settings_of


def test_a_value_is_set_where_nothing_is_in_its_way() -> None:
    entries: dict[str, Any] = {"a": {"b": 1}, "c": None}
    assert blocked_by(entries, ["a", "x", "y"]) is None
    set_at(entries, ["a", "x", "y"], 2)
    assert entries == {"a": {"b": 1, "x": {"y": 2}}, "c": None}
    assert blocked_by(entries, ["a", "b"]) is None  # to be replaced
    assert blocked_by(entries, ["a", "b", "z"]) == ["a", "b"]
    assert blocked_by(entries, ["c", "z"]) == ["c"]


class Group(BaseModel):
    size: int = Field(default=1, title="size of the group")
    options: dict[str, Any] = {}


class Model(BaseModel):
    group: Group = Group()
    other: Group | None = Field(default=None, title="another group")
    several: dict[str, Group] = {}
    listed: list[Group] = []


def test_settings_have_dotted_names_and_labels() -> None:
    names = settings_of(Model)
    assert list(names) == ["group.size", "group.options", "other", "several", "listed"]
    assert (names["group.size"], names["group.options"]) == ("size of the group", "group.options")
    inside = inner_settings(Model, ["group.size", "group.options.width", "other.size"])
    assert inside == {"group.options.width": "group.options.width", "other.size": "size of the group of other"}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *[(name, True) for name in ("group", "group.size", "group.options.width", "other.size", "listed.0.size")],
        *[(name, False) for name in ("size", "group.sise", "group.size.x", "groups.size", "group.options.width.x")],
    ],
)
def test_is_setting(name: str, known: bool) -> None:
    assert is_setting(Model, name) is known


def test_model_at_takes_the_rest_of_the_path_as_one_name_in_a_mapping_of_models() -> None:
    assert model_at(Model, "several.a.b") is Group
    assert model_at(Model, "") is Model
    assert model_at(Model, "group.size") is None
