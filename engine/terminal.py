"""How a command meets the terminal, or whatever stands in its place.

Streams last as long as the command, text that quotes the user steers no terminal, and Ctrl-C ends
the command cleanly. The module imports nothing that takes time: `prepare` is called before the
imports that take seconds.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

INTERRUPTED = "interrupted; the same command goes on from here"
STATUS = 128 + signal.SIGINT
"""The exit status of an interrupted command."""
ERASE = "\r\x1b[J"
"""Erases from the start of the cursor's line to the end of the screen.

There are the echo of Ctrl-C and a live display (see `execution.progress`).
"""
_MARK = "..."


def printable(text: str, encoding: str | None = None) -> str:
    r"""Text in which all that cannot be shown, or would steer a terminal, is escaped.

    Args:
        text: of whatever kind.
        encoding: of the stream, for characters that it lacks; all of Unicode where None.

    >>> printable("a\x1b[31mb\n"), printable("radius 1 \u00b5m", "ascii")
    ('a\\x1b[31mb\\n', 'radius 1 \\xb5m')
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text


def say(text: str, stream: TextIO | None = None) -> None:
    """Writes one line at once, to stderr where no stream is given.

    All that quotes the user goes through here.
    """
    stream = stream or sys.stderr
    print(printable(text, getattr(stream, "encoding", None)), file=stream, flush=True)


def reflowed(text: str, stream: TextIO) -> list[str]:
    """A sentence broken into lines between words, if the stream is a terminal.

    Elsewhere it stays one line, which can be searched.
    """
    columns, _ = dimensions(stream) or (None, None)
    return textwrap.wrap(text, max(20, columns - 1), subsequent_indent="  ") if columns else [text]


def dimensions(stream: TextIO) -> tuple[int, int] | None:
    """The columns and lines of a stream's terminal, as they are now; None for anything else."""
    try:
        if not stream.isatty():
            return None
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # a stream without a file, or one that is closed
        return None
    return columns or 80, lines or 24  # some pseudo-terminals say 0


def movable(stream: TextIO) -> bool:
    """Whether a stream writes to a terminal whose cursor can be moved."""
    return dimensions(stream) is not None and _can_move()


def shortened(text: str, columns: int) -> str:
    """Printable text cut to so many columns.

    Its middle is left out, since labels differ at both ends.

    >>> shortened("optimiser=sgd seed=0", 12), shortened("seed=0", 12)
    ('optim...ed=0', 'seed=0')
    """
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= columns:
        return text
    room = columns - len(_MARK)
    if room <= 0:
        return _MARK[: max(0, columns)]
    tail = text[len(text) - room // 2 :]
    while cell_len(tail) > room // 2:  # characters of two columns
        tail = tail[1:]
    return f"{set_cell_size(text, room - cell_len(tail)).rstrip()}{_MARK}{tail}"


class Parser(argparse.ArgumentParser):
    """A parser whose errors quote the command line so that it steers no terminal."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and exits."""
        super().error(printable(message, sys.stderr.encoding))


def prepare() -> None:
    """Makes the process a well-behaved command; called first of all, in the file that is run.

    A stream that the shell has closed leads nowhere: its number is taken, so that no file of ours
    gets it. Output never fails for its encoding, nor because its reader has gone away. Ctrl-C ends
    the process at once, with one line (see `_leave`); what a shell runs in the background keeps
    ignoring it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _lead_nowhere(number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def command(main: Callable[[], int]) -> int:
    """Runs the main function of a prepared command to its end; returns the exit status."""
    try:
        return main()
    finally:
        _ignore()  # what Python does at its end has nothing that could be interrupted


def interrupted() -> int:
    """Says that the command was interrupted, if it runs inside another program.

    Returns the exit status.
    """
    say(INTERRUPTED)
    return STATUS


@contextmanager
def on_leaving(act: Callable[[], object]) -> Iterator[None]:
    """Calls `act` if Ctrl-C ends the process while the context lasts.

    The act must not wait for other threads to go on.
    """
    _LAST_ACTS.append(act)
    try:
        yield
    finally:
        _LAST_ACTS.remove(act)


_LAST_ACTS: list[Callable[[], object]] = []


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process where it stands.

    Nothing is lost: what is in the store is whole at any time, and a cluster that was started here
    ends with this process. An exception would have to make its way through the code of others
    (imports, Ray's calls, Tune's loop), where it is caught at times, or comes out as another. The
    line is written past Python's streams, which may themselves have been interrupted.
    """
    _ignore()
    for act in _LAST_ACTS:
        act()
    with suppress(OSError):
        os.write(2, f"{ERASE if os.isatty(2) and _can_move() else ''}{INTERRUPTED}\n".encode())
    os._exit(STATUS)


def _ignore() -> None:
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _can_move() -> bool:
    return os.environ.get("TERM", "") not in ("", "dumb", "unknown")


class _Lasting(io.FileIO):
    """A file that takes text even when nobody reads it any more.

    So a run of hours does not end with the `head` behind it.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes the data, or drops it where the reader has gone away."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal has gone
                raise
        _lead_nowhere(self.fileno())
        return memoryview(data).nbytes


def _lasting(stream: TextIO) -> TextIO:
    """The stream opened anew, so that writing to it never fails."""
    raw = _Lasting(stream.fileno(), "w", closefd=False)
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _lead_nowhere(number: int) -> None:
    """Points a file number, open or closed, to the null device.

    This holds for the process and for what it starts.
    """
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
