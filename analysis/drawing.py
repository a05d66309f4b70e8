"""One figure of a report, from its rows to its files; a figure that fails loses no other."""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis import style
from analysis.catalogue import FigureChoice
from analysis.results import ReportError, Results


@dataclass(frozen=True)
class FigureResult:
    """A figure in three forms, or why there is none.

    Attributes:
        name: the file name without its ending.
        caption: what is shown, n, what the intervals are over.
        png: the content of the file; None where drawing failed, as of the other two.
        pdf: likewise.
        csv: likewise.
        error: one line, or None where all went well.
        details: the error with where it came from.
    """

    name: str
    caption: str = ""
    png: bytes | None = None
    pdf: bytes | None = None
    csv: bytes | None = None
    error: str | None = None
    details: str = ""


def draw(chosen: FigureChoice, results: Results, name: str) -> FigureResult:
    """Computes and draws one figure. Never raises: whatever goes wrong is told in the result."""
    try:
        frame = chosen.module.compute(results, chosen.options)
        figure = chosen.module.draw(frame, chosen.options)
        png, pdf, csv = style.save(figure, "png"), style.save(figure, "pdf"), as_csv(frame)
    except ReportError as error:
        return FigureResult(name, error=str(error), details=str(error))
    except Exception as error:  # a defect in one figure must not take the others along
        said = str(error).strip().splitlines()
        line = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
        return FigureResult(name, error=line, details=traceback.format_exc())
    return FigureResult(name, frame.attrs.get("caption", ""), png, pdf, csv)


def as_csv(frame: pd.DataFrame) -> bytes:
    """The frame as CSV, after lines that start with `# ` and tell its caption and labels.

    Read it with `from_csv`.
    """
    words = [f"# {key}: {json.dumps(value)}" for key, value in frame.attrs.items()]
    return "\n".join([*words, frame.to_csv(index=False, lineterminator="\n")]).encode()


def from_csv(content: bytes) -> pd.DataFrame:
    """The frame that `as_csv` wrote, with its attributes: a figure can be drawn anew from it.

    >>> frame = pd.DataFrame({"condition": ["# 1"], "mean": [0.5]})
    >>> frame.attrs = {"caption": "n = 1"}
    >>> from_csv(as_csv(frame)).attrs, from_csv(as_csv(frame))["condition"].tolist()
    ({'caption': 'n = 1'}, ['# 1'])
    """
    import io

    lines = content.decode().splitlines(keepends=True)
    head = 0
    while head < len(lines) and lines[head].startswith("# "):
        head += 1
    frame = pd.read_csv(io.StringIO("".join(lines[head:])), keep_default_na=False, na_values=[""])
    for line in lines[:head]:
        key, _, value = line[2:].partition(": ")
        frame.attrs[key] = json.loads(value)
    return frame


def file_names(chosen: Sequence[FigureChoice]) -> list[str]:
    """A file name for each figure: its own, counted where it is drawn again (`recipes-2`)."""
    seen: Counter[str] = Counter()
    names = []
    for figure in chosen:
        seen[figure.name] += 1
        names.append(figure.name if seen[figure.name] == 1 else f"{figure.name}-{seen[figure.name]}")
    return names
