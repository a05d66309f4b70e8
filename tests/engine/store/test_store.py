"""The store: files are complete or absent, in a folder and at a URI; hashes depend on content."""

from __future__ import annotations

import json
import pickle
import string
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store.naming import content_hash
from engine.store.row_parts import parts_of, read_parts
from engine.store.store import Store


@pytest.fixture(params=["folder", "folder with spaces", "uri", "uri with spaces", "encoded uri"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    forms = {
        "folder": tmp_path / "results",
        "folder with spaces": tmp_path / "my results, ü",
        "uri": f"file://{tmp_path}/results/",
        "uri with spaces": f"file://{tmp_path}/my results, ü",
        "encoded uri": f"file://{tmp_path}/my%20results",
    }
    return Store(forms[request.param])


def test_round_trip(store: Store) -> None:
    assert store.names("") == []
    assert not store.exists("a/b.json")
    store.write("top.bin", b"\0\1")
    store.write_json("a/b.json", {"x": [1, None, 0.1]})
    store.write_json("a/c/d.json", 3)
    assert store.read("top.bin") == b"\0\1"
    assert store.read_json("a/b.json") == {"x": [1, None, 0.1]}
    assert store.exists("a/c")
    assert store.names("") == ["a", "top.bin"]
    assert store.names("a") == ["b.json", "c"]
    assert store.names("nowhere") == []
    store.write_json("a/b.json", 4)
    assert store.read_json("a/b.json") == 4
    store.delete("a/b.json")
    assert store.names("a") == ["c"]
    for _ in range(2):
        store.delete("a")
        store.delete_empty("a")
    assert store.read_json("a/c/d.json") == 3  # no folder goes with what is in it
    store.delete("a/c/d.json")
    for folder in ("a/c", "a", "a"):
        store.delete_empty(folder)
    assert store.names("") == ["top.bin"]


@pytest.mark.parametrize("name", ["noise", "two words", "größe", "a#b", "a?b", "100%", "a%20b"])
def test_store_within_a_store(store: Store, name: str) -> None:
    inner = store.within(name)
    assert inner.uri == Store(store.location(name)).uri
    inner.write("k", b"1")
    assert store.within("other").beside(name).read("k") == b"1"
    assert store.read(f"{name}/k") == b"1"
    assert store.names("") == [name]
    assert Store(store.location(name)).read("k") == b"1"
    assert pickle.loads(pickle.dumps(inner)).read("k") == b"1"
    assert inner.folder is not None
    assert (inner.folder / "k").read_bytes() == b"1"


def test_location_keeps_the_options_of_a_uri() -> None:
    store = object.__new__(Store)  # no such bucket is to be reached
    store.uri = "s3://bucket/results?region=eu-west-1&endpoint_override=localhost:9000"
    assert store.location("a/b c") == "s3://bucket/results/a/b%20c?region=eu-west-1&endpoint_override=localhost:9000"


@pytest.mark.parametrize("uri", ["nope://bucket", "://"])
def test_unknown_uri(uri: str) -> None:
    with pytest.raises(ValueError, match="URI"):
        Store(uri)


def test_a_store_makes_nothing_before_it_writes(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.exists("a")
    store.names("a")
    Store(store.location("a")).names("")
    assert not (tmp_path / "results").exists()


class Broken:
    """A file system whose writing, or moving, fails half-way."""

    def __init__(self, real: Any, where: str):
        self._real, self._where = real, where

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def open_output_stream(self, path: str) -> Any:
        stream = self._real.open_output_stream(path)
        if self._where == "write":
            stream.write(b"half")
            stream.close()
            raise OSError("disk full")
        return stream

    def move(self, source: str, target: str) -> None:
        raise OSError("lost")


@pytest.mark.parametrize("where", ["write", "move"])
def test_a_write_that_fails_leaves_what_was_there(where: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a/x", b"old")
    store._filesystem = Broken(store._filesystem, where)
    for name in ("x", "y"):
        with pytest.raises(OSError, match=r"disk full|lost"):
            store.write(f"a/{name}", b"new, and longer")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["x"]
    assert store.read("a/x") == b"old"


def test_what_is_being_written_has_no_name_yet(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen = []

    class Watching(Broken):
        def move(self, source: str, target: str) -> None:
            seen.append((store.names("a"), store.exists("a/x"), len(list((tmp_path / "a").iterdir()))))
            self._real.move(source, target)

    store._filesystem = Watching(store._filesystem, "nowhere")
    store.write("a/x", b"1")
    assert seen == [([], False, 1)]
    assert store.names("a") == ["x"]


def test_tables_and_the_parts_of_a_trial(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for first, ids in [(0, [0, 3]), (7, [7])]:
        table = pa.table({"id": pa.array(ids[:1], pa.int64()), "p": [0.5]})
        store.write_table(f"t/rows/part-{first}.parquet", table.replace_schema_metadata({"ids": json.dumps(ids)}))
    store.write("t/rows/other.txt", b"")
    store.write("t/rows/.writing-1-part-9.parquet", b"half")
    assert list(parts_of(store, "t/rows")) == [("t/rows/part-0.parquet", [0, 3]), ("t/rows/part-7.parquet", [7])]
    assert list(parts_of(store, "nowhere")) == []
    assert store.read_table("t/rows/part-7.parquet", ["p"]).to_pydict() == {"p": [0.5]}
    assert store.read_schema("t/rows/part-7.parquet").names == ["id", "p"]


def test_copy_in(tmp_path: Path) -> None:
    (tmp_path / "log" / "deep").mkdir(parents=True)
    (tmp_path / "log" / "deep" / "events").write_bytes(b"1")
    store = Store(tmp_path / "results")
    store.copy_in(tmp_path / "log", "board/trial")
    assert store.read("board/trial/deep/events") == b"1"


contents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def reordered(content: object) -> object:
    """The same content with the keys of all mappings in reverse order."""
    if isinstance(content, dict):
        return {key: reordered(content[key]) for key in reversed(content)}
    return [reordered(item) for item in content] if isinstance(content, list) else content


@given(contents, contents)
def test_a_hash_is_of_content_alone(one: object, other: object) -> None:
    assert content_hash(one) == content_hash(reordered(one))
    assert (content_hash(one) == content_hash(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )
    assert len(content_hash(one)) == 16
    assert set(content_hash(one)) <= set(string.hexdigits.lower())


def test_a_hash_refuses_what_json_cannot_tell() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"a": float("nan")})


def test_an_example_measured_twice_counts_once(tmp_path: Path) -> None:
    """Two runs at the same time, in chunks that overlap."""
    store = Store(tmp_path)
    for name, ids in [("part-a", [1, 2, 3]), ("part-b", [3, 4]), ("part-c", [5])]:
        table = pa.table({"id": [i for i in ids for _ in range(2)], "x": [10.0 * i for i in ids for _ in range(2)]})
        table = table if name != "part-c" else table.slice(0, 0)  # its example was left out
        store.write_table(f"rows/{name}.parquet", table.replace_schema_metadata({"ids": json.dumps(ids)}))
    rows, covered = read_parts(store, "rows")
    assert rows["id"].to_pylist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert covered == {1, 2, 3, 4, 5}
    only, _ = read_parts(store, "rows", ["x"])
    assert only.column_names == ["x"]
    assert len(only) == 8
    assert read_parts(store, "nothing")[0].num_rows == 0
