"""Progress of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_EVERY = 10.0
"""Seconds between plain lines."""


@dataclass
class Progress:
    """Counts trials and examples; a context manager around the run.

    Args:
        trials: trials to run.
        examples: examples that they measure together.
        stream: where to write; a live display if it is a terminal.
    """

    trials: int
    examples: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _running: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    _done: int = 0
    _failed: int = 0
    _measured: int = 0
    _started: float = field(default_factory=time.monotonic)
    _said: float = 0.0
    _live: Live | None = None

    def __enter__(self) -> Progress:
        if self.stream.isatty():
            self._live = Live(self._text(), console=Console(file=self.stream), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, key: str, label: str, report: dict[str, Any]) -> None:
        """Takes what a running trial says of itself, as `engine.trial.Report`."""
        before = self._running.get(key, (label, {}))[1]
        if report["phase"] == "measuring" and before.get("phase") == "measuring":
            self._measured += max(0, report["done"] - before["done"])  # the first report counts what was there already
        self._running[key] = (label, report)
        self._show()

    def finish(self, key: str, label: str, record: dict[str, Any]) -> None:
        """Takes the record of a trial that has ended."""
        _, last = self._running.pop(key, (label, {}))
        if record["status"] == "done" and last.get("phase") == "measuring":
            self._measured += last["of"] - last["done"]
        self._done += 1
        if record["status"] == "failed":
            self._failed += 1
            self._line(f"failed: {label}: {record['error']}")
        elif record["status"] == "stopped":
            self._line(f"[{self._done}/{self.trials}] {label}: stopped after epoch {len(record['epochs'])}")
        elif self._live is None:
            self._line(
                f"[{self._done}/{self.trials}] {label}: {summary_line(record['summary'])} ({record['seconds']:.1f} s)"
            )
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._text())
        elif time.monotonic() - self._said > PLAIN_EVERY:
            self._line(self._counts())

    def _line(self, text: str) -> None:
        self._said = time.monotonic()
        if self._live is not None:
            self._live.console.print(Text(text))
        else:
            print(text, file=self.stream, flush=True)

    def _counts(self) -> str:
        elapsed = time.monotonic() - self._started
        rate = self._measured / elapsed if elapsed else 0.0
        left = (self.examples - self._measured) / rate if rate else None
        parts = [
            f"{self._done}/{self.trials} trials",
            f"{self._measured}/{self.examples} examples",
            f"{rate:.0f} examples/s",
            f"{_clock(left)} left" if left is not None else "time left: not known yet",
        ]
        if self._failed:
            parts.insert(1, f"{self._failed} failed")
        return ", ".join(parts)

    def _text(self) -> Text:
        lines = [self._counts()]
        for label, report in self._running.values():
            state = f"{report.get('phase', 'starting')} {report.get('done', 0)}/{report.get('of', '?')}"
            lines.append(f"  {label}: {state}")
        return Text("\n".join(lines))


def summary_line(summary: dict[str, float | None], most: int = 4) -> str:
    """The first few scalars of a trial."""
    known = [f"{name} {value:.4g}" for name, value in summary.items() if value is not None]
    return ", ".join(known[:most])


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
