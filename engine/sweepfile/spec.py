"""A sweep after it was read and checked: its entries, its trials, and the line of each entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from pydantic import JsonValue

from engine.sweepfile.expand import Trial, place, trials_at
from engine.sweepfile.schema import Sweep
from engine.sweepfile.yaml_lines import Source, SpecError
from tasks.parts.contract import hook
from tasks.parts.data import load as data
from tasks.parts.messages import did_you_mean
from tasks.parts.settings import UserError
from tasks.parts.training.training import Epoch


@dataclass(frozen=True)
class Spec:
    """A checked sweep.

    Attributes:
        name: of the sweep, and of the folder with its trials.
        page: the name of the folder with the report, the tables, the study and the TensorBoard
            log. It is the sweep's name, or the name of a quick look.
        look: the overrides that make this a quick look; empty where it is the sweep itself.
        sweep: the entries of the file, with overrides.
        task: the module of the task.
        trials: all trials. For an adaptive search, points at the ends of its ranges.
        source: where each entry was written.
    """

    name: str
    page: str
    look: tuple[str, ...]
    sweep: Sweep
    task: ModuleType
    trials: list[Trial]
    source: Source

    @property
    def ended(self) -> tuple[str, ...]:
        """The states of trials that are not run again.

        A stopped trial is run again where the sweep has no scheduler any more.
        """
        return ("done", "stopped") if self.sweep.scheduler else ("done",)

    def at(self, values: Mapping[str, JsonValue]) -> list[Trial]:
        """The trials of one point, one for each seed.

        Raises:
            SpecError: the settings do not go together.
        """
        return trials_at(values, self.sweep, self.task.Config, self.source)

    @property
    def data_root(self) -> str:
        """The absolute path of the data sets' folder; workers have another working folder."""
        return str(data.default_root(self.sweep.data_root).absolute())

    def error(self, error: UserError, trial: Trial | None = None) -> SpecError:
        """Adds file, line and field to an error that was noticed after the sweep was read.

        An example is a missing file.

        Args:
            error: as it was raised.
            trial: the trial in which it was noticed; it decides which value of the grid is named.
        """
        if isinstance(error, SpecError):
            return error
        if error.field is None:
            return SpecError(f"{self.source.file}: {error.message}")
        if trial is not None:
            return self.source.error(place(self.sweep, error.field, trial.point, self.source), error.message)
        paths = [f"{section}.{error.field}" for section in ("grid", "search", "fixed")] + [error.field]
        known = [path for path in paths if self.source.knows(path)]
        return self.source.error(known[0] if known else f"fixed.{error.field}", error.message)

    def unreported(self, metric: str, reports: Sequence[str]) -> SpecError:
        """The error for an objective that no trial reports, with the objective's line.

        Args:
            metric: the scalar of the objective.
            reports: the scalars that the trials report.
        """
        number = next(i for i, objective in enumerate(self.sweep.objectives) if objective.metric == metric)
        at = f"objective.{number}.metric" if self.source.knows(f"objective.{number}") else "objective.metric"
        hint = did_you_mean(metric, reports)
        return self.source.error(at, f"no trial reports {metric}; they report {', '.join(reports)}{hint}")


def facts(sweep: Sweep, task: ModuleType) -> dict[str, object]:
    """What figures need to know about a sweep of a task.

    The metrics of an epoch are known where a trial is about a classifier, and not of other things.
    """
    metrics = [name for name in Epoch.__annotations__ if name != "epoch"]
    return {
        "varied": sweep.varied,
        "objectives": [objective.model_dump() for objective in sweep.objectives],
        "search": {name: drawn.kind for name, drawn in sweep.search.items()},
        "scheduler": sweep.scheduler.model_dump() if sweep.scheduler else None,
        "metrics": metrics if hook(task, "SUBJECT") in (None, "classifier") else None,
    }
