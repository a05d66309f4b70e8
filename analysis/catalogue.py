"""The figures on disk: `analysis/figures/<name>.py`, one a file, found by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from analysis.options import FigureOptions
from engine.store.records import SweepRecord
from tasks.parts.members import Members
from tasks.parts.messages import did_you_mean, quote, validated
from tasks.parts.settings import UserError

FIGURES = Members("analysis.figures", "figure", ("Options", "needs", "compute", "draw"), "analysis/figures/__init__.py")


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

    @property
    def uses(self) -> list[str]:
        """The row columns that the figure uses where there are any, besides those it needs."""
        more = getattr(self.module, "uses", None)
        return list(more(self.options)) if more else []

    def why_not_rows(self, columns: Iterable[str]) -> str | None:
        """Why rows with these columns cannot be drawn, though they may have those that it needs.

        None if they can.
        """
        judge = getattr(self.module, "why_not_rows", None)
        return judge(set(columns)) if judge else None

    def why_not_sweep(self, sweep: SweepRecord | None) -> str | None:
        """Why a sweep cannot be drawn with these options, whatever its rows.

        None if it can, or where nothing is known of it.
        """
        judge = getattr(self.module, "why_not_sweep", None)
        return judge(sweep, self.options) if judge and sweep is not None else None


def names() -> tuple[str, ...]:
    """The names of all figures, in order.

    >>> "recipes" in names()
    True
    """
    return FIGURES.names()


def find(name: str) -> ModuleType:
    """The module of a figure.

    Raises:
        UserError: there is no such figure; the line says which there are.
    """
    if name not in names():
        raise UserError(f"unknown figure '{name}'; there are {_among(name, names())}")
    return FIGURES.module(name)


def parse(
    entry: object,
    columns: Iterable[str] | None = None,
    settings: Iterable[str] | None = None,
    sweep: SweepRecord | None = None,
) -> FigureChoice:
    """Checks an entry of a sweep's `figures:` list.

    Args:
        entry: a name, or a mapping of one name to its options.
        columns: the row columns of the sweep's task; None to leave the columns unchecked.
        settings: the dotted names of the sweep's settings; None to leave them unchecked.
        sweep: what the sweep says of itself (`objectives`, `search`, `metrics`, ...); None to leave
            it unchecked.

    Raises:
        UserError: an unknown figure, option, column, setting, objective or metric, or a value that
            is not allowed. The field is the path in the entry, such as `recipes.y`.

    >>> parse({"recipes": {"y": "p_true"}}).options.y
    'p_true'
    """
    name, given = _split(entry)
    module = find(name)
    try:
        chosen = FigureChoice(name, module, _options(name, module, given))
        _check_columns(chosen, columns)
        if reason := chosen.why_not_sweep(sweep):
            raise UserError(reason)
        _check_names(chosen.options, {"setting": settings, **_told(sweep)})
    except UserError as error:
        option = f"{error.field}: " if error.field else ""
        path = ".".join(filter(None, (name, error.field))) if isinstance(entry, Mapping) else None
        raise UserError(f"figure {name}: {option}{error.message}", path) from None
    return chosen


def _check_columns(chosen: FigureChoice, columns: Iterable[str] | None) -> None:
    """Raises `UserError` where rows with these columns cannot be drawn.

    Its field is the option that names a column which they lack.
    """
    if columns is None:
        return
    there = list(columns)
    for column in chosen.needs:
        if column not in there:
            named = (option for option in chosen.options.model_fields_set if getattr(chosen.options, option) == column)
            raise UserError(f"no row column '{column}'; there are {_among(column, there)}", next(named, None))
    if reason := chosen.why_not_rows(there):
        raise UserError(reason)


def _check_names(options: FigureOptions, known: Mapping[str, Iterable[str] | None]) -> None:
    """Raises `UserError` where an option names what there is not, by the known names of a kind."""
    for option, field in type(options).model_fields.items():
        extra, value = field.json_schema_extra, getattr(options, option)
        kind = extra.get("names") if isinstance(extra, dict) else None
        if isinstance(kind, str) and value is not None and (names_of := known.get(kind)) is not None:
            there = list(names_of)
            if value not in there:
                raise UserError(f"no {kind} '{value}'; there are {_among(value, there)}", option)


def fitting(columns: Iterable[str], sweep: SweepRecord | None = None) -> list[FigureChoice]:
    """Every figure, with its default options, that rows with these columns can be drawn as.

    Without a sweep, which says more of itself, only those figures that need not know it.
    """
    there = set(columns)
    every = [parse(name) for name in names()]
    every = [chosen for chosen in every if there.issuperset(chosen.needs) and chosen.why_not_rows(there) is None]
    if sweep is None:
        return [chosen for chosen in every if not hasattr(chosen.module, "why_not_sweep")]
    return [chosen for chosen in every if chosen.why_not_sweep(sweep) is None]


def takes_importance(figures: Sequence[object]) -> bool:
    """Whether a sweep's `figures:` show the importance of settings.

    Where there are none, all figures are drawn.

    >>> takes_importance([]), takes_importance(["recipes"])
    (True, False)
    >>> takes_importance(["recipes", {"importance": {}}])
    True
    """
    return not figures or any(getattr(parse(entry).module, "TAKES_IMPORTANCE", False) for entry in figures)


def _told(sweep: SweepRecord | None) -> dict[str, Sequence[str] | None]:
    """The names that a sweep tells, by their kind; None for those that it does not tell."""
    if sweep is None:
        return {}
    return {"objective": [one.metric for one in sweep.objectives], "metric": sweep.metrics}


def _split(entry: object) -> tuple[str, dict[str, object]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, given = next(iter(entry.items()))
        if isinstance(given, Mapping) or given is None:
            return str(name), {str(option): value for option, value in (given or {}).items()}
    raise UserError(
        f"{quote(entry)} is not a figure: a name is needed, or one name with its options, such as recipes: {{y: p_true}}"
    )


def _options(name: str, module: ModuleType, given: dict[str, object]) -> FigureOptions:
    options = validated(module.Options, given, name)
    if not isinstance(options, FigureOptions):
        raise TypeError(f"figure {name}: Options must be built on FigureOptions")
    return options


def _among(came: str, there: Sequence[str]) -> str:
    """What is allowed, with the nearest to what came."""
    return f"{', '.join(there) if there else 'none'}{did_you_mean(came, there)}"


def named(entry: object) -> str:
    """The name in an entry of a `figures:` list, fit to be the name of a file.

    There need not be such a figure.

    >>> named({"recipes": {"y": "p_true"}}), named(["../x"])
    ('recipes', 'figure')
    """
    name = next(iter(entry), "") if isinstance(entry, Mapping) else entry
    return name if isinstance(name, str) and name.isidentifier() else "figure"
