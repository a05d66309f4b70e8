"""The report of a sweep: its figures, a table of its scalars, and one self-contained page.

`python -m analysis.report results/noise` writes `figures/*.png *.pdf *.csv`, `summary.csv` and
`report.html` into the sweep's folder. It exits with 0 when all is drawn, 1 when a figure failed
(the page says why, the others are there) or a trial lacks rows and so is left out, and 2 for a
user's mistake. Files that it did not make it neither replaces nor removes (`engine.store.owned`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from engine import terminal

if __name__ == "__main__":
    terminal.prepare()  # the imports below take seconds

import yaml

from analysis import catalogue, sections, table
from analysis.arrays import CHOSEN_BY
from analysis.drawing import FigureResult, draw, file_names
from analysis.results import ReportError, Results
from analysis.summary import summarise
from engine.store.owned import SweepFolder
from engine.store.records import TrialRecord, read_trial
from engine.store.store import Store
from engine.terminal import say
from tasks.parts.settings import UserError

FAILED = ".error.txt"
"""How the file ends that a failed figure leaves in place of its picture."""
PICTURES = (".png", ".pdf", ".csv")
"""How the files of a figure end."""


def build(
    results_uri: str | os.PathLike[str],
    *,
    figures: Sequence[object] | None = None,
    tell: Callable[[str], None] = say,
) -> list[str]:
    """Draws the figures of a sweep and writes its report.

    A figure that fails loses no other: it leaves `figures/<name>.error.txt` and a line in the
    report (see `failures`).

    Args:
        results_uri: the sweep's folder or URI.
        figures: names, or mappings of one name to its options; by default those that the sweep asks
            for, and where it asks for none, all that its rows can be drawn as.
        tell: is called with a line for each finished trial that is left out, since rows of it are
            missing.

    Returns:
        The files that were written, as paths or URIs.

    Raises:
        ReportError: there is no finished sweep here, or `figures` names what there is not; in one
            line.
        UserError: nothing can be written here, or a file of the user's own is where the report, or
            a figure that is asked for, belongs; in one line.
    """
    store = table.open_store(results_uri)
    overview = table.overview(results_uri)
    folder = SweepFolder(store, overview.sweep.name)
    for line in table.incomplete(overview):
        tell(line)
    chosen, refused = _chosen(overview, figures)
    names = file_names(chosen)
    told = [f"figures/{name}{FAILED}" for name in [*names, *(one.name for one in refused)]]
    folder.refuse(["summary.csv", "report.html", *told])
    if figures or overview.sweep.figures:
        folder.refuse(file for name in names for file in files_of(name))
    needed = {column for one in chosen for column in (*one.needs, *one.uses)}
    results = table.load(results_uri, sorted(needed.union(CHOSEN_BY))) if chosen else overview
    drawn = [_draw(one, results, name, folder) for one, name in zip(chosen, names, strict=True)] + refused
    written = [file for one in drawn for file in _write(folder, one)]
    summary = summarise(results)
    folder.write("summary.csv", summary.to_csv(index=False).encode())
    home = table.home_of(store, overview.sweep)
    records, picture = _records(home, results), partial(_attached, home)
    whole = home is not store and home.exists("report.html")
    html = sections.render(results, drawn, summary, records, _spec(store), picture, whole)
    folder.write("report.html", html.encode())
    return [store.location(file) for file in [*written, "summary.csv", "report.html"]]


def failures(files: Sequence[str]) -> list[str]:
    """The names of the figures that `build` could not draw.

    >>> failures(["noise/figures/recipes.png", "noise/figures/effects.error.txt"])
    ['effects']
    """
    return [file.rsplit("/", 1)[-1].removesuffix(FAILED) for file in files if file.endswith(FAILED)]


def files_of(name: str) -> list[str]:
    """The files that a figure may have, by its name."""
    return [f"figures/{name}{ending}" for ending in (*PICTURES, FAILED)]


def figure_files(figures: Sequence[object]) -> list[str]:
    """The files that the figures of a sweep's `figures:` may have."""
    names = file_names([catalogue.parse(entry) for entry in figures])
    return [file for name in names for file in files_of(name)]


def _draw(chosen: catalogue.FigureChoice, results: Results, name: str, folder: SweepFolder) -> FigureResult:
    """A figure. It fails where a file of the user's own is in its way."""
    try:
        folder.refuse(files_of(name))
    except UserError as error:
        return FigureResult(name, error=error.message, details=error.message)
    return draw(chosen, results, name)


def _chosen(
    overview: Results, figures: Sequence[object] | None
) -> tuple[list[catalogue.FigureChoice], list[FigureResult]]:
    """The figures to draw, and those that a sweep asks for but this version cannot draw."""
    columns = list(overview.rows.columns)
    settings = [str(name).removeprefix("config.") for name in overview.trials if str(name).startswith("config.")]
    entries = overview.sweep.figures if figures is None else figures
    if not entries:
        return catalogue.fitting(columns, overview.sweep), []
    chosen, refused = [], []
    for entry in entries:
        try:
            chosen.append(catalogue.parse(entry, columns, settings, overview.sweep))
        except ValueError as error:
            if figures is not None:
                raise ReportError(str(error)) from error
            name = catalogue.named(entry)
            refused.append(FigureResult(name, error=str(error), details=str(error)))
    return chosen, refused


def _write(folder: SweepFolder, drawn: FigureResult) -> list[str]:
    """Writes a figure's files, and removes those of an earlier report under the same name."""
    failed = f"{drawn.details.rstrip()}\n".encode() if drawn.error is not None else None
    contents = dict(zip(files_of(drawn.name), (drawn.png, drawn.pdf, drawn.csv, failed), strict=True))
    written = {file: content for file, content in contents.items() if content is not None}
    folder.remove(contents.keys() - written.keys())
    folder.claim(written)
    for file, content in written.items():
        folder.write(file, content)
    return list(written)


def _records(store: Store, results: Results) -> dict[str, TrialRecord]:
    """The records of the trials that ran, by trial; nothing for one that left nothing readable."""
    records = {}
    for trial in results.trials.loc[results.trials["status"] != "missing", "trial"]:
        with suppress(OSError):
            if (record := read_trial(store, f"trials/{trial}")) is not None:
                records[str(trial)] = record
    return records


def _attached(store: Store, trial: str, file: str) -> bytes | None:
    """A file of a trial, such as a picture that lies beside its record."""
    try:
        return store.read(f"trials/{trial}/{file}")
    except OSError:
        return None


def _spec(store: Store) -> str:
    """The resolved sweep file, tidied."""
    try:
        return yaml.safe_dump(yaml.safe_load(store.read("sweep.yaml")), sort_keys=False, allow_unicode=True)
    except (OSError, yaml.YAMLError):
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: prints the files that were written, and returns the exit code."""
    parser = terminal.Parser(prog="python -m analysis.report", description="Draws the report of a sweep.")
    parser.add_argument("results", help="the sweep's folder or URI, such as results/noise")
    parser.add_argument("--figures", help=f"only these, separated by commas: {', '.join(catalogue.names())}")
    given = parser.parse_args(arguments)
    figures = [name.strip() for name in given.figures.split(",") if name.strip()] if given.figures is not None else None
    left_out: list[str] = []
    try:
        files = build(given.results, figures=figures or None, tell=left_out.append)
    except (ReportError, UserError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return terminal.interrupted()
    for file in files:
        say(file, sys.stdout)
    for line in left_out:
        say(line)
    failed = failures(files)
    if failed:
        say(f"could not be drawn: {', '.join(failed)} (report.html says why)")
    return 1 if failed or left_out else 0


if __name__ == "__main__":
    sys.exit(terminal.command(main))
