"""The command line: `python -m engine.sweep sweeps/noise.yaml`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine import shadows, terminal

if __name__ == "__main__":
    terminal.prepare()  # the imports below take seconds
    if (hidden := shadows.shadow()) is not None:
        terminal.say(hidden)
        sys.exit(2)

# What draws and what runs takes another second: it is imported where there is something to do.
from engine.plan import dry_run
from engine.plan.plan import Planned, missing, outdated, plan, status
from engine.results.finish import Drawing, Finish, begin, folders
from engine.results.records import refuse_unreported
from engine.store.owned import SweepFolder
from engine.store.records import SweepRecord
from engine.store.store import Store
from engine.sweepfile.load import Spec, facts, load
from engine.sweepfile.yaml_lines import SpecError
from engine.terminal import say
from tasks.parts.dotted import inner_settings, settings_of
from tasks.parts.settings import UserError

if TYPE_CHECKING:
    from analysis.notebook import LoadedResults
    from engine.search.study import Study

EXAMPLES = """\
examples:
  python -m engine.sweep sweeps/noise.yaml                        the whole sweep, its figures and results/noise/report.html
  python -m engine.sweep sweeps/noise.yaml --dry-run              what would be done, and what exists already
  python -m engine.sweep sweeps/noise.yaml seeds=1 examples=50    with other settings: a quick look, which
                                                                  has a page of its own beside the sweep's
  python -m engine.sweep sweeps/noise.yaml recipe.optimiser=sgd   one value of what varies
  python -m engine.sweep sweeps/noise.yaml --local                without Ray, in this process
  python -m engine.sweep sweeps/noise_cifar10.yaml data_root=/data resources.gpus=0.5
  python -m engine.sweep sweeps/search.yaml trials=80             a longer search: the points of before are kept
  optuna-dashboard sqlite:///results/search/study.db              looks at its study
  python -m engine.sweep sweeps/noise.yaml --address auto --results s3://bucket/results

The same command again goes on where the last run stopped, and does nothing twice.
Exit status: 0 all trials done, 1 some failed, 2 a mistake in the sweep or the command, 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sweep; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        _, status = _run_file(options)
        return status
    except UserError as error:
        say(error.message)
        return 2
    except KeyboardInterrupt:
        return terminal.interrupted()


def run(file: str, overrides: Sequence[str], **options: object) -> LoadedResults:
    """Runs a sweep and loads its results, for `engine.run` in notebooks.

    Args:
        file: the sweep file.
        overrides: settings in place of the file's, such as `seeds=1`.
        **options: of the command line, by their names.
    """
    import analysis

    spec, _ = _run_file(argparse.Namespace(sweep=file, overrides=overrides, dry_run=False, **options))
    return analysis.load(_store(str(options["results"])).location(spec.page))


def _run_file(options: argparse.Namespace) -> tuple[Spec, int]:
    """Loads and runs a sweep; returns it and the exit status.

    Raises:
        UserError: a mistake of the user's, with file and line where it has any.
    """
    spec = load(options.sweep, options.overrides)
    try:
        check_figures(spec)
        return spec, _sweep(spec, options)
    except UserError as error:
        raise spec.error(error) from error


def _parser() -> argparse.ArgumentParser:
    parser = terminal.Parser(
        prog="python -m engine.sweep",
        description="Makes the classifiers of a sweep, measures their input landscape, and draws the comparison.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="the sweep file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings in place of the file's")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the trials and what exists already; start nothing"
    )
    parser.add_argument("--local", action="store_true", help="no Ray: everything in this process, the same rows")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of a running Ray cluster, or auto; without it, one starts here"
    )
    parser.add_argument(
        "--results", default="results", metavar="DIR-or-URI", help="where results go (default: results)"
    )
    parser.add_argument("--max-concurrent", type=_positive, metavar="N", help="trials at once (default: by the CPUs)")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="measure this sweep's trials anew; artifacts are kept",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, not {text}")
    return int(text)


def check_figures(spec: Spec) -> None:
    """Refuses figures that cannot be drawn of such a sweep.

    Raises:
        SpecError: with the line of the first.
    """
    if not spec.sweep.figures:
        return

    from analysis import catalogue

    config, told = spec.task.Config, SweepRecord.read(facts(spec.sweep, spec.task))
    settings = [*settings_of(config), *inner_settings(config, spec.sweep.varied)]
    for number, entry in enumerate(spec.sweep.figures):
        try:
            catalogue.parse(entry, spec.task.COLUMNS, settings, told)
        except UserError as error:
            raise spec.source.error(error.below(f"figures.{number}").field or "", error.message) from None


def _sweep(spec: Spec, options: argparse.Namespace) -> int:
    if options.local and options.address:
        raise SpecError("--local and --address exclude each other")
    store = _store(options.results)
    home, page = folders(spec, store, _figure_files(spec))
    planned = plan(spec)
    study = _study(spec, store, fresh=options.fresh) if spec.sweep.studied else None
    known = study.planned if study else planned
    if not options.fresh:
        refuse_unreported(spec, store, known if spec.sweep.adaptive else planned)
    todo = [item for item in known if options.fresh or status(item, store) not in spec.ended]
    if options.dry_run:
        dry_run.show(spec, known, todo, store, fresh=options.fresh, points=study.remaining if study else 0)
        return 0
    if again := outdated([item for item in todo if status(item, store) == "new"], store):
        say(f"{spec.page}: {again} trials were measured with other data, weights or code, and are measured anew")
    ran = 0
    if todo or (study and study.remaining):
        ran = _run(spec, store, (home, page), todo, study, options)
        say("drawing the report ...")
    refused = study.refused if study else []
    for said in refused:
        say(f"failed: a point that was chosen makes no trial: {said}")
    return max(_finish(spec, store, page, study.planned if study else planned, ran), int(bool(refused)))


def _figure_files(spec: Spec) -> list[str]:
    if not spec.sweep.figures:
        return []

    from analysis import report

    return report.figure_files(spec.sweep.figures)


def _study(spec: Spec, store: Store, *, fresh: bool) -> Study:
    from engine.search.study import Study  # with Optuna, which takes a second

    return Study(spec, store, fresh=fresh)


def _store(results: str) -> Store:
    """Where results go; refuses what cannot be written to."""
    try:
        store = Store(results)
        obstacle = store.obstacle()
    except Exception as error:  # pyarrow has its own kinds for a bad URI, a bucket without access, ...
        obstacle = str(error).splitlines()[0]
    if not results or obstacle:
        raise SpecError(f"--results {results}: {obstacle or 'a folder or a URI is needed'}")
    return store


def _run(
    spec: Spec,
    store: Store,
    ours: tuple[SweepFolder, SweepFolder],
    todo: list[Planned],
    study: Study | None,
    options: argparse.Namespace,
) -> int:
    """Runs what is left; returns how many trials that were."""
    from engine.execution import launch
    from engine.execution.progress import Progress
    from engine.execution.trial_queue import TrialQueue

    queue = TrialQueue(spec, store, todo, study, fresh=options.fresh)
    if study is not None:
        study.open()
    with launch.executor(spec, local=options.local, address=options.address) as by:
        begin(spec, *ours)
        left = sum(len(missing(item.folder, item.ids, store)) for item in todo)
        more = f", {study.remaining} points to choose" if study and study.remaining else ""
        say(f"{spec.page}: {len(todo)} trials to run, {left} examples to measure{more}")
        left += (queue.remaining - len(todo)) * len(plan(spec)[0].ids) if more else 0
        with Progress(queue.remaining, left) as progress:
            launch.run_all(spec, store, queue, by, progress, options.max_concurrent)
    return queue.started


def _finish(spec: Spec, store: Store, page: SweepFolder, planned: list[Planned], ran: int) -> int:
    """Writes the tables and, where anything is new, the report; returns the exit status."""
    from analysis import catalogue, recipe_log, report
    from analysis.results import ReportError
    from engine.execution.trial import histories

    finish, drawing = Finish(spec, store, page, planned), Drawing()
    if finish.write_tables(with_importance=catalogue.takes_importance(spec.sweep.figures or [])):
        by_trial = {item.key: item for item in planned}
        try:
            drawing.undrawn = report.failures(report.build(store.location(spec.page), tell=drawing.lacking.append))
            recipe_log.write(store, spec.page, page, lambda trial: histories(by_trial[trial], store))
        except ReportError as error:  # rows that were there when the trials were looked at
            drawing.lacking.append(str(error))
        if not drawing.undrawn and not drawing.lacking:
            finish.mark_reported()
    return finish.say(drawing, ran=ran)


if __name__ == "__main__":
    sys.exit(terminal.command(main))
