"""Checks that a sweep fits its task: what varies, the seeds, the search ranges, the scheduler."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from types import ModuleType

from engine.sweepfile.expand import Trial, config_at, message_of
from engine.sweepfile.schema import MOST_TRIALS, Scheduler, Sweep
from engine.sweepfile.yaml_lines import Source
from tasks.parts.artifacts.common.kind import kind_of
from tasks.parts.contract import TaskConfig, requests
from tasks.parts.dotted import blocked_by, flatten, is_below, is_setting, settings_of
from tasks.parts.messages import did_you_mean, quote
from tasks.parts.settings import UserError, as_number


def check_varied(sweep: Sweep, model: type[TaskConfig], source: Source) -> None:
    """Checks that each varied name is a setting, given once and with different values.

    The number of trials is checked too.

    Raises:
        SpecError: with the line of the entry at fault.
    """
    known = list(settings_of(model))
    section = "grid" if sweep.grid else "search"
    fixed = flatten(sweep.fixed)
    for name in (*sweep.varied, *([model.replicates] if sweep.seeds else [])):
        barrier = ".".join(blocked_by(sweep.fixed, name.split(".")) or [])
        if barrier:
            raise source.error(f"fixed.{barrier}", f"must be a mapping of names to values, since {name} varies")
    for number, name in enumerate(sweep.varied):
        if not is_setting(model, name):
            hint = did_you_mean(name, known) or "; it has " + ", ".join(known)
            raise source.error(f"{section}.{name}", f"unknown setting of {sweep.task}{hint}")
        for other in (*sweep.varied[:number], *fixed):
            if is_below(name, other) or is_below(other, name):
                where = "fixed" if other in fixed else section
                raise source.error(f"{section}.{name}", f"is given in {where} as well, as {where}.{other}")
    _check_seeds(sweep, model.replicates, fixed, source)
    count = math.prod(len(values) for values in sweep.grid.values()) * (sweep.trials or 1) * len(sweep.seed_list or [0])
    if count > MOST_TRIALS:
        raise source.error(section, f"{count} trials; at most {MOST_TRIALS} are run")
    lists: dict[str, Sequence[object]] = {f"grid.{name}": values for name, values in sweep.grid.items()}
    lists |= {f"search.{name}.choice": drawn.choice for name, drawn in sweep.search.items() if drawn.choice}
    lists |= {"seeds": sweep.seeds} if isinstance(sweep.seeds, list) else {}
    for path, values in lists.items():
        _check_repeats(path, values, source)


def _check_repeats(path: str, values: Sequence[object], source: Source) -> None:
    """Refuses a list with a value given twice; `8/255` and its decimal form are one value."""
    seen: list[object] = []
    for number, value in enumerate(values):
        if as_number(value) in seen:
            raise source.error(f"{path}.{number}", f"the value {quote(value)} is given twice")
        seen.append(as_number(value))


def _check_seeds(sweep: Sweep, replicates: str, fixed: Collection[str], source: Source) -> None:
    """Refuses `seeds` where the setting that they vary is given elsewhere as well."""
    if sweep.seed_list is None:
        return
    elsewhere = [f"fixed.{name}" for name in fixed if is_below(replicates, name)]
    for name, values in sweep.grid.items():
        inside = [leaf for value in values for leaf in flatten({name: value})]
        elsewhere += [f"grid.{name}" for leaf in inside if is_below(replicates, leaf)]
    elsewhere += [f"search.{name}" for name in sweep.search if is_below(replicates, name)]
    if elsewhere:
        raise source.error("seeds", f"vary {replicates}, which {elsewhere[0]} gives as well; leave one of them out")


def check_between(sweep: Sweep, model: type[TaskConfig], source: Source) -> None:
    """Refuses a search range whose inner values the setting does not take.

    An example is `uniform` for a setting of whole numbers. Whether several settings go together is
    checked later, when the points are chosen.

    Raises:
        SpecError: with the line of the range.
    """
    first = {name: drawn.ends()[0] for name, drawn in sweep.search.items()}
    for name, drawn in sweep.search.items():
        value = drawn.between()
        if value is None:
            continue
        try:
            config_at({**first, name: value}, sweep, model)
        except UserError as error:
            if error.field == name and error.kind:
                raise source.error(f"search.{name}", message_of(error, sweep)) from None


def check_scheduler(scheduler: Scheduler, task: ModuleType, trials: Sequence[Trial], source: Source) -> None:
    """Checks that the scheduler can stop the trainings of these trials.

    They must report its metric, run for more epochs than its grace, and train one network a trial.

    Raises:
        SpecError: with the line of the scheduler.
    """
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
    needs = requests(task.needs(trials[0].config)).values()
    networks = sum(not kind_of(need).per_example for need in needs)
    if networks != 1:
        raise source.error("scheduler", f"stops trials that train one network; one of this task has {networks}")
