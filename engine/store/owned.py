"""Keeps apart our files in a sweep's folder and the user's, which are never replaced or removed.

`manifest.json` lists our files at the top of a folder and in `figures/`, and the runs in
`tensorboard/`. A name enters the list before its file is first written, and stays as long as the
file may exist. So a killed run leaves no file that looks like the user's. Files that exist in large
numbers are recognised by their names instead: those of a trial (`trials/<hash>/trial.json`,
`scores.parquet`, `rows/part-*.parquet`, and the `attachments/` that `trial.json` lists) and the
event files of TensorBoard.

A folder is ours where it has a manifest. It is also ours where it has the files of an earlier
version that kept no manifest: those are recognised by their names, and enter the new manifest. An
absent or empty folder becomes ours with the first file. Any other folder is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from engine.store.damaged import Damaged
from engine.store.naming import unfit_name
from engine.store.store import Store
from tasks.parts.settings import UserError

MANIFEST = "manifest.json"
FORMAT = 1
"""Format of the manifest; raised when earlier versions could not read it."""
HEADER = "# The sweep as it ran"
"""The beginning of `sweep.yaml`, the sweep with all settings resolved."""
_TRIAL = re.compile("[0-9a-f]{16}")
_RECORD = re.compile(r"trial\.json|scores\.parquet|augmented\.png|_trial\.json\.damaged")
_PART = re.compile(r"part-.*\.parquet|_part-.*\.parquet\.damaged")
_EVENTS = re.compile(r"events\.out\.tfevents\..*")
_DRAWN = (
    *("calibration", "conditions", "differences", "distances", "effects", "flatness_and_transfer", "flatness_curves"),
    *("importance", "learning_curves", "parallel_coordinates", "pareto", "recipes", "search_cost", "security_curve"),
    *("shared_examples", "tradeoff", "transfer_matrix"),
)
"""The figures of the versions that kept no manifest."""
_FIGURE = re.compile(r"(.+?)(-[0-9]+)?\.(png|pdf|csv|error\.txt)")


class SweepFolder:
    """Writes and removes our files in a sweep's folder, and leaves the user's alone.

    This holds for the files at the top of the folder and in folders such as `figures`.

    Args:
        store: the store of the folder.
        sweep: the name of the sweep, for the manifest.

    Raises:
        UserError: the folder is not ours, cannot be written to, or its manifest cannot be read.
    """

    def __init__(self, store: Store, sweep: str = ""):
        self._store, self._sweep = store, sweep
        obstacle = store.obstacle()
        if obstacle:
            raise UserError(obstacle)
        try:
            self._known()
        except OSError as error:
            raise UserError(f"{store.uri} cannot be read: {error.strerror or error}") from None

    @property
    def files(self) -> list[str]:
        """The paths of our files in the folder; a killed run may not have written the last ones."""
        return sorted(self._known())

    def refuse(self, names: Iterable[str]) -> None:
        """Refuses names that the user's own files have.

        Raises:
            UserError: for the first such file.
        """
        ours = self._known()
        for name in names:
            if name not in ours and self._store.exists(name):
                raise UserError(
                    f"{self._store.location(name)} was not made by inputscape, which would write there; move or rename it"
                )

    def claim(self, names: Iterable[str] = ()) -> None:
        """Makes the folder ours, and lists files that will be written.

        Raises:
            UserError: a file of the user's own has such a name, or nothing can be written.
        """
        names = set(names)
        self.refuse(names)
        ours = self._known()
        if not names <= ours or not self._store.exists(MANIFEST):
            self._list(ours | names)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, or replaces ours.

        Raises:
            UserError: a file of the user's own has that name, or nothing can be written.
        """
        self.claim([name])
        self._write(name, content)

    def write_json(self, name: str, content: object) -> None:
        """Writes content as a JSON file; see `write`."""
        self.write(name, json.dumps(content, indent=2).encode())

    def remove(self, names: Iterable[str]) -> None:
        """Removes the files that are ours, and their folders where these are then empty."""
        ours = self._known()
        gone = ours.intersection(names)
        for name in sorted(gone):
            self._store.delete(name)
        for folder in sorted({name.rpartition("/")[0] for name in gone} - {""}):
            self._store.delete_empty(folder)
        if gone:
            self._list(ours - gone)

    def forget(self, names: Iterable[str]) -> None:
        """Takes files that no longer exist out of the list."""
        ours = self._known()
        if ours.intersection(names):
            self._list(ours.difference(names))

    def _known(self) -> set[str]:
        """The names in the manifest; without one, those of an earlier version's files."""
        if self._store.exists(MANIFEST):
            return self._manifest()
        found = _by_convention(self._store)
        if found is None and any(not name.startswith(".") for name in self._store.names("")):
            raise UserError(
                f"{self._store.uri} exists and was not made by inputscape; "
                "choose another --results, or rename the sweep file"
            )
        return found or set()

    def _manifest(self) -> set[str]:
        """The files that the manifest lists.

        Raises:
            UserError: the manifest is broken. Nothing is removed then: any file may be the user's.
        """
        try:
            found = json.loads(self._store.read(MANIFEST))
            names, unknown = found["files"], found["format"] != FORMAT
            broken = not all(isinstance(name, str) and _ordinary(name) for name in names)
        except (OSError, ValueError, TypeError, KeyError):
            broken, unknown = True, False
        if broken:
            why = "is not as inputscape left it; delete it, and the files of the sweep are recognised by their names"
            raise UserError(f"{self._store.location(MANIFEST)} {why}")
        if unknown:
            raise UserError(f"{self._store.location(MANIFEST)} is of another version of inputscape")
        return set(names)

    def _list(self, names: Iterable[str]) -> None:
        about = {"made_by": "inputscape", "format": FORMAT, "sweep": self._sweep, "files": sorted(names)}
        self._write(MANIFEST, json.dumps(about, indent=2).encode())

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._store.write(name, content)
        except OSError as error:
            said = error.strerror or str(error).splitlines()[0]
            raise UserError(f"{self._store.location(name)} cannot be written: {said}") from None


def clear_trial(folder: str, store: Store) -> None:
    """Removes the stored files of a trial."""
    record = store.record(f"{folder}/trial.json") or {}
    left = "|".join(re.escape(f"{name}.png") for name in record.get("attachments") or {})
    _clear(f"{folder}/attachments", re.compile(left), store)
    _clear(f"{folder}/rows", _PART, store)
    _clear(folder, _RECORD, store)


def clear_events(folder: str, store: Store) -> None:
    """Removes the events of a run from the TensorBoard log."""
    _clear(folder, _EVENTS, store)


def _clear(folder: str, ours: re.Pattern[str], store: Store) -> None:
    """Removes files with our names, and the folder if it is then empty.

    Half-written files of a killed run are removed too.
    """
    there = {name: name for name in store.names(folder)} | store.unfinished(folder)
    for name, meant in there.items():
        if ours.fullmatch(meant):
            store.delete(f"{folder}/{name}")
    store.delete_empty(folder)


def _ordinary(path: str) -> bool:
    """Whether a path is a file in the folder or in one of its folders, not deeper or outside.

    >>> paths = ("report.html", "figures/effects.png", "../notes", "trials/a/b", "/etc")
    >>> [_ordinary(path) for path in paths]
    [True, True, False, False, False]
    """
    return path.count("/") < 2 and all(unfit_name(part) is None for part in path.split("/"))


def _by_convention(store: Store) -> set[str] | None:
    """The files of a version without manifests; None where it has not written to the folder."""
    found: set[str] = set()
    if _is_table_of_trials(store):
        found.add("trials.parquet")  # was written before these
        found.update(name for name in ("summary.csv", "report.html", "report.json") if store.is_file(name))
        figures = {name: _FIGURE.fullmatch(name) for name in store.names("figures")}
        found.update(f"figures/{name}" for name, of in figures.items() if of and of[1] in _DRAWN)
    if store.is_file("sweep.yaml") and store.read("sweep.yaml").startswith(HEADER.encode()):
        found.add("sweep.yaml")
    if _is_search(store):
        found.add("search.json")
    trials = (name for name in store.names("trials") if _TRIAL.fullmatch(name))
    return found if found or any(store.is_file(f"trials/{name}/trial.json") for name in trials) else None


def _is_table_of_trials(store: Store) -> bool:
    try:
        return b"sweep" in (store.read_schema("trials.parquet").metadata or {})
    except (OSError, Damaged):
        return False


def _is_search(store: Store) -> bool:
    try:
        found = store.read_json("search.json")
    except (OSError, ValueError):
        return False
    return isinstance(found, Mapping) and {"study", "points"} <= found.keys()
