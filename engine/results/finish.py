"""The end of a run: writes the resolved sweep and the table of trials, and says what came out.

They are in the folder of the sweep's page; a quick look has a page of its own. What else is in that
folder is the user's: see `engine.store.owned`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.plan.plan import Planned
from engine.results.records import Outcome, outcomes
from engine.results.table import table
from engine.store.naming import content_hash
from engine.store.owned import HEADER, SweepFolder
from engine.store.store import Store, as_parquet
from engine.sweepfile.load import Spec
from engine.sweepfile.yaml_lines import dump
from engine.terminal import say

REPORT = ("report.html", "report.json", "summary.csv")
"""What the report consists of, besides its figures."""
WRITTEN = ("sweep.yaml", "trials.parquet", *REPORT)
"""What every run writes at the top of the page's folder."""


@dataclass
class Drawing:
    """What went wrong when the report was drawn.

    Attributes:
        undrawn: the figures that could not be drawn.
        lacking: a line for each trial that was left out since its rows are not there.
    """

    undrawn: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


def resolved(spec: Spec) -> str:
    """The sweep with all overrides, as a file that can be run again."""
    entries = spec.sweep.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return f"{HEADER}, with all overrides.\n{dump(entries)}"


def folders(spec: Spec, store: Store, figures: Iterable[str] = ()) -> tuple[SweepFolder, SweepFolder]:
    """The folder of the sweep's trials, and that of its page.

    Args:
        spec: the sweep.
        store: of all results.
        figures: the files of the figures that the sweep asks for.

    Raises:
        UserError: one of them is not ours, or holds a file of the user's own where one of ours
            belongs.
    """
    home, page = (SweepFolder(store.within(name), spec.name) for name in (spec.name, spec.page))
    study = ["search.json"] if spec.sweep.studied else []
    page.refuse([*WRITTEN, *study, *figures])
    return home, page


def begin(spec: Spec, home: SweepFolder, page: SweepFolder) -> None:
    """Claims the folders before the work, and writes into the page which sweep it is of.

    Raises:
        UserError: a file of the user's own is in the way, or nothing can be written.
    """
    home.claim()
    page.write("sweep.yaml", resolved(spec).encode())


class Finish:
    """Ends a run: writes the tables and says what came out.

    The report is drawn between the two, by the caller.

    Args:
        spec: the sweep.
        store: of all results.
        page: the folder of the sweep's page.
        planned: all trials of the sweep.
    """

    def __init__(self, spec: Spec, store: Store, page: SweepFolder, planned: Sequence[Planned]):
        self._spec, self._store, self._page = spec, store, page
        self.outcomes: list[Outcome] = outcomes(spec, store, planned)
        self._done = sum(outcome.status == "done" for outcome in self.outcomes)
        started = [(outcome.record.started if outcome.record else None) for outcome in self.outcomes]
        ended = [[o.planned.key, o.status, at] for o, at in zip(self.outcomes, started, strict=True)]
        self._stamp = content_hash([resolved(spec), ended])

    def write_tables(self, *, with_importance: bool) -> bool:
        """Writes the resolved sweep and the table of trials, unless nothing is new.

        A report that was drawn before is removed. Returns whether one has to be drawn.
        """
        if self._reported() == self._stamp:
            return False
        self._page.write("sweep.yaml", resolved(self._spec).encode())
        rows = table(self._spec, self.outcomes, with_importance=with_importance)
        self._page.write("trials.parquet", as_parquet(rows))
        self._page.remove(name for name in self._page.files if name.startswith("figures/") or name in REPORT)
        return self._done > 0

    def mark_reported(self) -> None:
        """Notes what the report was made from, so that the same trials get no other."""
        self._page.write_json("report.json", {"made_from": self._stamp})

    def say(self, drawing: Drawing, *, ran: int) -> int:
        """Says what came out; returns the exit status."""
        for name in drawing.undrawn:
            say(f"figure {name} could not be drawn; the report says why")
        for line in drawing.lacking:
            say(line)
        failed = [outcome for outcome in self.outcomes if outcome.failed]
        for outcome in failed:
            if outcome.record is None:
                say(f"failed: {outcome.label}: its process died")
            elif outcome.lacks is not None:
                say(f"failed: {outcome.label}: {outcome.error}")
        records = [(outcome.label, outcome.record) for outcome in self.outcomes if outcome.record is not None]
        wrong = [(label, what, words) for label, record in records for what, words in record.unpassed.items()]
        for label, what, words in wrong:
            say(f"self-check FAILED: {label}: {what}: {words}")
        others = {"stopped early": len(self.outcomes) - self._done - len(failed), "failed": len(failed)}
        more = "".join(f", {number} {what}" for what, number in others.items() if number)
        counts = f"{self._done} of {len(self.outcomes)} trials done{more}; {ran} run now"
        say(f"{self._spec.page}: {counts}; {self._shown()}", sys.stdout)
        # The default figures may have nothing to show.
        asked = drawing.undrawn and self._spec.sweep.figures
        return 1 if failed or asked or wrong or drawing.lacking else 0

    def _shown(self) -> str:
        """Where to look: at the report or, where there is none, at a trial's record."""
        if self._done:
            return self._store.location(f"{self._spec.page}/report.html")
        first = f"{self.outcomes[0].planned.folder}/trial.json" if self.outcomes else self._spec.page
        return self._store.location(first)

    def _reported(self) -> str | None:
        """What the report that is there was made from."""
        made = self._store.record(f"{self._spec.page}/report.json", "made_from")
        return made["made_from"] if made and self._store.exists(f"{self._spec.page}/report.html") else None
