"""The records of trials (`trial.json`) and sweeps (in the metadata of `trials.parquet`), as types.

Files of other versions are read too. A field that is missing, or holds something else than it
should, has its default; one that is unknown is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from engine.store.store import Store

TOLERANT = "a file of any version"
"""The context in which a field that is not as it should be has its default."""
EARLIER_CONDITIONS = ("genuine", "adversarial", "random")
"""The order that versions took, of whatever conditions were there, before a task could say its own."""
Number = int | float
Epoch = Mapping[str, Number]
"""The metrics of an epoch of training, by name; `epoch` is its number, from 1."""


class Record(BaseModel):
    """A record that is written as JSON: only the fields that were given."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, found: object) -> Self:
        """The record in what a file holds.

        >>> TrialRecord.read({"status": "done", "seconds": "few", "mood": "good"})
        TrialRecord(status='done')
        """
        return cls.model_validate(found, context=TOLERANT)

    @field_validator("*", mode="wrap")
    @classmethod
    def _or_default(cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        try:
            return handler(value)
        except ValidationError:
            field = cls.model_fields[str(info.field_name)]
            if info.context is not TOLERANT or field.is_required():
                raise
            return field.get_default(call_default_factory=True)

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """Only what is there."""
        return ((name, value) for name, value in self if value != type(self).model_fields[name].default)

    def to_json(self) -> dict[str, JsonValue]:
        return self.model_dump(mode="json", exclude_unset=True)


class AugmentedImage(Record):
    """One column of the picture of an augmentation: a training image, and what the move did to it.

    Attributes:
        label, predicted, moved_to: the true class, and the predicted ones before and after.
        distance: how far it was moved in a hidden layer.
        neighbour_labels, distances: of the training images that are nearest there.
    """

    label: int
    predicted: int
    moved_to: int
    margin_before: float
    margin_after: float
    distance: float = float("nan")
    neighbour_labels: tuple[int, ...] = ()
    distances: tuple[float, ...] = ()


class Augmentation(Record):
    """What the tiles of an adversarial augmentation (`attachments/augmentation.png`) show."""

    space: str
    rows: tuple[str, ...] = ()
    columns: tuple[AugmentedImage, ...] = ()
    marks: tuple[tuple[str | None, ...], ...] = ()
    """Of each tile: "changed" for another class than the image's, "own" for the image itself."""
    largest: float | None = None
    """The largest change of a pixel, where the images are moved in pixel space."""


class TrialRecord(Record):
    """What a trial that has ended says of itself.

    Attributes:
        trial, task, point, config: which trial it is: its key and settings.
        versions: of the libraries that made its numbers; `devices` are those that measured.
        started, seconds: when it began (seconds since 1970), and how long it took.
        epochs: of the classifier that it is about; none where it is about several.
        summary: its scalars, None for one that is not finite; `infinite` has the sign of the infinite ones.
        checks: its self-checks, with words on what is wrong, or None.
        parts: the bytes of each part of its rows, by name.
        error, traceback: why it failed.
        unreported: the objective that it lacks; `reports` are the scalars that it has.
        attachments: the notes that the maker of what it is about has left, by name.
        augmented: what its picture shows, of earlier versions.
    """

    status: Literal["done", "stopped", "failed"] = "failed"
    trial: str = ""
    task: str = ""
    point: Mapping[str, JsonValue] = {}
    config: Mapping[str, JsonValue] = {}
    versions: Mapping[str, str | None] = {}
    started: Number | None = None
    seconds: Number | None = None
    devices: tuple[str, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    summary: Mapping[str, Number | None] = {}
    infinite: Mapping[str, str] = {}
    checks: Mapping[str, str | None] = {}
    parts: Mapping[str, int] = {}
    error: str | None = None
    traceback: str | None = None
    unreported: str | None = None
    reports: tuple[str, ...] = ()
    attachments: Mapping[str, Mapping[str, JsonValue]] = {}
    augmented: Augmentation | None = None

    @property
    def augmentation(self) -> Augmentation | None:
        """What adversarial augmentation does to some training images, where there is any."""
        notes = self.attachments.get("augmentation")
        return self.augmented if notes is None else Augmentation.read(notes)

    @property
    def scalars(self) -> dict[str, float | None]:
        """The trial's scalars, also the infinite ones; None for one that is not a number."""
        return {**self.summary, **{name: float(sign) for name, sign in self.infinite.items()}}

    @property
    def unpassed(self) -> dict[str, str]:
        """The self-checks that did not hold, with what is wrong."""
        return {what: wrong for what, wrong in self.checks.items() if wrong is not None}


def read_trial(store: Store, folder: str) -> TrialRecord | None:
    """The record in a trial's folder; None where there is none or, which is said, it is cut."""
    found = store.record(f"{folder}/trial.json", "status")
    return None if found is None else TrialRecord.read(found)


def write_trial(store: Store, folder: str, record: TrialRecord) -> None:
    store.write_json(f"{folder}/trial.json", record.to_json())


class Objective(Record):
    """A scalar that a sweep is about, and whether more of it is better (`max`) or less."""

    metric: str
    mode: Literal["max", "min"] = "max"


class EarlyStopping(Record):
    """What stops trainings early: the name of the rule, and the metric of an epoch that it looks at."""

    name: str
    metric: str


class Importance(Record):
    """How much of an objective's variance over a searched space a setting explains.

    Attributes:
        mean: of all `n` points, which have `seeds` at most.
        low, high: percentiles (95 %) over `resamples` of the points. The mean may lie outside.
    """

    objective: str
    setting: str
    mean: float
    low: float
    high: float
    n: int
    seeds: int
    resamples: int


class SweepRecord(Record):
    """What a sweep says of itself to its report.

    Attributes:
        name, task, about: the sweep's name, its task, and its own words.
        trials: of a quick look, the folder that has the trials; `look` are the settings that it changes.
        replicates: the setting that repeats a recipe (the seed).
        labels: settings in words; `columns` those of the rows, with their units.
        by_kind: of a row column other words, for kinds of noise whose unit is another.
        conditions: in the order of figures; the others are compared with the first. None where the
            task names none.
        classes: names of the classes, in order.
        varied: dotted names of what varies; None where that is not known.
        search: what is searched, with the kind of its distribution; `objectives` is what for.
        metrics: of an epoch; None where they are not known.
        epochs: whether trials were trained.
        importance: of the searched settings; None where no figure has asked for it.
        figures: the `figures:` of the sweep.
        shares: row columns and scalars that lie between 0 and 1; None where that is not known.
    """

    name: str = ""
    task: str = ""
    about: str | None = None
    trials: str | None = None
    look: tuple[str, ...] = ()
    replicates: str | None = None
    labels: Mapping[str, str] = {}
    columns: Mapping[str, str] = {}
    by_kind: Mapping[str, Mapping[str, str]] = {}
    conditions: tuple[str, ...] | None = None
    classes: tuple[str, ...] = ()
    varied: tuple[str, ...] | None = None
    objectives: tuple[Objective, ...] = ()
    search: Mapping[str, str] = {}
    scheduler: EarlyStopping | None = None
    metrics: tuple[str, ...] | None = None
    epochs: bool = True
    importance: tuple[Importance, ...] | None = None
    figures: tuple[JsonValue, ...] = ()
    shares: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, found: object) -> object:
        """They knew a single `objective`, and one order of `conditions`."""
        if not isinstance(found, Mapping):
            return found
        found = {"conditions": EARLIER_CONDITIONS, **found}
        if found.get("objective") and not found.get("objectives"):
            found["objectives"] = [found["objective"]]
        return found

    @property
    def objective(self) -> Objective | None:
        """The first of the objectives."""
        return self.objectives[0] if self.objectives else None
