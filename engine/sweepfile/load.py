"""Reads a sweep file and overrides into a checked `Spec` with its trials.

Errors name the file, the line and the field. The entries of a sweep file:

```
task: input_flatness           what is measured: a file in tasks/, or package.module
about: ...                     one or two sentences for the report
fixed: {...}                   settings of the task's Config; dotted names reach inside
                               (recipe.optimiser)
grid: {name: [values]}         all combinations, or
search: {name: {uniform: [a, b]}}
trials: N                      points drawn from uniform, loguniform, int (both ends), choice
searcher: tpe                  random, tpe or nsga2; or {name: tpe, seed: 0, startup: 10},
                               {name: nsga2, population: 20}
scheduler: asha                none, asha or median; or
                               {name: asha, metric: validation_accuracy, grace: 1, reduction: 3}
storage: study.db              file of the study for optuna-dashboard (.db or .journal), in the
                               folder of the results; or none
seeds: 3                       a number (0 .. 2) or a list
objective: {metric: ..., mode: max}     or a list of them
resources: {cpus: 1, gpus: auto, chunk: null, max_concurrent: null, retries: 3,
            nodes_may_join: false}
figures: [...]                 names, or {name: {option: value}}
data_root: ...                 folder of the data sets; by default INPUTSCAPE_DATA, else
                               ~/.cache/inputscape
```

The sweep and the folder of its results are named after the file, without its ending.

Overrides that change which trials there are make a *quick look*. Its report, tables, study and
TensorBoard log go to a page of their own, `<name>@<key=value,...>`, beside the sweep's. Its trials
are kept with the sweep's trials, so that nothing is measured twice. Overrides that change no trial
keep the sweep's page: `resources`, `figures`, `about`, `data_root`, `storage`, the scheduler,
settings of speed such as `batch`, and values that the file has anyway. So does a search with more
trials than the file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from engine.store.naming import unfit_name
from engine.sweepfile.checks import check_between, check_scheduler, check_varied
from engine.sweepfile.expand import Trial, points, trials_at
from engine.sweepfile.looks import look_of, page_of
from engine.sweepfile.overrides import overridden
from engine.sweepfile.schema import Sweep
from engine.sweepfile.spec import Spec, facts
from engine.sweepfile.task_modules import task_module
from engine.sweepfile.yaml_lines import Source, SpecError, read
from tasks.parts.messages import validated
from tasks.parts.settings import UserError

__all__ = ["Spec", "SpecError", "Trial", "facts", "load"]

LONGEST_NAME = 150
"""Most bytes in the name of a sweep: a quick look adds to it, and file systems take 255."""


def load(file: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Reads and checks a sweep file; only its figures are not checked.

    Args:
        file: path of the YAML file.
        overrides: `key=value`; a key is a setting of the task (`recipe.epochs=5`: fixed, no longer
            varied) or an entry of the sweep (`seeds=1`, `grid.recipe.optimiser=[sgd]`).

    Raises:
        SpecError: one line that names file, line and field.
    """
    entries, source = read(file)
    name = _name(file)

    def with_overrides(some: Sequence[str]) -> Spec:
        return _checked(name, *overridden(entries, source, some))

    spec = with_overrides(overrides)
    look = look_of(spec, with_overrides)
    return replace(spec, page=page_of(name, look), look=tuple(spec.source.overrides[path] for path in look))


def _name(file: str | Path) -> str:
    """The name of a sweep, from the name of its file.

    Raises:
        SpecError: no folder of results can have this name.
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


def _checked(name: str, entries: Mapping[str, JsonValue], source: Source) -> Spec:
    """Checks the entries of a sweep, and returns its `Spec`."""
    try:
        sweep = validated(Sweep, entries, "a sweep")
        task = task_module(sweep.task)
    except UserError as error:
        raise source.error(error.field or "", error.message) from None
    check_varied(sweep, task.Config, source)
    trials = [trial for point in points(sweep) for trial in trials_at(point, sweep, task.Config, source)]
    if sweep.adaptive:
        check_between(sweep, task.Config, source)
    if sweep.scheduler is not None:
        check_scheduler(sweep.scheduler, task, trials, source)
    return Spec(name, name, (), sweep, task, trials, source)
