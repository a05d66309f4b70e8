"""Writes runs of a TensorBoard log, in our own tags.

| where | what |
|---|---|
| Time series, `training/...` | loss, accuracy, learning rate an epoch |
| HParams, `summary/...` | what varies, and scalars by the names that they have in the report |
| Images | figures of the report |
| Text | the report's table, what each figure shows |

Only series in time are scalars here, since TensorBoard smooths them all. Curves against a radius
are among the figures.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from engine.store.owned import clear_events
from engine.store.store import Store

FOLDER = "tensorboard"
RUNNING = f"{FOLDER}/running"
"""Where trials have their logs while a sweep runs."""
LIVE = 16
"""How many of these are kept: TensorBoard shows no run where there are more than 40."""
_STARTED = re.compile(r"events\.out\.tfevents\.(\d+)\.")


class Board:
    """Writes the log of one run into a local folder."""

    def __init__(self, folder: Path):
        self._writer = SummaryWriter(str(folder))

    def epoch(self, report: Mapping[str, float], prefix: str = "training") -> None:
        """Writes one epoch of a training, as `tasks.parts.training.training.Epoch`."""
        for name, value in report.items():
            if name != "epoch":
                self._writer.add_scalar(f"{prefix}/{name}", value, int(report["epoch"]))

    def hyperparameters(self, point: Mapping[str, object], scalars: Mapping[str, float]) -> None:
        """Writes a line of the HParams table."""
        values = {name: v if isinstance(v, (bool, int, float, str)) else str(v) for name, v in point.items()}
        for summary in hparams(values, {f"summary/{name}": value for name, value in scalars.items()}):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in scalars.items():
            self._writer.add_scalar(f"summary/{name}", value, 0)

    def image(self, tag: str, png: bytes) -> None:
        """Writes an image, given as a PNG file's content."""
        with Image.open(io.BytesIO(png)) as picture:
            self._writer.add_image(tag, np.asarray(picture.convert("RGB")), 0, dataformats="HWC")

    def text(self, tag: str, markdown: str) -> None:
        """Writes a text."""
        self._writer.add_text(tag, markdown, 0)

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        self._writer.close()


@contextmanager
def run(store: Store, place: str) -> Iterator[Board]:
    """One run of the log, begun anew.

    Where the store is no local folder, it is written to a temporary one and copied at the end.
    """
    clear_events(place, store)
    if store.folder is not None:
        board = Board(store.folder / place)
        try:
            yield board
        finally:
            board.close()
        return
    folder = Path(tempfile.mkdtemp(prefix="inputscape-board-"))
    board = Board(folder)
    try:
        yield board
    finally:
        board.close()
        store.copy_in(folder, place)
        shutil.rmtree(folder)


@contextmanager
def live(store: Store, page: str, name: str) -> Iterator[Board]:
    """The log of a trial while it runs, begun anew.

    Args:
        store: of all results.
        page: the folder of the sweep's page.
        name: of the run.
    """
    _forget_oldest(store, f"{page}/{RUNNING}")
    with run(store, f"{page}/{RUNNING}/{name}") as board:
        yield board


def _forget_oldest(store: Store, running: str) -> None:
    """Removes the oldest logs of single trials, so that one more makes `LIVE` of them.

    Other trials may be doing the same.
    """
    started = {}
    for name in store.names(running):
        found = [_STARTED.match(file) for file in store.names(f"{running}/{name}")]
        times = [int(match[1]) for match in found if match]
        if times:  # else it is beginning just now
            started[name] = max(times)
    for name in sorted(started, key=lambda one: started[one])[: max(0, len(started) - LIVE + 1)]:
        with suppress(FileNotFoundError):
            clear_events(f"{running}/{name}", store)
