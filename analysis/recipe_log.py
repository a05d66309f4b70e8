"""The TensorBoard log of a sweep: a run for each recipe, and one for the report.

A recipe's run is the mean over its seeds. TensorBoard selects no run where there are more than 40,
and then shows nothing, so a sweep has few: those of the first `MOST` recipes, which are the best of
a search. They take the place of the trials' own logs (`tensorboard.live`) when the sweep is
finished. `python -m analysis.recipe_log results/noise FOLDER` writes a run for every single trial
elsewhere.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis import table
from analysis.drawing import from_csv
from analysis.results import ReportError, Results, epochs_of, is_number, plain
from analysis.summary import scalars, summarise
from engine.execution.tensorboard import FOLDER, RUNNING, Board, run
from engine.store.owned import SweepFolder, clear_events
from engine.store.records import Epoch, TrialRecord, read_trial
from engine.store.store import Store
from engine.terminal import Parser, say

REPORT = "report"
"""The run of the figures and the table."""
MOST = 12
"""Recipes with a run of their own: three sweeps in one folder stay below 40 runs."""

Histories = Mapping[str, Sequence[Epoch]]
"""The epochs of a trial's networks, by the prefix of their tags.

It is `training`, or of several networks `training/<network>`.
"""


def write(store: Store, page: str, made: SweepFolder, histories: Callable[[str], Histories]) -> None:
    """Writes the log of a finished sweep in place of the one that is there.

    Args:
        store: of all results.
        page: the folder of the sweep's page.
        made: the same folder: what in it is ours.
        histories: of a trial.
    """
    folder = store.within(page)
    results = table.overview(store.location(page))
    summary = summarise(results)
    _clear(store, page, results)
    shown = summary.iloc[:MOST]
    before = [file for file in made.files if file.startswith(f"{FOLDER}/")]
    others = {name for name in folder.names(FOLDER) if f"{FOLDER}/{name}" not in before}
    names = _run_names([REPORT, *(str(recipe) for recipe in shown["recipe"])], others)
    runs = [f"{FOLDER}/{name}" for name in names]
    for name in before:
        clear_events(f"{page}/{name}", store)
    made.claim(runs)
    made.forget(set(before) - set(runs))
    home = table.home_of(folder, results.sweep)
    done = results.trials[results.trials["status"] == "done"]
    for place, (_, line) in zip(runs[1:], shown.iterrows(), strict=True):
        trials = done.loc[done["recipe"] == line["recipe"], "trial"].tolist()
        with run(store, f"{page}/{place}") as board:
            _write_epochs(board, [histories(trial) for trial in trials])
            point = {setting: plain(line[setting]) for setting in results.varied}
            means = {scalar: float(line[scalar]) for scalar in scalars(results)}
            board.hyperparameters(point, {scalar: mean for scalar, mean in means.items() if math.isfinite(mean)})
            for name, picture in _pictures(home, trials):
                board.image(name, picture)
    with run(store, f"{page}/{runs[0]}") as board:
        board.text("table", _table(results, summary))
        for file in made.files:
            name = file.removeprefix("figures/").removesuffix(".png")
            if file == f"figures/{name}.png" and folder.exists(file):
                board.image(name, folder.read(file))
                board.text(name, str(from_csv(folder.read(f"figures/{name}.csv")).attrs.get("caption", "")))


def _pictures(home: Store, trials: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The pictures that the first trial has left which has any, by name."""
    for trial in trials:
        record = read_trial(home, f"trials/{trial}") or TrialRecord()
        files = {name: f"trials/{trial}/attachments/{name}.png" for name in record.attachments}
        found = [(name, home.read(file)) for name, file in files.items() if home.exists(file)]
        if found:
            yield from found
            return


def write_trials(results: Results, folder: Path) -> int:
    """Writes a run for each finished trial into a folder; returns how many there are.

    Raises:
        FileExistsError: the folder has something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    done = results.trials[results.trials["status"] == "done"]
    for _, trial in done.iterrows():
        seed = f", seed {trial[f'config.{results.replicates}']}" if results.replicates else ""
        board = Board(folder / f"{_words(str(trial['recipe']))}{seed}-{trial['trial'][:6]}")
        for epoch in epochs_of(trial):
            board.epoch(epoch)
        settings = [*results.varied, *([results.replicates] if results.replicates else [])]
        values = {scalar: plain(trial[f"summary.{scalar}"]) for scalar in scalars(results)}
        point = {setting: plain(trial[f"config.{setting}"]) for setting in settings}
        board.hyperparameters(point, {scalar: value for scalar, value in values.items() if is_number(value)})
        board.close()
    return len(done)


def _write_epochs(board: Board, histories: Sequence[Histories]) -> None:
    """The means over seeds, of each epoch that all of them have reached."""
    for prefix in dict.fromkeys(prefix for of_trial in histories for prefix in of_trial):
        trainings = [of_trial[prefix] for of_trial in histories if of_trial.get(prefix)]
        for epochs in zip(*trainings, strict=False):
            mean = pd.DataFrame(list(epochs)).mean(numeric_only=True)
            board.epoch({str(name): float(value) for name, value in mean.items()}, prefix)


def _table(results: Results, summary: pd.DataFrame) -> str:
    """The report's table in Markdown, with a word on the recipes that have no run."""
    names = scalars(results)
    lines = [f"| recipe | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for _, line in summary.iterrows():
        cells = [_cell(line, name) for name in names]
        lines.append(f"| {line['recipe']} | {line['seeds']} | {' | '.join(cells)} |")
    words = "Means over seeds, with 95 % intervals over seeds and examples (of two seeds: both)."
    if len(summary) > MOST:
        words += f" The first {MOST} of {len(summary)} recipes have a run here."
    return "\n".join([words, "", *lines])


def _cell(line: pd.Series, name: str) -> str:
    mean, low, high = (float(line[column]) for column in (name, f"{name}.low", f"{name}.high"))
    if math.isnan(mean):
        return ""
    return f"{mean:.4g}" + ("" if math.isnan(low) else f" [{low:.4g}, {high:.4g}]")


def _clear(store: Store, page: str, results: Results) -> None:
    """Removes the logs of single trials: those of a run, and those that earlier versions left."""
    for name in store.names(f"{page}/{RUNNING}"):
        clear_events(f"{page}/{RUNNING}/{name}", store)
    store.delete_empty(f"{page}/{RUNNING}")
    hashes = {str(trial)[:6] for trial in results.trials["trial"]}
    earlier = [name for name in store.names(f"{page}/{FOLDER}") if name.rpartition("-")[2] in hashes]
    for name in [*earlier, *(["figures"] if earlier else [])]:
        clear_events(f"{page}/{FOLDER}/{name}", store)


def _run_names(labels: Sequence[str], others: Collection[str]) -> list[str]:
    """Names of folders for runs, all different, and none of those that others have."""
    taken = {*others, "running"}
    names = []
    for label in labels:
        name = whole = _words(label)
        number = 2
        while name in taken:
            name, number = f"{whole} ({number})", number + 1
        taken.add(name)
        names.append(name)
    return names


def _words(label: str) -> str:
    """A label as the name of a folder.

    >>> _words("sgd, input noise 8/255")
    'sgd, input noise 8_255'
    """
    return "".join(c if c.isalnum() or c in "=.,- " else "_" for c in label)[:80].strip(" .") or "recipe"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: a run for each trial of a sweep, in a folder of its own."""
    parser = Parser(
        prog="python -m analysis.recipe_log",
        description="Writes a TensorBoard run for each single trial of a sweep.",
    )
    parser.add_argument("results", help="the sweep's folder or URI, such as results/noise")
    parser.add_argument("folder", type=Path, help="where the runs go: an empty folder, or a new one")
    given = parser.parse_args(arguments)
    try:
        count = write_trials(table.overview(given.results), given.folder)
    except (ReportError, OSError) as error:
        say(str(error))
        return 2
    say(f"{count} runs in {given.folder}: tensorboard --logdir {given.folder}", sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
