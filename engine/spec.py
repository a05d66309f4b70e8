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
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

import tasks
from analysis import catalogue
from engine.source import Source, SpecError, meant, override, place, read
from tasks.parts.contract import TaskConfig
from tasks.parts.randomness import generator
from tasks.parts.settings import Number, Positive, Settings, UserError, as_number

MOST_TRIALS = 100_000


class Resources(Settings):
    """What each remote task gets, and how many run at once."""

    cpus: Annotated[int, Field(gt=0)] = Field(default=1, description="CPU cores, and threads, of a chunk or a training")
    gpus: Annotated[Number, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="GPUs of a chunk or a training, also a fraction; auto: 1 where a node has any, else 0",
    )
    chunk: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="examples in a remote task; by their number where null"
    )
    max_concurrent: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="trials at once; by the CPUs where null"
    )
    retries: int = Field(default=3, ge=0, description="how often a chunk is tried again after its worker died")
    nodes_may_join: bool = Field(
        default=False, description="accept GPUs that no node has yet: an autoscaler will add it"
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float | str) -> float | str:
        if isinstance(gpus, float) and gpus > 1 and gpus != int(gpus):
            raise ValueError("a fraction of one GPU, or a whole number of them, is needed")
        return gpus


class Objective(Settings):
    """Which of a trial's scalars a search improves and the tables are sorted by."""

    metric: str
    mode: Literal["max", "min"] = "max"


class Distribution(Settings):
    """What a searched setting is drawn from; exactly one of the four."""

    uniform: tuple[Number, Number] | None = None
    loguniform: tuple[Positive, Positive] | None = None
    int: tuple[int, int] | None = None
    choice: Annotated[list[Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Distribution:
        given = self.model_fields_set
        if len(given) != 1:
            raise ValueError(
                "one of uniform: [low, high], loguniform: [low, high], int: [low, high], choice: [values] is needed"
            )
        (kind,) = given
        value = getattr(self, kind)
        if kind != "choice" and not value[0] < value[1]:
            raise ValueError(f"{kind}: the first end must be below the second")
        return self

    def draw(self, name: str, index: int) -> Any:
        """The value of the index-th point, decided by the setting's name and the index alone: a longer search keeps its points."""
        random = generator(0, f"search {name}", index)
        if self.choice is not None:
            return self.choice[int(random.integers(len(self.choice)))]
        if self.int is not None:
            return int(random.integers(self.int[0], self.int[1], endpoint=True))
        if self.loguniform is not None:
            low, high = map(math.log, self.loguniform)
            return math.exp(low + (high - low) * float(random.random()))
        assert self.uniform is not None
        return self.uniform[0] + (self.uniform[1] - self.uniform[0]) * float(random.random())


class Sweep(Settings):
    """A sweep file, checked on its own; `trials_of` checks it against its task."""

    task: str
    about: str = ""
    fixed: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    search: dict[str, Distribution] = {}
    trials: Annotated[int, Field(gt=0, le=MOST_TRIALS)] | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | Annotated[int, Field(gt=0)] | None = None
    objective: Objective | None = None
    resources: Resources = Resources()
    figures: list[Any] | None = None
    data_root: str | None = None

    @model_validator(mode="after")
    def _grid_or_search(self) -> Sweep:
        if self.grid and self.search:
            raise ValueError("grid and search exclude each other: list values in grid, or draw them in search")
        if self.search and self.trials is None:
            raise ValueError("search needs trials: how many points are drawn")
        if self.trials is not None and not self.search:
            raise ValueError("trials belongs to search; a grid has all its combinations")
        return self

    @property
    def varied(self) -> list[str]:
        """Dotted names of what varies, seeds left out."""
        return [*self.grid, *self.search]

    @property
    def seed_list(self) -> list[int] | None:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


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


def settings_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Dotted name -> label of every setting, those of nested groups included. The label is the field's title, else its name."""
    names: dict[str, str] = {}
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names |= settings_of(info.annotation, f"{prefix}{name}.")
        else:
            names[prefix + name] = info.title or prefix + name
    return names


def get(config: Any, path: str) -> Any:
    """The value at a dotted name of a config (a model or a dumped one)."""
    for name in path.split("."):
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    return config


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


def explain(error: ValidationError, model: type[BaseModel], entries: Any, owner: str) -> tuple[str, str]:
    """The first error of a validation: the dotted path to it, and one line that says what came and what is allowed."""
    found: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for item in error.errors(include_url=False):
        path = _path_in(item["loc"], entries)
        values.setdefault(path, item["input"])
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if item["type"] == "extra_forbidden":
            parent = _model_at(model, path.split(".")[:-1])
            name = path.rpartition(".")[2]
            fields = list(parent.model_fields) if parent else []
            where = owner if "." not in path else path.rpartition(".")[0]
            message = f"unknown field; {where} has {', '.join(fields)}{meant(name, fields)}"
            return path, message
        if item["type"] == "missing":
            return path, "is missing"
        if message not in found.setdefault(path, []):
            found[path].append(message)
    path, messages = next(iter(found.items()))
    said = " or ".join(messages)
    if error.errors()[0]["type"] != "value_error" or not isinstance(values[path], dict):
        said += f", not {_shown(values[path])}"
    return path, said


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _path_in(loc: tuple[int | str, ...], entries: Any) -> str:
    """A validation error's location without the parts that are no entries, such as the member of a union that was tried."""
    path: list[str] = []
    for depth, part in enumerate(loc):
        if isinstance(entries, dict) and (part in entries or depth == len(loc) - 1):
            path.append(str(part))
            entries = entries.get(part)
        elif isinstance(entries, list) and isinstance(part, int) and part < len(entries):
            path.append(str(part))
            entries = entries[part]
    return ".".join(path)


def _model_at(model: type[BaseModel] | None, path: Iterable[str]) -> type[BaseModel] | None:
    for name in path:
        info = model.model_fields.get(name) if model else None
        candidates = [info.annotation, *typing.get_args(info.annotation)] if info else []
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return model


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
        if _unknown(model, name):
            raise source.error(
                f"{section}.{name}", f"unknown setting of {sweep.task}; it has {', '.join(known)}{meant(name, known)}"
            )
        if name in _leaves(sweep.fixed):
            raise source.error(f"{section}.{name}", "is given in fixed as well")
    count = math.prod(len(values) for values in sweep.grid.values()) * len(sweep.seed_list or [0])
    if count > MOST_TRIALS:
        raise source.error("grid", f"{count} combinations; at most {MOST_TRIALS} are run")
    if sweep.seed_list is not None and model.replicates in (*sweep.varied, *_leaves(sweep.fixed)):
        raise source.error("seeds", f"seeds vary {model.replicates}, which is given elsewhere as well")
    for name, values in sweep.grid.items():
        seen: list[Any] = []
        for number, value in enumerate(values):
            if as_number(value) in seen:
                raise source.error(f"grid.{name}.{number}", f"the value {_shown(value)} is given twice")
            seen.append(as_number(value))

    trials: list[Trial] = []
    for point in _points(sweep):
        for seed in sweep.seed_list or [None]:
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


def _unknown(model: type[BaseModel], path: str) -> bool:
    parent, _, name = path.rpartition(".")
    owner = _model_at(model, parent.split(".")) if parent else model
    if owner is not None:
        return name not in owner.model_fields
    holder, _, field = parent.rpartition(".")  # inside a free mapping, such as recipe.network_options.width
    free = _model_at(model, holder.split(".")) if holder else model
    return free is None or field not in free.model_fields or "dict" not in str(free.model_fields[field].annotation)


def _leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in values.items():
        names += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return names


def _check_figures(sweep: Sweep, module: ModuleType, source: Source) -> None:
    for number, entry in enumerate(sweep.figures or []):
        try:
            catalogue.parse(entry, columns=list(module.COLUMNS), settings=list(settings_of(module.Config)))
        except ValueError as error:
            raise source.error(f"figures.{number}", str(error)) from None
