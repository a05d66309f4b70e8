"""Members of a folder are found by the names of their files; each mistake is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.parts.members import Members
from tasks.parts.settings import UserError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The folder of a package with members, named after the test: each has its own modules."""
    place = tmp_path / request.node.name
    (place / "common").mkdir(parents=True)
    for name in ("__init__.py", "_helper.py", "common/__init__.py", "notes.txt"):
        (place / name).touch()
    (place / "one.py").write_text("def run(): pass\n")
    (place / "two.py").write_text("def walk(): pass\n")
    (place / "three.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return place


def members(folder: Path) -> Members:
    return Members(folder.name, "thing", ("run",), "things.md")


def test_helpers_are_no_members(folder: Path) -> None:
    assert members(folder).names() == ("one", "three", "two")


def test_a_member_has_all_parts(folder: Path) -> None:
    assert members(folder).module("one").__name__ == f"{folder.name}.one"
    with pytest.raises(UserError, match=r"two is no thing: it has no run \(see things.md\)"):
        members(folder).module("two")
    with pytest.raises(
        UserError, match=rf"{folder.name}.three cannot be imported: ZeroDivisionError: division by zero"
    ):
        members(folder).module("three")


def test_two_members_of_one_name_are_refused(folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "one" / "__init__.py").touch()
    with pytest.raises(UserError, match=r"one and .*one\.py are both the thing one; rename one of them"):
        members(folder).names()
