"""From a sweep file and overrides to a checked, frozen `Sweep` and its trials. User errors are born here, with file and line.

```
task: input_flatness           what is measured: a file in tasks/, or package.module
about: ...                     one or two sentences for the report
fixed: {...}                   settings of the task's Config; dotted names reach inside (recipe.optimiser)
grid: {name: [values]}         all combinations, or
search: {name: {uniform: [a, b]}}  + trials: N    points drawn from uniform, loguniform, int (both ends), choice
searcher: tpe                  random, tpe or nsga2; or {name: tpe, seed: 0, startup: 10}, {name: nsga2, population: 20}
scheduler: asha                none, asha or median; or {name: asha, metric: validation_accuracy, grace: 1, reduction: 3}
storage: study.db              the study's file for optuna-dashboard, in the results' folder (.db or .journal), or none
seeds: 3                       a number (0 .. 2) or a list
objective: {metric: ..., mode: max}     or a list of them
resources: {cpus: 1, gpus: auto, chunk: null, max_concurrent: null, retries: 3, nodes_may_join: false}
figures: [...]                 names, or {name: {option: value}}
data_root: ...                 where data sets are; INPUTSCAPE_DATA or ~/.cache/inputscape where absent
```

The file's name without its ending is that of the sweep, and of the folder of its results. Overrides that change which trials there are
make a *quick look*: its report, tables, study and TensorBoard log have a page of their own, `<name>@<key=value,...>`, beside the
sweep's, and its trials are kept with the sweep's, so that nothing is measured twice. Those that change no trial (`resources`, `figures`,
`about`, `data_root`, `storage`, the scheduler, settings of speed such as `batch`, and values that the file has anyway) keep the sweep's
page, and so does a search that is longer than the file says.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import itertools
import json
import math
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import tasks
from analysis import catalogue
from engine.store.records import SweepRecord
from engine.store.store import unfit_name
from engine.sweepfile.messages import (
    WHOLE,
    Mistake,
    alike,
    inner_settings,
    leaves,
    settings_of,
    shown,
    unknown,
    validated,
)
from engine.sweepfile.schema import MOST_TRIALS, Scheduler, Sweep
from engine.sweepfile.yaml_lines import Source, SpecError, meant, obstacle, override, place, read, scalar
from tasks.parts.contract import TaskConfig
from tasks.parts.data import load as data
from tasks.parts.settings import UserError, as_number
from tasks.parts.training.recipes import Recipe
from tasks.parts.training.training import Epoch

LONGEST_NAME = 150
"""Bytes in the name of a sweep: that of a quick look must fit into a file system's 255."""
LONGEST_LOOK = 100
"""Characters that tell a quick look's overrides in the name of its page."""
NO_TRIALS = ("resources", "figures", "about", "data_root", "storage")
"""Entries of a sweep that have no part in which trials there are."""
_PLAIN = re.compile(r"[A-Za-z0-9._+-]+")
_HASHED = re.compile(r".*-[0-9a-f]{8}")


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
    """A whole sweep: its name, what the file says, the task's module, the trials, and where each entry came from.

    Attributes:
        name: the sweep's, and that of the folder that its trials are kept in.
        page: the folder of the report, the tables, the study and the TensorBoard log: the name, or a quick look's own.
        look: the overrides that make it a quick look; none where it is the sweep itself.
    """

    name: str
    page: str
    look: tuple[str, ...]
    sweep: Sweep
    task: ModuleType
    trials: list[Trial]
    """All of them; of a search whose points are not known before it runs, points at the ends of the settings' ranges."""
    source: Source

    @property
    def ended(self) -> tuple[str, ...]:
        """The states of trials that are not run again: a stopped one goes on where no scheduler is asked for."""
        return ("done", "stopped") if self.sweep.scheduler else ("done",)

    def at(self, values: Mapping[str, Any]) -> list[Trial]:
        """The trials of one point: one for each seed.

        Raises:
            SpecError: the settings do not go together.
        """
        return _at(values, self.sweep, self.task.Config, self.source)

    @property
    def data_root(self) -> str:
        """The folder of the data sets, absolute: workers have a folder and an environment of their own."""
        return str(data.default_root(self.sweep.data_root).absolute())

    def error(self, error: UserError, trial: Trial | None = None) -> SpecError:
        """A user error that was noticed later, such as a missing file, with the line of the setting at fault.

        Args:
            trial: in which it was noticed: tells which value of the grid it is.
        """
        if isinstance(error, SpecError):
            return error
        if error.field is None:
            return SpecError(f"{self.source.file}: {error.message}")
        if trial is not None:
            return self.source.error(_place(self.sweep, error.field, trial.point, self.source), error.message)
        paths = [f"{section}.{error.field}" for section in ("grid", "search", "fixed")] + [error.field]
        known = [path for path in paths if self.source.knows(path)]
        return self.source.error(known[0] if known else f"fixed.{error.field}", error.message)

    def unreported(self, metric: str, reports: Sequence[str]) -> SpecError:
        """The error that no trial reports an objective, with the line where it is named.

        Args:
            reports: the scalars that the trials report.
        """
        place = next(i for i, objective in enumerate(self.sweep.objectives) if objective.metric == metric)
        at = f"objective.{place}.metric" if self.source.knows(f"objective.{place}") else "objective.metric"
        return self.source.error(
            at, f"no trial reports {metric}; they report {', '.join(reports)}{meant(metric, reports)}"
        )


def load(file: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Reads and checks a sweep file.

    Args:
        overrides: `key=value`; a key is a setting of the task (`recipe.epochs=5`: fixed, no longer varied) or an entry of the sweep
            (`seeds=1`, `grid.recipe.optimiser=[sgd]`, `resources.gpus=0.5`).

    Raises:
        SpecError: one line that names file, line and field.
    """
    entries, source = read(file)
    spec = _read(_name(file), entries, source, overrides)
    _check_figures(spec.sweep, spec.task, spec.source)
    look = _look(spec, entries, source)
    return replace(spec, page=_page(spec.name, look), look=tuple(spec.source.overrides[path] for path in look))


def _name(file: str | Path) -> str:
    """The name of a sweep, from that of its file.

    Raises:
        SpecError: it cannot be that of a folder of results.
    """
    name = Path(file).stem
    unfit = unfit_name(name)
    if name == "artifacts":
        unfit = "is that of the folder of networks"
    elif "@" in name:
        unfit = "has an @, which stands in the names of quick looks"
    elif unfit is None and len(name.encode()) > LONGEST_NAME:
        unfit = f"is longer than {LONGEST_NAME} bytes"
    if unfit:
        raise SpecError(f"{file}: the name {name} {unfit}, and results go to a folder of that name; rename the file")
    return name


def _read(name: str, entries: Mapping[str, Any], source: Source, overrides: Iterable[str]) -> Spec:
    """A sweep with overrides, checked but for its figures; the file's entries stay as they are."""
    changed, source = copy.deepcopy(dict(entries)), copy.deepcopy(source)
    _check_sections(changed, source)
    for text in overrides:
        _apply(text, changed, source)
    sweep = _sweep(changed, source)
    module = task_module(sweep.task, source)
    return Spec(name, name, (), sweep, module, _trials(sweep, module, source), source)


def _look(spec: Spec, entries: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """The overrides that make a quick look, as paths with their values: without any of them other trials would be run."""
    there = spec.source.overrides
    aside = {path for path in there if path.split(".")[0] in NO_TRIALS}
    kept = [path for path in there if path not in aside]
    for path in list(kept):
        rest = [other for other in kept if other != path]
        try:
            without = _read(spec.name, entries, source, [there[one] for one in there if one in aside or one in rest])
        except SpecError:  # the others make no sense without it
            continue
        if _goes_on(spec, without):
            kept = rest
    return {path: override(there[path])[1] for path in kept}


def _goes_on(spec: Spec, other: Spec) -> bool:
    """Whether a sweep has the trials of another; if they are searches, it may choose more points where that one ends."""
    one, two = spec.sweep, other.sweep
    if spec.task is not other.task or bool(one.search) != bool(two.search):
        return False
    if not one.search:
        return len(spec.trials) == len(other.trials) and set(_contents(spec)).issuperset(_contents(other))
    drawn = (one.search, one.searcher) == (two.search, two.searcher)
    seeds = len(one.seed_list or [0]) == len(two.seed_list or [0])
    aim = not (one.studied or two.studied) or one.objectives == two.objectives
    first = zip(_contents(spec), _contents(other), strict=False)
    return drawn and seeds and aim and (one.trials or 0) >= (two.trials or 0) and all(a == b for a, b in first)


def _contents(spec: Spec) -> Iterable[str]:
    """What each trial is: all settings but those of speed."""
    speed = set(spec.task.Config.performance)
    for trial in spec.trials:
        yield json.dumps(trial.config.model_dump(mode="json", exclude=speed), sort_keys=True)


def _page(name: str, look: Mapping[str, Any]) -> str:
    """The folder of a page: a quick look's name tells its overrides, and has a hash of them where they cannot be told in full.

    >>> _page("noise", {}), _page("noise", {"seeds": 1, "fixed.examples": 50})
    ('noise', 'noise@seeds=1,examples=50')
    >>> _page("noise", {"fixed.recipe.optimiser": ["sgd"]})
    'noise@recipe.optimiser=_sgd_-a2956796'
    """
    if not look:
        return name
    words = [(_setting(path), _word(value)) for path, value in look.items()]
    told = ",".join(f"{key}={word}" for key, word in words)
    whole = all(_PLAIN.fullmatch(part) for pair in words for part in pair)  # no comma, no equals sign
    typed = all(type(scalar(word)) is type(value) for (_, word), value in zip(words, look.values(), strict=True))
    if whole and typed and len(told) <= LONGEST_LOOK and not _HASHED.fullmatch(told):
        return f"{name}@{told}"
    digest = hashlib.sha256(json.dumps(list(look.items())).encode()).hexdigest()[:8]
    told = re.sub(r"[^A-Za-z0-9._=+,-]", "_", told)[: LONGEST_LOOK - 9]
    return f"{name}@{told}-{digest}"


def _setting(path: str) -> str:
    """The path of an override as short as it may be given.

    >>> _setting("fixed.recipe.epochs"), _setting("fixed.seeds"), _setting("seeds")
    ('recipe.epochs', 'fixed.seeds', 'seeds')
    """
    short = path.removeprefix("fixed.")
    return path if short.split(".")[0] in Sweep.model_fields else short


def _word(value: Any) -> str:
    """A value of an override, as short as it can be written."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_word(of)}' for name, of in value.items())}}}"
    return json.dumps(value)


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
    except Exception as error:  # whatever the user's module does when it is imported
        raise source.error("task", f"{name} cannot be imported: {type(error).__name__}: {error}") from None
    lacking = [part for part in ("COLUMNS", "Config", "needs", "measure", "summarise") if not hasattr(module, part)]
    if lacking:
        raise source.error("task", f"{name} is no task: it has no {', '.join(lacking)} (see tasks/parts/contract.py)")
    if not (isinstance(module.Config, type) and issubclass(module.Config, TaskConfig)):
        raise source.error("task", f"{name} is no task: its Config is not built on tasks.parts.contract.TaskConfig")
    if "id" not in module.COLUMNS:
        raise source.error("task", f"{name} is no task: its COLUMNS lack id, the example that a row is about")
    version = getattr(module, "VERSION", 1)
    if type(version) is not int or version < 1:
        raise source.error(
            "task", f"{name} is no task: its VERSION must be a whole number above 0, not {shown(version)}"
        )
    return module


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _check_sections(entries: dict[str, Any], source: Source) -> None:
    """Grid and search, where they are given, have entries; those of a grid are put under their dotted names."""
    for section in ("grid", "search"):
        if section in entries and not entries[section]:
            raise source.error(section, "is empty; name a setting and its values, or leave it out")
    if isinstance(entries.get("grid"), dict):
        flat: dict[str, Any] = {}
        for name, value in _flat(entries["grid"]):
            if name in flat:
                raise source.error(f"grid.{name}", "given twice, with a dotted and with a nested name")
            flat[name] = value
        entries["grid"] = flat


def _flat(grid: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in grid.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _apply(text: str, entries: dict[str, Any], source: Source) -> None:
    """Puts one override into the entries of the file."""
    key, value = override(text)
    path = key.split(".")
    if path[0] in ("grid", "search") and len(path) > 1:
        path = [path[0], ".".join(path[1:])]
    elif path[0] not in Sweep.model_fields:
        for section in ("grid", "search"):
            varied = entries[section] if isinstance(entries.get(section), dict) else {}
            for name in [name for name in varied if _below(name, key)]:
                del varied[name]  # what is fixed by hand varies no more
                source.forget(f"{section}.{name}")
        if not entries.get("search"):
            for entry in ("trials", "searcher", "scheduler", "storage"):
                entries.pop(entry, None)
        path = ["fixed", *path]
    full = ".".join(path)
    barrier = obstacle(entries, path)
    if barrier is not None:
        there = entries
        for name in barrier:
            there = there[name]
        raise SpecError(f"override {text}: {full}: {'.'.join(barrier)} is {shown(there)}, which has no entries to set")
    place(entries, path, value)
    source.forget(full)
    source.overrides[full] = text
    if path[0] in ("grid", "search"):
        _check_sections(entries, source)


def _sweep(entries: dict[str, Any], source: Source) -> Sweep:
    try:
        return validated(Sweep, entries, "a sweep")
    except Mistake as mistake:
        raise source.error(mistake.path, mistake.message) from None


def _points(sweep: Sweep) -> Iterable[dict[str, Any]]:
    if sweep.adaptive:
        yield from _ends(sweep)
    elif sweep.search:
        for index in range(sweep.trials or 0):
            yield {name: drawn.draw(name, index, sweep.searcher.seed) for name, drawn in sweep.search.items()}
    else:
        for values in itertools.product(*sweep.grid.values()):
            yield dict(zip(sweep.grid, values, strict=True))


def _ends(sweep: Sweep) -> Iterable[dict[str, Any]]:
    """Points of a search in which each setting has its first, its last, and every one of its choices once."""
    ends = {name: distribution.ends() for name, distribution in sweep.search.items()}
    for number in range(max(map(len, ends.values()))):
        yield {name: values[min(number, len(values) - 1)] for name, values in ends.items()}


def _below(name: str, path: str) -> bool:
    """Whether a dotted name is a path, or below it.

    >>> _below("recipe.seed", "recipe"), _below("recipes", "recipe")
    (True, False)
    """
    return name == path or name.startswith(f"{path}.")


def _trials(sweep: Sweep, module: ModuleType, source: Source) -> list[Trial]:
    """All points of the sweep as checked configs."""
    model: type[TaskConfig] = module.Config
    _check_varied(sweep, model, source)
    trials = [trial for point in _points(sweep) for trial in _at(point, sweep, model, source)]
    if sweep.adaptive:
        _check_between(sweep, model, source)
    if sweep.scheduler is not None:
        _check_scheduler(sweep.scheduler, module, trials, source)
    return trials


def _check_between(sweep: Sweep, model: type[TaskConfig], source: Source) -> None:
    """Settings take the kind of number that lies between the ends of their ranges. Which go together the points will tell."""
    first = {name: drawn.ends()[0] for name, drawn in sweep.search.items()}
    for name, drawn in sweep.search.items():
        value = drawn.between()
        if value is None:
            continue
        try:
            _config({**first, name: value}, sweep, model)
        except Mistake as mistake:
            if mistake.path == name and mistake.message.startswith("must be "):
                raise source.error(f"search.{name}", mistake.message + _instead(sweep, mistake)) from None


def _instead(sweep: Sweep, mistake: Mistake) -> str:
    """`; ...` with the distribution to take, where whole numbers were to be drawn from one of all numbers, else nothing."""
    drawn = sweep.search.get(mistake.path)
    if drawn is None or drawn.between() is None or WHOLE not in mistake.message:
        return ""
    return f"; take int: [low, high], since {drawn.kind} draws any number between"


def _config(point: Mapping[str, Any], sweep: Sweep, model: type[TaskConfig]) -> TaskConfig:
    """The checked config of what is fixed and a point's values.

    Raises:
        Mistake: for the first that is refused.
    """
    entries = copy.deepcopy(sweep.fixed)
    for name, value in point.items():
        place(entries, name.split("."), copy.deepcopy(value))
    return validated(model, entries, sweep.task)


def _at(values: Mapping[str, Any], sweep: Sweep, model: type[TaskConfig], source: Source) -> list[Trial]:
    """The checked configs of one point, one for each seed."""
    trials: list[Trial] = []
    for point in [{**values, model.replicates: seed} for seed in sweep.seed_list or []] or [dict(values)]:
        try:
            trials.append(Trial(_config(point, sweep, model), point))
        except Mistake as mistake:
            message = mistake.message + _instead(sweep, mistake)
            raise source.error(_place(sweep, mistake.path, point, source), message) from None
    return trials


def _check_scheduler(scheduler: Scheduler, module: ModuleType, trials: list[Trial], source: Source) -> None:
    """Trainings report what the scheduler looks at, and are long enough to be stopped."""
    recipes = [trial.config.recipe for trial in trials]
    if scheduler.metric.startswith("validation") and any(recipe.validation == 0 for recipe in recipes):
        message = (
            f"trainings report {scheduler.metric} where recipe.validation is above 0; set it, or use accuracy or loss"
        )
        raise source.error("scheduler.metric", message)
    longest = max(recipe.epochs for recipe in recipes)
    if scheduler.grace >= longest:
        message = f"{scheduler.grace} epochs, but no training has more than {longest}: none would ever be stopped"
        raise source.error("scheduler.grace", message)
    networks = sum(isinstance(need, Recipe) for need in module.needs(trials[0].config).values())
    if networks != 1:
        raise source.error("scheduler", f"stops trials that train one network; one of this task has {networks}")


def _check_varied(sweep: Sweep, model: type[TaskConfig], source: Source) -> None:
    """What varies are settings, each given once and with different values, and not too many."""
    known = list(settings_of(model))
    section = "grid" if sweep.grid else "search"
    fixed = leaves(sweep.fixed)
    for name in (*sweep.varied, *([model.replicates] if sweep.seeds else [])):
        barrier = ".".join(obstacle(sweep.fixed, name.split(".")) or [])
        if barrier:
            raise source.error(f"fixed.{barrier}", f"must be a mapping of names to values, since {name} varies")
    for number, name in enumerate(sweep.varied):
        if unknown(model, name):
            message = f"unknown setting of {sweep.task}{alike(name, known) or '; it has ' + ', '.join(known)}"
            raise source.error(f"{section}.{name}", message)
        for other in (*sweep.varied[:number], *fixed):
            if _below(name, other) or _below(other, name):
                where = "fixed" if other in fixed else section
                raise source.error(f"{section}.{name}", f"is given in {where} as well, as {where}.{other}")
    _check_replicates(sweep, model.replicates, fixed, source)
    count = math.prod(len(values) for values in sweep.grid.values()) * (sweep.trials or 1) * len(sweep.seed_list or [0])
    if count > MOST_TRIALS:
        raise source.error(section, f"{count} trials; at most {MOST_TRIALS} are run")
    lists = {f"grid.{name}": values for name, values in sweep.grid.items()}
    lists |= {f"search.{name}.choice": drawn.choice for name, drawn in sweep.search.items() if drawn.choice}
    for path, values in (lists | {"seeds": sweep.seed_list or []}).items():
        seen: list[Any] = []
        for number, value in enumerate(values):
            if as_number(value) in seen:
                raise source.error(f"{path}.{number}", f"the value {shown(value)} is given twice")
            seen.append(as_number(value))


def _check_replicates(sweep: Sweep, replicates: str, fixed: list[str], source: Source) -> None:
    """What the seeds vary is given nowhere else."""
    if sweep.seed_list is None:
        return
    elsewhere = [f"fixed.{name}" for name in fixed if _below(replicates, name)]
    for name, values in sweep.grid.items():
        inside = [leaf for value in values for leaf in leaves({name: value})]
        elsewhere += [f"grid.{name}" for leaf in inside if _below(replicates, leaf)]
    elsewhere += [f"search.{name}" for name in sweep.search if _below(replicates, name)]
    if elsewhere:
        raise source.error("seeds", f"vary {replicates}, which {elsewhere[0]} gives as well; leave one of them out")


def _place(sweep: Sweep, path: str, point: Mapping[str, Any], source: Source) -> str:
    """Where in the sweep a trial's setting has its value from."""
    name = next((name for name in point if _below(path, name)), None)
    if name is None:
        below = [name for name in point if _below(name, path)] if not source.knows(f"fixed.{path}") else []
        if not below or not path:
            return f"fixed.{path}" if path else "fixed"
        name, path = below[0], below[0]
    if name in sweep.grid:
        return f"grid.{name}.{sweep.grid[name].index(point[name])}{path.removeprefix(name)}"
    if name in sweep.search:
        return f"search.{name}"
    return f"seeds.{sweep.seeds.index(point[name])}" if isinstance(sweep.seeds, list) else "seeds"


def facts(sweep: Sweep) -> dict[str, Any]:
    """What figures ask of a sweep."""
    return {
        "varied": sweep.varied,
        "objectives": [objective.model_dump() for objective in sweep.objectives],
        "search": {name: drawn.kind for name, drawn in sweep.search.items()},
        "scheduler": sweep.scheduler.model_dump() if sweep.scheduler else None,
        "metrics": [name for name in Epoch.__annotations__ if name != "epoch"],  # some of them only with some recipes
    }


def _check_figures(sweep: Sweep, module: ModuleType, source: Source) -> None:
    columns, told = list(module.COLUMNS), SweepRecord.read(facts(sweep))
    settings = [*settings_of(module.Config), *inner_settings(module.Config, sweep.varied)]
    for number, entry in enumerate(sweep.figures or []):
        try:
            catalogue.parse(entry, columns, settings, told)
        except ValueError as error:
            path = f"figures.{number}"
            raise source.error(path + _option_at_fault(entry, columns, settings, told), str(error)) from None


def _option_at_fault(entry: Any, columns: list[str], settings: list[str], told: SweepRecord) -> str:
    """The dotted path within a figure's entry to the first option that is refused alone, or nothing."""
    if not isinstance(entry, dict) or len(entry) != 1:
        return ""
    ((name, options),) = entry.items()
    known = told if _suits(name, told) else None  # of a sweep that is not drawn with any options, none is at fault
    for option, value in options.items() if isinstance(options, dict) else ():
        try:
            catalogue.parse({name: {option: value}}, columns, settings, known)
        except ValueError:
            return f".{name}.{option}"
    return f".{name}"


def _suits(figure: str, told: SweepRecord) -> bool:
    """Whether a sweep can be drawn as a figure with its default options."""
    try:
        catalogue.parse(figure, sweep=told)
    except ValueError:
        return False
    return True
