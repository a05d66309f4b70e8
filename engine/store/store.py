"""Reads and writes results and artifacts: a folder on any file system of `pyarrow.fs`.

That is a local folder, NFS, or a bucket such as `s3://...`. Results are addressed by the hash of
what decides them. A file gets its name only when it is complete: it is written under a temporary
name beside it, synced to a local disk, then renamed. So a killed run leaves nothing that a later
run could mistake for a result. A file that is damaged all the same (by a full disk, a crash or an
incomplete copy) is reported once on stderr, counts as missing, and is made again.

```
<root>/<page>/manifest.json  sweep.yaml  trials.parquet  summary.csv  report.html
<root>/<page>/figures/  tensorboard/
<root>/<sweep>/trials/<hash>/trial.json  rows/part-*.parquet
<root>/artifacts/<kind>/<hash>/...
```

The page of a sweep has the sweep's name; the page of a quick look has a name of its own
(`engine.sweepfile.load`). All other files in these folders are the user's (`engine.store.owned`).
"""

from __future__ import annotations

import copy
import io
import json
import os
import re
import string
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.store.damaged import Damaged
from engine.store.naming import is_part, unfit_name
from engine.terminal import say

Parsed = TypeVar("Parsed")

_UNFINISHED = re.compile(r"\.writing-[0-9a-f]{32}-")
"""The beginning of a file's name while it is written."""


class Store:
    """A folder on any file system; all paths are relative to it, with forward slashes.

    Args:
        uri: a folder, which is created by the first write, or a URI that `pyarrow.fs` knows, such
            as `s3://bucket/results`.

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
        """The local folder; None on another file system."""
        self._reported: set[str] = set()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.uri,)

    def location(self, path: str) -> str:
        """The full path or URI of a path in the store.

        >>> Store("file:///results").location("two words")
        'file:///results/two%20words'
        """
        base, mark, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return f"{base}/{quote(path) if '://' in base else path}{mark}{query}"

    def within(self, folder: str) -> Store:
        """The store of a folder in this store."""
        return self._at(self.location(folder), f"{self._filesystem.base_path}{folder}")

    def beside(self, name: str) -> Store:
        """The store of a folder beside this one, with another name.

        Raises:
            ValueError: the name is no plain name, or this is the root of its file system.

        >>> Store("file:///results/two%20words").beside("noise@a").uri
        'file:///results/noise%40a'
        """
        unfit = unfit_name(name)
        if unfit:
            raise ValueError(f"{name!r} {unfit}")
        base, mark, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        above, path = base.rpartition("/")[0], self._filesystem.base_path.rstrip("/").rpartition("/")[0]
        if not path:
            raise ValueError(f"there is nothing beside {self.uri}")
        return self._at(f"{above}/{quote(name) if '://' in base else name}{mark}{query}", f"{path}/{name}")

    def _at(self, uri: str, path: str) -> Store:
        """The store of another folder of the same file system."""
        other = copy.copy(self)
        other.uri = uri
        other._filesystem = pafs.SubTreeFileSystem(path, self._filesystem.base_fs)
        other.folder = Path(path) if self.folder is not None else None
        return other

    def obstacle(self) -> str | None:
        """Why nothing can be written here, found out without writing; None: no reason is known."""
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
        """Whether there is a file or a folder at a path."""
        return self._filesystem.get_file_info(path).type != pafs.FileType.NotFound

    def is_file(self, path: str) -> bool:
        """Whether there is a file at a path."""
        return self._filesystem.get_file_info(path).type == pafs.FileType.File

    def names(self, folder: str) -> list[str]:
        """The sorted names in a folder without unfinished files; none where there is no folder."""
        return sorted(name for name in self._all_names(folder) if not _UNFINISHED.match(name))

    def unfinished(self, folder: str) -> dict[str, str]:
        """The unfinished files in a folder, as temporary name -> final name.

        They are being written, or were when a run was killed.
        """
        return {name: _UNFINISHED.sub("", name) for name in self._all_names(folder) if _UNFINISHED.match(name)}

    def _all_names(self, folder: str) -> list[str]:
        selector = pafs.FileSelector(folder, allow_not_found=True)
        return [info.base_name for info in self._filesystem.get_file_info(selector)]

    def sizes(self, folder: str) -> dict[str, int]:
        """The size of each row part in a folder in bytes, by name, from one listing."""
        selector = pafs.FileSelector(folder, allow_not_found=True)
        found = self._filesystem.get_file_info(selector)
        return {
            info.base_name: info.size for info in sorted(found, key=lambda info: info.path) if is_part(info.base_name)
        }

    def size(self, path: str) -> int | None:
        """The size of a file in bytes; None where there is no file."""
        return self._filesystem.get_file_info(path).size

    def read(self, path: str) -> bytes:
        """The content of a file."""
        with self._filesystem.open_input_stream(path) as stream:
            return stream.read()

    @contextmanager
    def opened(self, path: str) -> Iterator[BinaryIO]:
        """Opens a file, to read it piece by piece."""
        with self._filesystem.open_input_stream(path) as stream:
            yield stream

    def write(self, path: str, content: bytes) -> None:
        """Writes a file completely or not at all; on a local disk it is synced, then named."""
        self.write_stream(path, lambda stream: stream.write(content))

    def write_stream(self, path: str, fill: Callable[[BinaryIO], object]) -> None:
        """Like `write`, through a stream, so that the whole content need not be in memory.

        Args:
            path: of the file.
            fill: writes the content into the stream.
        """
        parent, _, name = path.rpartition("/")
        if parent:
            self._filesystem.create_dir(parent, recursive=True)
        else:
            self._filesystem.base_fs.create_dir(self._filesystem.base_path, recursive=True)
        temporary = f"{parent}/.writing-{uuid.uuid4().hex}-{name}".lstrip("/")
        try:
            with self._filesystem.open_output_stream(temporary) as stream:
                fill(stream)
            if self.folder is not None:
                _sync(self.folder / temporary)
            self._filesystem.move(temporary, path)
        except BaseException:
            if self.exists(temporary):
                self._filesystem.delete_file(temporary)
            raise

    def delete(self, path: str) -> None:
        """Removes a file; does nothing where there is no file, or a folder."""
        if self.is_file(path):
            self._filesystem.delete_file(path)

    def delete_empty(self, folder: str) -> None:
        """Removes an empty folder; does nothing where it is not empty, or does not exist."""
        if self.folder is not None:
            with suppress(OSError):
                (self.folder / folder).rmdir()
        elif self._filesystem.get_file_info(folder).type == pafs.FileType.Directory and not self._all_names(folder):
            self._filesystem.delete_dir(folder)

    def read_json(self, path: str) -> Any:
        """The content of a JSON file."""
        return json.loads(self.read(path))

    def record(self, path: str, *names: str) -> dict[str, Any] | None:
        """The mapping in a JSON file; None where there is no file.

        A file that is damaged, or lacks one of the names, counts as none and is reported on stderr.
        """
        try:
            content = self.read(path)
        except FileNotFoundError:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if isinstance(found, dict) and found.keys() >= set(names):
            return found
        self.tell(Damaged(path, self.location(path), "empty" if not content.strip() else "cut, or no record of ours"))
        return None

    def tell(self, damaged: Damaged) -> None:
        """Reports once on stderr that a damaged file is not used."""
        if damaged.location not in self._reported:
            self._reported.add(damaged.location)
            say(f"{damaged}; it is not used, and will be made again")

    def set_aside(self, damaged: Damaged) -> None:
        """Renames a damaged file so that it is no longer found, and reports it on stderr."""
        self.tell(damaged)
        folder, _, name = damaged.path.rpartition("/")
        if self.exists(damaged.path):
            self._filesystem.move(damaged.path, f"{folder}/_{name}.damaged")

    def write_json(self, path: str, content: object) -> None:
        """Writes content as a JSON file; see `write`."""
        self.write(path, json.dumps(content, indent=2).encode())

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """The table in a Parquet file, or some of its columns."""
        with self._filesystem.open_input_file(path) as file:
            return pq.read_table(file, columns=columns)

    def read_part(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """The table in a row part, or some of its columns.

        Raises:
            Damaged: the file cannot be read.
        """
        return self._parsed(path, lambda file: pq.read_table(file, columns=columns))

    def read_schema(self, path: str) -> pa.Schema:
        """The schema of a Parquet file with its metadata; the rows are not read.

        Raises:
            Damaged: the file cannot be read.
        """
        return self._parsed(path, pq.read_schema)

    def _parsed(self, path: str, parse: Callable[[pa.NativeFile], Parsed]) -> Parsed:
        """Reads a Parquet file with a function, and tells a damaged file from a failed read."""
        try:
            with self._filesystem.open_input_file(path) as file:
                return parse(file)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            content = self.read(path)  # raises where the file system fails; else the file is wrong
            try:
                return parse(pa.BufferReader(content))
            except (pa.ArrowException, OSError, ValueError):
                why = "empty" if not content else f"cut, or no Parquet file ({len(content)} bytes)"
                raise Damaged(path, self.location(path), why) from error

    def write_table(self, path: str, table: pa.Table) -> None:
        """Writes a table as a Parquet file; see `write`."""
        self.write(path, as_parquet(table))

    def copy_in(self, source: Path, folder: str) -> None:
        """Copies a local folder with all its files to a folder of this store."""
        for file in sorted(source.rglob("*")):
            if file.is_file():
                self.write(f"{folder}/{file.relative_to(source).as_posix()}", file.read_bytes())


def as_parquet(table: pa.Table) -> bytes:
    """A table with its metadata as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _sync(file: Path) -> None:
    """Waits until a file is on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
