"""Stores the arrays of artifacts, and brings them to the workers.

Small arrays travel through the executor: the driver reads them, and the processes of a node share
them. Large arrays (above `LARGE` bytes) are opened by the workers themselves, memory-mapped, at the
store's address, so that they do not pass through the driver's memory. Each node makes one copy in
the user's cache where the store is not a folder of the node, or where a task wants all rows of an
artifact.

```
artifacts/<kind>/<hash>/artifact.json  arrays.pt                 one whole thing
artifacts/<kind>/<hash>/artifact.json  rows/part-*.parquet       rows by example
artifacts/<kind>/<hash>/attachments/<name>.png
```
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import torch
from pydantic import JsonValue

from engine.store.damaged import Damaged
from engine.store.naming import content_hash
from engine.store.row_parts import parts_of, read_parts
from engine.store.store import Store
from tasks.parts.artifacts.common.kind import Saved
from tasks.parts.data.cache import locked, user_cache
from tasks.parts.settings import UserError

ARRAYS = "arrays.pt"
"""The file of a whole artifact's arrays: name -> tensor, as torch saves them."""
LARGE = 64 * 2**20
"""Most bytes of arrays that travel through the executor."""
UNUSED = 7 * 24 * 3600.0
"""Seconds after which a node's unopened copy is removed; checked when another is made."""


@dataclass(frozen=True)
class Address:
    """Where a worker finds large arrays.

    Attributes:
        store, folder: where the artifact is stored.
        facts: facts about a whole artifact.
        parts: the paths of an artifact's rows, each with the ids that it covers. None for a whole
            artifact.
        ids: the rows that are wanted, in order. Empty for a whole artifact.
    """

    store: Store
    folder: str
    facts: Mapping[str, JsonValue]
    parts: tuple[tuple[str, tuple[int, ...]], ...] | None = None
    ids: tuple[int, ...] = ()


Shared = Saved | Address
"""An artifact as it is sent to the workers: small arrays themselves, or where large ones are."""


def size_of(arrays: Mapping[str, np.ndarray]) -> int:
    """The bytes that arrays take in memory."""
    return sum(array.nbytes for array in arrays.values())


def write_whole(store: Store, folder: str, arrays: Mapping[str, np.ndarray]) -> int:
    """Writes the arrays of a whole artifact, and returns the size of the file in bytes."""
    tensors = {name: torch.from_numpy(np.require(array, requirements=["C", "W"])) for name, array in arrays.items()}
    store.write_stream(f"{folder}/{ARRAYS}", lambda stream: torch.save(tensors, stream))
    size = store.size(f"{folder}/{ARRAYS}")
    assert size is not None
    return size


def shared_whole(store: Store, folder: str, facts: Mapping[str, JsonValue], size: int) -> Shared:
    """A whole artifact in the form in which it is sent to the workers.

    Args:
        store: with the artifact.
        folder: of the artifact, in the store.
        facts: facts about the artifact.
        size: bytes of the file of its arrays.

    Raises:
        Damaged: the file cannot be read.
    """
    if size > LARGE:
        return Address(store, folder, facts)
    return Saved(_arrays(store, f"{folder}/{ARRAYS}", io.BytesIO(store.read(f"{folder}/{ARRAYS}"))), facts)


def shared_rows(store: Store, folder: str, ids: Sequence[int]) -> Shared:
    """The rows of some examples, in the order of the ids, as they are sent to the workers.

    Raises:
        RuntimeError: an example is missing: its row was deleted while the trial ran.
        Damaged: a part cannot be read.
    """
    parts = tuple((path, tuple(covered)) for path, covered in parts_of(store, f"{folder}/rows"))
    lost = set(ids).difference(*(covered for _, covered in parts))
    if lost:
        raise RuntimeError(f"{len(lost)} rows of {folder} have disappeared while the trial ran; run it again")
    width = _bytes_a_row(store.read_schema(parts[0][0])) if parts else 0
    if width * len(ids) > LARGE:
        return Address(store, folder, {}, parts, tuple(ids))
    rows, _ = read_parts(store, f"{folder}/rows")
    shapes = _shapes(store.read_schema(parts[0][0])) if parts else {}
    return Saved(_of_ids(_columns(rows, shapes), ids), ids=np.asarray(ids))


def opened(shared: Shared, ids: Sequence[int] | None) -> Saved:
    """Opens the arrays of an artifact in a worker.

    Args:
        shared: the artifact, as it was sent.
        ids: the examples whose rows are wanted; all where None. Without meaning for a whole
            artifact.

    Raises:
        KeyError: one of the examples has no row.
        Damaged: a file cannot be read.
        UserError: the store is a folder that this node does not have.
    """
    if isinstance(shared, Saved):
        if ids is None or shared.ids is None:
            return shared
        rows = _places(shared.ids, ids)
        return Saved({name: array[rows] for name, array in shared.arrays.items()}, ids=np.asarray(ids))
    if shared.parts is None:
        return Saved(_mapped(shared), shared.facts)
    if ids is None:
        return Saved(_gathered(shared), ids=np.asarray(shared.ids))
    wanted = set(ids)
    pieces = [_read(shared.store, path) for path, covered in shared.parts if wanted.intersection(covered)]
    columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return Saved(_of_ids(columns, ids), ids=np.asarray(ids))


def as_rows(columns: Mapping[str, np.ndarray], ids: Sequence[int], about: Mapping[str, str]) -> pa.Table:
    """Columns of shape (B, ...) as a table with a row an example.

    Arrays of several dimensions are stored flat; the metadata of the table have their shapes.

    Args:
        columns: arrays by name.
        ids: the example of each row.
        about: further metadata.

    Raises:
        ValueError: a column has another number of rows.
    """
    table = pa.table({"id": pa.array(ids, pa.int64())})
    shapes = {}
    for name, values in columns.items():
        if len(values) != len(ids):
            raise ValueError(f"the column {name} has {len(values)} rows for {len(ids)} examples")
        if values.ndim > 1:
            shapes[name] = values.shape[1:]
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
        else:
            column = pa.array(values)
        table = table.append_column(name, column)
    return table.replace_schema_metadata({**about, "shapes": json.dumps(shapes)})


def _shapes(schema: pa.Schema) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in json.loads(schema.metadata[b"shapes"]).items()}


def _bytes_a_row(schema: pa.Schema) -> int:
    widths = [
        (field.type.list_size * field.type.value_type.bit_width if pa.types.is_fixed_size_list(field.type) else 64) // 8
        for field in schema
    ]
    return sum(widths)


def _columns(rows: pa.Table, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The columns of a table as arrays (N, ...), `id` included."""
    found = {}
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        found[name] = (
            column.flatten().to_numpy().reshape(-1, *shapes[name]) if name in shapes else rows[name].to_numpy()
        )
    return found


def _read(store: Store, path: str) -> dict[str, np.ndarray]:
    return _columns(store.read_part(path), _shapes(store.read_schema(path)))


def _of_ids(columns: Mapping[str, np.ndarray], ids: Sequence[int]) -> dict[str, np.ndarray]:
    rows = _places(columns["id"], ids)
    return {name: values[rows] for name, values in columns.items() if name != "id"}


def _places(among: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """The position of each id in an array of ids.

    Raises:
        KeyError: one of them is missing.
    """
    order = np.argsort(among, kind="stable")
    places = order[np.searchsorted(among[order], ids).clip(max=len(among) - 1)]
    absent = np.asarray(ids)[among[places] != ids]
    if len(absent):
        raise KeyError(f"there is no row of the example {absent[0]}")
    return places


def _arrays(store: Store, path: str, file: BinaryIO | Path) -> dict[str, np.ndarray]:
    try:
        mapped = isinstance(file, Path)  # private: writing changes only this process's copy
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise Damaged(path, store.location(path), "torch cannot read it") from error
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _mapped(shared: Address) -> dict[str, np.ndarray]:
    """The arrays of a whole artifact, memory-mapped: a page is read when it is used."""
    store, path = shared.store, f"{shared.folder}/{ARRAYS}"
    if store.folder is not None:
        require_folder(store)
        return _arrays(store, path, store.folder / path)

    def copy(folder: Path) -> None:
        with store.opened(path) as stream, open(folder / ARRAYS, "wb") as file:
            shutil.copyfileobj(stream, file, 2**24)

    return _arrays(store, path, _copied([store.location(path), store.size(path)], copy) / ARRAYS)


def _gathered(shared: Address) -> dict[str, np.ndarray]:
    """All rows of an artifact, memory-mapped from one file a column.

    While the files are made, one part at a time is in memory.
    """
    store, parts = shared.store, shared.parts
    assert parts is not None
    place = {example: row for row, example in enumerate(shared.ids)}

    def copy(folder: Path) -> None:
        columns: dict[str, np.memmap] = {}
        for path, _ in parts:
            piece = _read(store, path)
            rows = [place.get(int(example), -1) for example in piece.pop("id")]
            kept = [number for number, row in enumerate(rows) if row >= 0]
            for name, values in piece.items():
                if name not in columns:
                    shape = (len(place), *values.shape[1:])
                    file = folder / f"{name}.npy"
                    columns[name] = np.lib.format.open_memmap(file, mode="w+", dtype=values.dtype, shape=shape)
                columns[name][[rows[number] for number in kept]] = values[kept]
        for column in columns.values():
            column.flush()

    require_folder(store)
    folder = _copied([store.location(shared.folder), [path for path, _ in parts], list(shared.ids)], copy)
    return {file.stem: np.load(file, mmap_mode="c") for file in sorted(folder.glob("*.npy"))}


def require_folder(store: Store) -> None:
    """Refuses a store in a folder that this node does not have.

    Raises:
        UserError: with what to do about it.
    """
    if store.folder is not None and not store.folder.exists():
        raise UserError(
            f"this node has no folder {store.folder}, where a large artifact lies; give --results a folder that"
            " all nodes share, or a bucket"
        )


def _copied(identity: object, make: Callable[[Path], None]) -> Path:
    """The folder of this node's copy; one process makes it, and all open it."""
    key = content_hash(identity)
    root = user_cache() / "artifacts"
    folder = root / key
    with locked(f"copy-{key}"):
        if not folder.exists():
            root.mkdir(parents=True, exist_ok=True)
            _remove_unused(root)
            temporary = root / f"{key}.{os.getpid()}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                make(temporary)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        os.utime(folder)
    return folder


def _remove_unused(root: Path) -> None:
    for folder in root.iterdir():
        if time.time() - folder.stat().st_mtime > UNUSED:
            shutil.rmtree(folder, ignore_errors=True)
