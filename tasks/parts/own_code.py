"""Runs code of the user's own, so that its errors become messages and never end the process."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.parts.settings import UserError


@contextmanager
def explained(field: str, name: str, *, own_code: bool = False) -> Iterator[None]:
    """Turns errors of the file system, and those of the user's own code, into a `UserError`.

    Args:
        field: the setting at fault.
        name: its value, for the message.
        own_code: whether the code within is the user's: then every error of it is turned.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if own_code:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            raise UserError(f"{name} failed: {type(error).__name__}: {error} ({where})", field) from error
        if isinstance(error, OSError):
            raise UserError(f"{name}: {error.strerror or error}", field) from error
        raise


@contextmanager
def survived(what: str) -> Iterator[None]:
    """Turns what would end this process into a failure like any other.

    Args:
        what: the code that runs, for the message.

    Raises:
        RuntimeError: in place of `SystemExit` and the like.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        said = f": {error}" if str(error) else ""
        raise RuntimeError(f"{what} raised {type(error).__name__}{said}, which ends a process") from error
