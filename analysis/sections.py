"""The words and numbers of `report.html`.

`report.html.j2` lays them out, with everything escaped.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis import augmented, provenance, style
from analysis.arrays import conditions, counted
from analysis.drawing import FigureResult
from analysis.galleries import galleries
from analysis.results import Results, epoch_metric, epochs_of, in_order, is_number, show
from analysis.summary import scalars
from engine.store.records import Epoch, TrialRecord

BROAD = style.COLUMN * 1.5 * style.RC["savefig.dpi"]
"""Wider pictures than this, in pixels, span two columns of a paper."""
NOT_REACHED = {"epoch", "learning_rate", *augmented.MEASURES}
"""Of a stopped training's last epoch, what is told elsewhere, or nothing is judged by."""


class Cells(TypedDict):
    """A table: the heads of its columns and of its lines, and what stands in each line.

    The page says what the corner is called where the table does not (`Headline`).
    """

    across: list[str]
    down: list[str]
    cells: list[list[tuple[str, str]]]


class Headline(Cells):
    """The table of scalars."""

    corner: str


class Stopped(TypedDict):
    """The table of trials that were stopped; `down` has each with how far it came."""

    across: list[str]
    down: list[tuple[str, str]]
    cells: list[list[str]]


class Shown(TypedDict):
    """A figure on the page: its picture in base 64, or the error in its place."""

    name: str
    title: str
    image: str | None
    broad: bool
    caption: str
    error: str | None


class Wrong(TypedDict):
    """A trial that failed a self-check, and what is wrong."""

    trial: str
    label: str
    words: str


class Check(TypedDict):
    """A self-check, in how many trials it was made, and those that failed it."""

    what: str
    trials: int
    failed: list[Wrong]


def render(
    results: Results,
    drawn: Sequence[FigureResult],
    summary: pd.DataFrame,
    records: Mapping[str, TrialRecord],
    spec: str,
    picture: Callable[[str, str], bytes | None] = lambda *_: None,
    whole: bool = False,
) -> str:
    """The report as one page of HTML.

    Args:
        results: of the sweep.
        drawn: the figures, failed ones too.
        summary: one line a recipe (`analysis.summary.summarise`).
        records: what each trial says of itself (`trial.json`), by trial.
        spec: the resolved sweep file.
        picture: a trial's file of that name, such as a picture, None where it has none.
        whole: whether the sweep that a quick look is of has a report too.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    fixed, varied = _settings(results)
    incomplete = summary["seeds"] < summary["trials"]
    return environment.get_template("report.html.j2").render(
        title=results.sweep.name or "sweep",
        about=results.sweep.about or "",
        look=results.sweep.look,
        whole=f"../{quote(str(results.sweep.trials))}/report.html" if whole else None,
        measured=provenance.measured(results, records),
        checks=_checks(results, records),
        headline=_headline(results, summary),
        objective=results.sweep.objective,
        searched=bool(results.sweep.search),
        candidates=int((~incomplete).sum()) if results.sweep.search else 0,
        incomplete=bool(incomplete.any()),
        figures=[_figure(one) for one in drawn],
        augmented=_augmented(results, records),
        augmentations=augmented.pictures(results, records, picture),
        galleries=galleries(results, records, picture),
        failed=_failed(results, records),
        stopped=_stopped(results),
        missing=int((results.trials["status"] == "missing").sum()),
        lacking=[str(lacks) for lacks in results.trials.loc[results.trials["status"] == "incomplete", "lacks"]],
        fixed=fixed,
        varied=varied,
        spec=spec,
        columns=_glossary(results),
        baseline=results.baseline,
        moved=_moved(results),
        versions=provenance.versions(records),
    )


def _moved(results: Results) -> list[str]:
    """The conditions other than the baseline, where some of their centres may be missing."""
    if not {"condition", "found"} <= set(results.rows):
        return []
    return [name for name in conditions(results.rows) if name != results.baseline]


def _headline(results: Results, summary: pd.DataFrame) -> Headline:
    """The table of scalars: recipes down and scalars across, or the other way round if narrower."""
    names = scalars(results)
    recipes = [f"{line['recipe']} ({_seeds(line)})" for _, line in summary.iterrows()]
    cells = [[_cell(line, name) for name in names] for _, line in summary.iterrows()]
    if len(names) > len(recipes):
        return {"corner": "scalar", "across": recipes, "down": names, "cells": [*map(list, zip(*cells, strict=True))]}
    return {"corner": "recipe", "across": names, "down": recipes, "cells": cells}


def _seeds(line: pd.Series) -> str:
    """How many seeds a recipe's means are over, and of how many.

    >>> _seeds(pd.Series({"seeds": 3, "trials": 3})), _seeds(pd.Series({"seeds": 1, "trials": 3}))
    ('3 seeds', '1 of 3 seeds')
    """
    of = f"{line['seeds']} of " if line["seeds"] < line["trials"] else ""
    return of + counted(line["trials"], "seed")


def _cell(line: pd.Series, name: str) -> tuple[str, str]:
    """A mean and its interval, or its two seeds, written with the same number of decimals."""
    mean, low, high = (float(line[column]) for column in (name, f"{name}.low", f"{name}.high"))
    if math.isnan(mean):
        return "not measured", ""
    if math.isinf(mean):
        return "infinite", ""
    form = ".3g"
    if not mean or 1e-3 <= abs(mean) < 1e5:
        form = f".{max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 3}f"
    to = "and" if line["seeds"] == 2 else "to"
    return f"{mean:{form}}", "" if math.isnan(low) else f"{low:{form}} {to} {high:{form}}"


def _figure(drawn: FigureResult) -> Shown:
    image = base64.b64encode(drawn.png).decode() if drawn.png is not None else None
    title = drawn.name.replace("_", " ").replace("-", " ")
    broad = drawn.png is not None and int.from_bytes(drawn.png[16:20], "big") > BROAD  # a PNG tells its width there
    return {
        "name": drawn.name,
        "title": title,
        "image": image,
        "broad": broad,
        "caption": drawn.caption,
        "error": drawn.error,
    }


def _augmented(results: Results, records: Mapping[str, TrialRecord]) -> Cells:
    """The table of what augmentation does: its measures across, recipes down."""
    lines = augmented.effects(results, records)
    return {
        "across": list(augmented.MEASURES.values()),
        "down": [f"{line['recipe']} ({counted(int(line['seeds']), 'seed')})" for line in lines],
        "cells": [[_cell(pd.Series(line), name) for name in augmented.MEASURES] for line in lines],
    }


def _failed(results: Results, records: Mapping[str, TrialRecord]) -> list[dict[str, str]]:
    trials = results.trials[results.trials["status"] == "failed"]
    listed = []
    for _, line in trials.iterrows():
        error = line["error"] if isinstance(line.get("error"), str) else "no error was recorded"
        traceback = records[line["trial"]].traceback if line["trial"] in records else None
        listed.append(
            {"trial": line["trial"], "recipe": _label(results, line), "error": error, "traceback": traceback or ""}
        )
    return listed


def _stopped(results: Results) -> Stopped:
    """The table of the trials that a scheduler stopped, the shortest first.

    It tells how far each came, and the metrics of its last epoch.
    """
    found: list[tuple[str, str, Epoch]] = []
    for _, line in results.trials[results.trials["status"] == "stopped"].iterrows():
        last = epochs_of(line)[-1]
        whole = line.get("config.recipe.epochs")
        of = f" of {show(whole)}" if is_number(whole) else ""
        found.append((_label(results, line), f"{last['epoch']}{of}", last))
    found.sort(key=lambda one: one[2]["epoch"])
    names = [name for name in dict.fromkeys(name for *_, last in found for name in last) if name not in NOT_REACHED]
    return {
        "across": [epoch_metric(name) for name in names],
        "down": [one[:2] for one in found],
        "cells": [[show(last[name]) if name in last else "" for name in names] for *_, last in found],
    }


def _checks(results: Results, records: Mapping[str, TrialRecord]) -> list[Check]:
    """Each self-check of the trials (`checks` of `trial.json`), with those that failed it."""
    found: dict[str, Check] = {}
    for _, line in results.trials.iterrows():
        record = records.get(line["trial"], TrialRecord())
        for what, wrong in record.checks.items():
            check = found.setdefault(what, {"what": what, "trials": 0, "failed": []})
            check["trials"] += 1
            if wrong is not None:
                check["failed"].append({"trial": line["trial"], "label": _label(results, line), "words": wrong})
    return list(found.values())


def _label(results: Results, line: pd.Series) -> str:
    """A trial in words: its recipe, and its seed where seeds repeat it."""
    seed = f", seed {show(line[f'config.{results.replicates}'])}" if results.replicates else ""
    return f"{line['recipe']}{seed}"


def _settings(results: Results) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """The settings that all trials share, and those that differ, with their values."""
    fixed, varied = [], []
    for column in (str(name) for name in results.trials if str(name).startswith("config.")):
        name = column.removeprefix("config.")
        values = in_order(results.trials[column])
        if len(values) < 2 and name not in results.varied:
            fixed.append((name, show(values[0], 6) if values else "none"))
        else:
            listed = [show(value, 6) for value in values]
            words = ", ".join(listed) if len(listed) <= 12 else f"{listed[0]} to {listed[-1]} ({len(listed)} values)"
            label = results.setting_label(name)
            varied.append((name, words, "" if label == name else label))
    return fixed, varied


def _glossary(results: Results) -> list[tuple[str, str]]:
    return list(results.sweep.columns.items())
