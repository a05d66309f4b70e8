"""Opens the file of a study, SQLite or a journal, and the study in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection, StudySummary
from pydantic import JsonValue
from sqlalchemy import URL

from engine.store.store import Store
from engine.sweepfile.load import Spec
from engine.sweepfile.schema import Objective
from engine.sweepfile.yaml_lines import SpecError

IDENTITY = "study"
"""The user attribute of a study with what it was begun with, see `search_json.Identity`."""


def file_of(spec: Spec, store: Store) -> Path | None:
    """The file of the study; None where it is kept in memory.

    Raises:
        SpecError: the file cannot be written there.
    """
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


def opened(file: Path | None) -> BaseStorage:
    """Opens a file as Optuna's storage: SQLite for *.db, else a journal; in memory for None."""
    if file is None:
        return InMemoryStorage()
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".db":
        return RDBStorage(URL.create("sqlite", database=str(file)).render_as_string())
    return JournalStorage(JournalFileBackend(str(file)))


def begun(
    storage: BaseStorage,
    name: str,
    identity: Mapping[str, JsonValue],
    objectives: Sequence[Objective],
    *,
    fresh: bool = False,
) -> optuna.Study:
    """Opens the study with a name, or begins a new one.

    A study with another identity or other objectives is deleted first.

    Args:
        storage: from `opened`.
        name: of the study.
        identity: what the study is begun with.
        objectives: of the sweep.
        fresh: begin a new study in any case.
    """
    names = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    directions = [names[objective.mode] for objective in objectives]

    def created() -> optuna.Study:
        return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)

    study = created()
    if study.user_attrs.get(IDENTITY) == identity and study.directions == directions and not fresh:
        return study
    if IDENTITY in study.user_attrs or study.directions != directions or fresh:
        optuna.delete_study(study_name=name, storage=storage)
        study = created()
    study.set_user_attr(IDENTITY, identity)
    study.set_metric_names([objective.metric for objective in objectives])
    return study


def refuse_others(file: Path | None, spec: Spec) -> None:
    """Refuses a file that is no storage of Optuna's, or that holds another study.

    Nothing is written to find out.

    Raises:
        SpecError: with the line of `storage`.
    """
    if file is None or not file.exists() or (file.is_file() and file.stat().st_size == 0):
        return
    if file.is_dir():
        raise spec.source.error("storage", f"{file} is a folder")
    try:
        studies = _studies(file)
    except Exception as error:
        raise unusable(spec, file, error) from None
    for study in studies:
        sweep = study.study_name.partition("@")[0]  # quick looks of a sweep may share its file
        identity = study.user_attrs.get(IDENTITY)
        ours = isinstance(identity, dict) and "sweep" in identity
        # A killed run may leave a study without points, which can be lost.
        foreign = study.n_trials > 0 and not ours
        if foreign or sweep != spec.name:
            what = f"a study {study.study_name} that is of no sweep" if foreign else f"the study of the sweep {sweep}"
            raise spec.source.error("storage", f"{file} holds {what}; give {spec.name} a file of its own")


def _studies(file: Path) -> list[StudySummary]:
    """The studies in a file; the file is not changed."""
    if file.suffix == ".db":
        # SQLite must roll back an unfinished write of a killed run before it can read.
        query = {"mode": "rw" if os.access(file, os.W_OK) else "ro", "uri": "true"}
        url = URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)
        storage: BaseStorage = RDBStorage(url.render_as_string(), skip_table_creation=True)
    else:
        with file.open() as lines:
            if "op_code" not in json.loads(next(lines)):
                raise ValueError("no journal of Optuna's")
        storage = opened(file)
    return optuna.get_all_study_summaries(storage, include_best_trial=False)


def unusable(spec: Spec, file: Path | None, error: Exception) -> SpecError:
    """The error to raise where SQLAlchemy, the file system or Optuna cannot use a study's file."""
    cause = error.__cause__ or error  # Optuna passes on errors of SQLAlchemy as the causes of its own
    said = str(getattr(cause, "orig", None) or getattr(cause, "strerror", None) or cause).strip().splitlines()
    return spec.source.error("storage", f"{file} cannot be used: {said[0] if said else type(cause).__name__}")
