"""The figures on disk: `analysis/figures/<name>.py`, one a file, found by name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from analysis.options import FigureOptions
from engine.store.records import SweepRecord

FOLDER = Path(__file__).parent / "figures"


@dataclass(frozen=True)
class FigureChoice:
    """A figure with its options: one entry of a sweep's `figures:`."""

    name: str
    module: ModuleType
    options: FigureOptions

    @property
    def needs(self) -> list[str]:
        """The row columns that the figure takes."""
        return list(self.module.needs(self.options))

    def why_not_rows(self, columns: Iterable[str]) -> str | None:
        """Why rows with these columns cannot be drawn, though they may have those that it needs; None if they can."""
        judge = getattr(self.module, "why_not_rows", None)
        return judge(set(columns)) if judge else None

    def why_not_sweep(self, sweep: SweepRecord | None) -> str | None:
        """Why a sweep cannot be drawn with these options, whatever its rows; None if it can, or where nothing is known of it."""
        judge = getattr(self.module, "why_not_sweep", None)
        return judge(sweep, self.options) if judge and sweep is not None else None


def names() -> list[str]:
    """The names of all figures, in order.

    >>> "recipes" in names()
    True
    """
    return sorted(file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))


def find(name: str) -> ModuleType:
    """The module of a figure.

    Raises:
        ValueError: there is no such figure; the line says which there are.
    """
    if name not in names():
        raise ValueError(f"unknown figure {name!r}; there are {_among(name, names())}")
    return importlib.import_module(f"analysis.figures.{name}")


def parse(
    entry: Any,
    columns: Iterable[str] | None = None,
    settings: Iterable[str] | None = None,
    sweep: SweepRecord | None = None,
) -> FigureChoice:
    """Checks an entry of a sweep's `figures:` list.

    Args:
        entry: a name, or a mapping of one name to its options.
        columns: the row columns of the sweep's task; None to leave the columns unchecked.
        settings: the dotted names of the sweep's settings; None to leave them unchecked.
        sweep: what the sweep says of itself (`objectives`, `search`, `metrics`, ...); None to leave it unchecked.

    Raises:
        ValueError: in one line, an unknown figure, option, column, setting, objective or metric, or a value that is not allowed.

    >>> parse({"recipes": {"y": "p_true"}}).options.y
    'p_true'
    """
    name, given = _split(entry)
    module = find(name)
    chosen = FigureChoice(name, module, _options(name, module, given))
    if columns is not None:
        there = list(columns)
        for column in chosen.needs:
            if column not in there:
                raise ValueError(f"figure {name}: no row column {column!r}; there are {_among(column, there)}")
        if reason := chosen.why_not_rows(there):
            raise ValueError(f"figure {name}: {reason}")
    if reason := chosen.why_not_sweep(sweep):
        raise ValueError(f"figure {name}: {reason}")
    known = {"setting": settings, **_told(sweep)}
    for option, field in type(chosen.options).model_fields.items():
        extra, value = field.json_schema_extra, getattr(chosen.options, option)
        kind = extra.get("names") if isinstance(extra, dict) else None
        if isinstance(kind, str) and value is not None and (names_of := known.get(kind)) is not None:
            there = list(names_of)
            if value not in there:
                raise ValueError(f"figure {name}: {option}: no {kind} {value!r}; there are {_among(value, there)}")
    return chosen


def fitting(columns: Iterable[str], sweep: SweepRecord | None = None) -> list[FigureChoice]:
    """Every figure, with its default options, that rows with these columns can be drawn as.

    Args:
        sweep: what the sweep says of itself; None for the figures alone that need not know.
    """
    there = set(columns)
    every = [parse(name) for name in names()]
    every = [chosen for chosen in every if there.issuperset(chosen.needs) and chosen.why_not_rows(there) is None]
    if sweep is None:
        return [chosen for chosen in every if not hasattr(chosen.module, "why_not_sweep")]
    return [chosen for chosen in every if chosen.why_not_sweep(sweep) is None]


def takes_importance(figures: Sequence[Any]) -> bool:
    """Whether a sweep's `figures:` show the importance of settings; where there are none, all are drawn.

    >>> takes_importance([]), takes_importance(["recipes"]), takes_importance(["recipes", {"importance": {}}])
    (True, False, True)
    """
    return not figures or any(getattr(parse(entry).module, "TAKES_IMPORTANCE", False) for entry in figures)


def _told(sweep: SweepRecord | None) -> dict[str, Sequence[str] | None]:
    """The names that a sweep tells, by what options call them; None for those that it does not tell."""
    if sweep is None:
        return {}
    return {"objective": [one.metric for one in sweep.objectives], "metric": sweep.metrics}


def _split(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, given = next(iter(entry.items()))
        if isinstance(given, Mapping) or given is None:
            return str(name), {str(option): value for option, value in (given or {}).items()}
    raise ValueError(
        f"{entry!r} is not a figure: a name is needed, or one name with its options, such as recipes: {{y: p_true}}"
    )


def _options(name: str, module: ModuleType, given: dict[str, Any]) -> FigureOptions:
    try:
        options = module.Options(**given)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = list(module.Options.model_fields)
            raise ValueError(f"figure {name}: unknown option {option!r}; it has {_among(option, known)}") from error
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"figure {name}: {option}: {message[:1].lower()}{message[1:]}, not {first['input']!r}"
        ) from error
    if not isinstance(options, FigureOptions):
        raise TypeError(f"figure {name}: Options must be built on FigureOptions")
    return options


def _among(came: str, there: Sequence[str]) -> str:
    """What is allowed, with the nearest to what came."""
    near = difflib.get_close_matches(came, there, n=1) or [name for name in there if name.endswith(f".{came}")][:1]
    listed = ", ".join(there) if there else "none"
    return f"{listed}; did you mean {near[0]}?" if near else listed


def named(entry: Any) -> str:
    """The name in an entry of a `figures:` list, whether or not there is such a figure, fit to be a file's name.

    >>> named({"recipes": {"y": "p_true"}}), named(["../x"])
    ('recipes', 'figure')
    """
    name = next(iter(entry), "") if isinstance(entry, Mapping) else entry
    return name if isinstance(name, str) and name.isidentifier() else "figure"
