"""Expands a sweep into its trials: each point of the grid or search, with every seed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from engine.sweepfile.schema import Sweep
from engine.sweepfile.yaml_lines import Source
from tasks.parts.contract import TaskConfig
from tasks.parts.dotted import is_below, set_at
from tasks.parts.messages import validated
from tasks.parts.settings import UserError


@dataclass(frozen=True)
class Trial:
    """One run of the task: its settings, and the values of what varies (the seed included)."""

    config: TaskConfig
    point: dict[str, JsonValue]

    @property
    def label(self) -> str:
        """A short name for people to read, such as `optimiser=sgd radius=0.1 seed=0`."""
        words = (f"{name.rpartition('.')[2]}={_short(value)}" for name, value in self.point.items())
        return " ".join(words) or "the only trial"


def points(sweep: Sweep) -> Iterator[dict[str, JsonValue]]:
    """The points of a grid or a random search.

    An adaptive search chooses its points later. For it, the points at the ends of its ranges are
    returned, so that these can be checked before the run.
    """
    if sweep.adaptive:
        yield from _ends(sweep)
    elif sweep.search:
        for index in range(sweep.trials or 0):
            yield {name: drawn.draw(name, index, sweep.searcher.seed) for name, drawn in sweep.search.items()}
    else:
        for values in itertools.product(*sweep.grid.values()):
            yield dict(zip(sweep.grid, values, strict=True))


def _ends(sweep: Sweep) -> Iterator[dict[str, JsonValue]]:
    """Points that cover both ends of every range and every value of every choice."""
    ends = {name: distribution.ends() for name, distribution in sweep.search.items()}
    for number in range(max(map(len, ends.values()))):
        yield {name: values[min(number, len(values) - 1)] for name, values in ends.items()}


def trials_at(point: Mapping[str, JsonValue], sweep: Sweep, model: type[TaskConfig], source: Source) -> list[Trial]:
    """The trials of one point, one for each seed.

    Raises:
        SpecError: a value is refused, or the settings do not go together.
    """
    seeds = [{**point, model.replicates: seed} for seed in sweep.seed_list or []] or [dict(point)]
    trials: list[Trial] = []
    for values in seeds:
        try:
            trials.append(Trial(config_at(values, sweep, model), values))
        except UserError as error:
            raise source.error(place(sweep, error.field or "", values, source), message_of(error, sweep)) from None
    return trials


def config_at(point: Mapping[str, JsonValue], sweep: Sweep, model: type[TaskConfig]) -> TaskConfig:
    """The checked settings of a trial: the fixed entries with a point's values put in.

    Raises:
        UserError: for the first value that is refused.
    """
    entries = copy.deepcopy(sweep.fixed)
    for name, value in point.items():
        set_at(entries, name.split("."), copy.deepcopy(value))
    return validated(model, entries, sweep.task)


def message_of(error: UserError, sweep: Sweep) -> str:
    """The message of an error; it names the distribution to use where whole numbers are needed."""
    drawn = sweep.search.get(error.field or "")
    if drawn is None or drawn.between() is None or error.kind != "whole number":
        return error.message
    return f"{error.message}; take int: [low, high], since {drawn.kind} draws any number between"


def place(sweep: Sweep, path: str, point: Mapping[str, JsonValue], source: Source) -> str:
    """The path in the sweep file that gives a trial's setting its value."""
    name = next((name for name in point if is_below(path, name)), None)
    if name is None:
        below = [name for name in point if is_below(name, path)] if not source.knows(f"fixed.{path}") else []
        if not below or not path:
            return f"fixed.{path}" if path else "fixed"
        name, path = below[0], below[0]
    if name in sweep.grid:
        return f"grid.{name}.{sweep.grid[name].index(point[name])}{path.removeprefix(name)}"
    if name in sweep.search:
        return f"search.{name}"
    return f"seeds.{list[object](sweep.seeds).index(point[name])}" if isinstance(sweep.seeds, list) else "seeds"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
