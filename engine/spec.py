"""From a sweep file and overrides to a checked, frozen `Sweep` and its trials. User errors are born here, with file and line.

```
task: input_flatness           what is measured: a file in tasks/, or package.module
about: ...                     one or two sentences for the report
fixed: {...}                   settings of the task's Config; dotted names reach inside (recipe.optimiser)
grid: {name: [values]}         all combinations, or
search: {name: {uniform: [a, b]}}  + trials: N    points drawn at random: uniform, loguniform, int (both ends), choice
seeds: 3                       a number (0 .. 2) or a list
objective: {metric: ..., mode: max}
resources: {cpus: 1, gpus: auto, chunk: null, max_concurrent: null, retries: 3, nodes_may_join: false}
figures: [...]                 names, or {name: {option: value}}
data_root: ...                 where data sets are; INPUTSCAPE_DATA or ~/.cache/inputscape where absent
```
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

import tasks
from analysis import catalogue
from engine.entries import MOST_TRIALS, Sweep
from engine.explain import explain, leaves, settings_of, shown, unknown
from engine.source import Source, SpecError, meant, override, place, read
from tasks.parts.contract import TaskConfig
from tasks.parts.settings import UserError, as_number


@dataclass(frozen=True)
class Trial:
    """One point of a sweep: its settings, and the values of what varies (the seed among them)."""

    config: TaskConfig
    point: dict[str, Any]

    @property
    def label(self) -> str:
        """A short name for people, such as `optimiser=sgd radius=0.1 seed=0`."""
        return (
            " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in self.point.items())
            or "the only trial"
        )


@dataclass(frozen=True)
class Spec:
    """A whole sweep: its name, what the file says, the task's module, the trials, and where each entry came from."""

    name: str
    sweep: Sweep
    task: ModuleType
    trials: list[Trial]
    source: Source

    @property
    def data_root(self) -> str | None:
        return self.sweep.data_root

    def error(self, error: UserError) -> SpecError:
        """A user error that was noticed later, such as a missing file, with the line of the setting at fault."""
        if isinstance(error, SpecError) or error.field is None:
            return SpecError(error.message) if not isinstance(error, SpecError) else error
        paths = [f"{section}.{error.field}" for section in ("grid", "search", "fixed")] + [error.field]
        known = [path for path in paths if path in self.source.lines or path in self.source.overrides]
        return self.source.error(known[0] if known else f"fixed.{error.field}", error.message)


def load(file: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Reads and checks a sweep file.

    Args:
        overrides: `key=value`; a key is a setting of the task (`recipe.epochs=5`: fixed, no longer varied) or an entry of the sweep
            (`seeds=1`, `grid.recipe.optimiser=[sgd]`, `resources.gpus=0.5`).

    Raises:
        SpecError: one line that names file, line and field.
    """
    entries, source = read(file)
    for section in ("grid", "search"):
        if section in entries and not entries[section]:
            raise source.error(section, "is empty; name a setting and its values, or leave it out")
    if isinstance(entries.get("grid"), dict):
        entries["grid"] = _flat_grid(entries["grid"])
    for text in overrides:
        _apply(text, entries, source)
    sweep = _validated(Sweep, entries, source, "", "a sweep")
    module = task_module(sweep.task, source)
    trials = _trials(sweep, entries, module, source)
    _check_figures(sweep, module, source)
    return Spec(Path(file).stem, sweep, module, trials, source)


def task_names() -> list[str]:
    """The tasks on disk."""
    return sorted(module.name for module in pkgutil.iter_modules(tasks.__path__) if not module.ispkg)


def task_module(name: str, source: Source | None = None) -> ModuleType:
    """The module of a task: `tasks/<name>.py`, or `package.module` of the user's own."""
    source = source or Source("task")
    path = f"tasks.{name}" if name in task_names() else name
    if path == name and "." not in name:
        raise source.error(
            "task", f"unknown task {name}; there are {', '.join(task_names())}{meant(name, task_names())}"
        )
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise source.error("task", f"{name} cannot be imported: {error}") from None
    lacking = [part for part in ("COLUMNS", "Config", "needs", "measure", "summarise") if not hasattr(module, part)]
    if lacking:
        raise source.error("task", f"{name} is no task: it has no {', '.join(lacking)} (see tasks/parts/contract.py)")
    return module


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat_grid(grid: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in grid.items():
        flat |= _flat_grid(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _apply(text: str, entries: dict[str, Any], source: Source) -> None:
    """Puts one override into the entries of the file."""
    key, value = override(text, source)
    path = key.split(".")
    if not all(path):
        raise SpecError(f"override {text}: a key is a name, or names joined by dots")
    if path[0] in ("grid", "search") and len(path) > 1:
        path = [path[0], ".".join(path[1:])]
    elif path[0] not in Sweep.model_fields:
        for section in ("grid", "search"):
            if isinstance(entries.get(section), dict):
                entries[section].pop(key, None)  # what is fixed by hand varies no more
        if not entries.get("search"):
            entries.pop("trials", None)
        path = ["fixed", *path]
    place(entries, path, value)
    source.overrides[".".join(path)] = text


def _validated(model: type[Any], entries: Any, source: Source, prefix: str, owner: str) -> Any:
    """`model` from entries, or the first of its errors as a `SpecError`."""
    try:
        return model.model_validate(entries)
    except ValidationError as error:
        path, message = explain(error, model, entries, owner)
        raise source.error(".".join(part for part in (prefix, path) if part), message) from None


def _points(sweep: Sweep) -> Iterable[dict[str, Any]]:
    if sweep.search:
        for index in range(sweep.trials or 0):
            yield {name: distribution.draw(name, index) for name, distribution in sweep.search.items()}
    else:
        for values in itertools.product(*sweep.grid.values()):
            yield dict(zip(sweep.grid, values, strict=True))


def _trials(sweep: Sweep, entries: dict[str, Any], module: ModuleType, source: Source) -> list[Trial]:
    """All points of the sweep as checked configs."""
    model: type[TaskConfig] = module.Config
    known = list(settings_of(model))
    section = "grid" if sweep.grid else "search"
    for name in sweep.varied:
        if unknown(model, name):
            raise source.error(
                f"{section}.{name}", f"unknown setting of {sweep.task}; it has {', '.join(known)}{meant(name, known)}"
            )
        if name in leaves(sweep.fixed):
            raise source.error(f"{section}.{name}", "is given in fixed as well")
    count = math.prod(len(values) for values in sweep.grid.values()) * len(sweep.seed_list or [0])
    if count > MOST_TRIALS:
        raise source.error("grid", f"{count} combinations; at most {MOST_TRIALS} are run")
    if sweep.seed_list is not None and model.replicates in (*sweep.varied, *leaves(sweep.fixed)):
        raise source.error("seeds", f"seeds vary {model.replicates}, which is given elsewhere as well")
    for name, values in sweep.grid.items():
        seen: list[Any] = []
        for number, value in enumerate(values):
            if as_number(value) in seen:
                raise source.error(f"grid.{name}.{number}", f"the value {shown(value)} is given twice")
            seen.append(as_number(value))

    trials: list[Trial] = []
    for point in _points(sweep):
        for seed in sweep.seed_list if sweep.seed_list is not None else [None]:
            full = point if seed is None else {**point, model.replicates: seed}
            values = json.loads(json.dumps(sweep.fixed))
            for name, value in full.items():
                place(values, name.split("."), value)
            trials.append(Trial(_config(model, values, full, sweep, source, section), full))
    return trials


def _config(
    model: type[TaskConfig], values: dict[str, Any], point: dict[str, Any], sweep: Sweep, source: Source, section: str
) -> TaskConfig:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        path, message = explain(error, model, values, sweep.task)
        varied = next((name for name in point if path == name or path.startswith(f"{name}.")), None)
        if varied is None:
            raise source.error(f"fixed.{path}" if path else "fixed", message) from None
        place_in_list = ""
        if section == "grid" and varied in sweep.grid:
            place_in_list = f".{sweep.grid[varied].index(point[varied])}"
        raise source.error(f"{section}.{varied}{place_in_list}", message) from None


def _check_figures(sweep: Sweep, module: ModuleType, source: Source) -> None:
    for number, entry in enumerate(sweep.figures or []):
        try:
            catalogue.parse(entry, columns=list(module.COLUMNS), settings=list(settings_of(module.Config)))
        except ValueError as error:
            raise source.error(f"figures.{number}", str(error)) from None
