"""Events: what a running trial says of its progress.

A trial turns what its workers return into events. They go to early stopping and to the display.
Every event has a `phase` in words, and says how many of `total` are `done`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from engine.store.records import Epoch


@dataclass(frozen=True)
class Measuring:
    """Of a trial's `total` examples, `done` are measured."""

    phase: ClassVar[str] = "measuring"
    done: int
    total: int


@dataclass(frozen=True)
class Making:
    """The making of an artifact goes on: rows are there, or a whole one is begun.

    Attributes:
        phase: what the making is called, such as "training".
        done, total: examples, or steps (epochs).
    """

    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class StepEnded:
    """A step (epoch) of making a whole artifact has ended.

    Attributes:
        phase: what the making is called, such as "training".
        done, total: steps.
        artifact: the artifact's key.
        numbers: the step's metrics by name; `epoch` is its number, from 1.
        before: whether the artifact was there before the trial began, and this is its history.
    """

    phase: str
    done: int
    total: int
    artifact: str
    numbers: Epoch = field(default_factory=dict)
    before: bool = False


Event = Measuring | Making | StepEnded
Report = Callable[[Event], None]
"""Takes the events of one trial."""
