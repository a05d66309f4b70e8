"""The dry run: how far every trial of a sweep is, and the work that is left."""

from __future__ import annotations

import sys
from collections import Counter

from engine import terminal
from engine.plan.plan import Artifact, Planned, exists, missing, status
from engine.store.store import Store
from engine.sweepfile.load import Spec
from engine.terminal import say
from tasks.parts.contract import hook


def show(spec: Spec, planned: list[Planned], todo: list[Planned], store: Store, *, fresh: bool, points: int) -> None:
    """Prints the dry run: how far every trial is, and the work that is left.

    Args:
        spec: the sweep.
        planned: its trials.
        todo: those that would run.
        store: with what exists.
        fresh: whether they would be measured anew.
        points: how many points a search has still to choose.
    """
    left = {item.key: len(item.ids if fresh else missing(item.folder, item.ids, store)) for item in todo}
    elsewhere = f", trials in {store.location(spec.name)}" if spec.look else ""
    _tell(
        f"{spec.name}: {spec.task.__name__}, {len(planned)} trials, results in {store.location(spec.page)}{elsewhere}"
    )
    rows: list[tuple[Planned, str, str, int]] = []
    for item in planned:
        whole = [artifact for artifact in item.artifacts().values() if not artifact.kind.per_example]
        made = "made" if all(exists(artifact, store) for artifact in whole) else "to make"
        rows.append((item, status(item, store), made, left.get(item.key, 0)))
    for line in _table(rows, terminal.dimensions(sys.stdout)):
        say(line, sys.stdout)
    work = [", ".join(f"{count} {what}" for what, count in costs.items()) for costs in _work(planned, todo, store)]
    _tell("; ".join([f"to do: {len(todo)} trials", *work, f"{sum(left.values())} examples to measure"]))
    passes = sum(left[item.key] * hook(spec.task, "passes")(item.trial.config) for item in todo)
    if passes:
        _tell(f"at most {passes:,} forward passes of a network on one image to measure them")
    if points:
        _tell(f"{points} more points are chosen as the search goes on")


def _work(planned: list[Planned], todo: list[Planned], store: Store) -> list[Counter[str]]:
    """The work of making the missing artifacts of these trials, a count for each kind.

    Each kind counts in its own words, such as epochs.
    """
    work: dict[str, Counter[str]] = {}
    for item in planned:
        for artifact in item.artifacts().values():
            costs = work.setdefault(artifact.kind.name, Counter())
            costs.update(dict.fromkeys(artifact.cost, 0))
    whole: dict[str, Artifact] = {}
    rows: dict[str, tuple[Artifact, set[int]]] = {}
    for item in todo:
        for key, artifact in item.artifacts().items():
            if artifact.kind.per_example:
                rows.setdefault(key, (artifact, set()))[1].update(missing(artifact.folder, artifact.ids, store))
            elif not exists(artifact, store):
                whole[key] = artifact
    times = [(artifact, 1) for artifact in whole.values()] + [(artifact, len(ids)) for artifact, ids in rows.values()]
    for artifact, count in times:
        for what, each in artifact.cost.items():
            work[artifact.kind.name][what] += count * each
    return list(work.values())


def _table(rows: list[tuple[Planned, str, str, int]], window: tuple[int, int] | None) -> list[str]:
    """The lines of the dry run, one for each trial.

    In a window that is too narrow they have fewer words, and as much of the label as fits.
    """
    width = max((len(item.trial.label) for item, *_ in rows), default=0)
    lines = [
        f"  {item.key}  {item.trial.label:{width}}  {how:7}  artifacts {made:7}  {examples} examples left"
        for item, how, made, examples in rows
    ]
    if window is None or max(map(len, lines), default=0) <= window[0]:
        return lines
    ends = [f"  {how:7}  {made:7}  {examples} left" for _, how, made, examples in rows]
    room = max(10, window[0] - 12 - max(map(len, ends)))
    labels = [terminal.shortened(item.trial.label, room) for item, *_ in rows]
    width = max(map(len, labels))
    return [f"  {row[0].key[:8]}  {label:{width}}{end}" for row, label, end in zip(rows, labels, ends, strict=True)]


def _tell(text: str) -> None:
    for line in terminal.reflowed(text, sys.stdout):
        say(line, sys.stdout)
