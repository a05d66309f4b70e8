"""The display of a run's progress: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TextIO, cast

from rich import progress
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.text import Text

from engine.execution.events import Event, Measuring
from engine.store.records import TrialRecord
from engine.terminal import ERASE, dimensions, movable, on_leaving, printable, say, shortened

PLAIN_EVERY = 10.0
"""Seconds between plain lines."""
REFRESH_EVERY = 0.25
"""Seconds after which the live display is drawn again, if it or the window's size has changed."""
WIDEST_BAR = 60
A_TRIAL = 0.001
"""How many examples the end of a trial counts for."""

Line = list[Segment]


@dataclass
class Progress:
    """Counts and shows trials and examples; a context manager around the run.

    The work is counted in examples. A trial that fails, or is stopped, leaves examples that are not
    measured. They count as dealt with at its end, so that the time left follows the pace at which
    trials end, however they do.

    Attributes:
        trials: how many trials run.
        examples: how many examples they measure together.
        stream: where to write; the display is live if this is a terminal that can show one.
        clock: returns the seconds that have gone by.
    """

    trials: int
    examples: float
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    _running: dict[str, tuple[str, Event]] = field(default_factory=dict)
    # How many examples each trial has that has begun to measure.
    _shares: dict[str, float] = field(default_factory=dict)
    _done: int = 0
    _failed: int = 0
    _said: float = 0.0
    _live: _Below | None = None

    def __post_init__(self) -> None:
        # Only the arithmetic. rich takes the pace of the last thousand steps; here it is the run's.
        self._bars = progress.Progress(disable=True, speed_estimate_period=math.inf, get_time=self.clock)
        self._work = self._bars.add_task("work", total=self._total)
        self._measured = self._bars.add_task("measured", total=None)
        self._advance(0)

    def __enter__(self) -> Progress:
        if movable(self.stream):
            self._live = _Below(self.stream, self._lines)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def expect(self, trials: int) -> None:
        """Takes how many trials there will be in all.

        They become fewer where a search chooses a point that is known, or one without a trial.
        """
        self.examples -= (self.trials - trials) * self._average
        self.trials = trials

    def update(self, key: str, label: str, event: Event) -> None:
        """Takes an event of a running trial."""
        _, before = self._running.get(key, (label, None))
        self._running[key] = (label, event)
        if isinstance(event, Measuring):
            if key not in self._shares:
                # The first event counts what was there already.
                self._shares[key] = event.total - event.done
            if isinstance(before, Measuring):
                self._advance(max(0, event.done - before.done))
        self._show()

    def finish(self, key: str, label: str, record: TrialRecord) -> None:
        """Takes the record of a trial that has ended."""
        _, last = self._running.pop(key, (label, None))
        share = self._shares.setdefault(key, self._average)
        self._done += 1
        measuring = isinstance(last, Measuring)
        left = last.total - last.done if isinstance(last, Measuring) else share
        self._bars.advance(self._work, left + A_TRIAL)
        if measuring and record.status == "done":  # the last reports of a trial may be left out
            self._bars.advance(self._measured, left)
        if record.status == "failed":
            self._failed += 1
            self._line(f"failed: {label}: {record.error}")
        else:
            start = f"[{self._done}/{self.trials}] {label}: "
            columns, _ = dimensions(self.stream) or (None, None)
            self._line(start + _outcome(record, columns and columns - len(start)))
        self._show()

    @property
    def _average(self) -> float:
        """The examples of a trial that has not begun to measure: an equal share."""
        others = self.trials - len(self._shares)
        return max(0.0, self.examples - sum(self._shares.values())) / others if others > 0 else 0.0

    @property
    def _total(self) -> float:
        """All examples, and a little for each trial.

        Where nothing is left to measure, trials are all there is to count.
        """
        others = max(0, self.trials - len(self._shares))
        return sum(self._shares.values()) + others * self._average + self.trials * A_TRIAL

    def _advance(self, examples: float) -> None:
        self._bars.advance(self._work, examples)
        self._bars.advance(self._measured, examples)

    def _show(self) -> None:
        self._bars.tasks[self._work].total = self._total  # `update` would forget the pace
        if self._live is None and self.clock() - self._said > PLAIN_EVERY:
            self._line(f"{self._counts()}, {self._time_left()}")

    def _line(self, text: str) -> None:
        self._said = self.clock()
        if self._live is not None:
            self._live.say(text)
        else:
            say(text, self.stream)

    def _counts(self) -> str:
        work, measured = (self._bars.tasks[task] for task in (self._work, self._measured))
        unmeasured = work.completed - self._done * A_TRIAL - measured.completed
        parts = [f"{self._done}/{self.trials} trials"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        parts.append(f"{measured.completed:.0f}/{self._total - self.trials * A_TRIAL - unmeasured:.0f} examples")
        if measured.speed:
            parts.append(
                f"{measured.speed:.3g} examples/s" if measured.speed < 1 else f"{measured.speed:.0f} examples/s"
            )
        return ", ".join(parts)

    def _time_left(self) -> str:
        left = self._bars.tasks[self._work].time_remaining
        return "time left: known with the first results" if left is None else f"{_clock(left)} left"

    def _lines(self, columns: int, lines: int) -> list[ConsoleRenderable]:
        """The live display: how far the run is, and as many running trials as fit."""
        work = self._bars.tasks[self._work]
        beside = f" {work.percentage:3.0f}%  {self._time_left()}"
        bar = ProgressBar(
            total=work.total, completed=work.completed, width=max(5, min(WIDEST_BAR, columns - 2 - len(beside)))
        )
        shown: list[ConsoleRenderable] = [_Row(bar, beside), Text(f"  {self._counts()}")]
        running = list(self._running.values())
        room = max(0, lines - len(shown))
        if len(running) > room:
            room = max(0, room - 1)
        for label, event in running[:room]:
            state = f"  {event.phase} {event.done}/{event.total}  "
            state = f"{state:<22}"
            label = printable(label, self.stream.encoding)
            shown.append(Text(state + shortened(label, columns - len(state))))
        if len(running) > room and lines > len(shown):
            shown.append(Text(f"  and {len(running) - room} more"))
        return shown[:lines]


class _Row:
    """A bar with text beside it."""

    def __init__(self, bar: ProgressBar, beside: str) -> None:
        self._bar, self._beside = bar, beside

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment("  ")
        yield self._bar
        yield Segment(self._beside)


class _Below(RenderHook):
    """Lines that stay below all else that is printed, and change.

    Unlike under `rich.live` the cursor rests at their start, in an empty column. All from there on
    is theirs, so they can be erased whatever has become of them: a narrower window may have wrapped
    them, or the keyboard's echo may stand among them. The cursor is never hidden, so it is there
    however the process ends.

    Args:
        stream: the terminal.
        lines: returns the lines, for a number of columns and at most a number of lines.
    """

    def __init__(self, stream: TextIO, lines: Callable[[int, int], Sequence[ConsoleRenderable]]) -> None:
        self._stream, self._lines = stream, lines
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._shown: list[Line] = []
        self._ended = threading.Event()
        self._writing = threading.RLock()
        self._open = ExitStack()
        self._thread = threading.Thread(target=self._refresh, daemon=True)
        self._replaced: dict[str, TextIO] = {}

    def start(self) -> None:
        self._console.push_render_hook(self)
        for name in ("stdout", "stderr"):  # a warning of a library comes above, too
            stream = getattr(sys, name)
            if dimensions(stream) is not None:
                self._replaced[name] = stream
                setattr(sys, name, cast(io.TextIOBase, FileProxy(self._console, stream)))
        # When Ctrl-C ends the process, nothing is written any more.
        self._open.enter_context(on_leaving(self._writing.acquire))
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._open.close()
        for name, stream in self._replaced.items():
            setattr(sys, name, stream)
        self._console.pop_render_hook()
        self._console.control(Control())  # what is left in its buffer
        self._stream.write(ERASE)
        self._stream.flush()

    def say(self, text: str) -> None:
        """Prints a line above.

        A long one is wrapped by the terminal, so that it can be copied whole.
        """
        with self._writing:
            self._console.print(Text(printable(text, self._stream.encoding)), soft_wrap=True)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        self._shown = self._rendered()
        return [_erased(), *renderables, _Resting(self._shown)]

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_EVERY):
            with self._writing:
                if self._rendered() != self._shown:
                    self._console.print(Control())

    def _rendered(self) -> list[Line]:
        """The lines as they are now; a column and a line of the window stay free."""
        # The console itself would take the size of stdin, or that in COLUMNS.
        columns, lines = self._console.size = dimensions(self._stream) or (80, 24)
        options = self._console.options.update(width=max(1, columns - 1), height=None, no_wrap=True, overflow="crop")
        found = [self._console.render_lines(one, options, pad=False)[0] for one in self._lines(columns - 1, lines - 1)]
        return [Segment.adjust_line_length(line, options.max_width, pad=False) for line in found]


class _Resting:
    """Renders lines, and takes the cursor back to the start of the first."""

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, line in enumerate(self._lines):
            if number:
                yield Segment.line()
            yield from line
        yield Control(ControlType.CARRIAGE_RETURN)
        if len(self._lines) > 1:
            yield Control((ControlType.CURSOR_UP, len(self._lines) - 1))


def _erased() -> Control:
    """Erases all from the cursor on; `Control` itself can only erase lines."""
    control = Control()
    control.segment = Segment(ERASE, None, [(ControlType.CARRIAGE_RETURN,)])
    return control


def _outcome(record: TrialRecord, columns: int | None) -> str:
    """What became of a trial that did not fail: as many scalars as fit in the line."""
    if record.status == "stopped":
        return f"stopped after epoch {len(record.epochs)}"
    told = [f"{summary_line(record.summary, most)} ({record.seconds or 0:.1f} s)" for most in (4, 3, 2, 1)]
    return next((line for line in told if columns is None or len(line) <= columns), told[-1])


def summary_line(summary: Mapping[str, float | None], most: int = 4) -> str:
    """The first few scalars of a trial, in one line."""
    known = [f"{name} {value:.4g}" for name, value in summary.items() if value is not None]
    return ", ".join(known[:most])


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
