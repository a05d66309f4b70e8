"""A terminal for tests: a pseudo-terminal of some size, and what is to be seen in its window."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import pyte
from commands import environment


class Window:
    """What a terminal emulator shows of what is written to a pseudo-terminal, which is `raw`."""

    def __init__(self, columns: int, lines: int) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._emulator = pyte.ByteStream(self._screen)
        self.master, self.slave = pty.openpty()
        self.raw = b""
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    @property
    def stream(self) -> TextIO:
        return os.fdopen(self.slave, "w", encoding="utf-8", closefd=False)

    def read(self, seconds: float = 0.0) -> bool:
        """Takes in what has been written, waiting so long for more; whether there was anything."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return False
        try:
            written = os.read(self.master, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self.raw += written
        self._emulator.feed(written)
        return bool(written)

    def wait_for(self, condition: Callable[[str], bool], seconds: float = 120.0) -> str:
        """Reads until what is shown meets a condition; returns it."""
        end = time.monotonic() + seconds
        while not condition(self.shown):
            assert time.monotonic() < end, self.text
            assert self.running or self.read(0.05), self.text
            self.read(0.05)
        return self.shown

    @property
    def running(self) -> bool:
        """Whether more may be written."""
        return True

    @property
    def shown(self) -> str:
        """The lines in the window."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def text(self) -> str:
        """The lines in the window, and those above that have been scrolled out of it."""
        columns = range(self._screen.columns)
        above = ["".join(line[at].data for at in columns).rstrip() for line in self._screen.history.top]
        return "\n".join([*above, self.shown])

    @property
    def at_the_end(self) -> bool:
        """Whether there is a cursor, at the start of a line with nothing after it."""
        cursor = self._screen.cursor
        below = self._screen.display[cursor.y :]
        return not cursor.hidden and cursor.x == 0 and not "".join(below).strip()

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)


class Command(Window):
    """A command that runs in such a terminal, as its foreground job."""

    def __init__(self, *command: str, columns: int = 80, lines: int = 24, env: Mapping[str, str] | None = None) -> None:
        super().__init__(columns, lines)
        environ = environment(**{"TERM": "xterm-256color", **(env or {})})
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environ.pop(name, None)
        # What a shell runs in the background, tests perhaps, ignores SIGINT, as its children do.
        program = (
            "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
            "os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
        )
        started = [sys.executable, "-c", program, str(self.slave), *command]
        self.process = subprocess.Popen(started, env=environ, pass_fds=[self.slave])
        os.close(self.slave)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ended(self, seconds: float = 240.0) -> int:
        """Reads until the command has ended; returns its exit status."""
        end = time.monotonic() + seconds
        while self.running:
            assert time.monotonic() < end, self.text
            self.read(0.05)
        while self.read(0.05):
            pass
        return self.process.returncode
