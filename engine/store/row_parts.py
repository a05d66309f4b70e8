"""Reads the row parts in a folder: Parquet files that each say which examples they cover."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from engine.store.damaged import Damaged
from engine.store.naming import is_part
from engine.store.store import Store


def parts_of(store: Store, folder: str, *, mend: bool = False) -> Iterator[tuple[str, list[int]]]:
    """The row parts in a folder, each with the ids of the examples that it covers.

    Covered examples without a row are among the ids. Parts that cannot be read are reported on
    stderr and left out.

    Args:
        store: with the folder.
        folder: of the parts, in the store.
        mend: also set aside the parts that cannot be read.
    """
    for path, schema in _schemas(store, folder, mend=mend):
        yield path, json.loads(schema.metadata[b"ids"])


def _schemas(store: Store, folder: str, *, mend: bool = False) -> Iterator[tuple[str, pa.Schema]]:
    for name in store.names(folder):
        path = f"{folder}/{name}"
        if not is_part(name):
            continue
        try:
            schema = store.read_schema(path)
            if b"ids" not in (schema.metadata or {}):
                raise Damaged(path, store.location(path), "does not say which examples it covers")
        except FileNotFoundError:  # another run has set it aside
            continue
        except Damaged as damaged:
            if mend:
                store.set_aside(damaged)
            else:
                store.tell(damaged)
            continue
        yield path, schema


def column_names(store: Store, folder: str) -> list[str]:
    """The columns of the rows in a folder; none where there is no part."""
    first = next((schema for _, schema in _schemas(store, folder)), None)
    return first.names if first else []


def read_parts(store: Store, folder: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, set[int]]:
    """Reads all rows in a folder, and the ids of the examples that its parts cover.

    Each example counts once, even where two simultaneous runs measured it in overlapping chunks.

    Args:
        store: with the folder.
        folder: of the parts, in the store.
        columns: the columns to read, as far as they exist; all where None.

    Raises:
        Damaged: the metadata of a part can be read, but its rows cannot.
    """
    covered: set[int] = set()
    pieces: list[pa.Table] = []
    for path, schema in _schemas(store, folder):
        ids = json.loads(schema.metadata[b"ids"])
        fresh = set(ids) - covered
        covered |= fresh
        wanted = None if columns is None else [name for name in schema.names if name in columns or name == "id"]
        piece = store.read_part(path, wanted).replace_schema_metadata(None)
        if len(fresh) < len(ids):
            piece = piece.filter(pc.is_in(piece["id"], pa.array(sorted(fresh), pa.int64())))
        if piece.num_rows:  # a part without rows does not know its columns' types
            pieces.append(piece if columns is None or "id" in columns else piece.drop_columns("id"))
    return (pa.concat_tables(pieces, promote_options="permissive") if pieces else pa.table({})), covered
