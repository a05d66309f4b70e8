"""Sweep files as text: scalars, lines, dotted keys, overrides, and writing what can be read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sweepfile.yaml_lines import (
    LARGEST,
    Source,
    SpecError,
    dump,
    one_line,
    override,
    read,
    scalar,
)

SCALARS = [
    *[("", None), ("~", None), ("null", None), ("NULL", None), ("true", True), ("False", False), ("TRUE", True)],
    *[("yes", "yes"), ("no", "no"), ("on", "on"), ("y", "y"), ("nuLL", "nuLL"), ("2020-01-01", "2020-01-01")],
    *[("0", 0), ("-7", -7), ("+7", 7), ("010", 10), ("1_000", "1_000"), ("0x1F", "0x1F"), ("12:30", "12:30")],
    *[("1e-3", 1e-3), ("1E3", 1e3), (".5", 0.5), ("5.", 5.0), ("-1.5e+3", -1500.0), ("e3", "e3"), (".", ".")],
    *[(".inf", math.inf), ("-.INF", -math.inf), ("inf", "inf"), ("8/255", "8/255"), ("1" * 25, float("1" * 25))],
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalar_is_that_of_the_core_schema(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_not_a_number_is_one_float() -> None:
    assert math.isnan(scalar(".nan"))
    assert math.isnan(scalar(".NaN"))


@pytest.mark.parametrize(
    "encode",
    [
        str.encode,
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: (text + "...\n").encode(),
        lambda text: ("%YAML 1.2\n---\n" + text).encode(),
    ],
    ids=["plain", "CRLF", "CR", "BOM", "end mark", "directive"],
)
def test_files_as_editors_write_them(encode: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(encode("task: ü\nfixed:\n  a: 'no'\n  b: [1,\n    2]\n"))
    entries, source = read(file)
    assert entries == {"task": "ü", "fixed": {"a": "no", "b": [1, 2]}}
    shift = 2 if b"%YAML" in file.read_bytes() else 0
    assert source.lines == {
        path: line + shift
        for path, line in [
            ("task", 1),
            ("fixed", 2),
            ("fixed.a", 3),
            ("fixed.b", 4),
            ("fixed.b.0", 4),
            ("fixed.b.1", 5),
        ]
    }


def test_dotted_keys_are_paths_and_join(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a.b.c: 1\na:\n  b:\n    d: 2\n  e.f: 3\na.b.g: {h: 4}\n")
    entries, source = read(tmp_path / "x.yaml")
    assert entries == {"a": {"b": {"c": 1, "d": 2, "g": {"h": 4}}, "e": {"f": 3}}}
    assert {path: source.lines[path] for path in ("a.b.c", "a.b.d", "a.e", "a.e.f", "a.b.g.h")} == {
        "a.b.c": 1,
        "a.b.d": 4,
        "a.e": 5,
        "a.e.f": 5,
        "a.b.g.h": 6,
    }


def test_grid_and_search_keep_their_dots(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("grid: {a.b: [1], c: {d.e: [2]}}\nsearch: {a.b: {int: [1, 2]}}\n")
    assert read(tmp_path / "x.yaml")[0] == {
        "grid": {"a.b": [1], "c": {"d": {"e": [2]}}},
        "search": {"a.b": {"int": [1, 2]}},
    }


def test_aliases_repeat_and_do_not_share(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {b: [1]}\nc: *a\n")
    entries, _ = read(tmp_path / "x.yaml")
    assert entries == {"a": {"b": [1]}, "c": {"b": [1]}}
    entries["a"]["b"].append(2)
    assert entries["c"]["b"] == [1]


def test_a_large_file_is_read_and_a_too_large_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"a: [{', '.join(['1'] * 5_000)}]")
    assert len(read(tmp_path / "x.yaml")[0]["a"]) == 5_000
    bomb = "a: &a [" + "1, " * 400 + "1]\nb: [" + ", ".join(["*a"] * (LARGEST // 400)) + "]"
    (tmp_path / "x.yaml").write_text(bomb)
    with pytest.raises(SpecError, match=f"more than {LARGEST} entries"):
        read(tmp_path / "x.yaml")


texts = st.text(max_size=12) | st.sampled_from([text for text, _ in SCALARS]) | st.from_regex(r"[-+.0-9eE_:x/]{1,8}")
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9_]*\Z"), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9_]*\Z"), trees))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    file.write_text(dump(entries))
    again, _ = read(file)
    assert again == entries
    assert repr(again) == repr(entries)  # 1 is not 1.0, nor True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", ("a.b", 3)),
        (" a = 3", ("a", 3)),
        ("a=", ("a", None)),
        ("a=b=c", ("a", "b=c")),
        ("a=[1, 1e-3, no, 8/255]", ("a", [1, 0.001, "no", "8/255"])),
        ("a={b.c: 1}", ("a", {"b": {"c": 1}})),
        ("a='1'", ("a", "1")),
        ("data_root=/a b/c", ("data_root", "/a b/c")),
    ],
)
def test_override(text: str, expected: tuple[str, Any]) -> None:
    assert override(text) == expected


def test_an_error_is_placed_at_the_entry_or_the_nearest_to_it() -> None:
    source = Source("x.yaml", {"fixed": 2, "fixed.recipe": 3, "fixed.recipe.seed": 4}, {"fixed.a.b": "a.b=1"})
    assert source.error("fixed.recipe.seed", "no").message == "x.yaml:4: fixed.recipe.seed: no"
    assert source.error("fixed.recipe.epochs", "no").message == "x.yaml:3: fixed.recipe.epochs: no"
    assert source.error("fixed.recipes", "no").message == "x.yaml:2: fixed.recipes: no"
    assert source.error("grid", "no").message == "x.yaml: grid: no"
    assert source.error("fixed.a.b", "no").message == "override a.b=1: fixed.a.b: no"
    assert source.error("fixed.a", "no").message == "override a.b=1: fixed.a: no"
    source.forget("fixed.recipe")
    assert source.lines == {"fixed": 2}


@given(st.text())
def test_one_line_is_printable(text: str) -> None:
    line = one_line(text)
    assert line == "" or line.isprintable()
    assert line == " ".join(text.split()) or not text.isprintable() or "\\" in line
