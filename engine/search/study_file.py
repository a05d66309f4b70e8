"""The file that a study is kept in, SQLite or a journal."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.store.store import Store
from engine.sweepfile.load import Spec
from engine.sweepfile.yaml_lines import SpecError

IDENTITY = "study"
"""The user attribute in which a study of ours keeps what decides which it is."""
_HELD = f"""
    SELECT study_name,
    (SELECT value_json FROM study_user_attributes AS told WHERE told.study_id = studies.study_id AND key = '{IDENTITY}'),
    (SELECT count(*) FROM trials WHERE trials.study_id = studies.study_id)
    FROM studies
"""


@dataclass(frozen=True)
class Held:
    """A study that is in a storage: its name, what it says of itself, and how many points it has."""

    name: str
    identity: Any
    points: int

    @property
    def foreign(self) -> bool:
        """Whether it was made by something else; one without points, which a killed run may leave, has nothing to lose."""
        return self.points > 0 and not (isinstance(self.identity, dict) and "sweep" in self.identity)


def file_of(spec: Spec, store: Store) -> Path | None:
    """Where the study is kept, or None: in memory."""
    given, folder = spec.sweep.storage, store.folder
    if given == "none" or (given is None and folder is None):
        return None
    file = Path(given or "study.db").expanduser()
    if file.is_absolute():
        if not os.access(file.parent, os.W_OK):
            raise spec.source.error("storage", f"{file.parent} is no folder that can be written to")
        return file
    if folder is None:
        message = f"{given}: in {store.uri} no such file can be kept open; give a full path on this machine, or none"
        raise spec.source.error("storage", message)
    return folder / spec.page / file


def opened(file: Path | None) -> Any:
    """The storage of Optuna's that a study in the file has: SQLite for *.db, else a journal; in memory for None."""
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy import URL

    if file is None:
        return optuna.storages.InMemoryStorage()
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".db":
        return optuna.storages.RDBStorage(URL.create("sqlite", database=str(file)).render_as_string())
    return optuna.storages.JournalStorage(JournalFileBackend(str(file)))


def refuse_others(file: Path | None, spec: Spec) -> None:
    """A storage holds the study of one sweep, and is a storage; no study is written to find that out."""
    if file is None or not file.exists() or (file.is_file() and file.stat().st_size == 0):
        return
    if file.is_dir():
        raise spec.source.error("storage", f"{file} is a folder")
    try:
        if file.suffix == ".db":
            # To read what a killed run has left, SQLite first rolls it back.
            mode = "rw" if os.access(file, os.W_OK) else "ro"
            with closing(sqlite3.connect(f"file:{quote(str(file))}?mode={mode}", uri=True)) as database:
                held = [Held(name, json.loads(told or "null"), count) for name, told, count in database.execute(_HELD)]
        else:
            with file.open() as lines:
                if "op_code" not in json.loads(next(lines)):
                    raise ValueError("no journal of Optuna's")
            import optuna

            summaries = optuna.get_all_study_summaries(opened(file), include_best_trial=False)
            held = [Held(of.study_name, of.user_attrs.get(IDENTITY), of.n_trials) for of in summaries]
    except Exception as error:
        raise unusable(spec, file, error) from None
    for study in held:
        sweep = study.name.partition("@")[0]  # the quick looks at a sweep may share its file
        if study.foreign or sweep != spec.name:
            what = f"a study {study.name} that is of no sweep" if study.foreign else f"the study of the sweep {sweep}"
            raise spec.source.error("storage", f"{file} holds {what}; give {spec.name} a file of its own")


def unusable(spec: Spec, file: Path | None, error: Exception) -> SpecError:
    """What to tell the user of an error of SQLAlchemy, the file system or Optuna."""
    said = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error).strip().splitlines()
    return spec.source.error("storage", f"{file} cannot be used: {said[0] if said else type(error).__name__}")
