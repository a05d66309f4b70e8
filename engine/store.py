"""Where results and artifacts live: a folder tree on any file system of `pyarrow.fs` (a local folder, NFS, `s3://...`).

Everything is addressed by the hash of what decides it, and a file appears under its name only when it is whole: it is written under a
temporary name beside it, then renamed. So a killed run leaves nothing that a later one could mistake for a result.

```
<root>/<sweep>/sweep.yaml  trials.parquet  trials/<hash>/trial.json  trials/<hash>/rows/part-*.parquet  tensorboard/  figures/  report.html
<root>/artifacts/<kind>/<hash>/...
```
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import string
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

FORMAT = 3
"""Enters every hash: counted up when what is stored, or what a stored number means, changes."""


def content_hash(content: Any) -> str:
    """Sixteen hexadecimal digits that identify JSON-able content, whatever the order of its mappings' keys.

    >>> content_hash({"a": 1, "b": [0.1, None]}) == content_hash({"b": [0.1, None], "a": 1})
    True
    """
    text = json.dumps([FORMAT, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """A folder on some file system. Paths are relative to it, with forward slashes.

    Args:
        uri: a folder (created when first written to) or a URI that `pyarrow.fs` knows, such as `s3://bucket/results`.

    Raises:
        ValueError: the URI's scheme is unknown.
    """

    def __init__(self, uri: str | os.PathLike[str]):
        text = os.fspath(uri)
        if "://" in text:
            self.uri = quote(text, safe=string.punctuation).rstrip("/")  # spaces and letters beyond ASCII
            filesystem, path = pafs.FileSystem.from_uri(self.uri)
        else:
            filesystem, path = pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
            self.uri = path
        self._filesystem = pafs.SubTreeFileSystem(path, filesystem)
        self.folder = Path(path) if isinstance(filesystem, pafs.LocalFileSystem) else None
        """The local folder, or None on another file system."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.uri,)

    def location(self, path: str) -> str:
        """The full path or URI of what is at a path.

        >>> Store("file:///results").location("two words")
        'file:///results/two%20words'
        """
        base, mark, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return f"{base}/{quote(path) if '://' in base else path}{mark}{query}"

    def obstacle(self) -> str | None:
        """Why nothing can be written here, as far as can be told without writing; None where nothing is known to be in the way."""
        if self.folder is None:
            bucket = self._filesystem.base_path.strip("/").partition("/")[0]
            if not bucket:
                return "a bucket, or a folder in it, is needed"
            found = self._filesystem.base_fs.get_file_info(bucket).type != pafs.FileType.NotFound
            return None if found else f"there is no bucket {bucket}"
        above = self.folder
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            return f"{above} is a file"
        return None if os.access(above, os.W_OK) else f"{above} cannot be written to"

    def exists(self, path: str) -> bool:
        return self._filesystem.get_file_info(path).type != pafs.FileType.NotFound

    def names(self, folder: str) -> list[str]:
        """The sorted names in a folder, without what is still being written; empty where there is no such folder."""
        selector = pafs.FileSelector(folder, allow_not_found=True)
        names = [info.base_name for info in self._filesystem.get_file_info(selector)]
        return sorted(name for name in names if not name.startswith(".writing-"))

    def read(self, path: str) -> bytes:
        with self._filesystem.open_input_stream(path) as stream:
            return stream.read()

    def write(self, path: str, content: bytes) -> None:
        """Writes a whole file or nothing."""
        parent, _, name = path.rpartition("/")
        if parent:
            self._filesystem.create_dir(parent, recursive=True)
        elif self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        temporary = f"{parent}/.writing-{uuid.uuid4().hex}-{name}".lstrip("/")
        try:
            with self._filesystem.open_output_stream(temporary) as stream:
                stream.write(content)
            self._filesystem.move(temporary, path)
        except BaseException:
            if self.exists(temporary):
                self._filesystem.delete_file(temporary)
            raise

    def delete(self, path: str) -> None:
        """Removes a file or a folder with all that is in it; nothing happens where there is none."""
        kind = self._filesystem.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            self._filesystem.delete_dir(path)
        elif kind != pafs.FileType.NotFound:
            self._filesystem.delete_file(path)

    def read_json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def write_json(self, path: str, content: Any) -> None:
        self.write(path, json.dumps(content, indent=2).encode())

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        with self._filesystem.open_input_file(path) as file:
            return pq.read_table(file, columns=columns)

    def read_schema(self, path: str) -> pa.Schema:
        """The schema of a Parquet file, its metadata included, without its rows."""
        with self._filesystem.open_input_file(path) as file:
            return pq.read_schema(file)

    def write_table(self, path: str, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.write(path, buffer.getvalue())

    def copy_in(self, source: Path, folder: str) -> None:
        """Copies a local folder's files, and those of its folders, to a folder of this store."""
        for file in sorted(source.rglob("*")):
            if file.is_file():
                self.write(f"{folder}/{file.relative_to(source).as_posix()}", file.read_bytes())


def parts_of(store: Store, folder: str) -> Iterator[tuple[str, list[int]]]:
    """The row parts in a folder, with the ids of the examples that each covers (also of those that have no row)."""
    for name in store.names(folder):
        if name.startswith("part-") and name.endswith(".parquet"):
            metadata = store.read_schema(f"{folder}/{name}").metadata or {}
            yield f"{folder}/{name}", json.loads(metadata[b"ids"])


def column_names(store: Store, folder: str) -> list[str]:
    """The columns of the row parts in a folder; none where there is no part."""
    first = next((path for path, _ in parts_of(store, folder)), None)
    return store.read_schema(first).names if first else []


def read_parts(store: Store, folder: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, set[int]]:
    """All rows in a folder, and the ids of the examples that its parts cover.

    Each example counts once, also where two runs at the same time have measured it twice, in chunks that overlap.

    Args:
        columns: those to read, where they are there; all where None.
    """
    covered: set[int] = set()
    pieces: list[pa.Table] = []
    for path, ids in parts_of(store, folder):
        fresh = set(ids) - covered
        covered |= fresh
        there = store.read_schema(path).names
        wanted = None if columns is None else [name for name in there if name in columns or name == "id"]
        piece = store.read_table(path, wanted).replace_schema_metadata(None)
        if len(fresh) < len(ids):
            piece = piece.filter(pc.is_in(piece["id"], pa.array(sorted(fresh), pa.int64())))
        if piece.num_rows:  # a part without rows does not know its columns' types
            pieces.append(piece if columns is None or "id" in columns else piece.drop_columns("id"))
    return (pa.concat_tables(pieces, promote_options="permissive") if pieces else pa.table({})), covered
