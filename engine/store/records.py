"""The records of trials (`trial.json`) and sweeps (in the metadata of `trials.parquet`) as types.

Files of other versions can be read too. A field that is missing or wrong has its default; an
unknown field is ignored.
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
"""The validation context in which a wrong field has its default."""
EARLIER_CONDITIONS = ("genuine", "adversarial", "random")
"""The order of conditions in versions in which a task could not give its own."""
Number = int | float
Epoch = Mapping[str, Number]
"""The metrics of a training epoch by name; `epoch` is its number, from 1."""


class Record(BaseModel):
    """The base of records in JSON files; only fields that were given are written."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, found: object) -> Self:
        """Makes the record from the content of a file.

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
        """Only the fields that differ from their defaults."""
        return ((name, value) for name, value in self if value != type(self).model_fields[name].default)

    def to_json(self) -> dict[str, JsonValue]:
        """The fields that were given, as JSON has them."""
        return self.model_dump(mode="json", exclude_unset=True)


class AugmentedImage(Record):
    """A training image before and after adversarial augmentation: one column of the picture.

    Attributes:
        label: the true class.
        predicted, moved_to: the predicted classes before and after.
        margin_before, margin_after: the margins of the true class before and after.
        distance: how far the image was moved in a hidden layer.
        neighbour_labels, distances: the classes and distances of the nearest training images in
            that layer.
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
    """What the picture of an adversarial augmentation (`attachments/augmentation.png`) shows."""

    space: str
    rows: tuple[str, ...] = ()
    columns: tuple[AugmentedImage, ...] = ()
    marks: tuple[tuple[str | None, ...], ...] = ()
    """The mark of each tile: "changed" for another class than the image's, "own" for the image."""
    largest: float | None = None
    """The largest change of a pixel, for images that are moved in pixel space."""


class TrialRecord(Record):
    """The record of a trial that has ended: which it is, how it went, and its results.

    Attributes:
        status: done, stopped early by the scheduler, or failed.
        trial, task, point, config: the trial's key, its task, what varies, and all settings.
        versions: the versions of the libraries that computed its numbers.
        started: when it began, in seconds since 1970.
        seconds: how long it took.
        devices: the devices on which it was measured.
        epochs: the training epochs of its classifier; none where it has several classifiers.
        summary: its scalars; None for one that is not finite.
        infinite: the signs of the infinite scalars.
        checks: its self-checks, each with words on what is wrong, or None.
        parts: the bytes of each part of its rows, by name.
        error, traceback: why it failed.
        unreported: the objective that it does not report.
        reports: the scalars that it reports instead.
        attachments: the notes that its artifact's maker left, by name.
        augmented: in records of earlier versions, what the picture of its augmentation shows.
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
        """What adversarial augmentation does to some training images; None without augmentation."""
        notes = self.attachments.get("augmentation")
        return self.augmented if notes is None else Augmentation.read(notes)

    @property
    def scalars(self) -> dict[str, float | None]:
        """The trial's scalars, infinite ones included; None for one that is not a number."""
        return {**self.summary, **{name: float(sign) for name, sign in self.infinite.items()}}

    @property
    def unpassed(self) -> dict[str, str]:
        """The self-checks that failed, each with words on what is wrong."""
        return {what: wrong for what, wrong in self.checks.items() if wrong is not None}


def read_trial(store: Store, folder: str) -> TrialRecord | None:
    """Reads the record in a trial's folder.

    None where there is no record. A damaged one counts as none, and is reported on stderr.
    """
    found = store.record(f"{folder}/trial.json", "status")
    return None if found is None else TrialRecord.read(found)


def write_trial(store: Store, folder: str, record: TrialRecord) -> None:
    """Writes the record into a trial's folder."""
    store.write_json(f"{folder}/trial.json", record.to_json())


class Objective(Record):
    """A scalar that a sweep makes as large (`max`) or as small (`min`) as possible."""

    metric: str
    mode: Literal["max", "min"] = "max"


class EarlyStopping(Record):
    """The rule that stops trainings early, and the epoch metric that it uses."""

    name: str
    metric: str


class Importance(Record):
    """The share of an objective's variance over a searched space that a setting explains.

    Attributes:
        objective, setting: the names of both.
        mean: the share, from all points.
        low, high: its 95 % percentile interval over resamples of the points. The mean may lie
            outside.
        n: the number of points.
        seeds: the most seeds that a point has.
        resamples: the number of resamples.
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
    """What the report needs to know about a sweep.

    Attributes:
        name, task, about: the sweep's name, its task, and the user's description.
        trials: for a quick look, the folder with the trials.
        look: for a quick look, the settings that it changes.
        replicates: the setting that repeats a recipe (the seed).
        labels: the settings in words.
        columns: the row columns in words, with their units.
        by_kind: other words for a row column, for kinds of noise with another unit.
        conditions: in the order of figures; the others are compared with the first. None where the
            task names none.
        classes: names of the classes, in order.
        varied: dotted names of the settings that vary; None where they are not known.
        objectives: the scalars that the sweep is to improve.
        search: the searched settings, with the kinds of their distributions.
        scheduler: what stops trainings early.
        metrics: the metrics of an epoch; None where they are not known.
        epochs: whether trials trained a network.
        importance: of the searched settings; None where no figure has asked for it.
        figures: the `figures:` entry of the sweep.
        shares: row columns and scalars that lie between 0 and 1; None where they are not known.
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
        """Reads earlier versions, with a single `objective` and a fixed order of `conditions`."""
        if not isinstance(found, Mapping):
            return found
        found = {"conditions": EARLIER_CONDITIONS, **found}
        if found.get("objective") and not found.get("objectives"):
            found["objectives"] = [found["objective"]]
        return found

    @property
    def objective(self) -> Objective | None:
        """The first objective; None where there is none."""
        return self.objectives[0] if self.objectives else None
