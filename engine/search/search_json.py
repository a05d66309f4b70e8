"""What `search.json` keeps: the points of a search, and what its study was begun with."""

from __future__ import annotations

from pydantic import JsonValue

from engine.store.records import Record
from engine.sweepfile.load import Spec
from tasks.parts.dotted import flatten
from tasks.parts.messages import quote

NEW = "put that back, or begin a new study with --fresh or in other --results"


class Identity(Record):
    """What a study is begun with; `search.json` and the study both keep it.

    A study with another identity is another study.
    """

    sweep: str = ""
    task: str
    search: dict[str, JsonValue]
    objective: list[JsonValue]
    searcher: dict[str, JsonValue]
    fixed: dict[str, JsonValue]


class SavedPoint(Record):
    """A point in `search.json`; the fields are those of `engine.search.study.Point`."""

    values: dict[str, JsonValue]
    system: dict[str, JsonValue]


class SavedStudy(Record):
    """The content of `search.json`."""

    study: Identity
    points: tuple[SavedPoint, ...]


def identity_of(spec: Spec) -> Identity:
    """What a study of this sweep is begun with."""
    sweep = spec.sweep
    return Identity(
        sweep=spec.name,
        task=sweep.task,
        search={name: d.model_dump(mode="json", by_alias=True, exclude_none=True) for name, d in sweep.search.items()},
        objective=[objective.model_dump() for objective in sweep.objectives],
        searcher=sweep.searcher.model_dump(),
        fixed=sweep.fixed,
    )


def refuse_changes(spec: Spec, before: Identity) -> None:
    """Refuses a study that was begun with another identity.

    A point is chosen by the results of earlier ones, so all must come from one search space and
    have the same objective.

    Raises:
        SpecError: with the line of the first change.
    """
    now, error = identity_of(spec), spec.source.error
    whole = {
        "task": (before.task, now.task),
        "objective": (before.objective, now.objective),
        "searcher": (before.searcher, now.searcher),
    }
    for entry, (was, becomes) in whole.items():
        if was != becomes:
            raise error(entry, f"was {quote(was)} when this study was begun; {NEW}")
    for entry, old, new in (
        ("search", before.search, now.search),
        ("fixed", _fixed(spec, before), _fixed(spec, now)),
    ):
        for name in [*new, *old]:
            if name not in new:
                raise error(entry, f"had {name}: {quote(old[name])} when this study was begun; {NEW}")
            if name not in old:
                raise error(f"{entry}.{name}", f"was not there when this study was begun; {NEW}")
            if old[name] != new[name]:
                raise error(f"{entry}.{name}", f"was {quote(old[name])} when this study was begun; {NEW}")


def _fixed(spec: Spec, identity: Identity) -> dict[str, JsonValue]:
    """The fixed settings by dotted name, without those that change only the speed."""
    speed = spec.task.Config.performance
    return {name: value for name, value in flatten(identity.fixed).items() if name not in speed}
