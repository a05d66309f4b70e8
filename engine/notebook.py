"""A sweep from a notebook: `engine.run("sweeps/noise.yaml", seeds=1, local=True)`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.shadows import shadow

if TYPE_CHECKING:
    from engine.sweep import LoadedResults


def run(
    sweep: str | os.PathLike[str],
    overrides: Mapping[str, object] | None = None,
    *,
    local: bool = False,
    address: str | None = None,
    results: str | os.PathLike[str] = "results",
    max_concurrent: int | None = None,
    fresh: bool = False,
    **more: object,
) -> LoadedResults:
    """Runs a sweep, as `python -m engine.sweep` does, and loads its results.

    What is measured already is not run again.

    Args:
        sweep: the sweep file.
        overrides: settings in place of the file's, by their dotted names; those without a dot may
            be given as arguments, such as `seeds=1`.
        local: without Ray, in this process.
        address: of a running Ray cluster, or "auto".
        results: the folder or URI of the results.
        max_concurrent: trials at once.
        fresh: measure the sweep's trials anew.
        **more: settings, as in `overrides`.

    Returns:
        The sweep's results: `rows`, `trials`, and `figure(name)`. A trial that failed says so in
        `trials["status"]`.

    Raises:
        ImportError: a module of the user's own hides one of ours.
        UserError: a mistake in the sweep file or the settings, in one line.
        ReportError: no trial was finished.
    """
    if (hidden := shadow()) is not None:
        raise ImportError(hidden)

    from engine import sweep as command  # slow: everything hangs on it

    given = [f"{name}={json.dumps(value)}" for name, value in {**(overrides or {}), **more}.items()]
    return command.run(
        os.fspath(sweep),
        given,
        local=local,
        address=address,
        results=os.fspath(results),
        max_concurrent=max_concurrent,
        fresh=fresh,
    )
