"""A sweep's results in memory, and the words for its settings and columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats import SHARE, Bounds
from engine.store.records import Epoch, SweepRecord

Value = str | int | float | bool | None
"""The value of a setting. Lists are text, as JSON."""

GENERIC = {"radius", "kind", "name", "type", "strength", "probability", "value", "scale", "size"}
"""Last parts of a dotted name that say nothing alone: `input_noise.radius` is "input noise"."""

OF_TRAINING = ("loss", "accuracy")
"""The metrics of an epoch that are of the images trained on."""


class ReportError(ValueError):
    """A mistake that the reader of a report can mend, told in one line."""


@dataclass(frozen=True)
class Scores:
    """What a trial's scalars are made of, by example (`engine.store.scores`).

    Attributes:
        ids: (N,) its examples.
        sums: by scalar (N,): the scalar is the sum of its sums over that of its counts.
        counts: by scalar (N,).
        left_out: by scalar (G,): what the scalar is without each group of examples; NaN where it is
            no number then.
    """

    ids: NDArray[np.int64]
    sums: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, NDArray[np.float64]]
    left_out: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Results:
    """The results of one sweep.

    Attributes:
        sweep: what the sweep says of itself.
        trials: one line a trial, with its `config.*` and `summary.*` columns and the `recipe` that
            it is one seed of.
        rows: the rows of the finished trials, with `trial`, `recipe` and `config.<name>` for what
            varies.
        varied: dotted names of the settings that vary, the seed left out.
        replicates: dotted name of the setting that repeats a recipe (the seed), or None.
        scores: what the scalars of finished trials are made of, by trial; empty for trials of
            earlier versions.
    """

    sweep: SweepRecord
    trials: pd.DataFrame
    rows: pd.DataFrame
    varied: tuple[str, ...]
    replicates: str | None
    scores: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def recipes(self) -> list[str]:
        """The recipes with a finished trial, in the order of their settings' values."""
        done = self.trials.loc[self.trials["status"] == "done", "recipe"]
        return [str(recipe) for recipe in done.cat.categories if (done == recipe).any()]

    def named(self, recipe: str | None) -> str:
        """The recipe of that label, the first by default.

        Raises:
            ReportError: there is none; the line says which there are.
        """
        if recipe is not None and recipe not in self.recipes:
            raise ReportError(f"no recipe {recipe!r}; there are {'; '.join(self.recipes)}")
        return recipe or self.recipes[0]

    @property
    def baseline(self) -> str | None:
        """The condition that others are compared with: the first of the task, else of the rows."""
        there = self.rows.get("condition", pd.Series(dtype=object)).dropna().unique()
        return next(iter(self.sweep.conditions or map(str, there)), None)

    def values(self, setting: str) -> list[Value]:
        """The different values that finished trials give to a setting, in order."""
        done = self.trials.loc[self.trials["status"] == "done", f"config.{setting}"]
        return in_order(done)

    def is_numeric(self, setting: str) -> bool:
        """Whether a setting has at least two values in the finished trials, all of them numbers."""
        values = self.values(setting)
        return len(values) > 1 and all(map(is_number, values))

    def setting_of(self, recipe: str, setting: str) -> Value:
        """The value of a setting in a recipe."""
        return plain(self.trials.loc[self.trials["recipe"] == recipe, f"config.{setting}"].iloc[0])

    def setting_label(self, setting: str) -> str:
        """The axis label of a setting: the words of the task where it has any."""
        given = self.sweep.labels.get(setting)
        if given and given != setting:
            return given
        return setting.removeprefix("recipe.").replace(".", " ").replace("_", " ")

    def column_label(self, column: str, kind: str | None = None) -> str:
        """The axis label of a row column. In pixel space it may depend on the kind of noise."""
        spaces = set(self.trials.get("config.space", pd.Series(dtype=object)).dropna())
        of_kind = self.sweep.by_kind.get(column, {}).get(kind or "")
        if of_kind is not None and spaces <= {"pixel"}:
            return of_kind
        return self.sweep.columns.get(column) or column.replace("_", " ")

    def bounds(self, name: str) -> Bounds:
        """The limits of a row column or a scalar, as its task declares them (`SHARES`).

        Results of earlier versions do not tell them: there the values themselves decide.
        """
        shares = self.sweep.shares
        if shares is not None:
            return SHARE if any(fnmatchcase(name, pattern) for pattern in shares) else None
        found = self.rows[name] if name in self.rows else self.trials.get(f"summary.{name}", pd.Series(dtype=float))
        values = pd.to_numeric(found, errors="coerce").to_numpy(float)
        known = values[~np.isnan(values)]
        return SHARE if len(known) and known.min() >= 0 and known.max() <= 1 else None

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where the sweep names none."""
        classes = self.sweep.classes
        return classes[label] if 0 <= label < len(classes) else str(label)


def epochs_of(trial: pd.Series) -> list[Epoch]:
    """The epochs of a trial's network, from its line of `Results.trials`.

    There are none where the trial is about several networks, or trained none.
    """
    told = trial.get("epochs")
    return json.loads(told) if isinstance(told, str) else []


def plain(value: object) -> Value:
    """A NumPy scalar as Python's own, and every kind of missing value as None.

    >>> plain(float("nan")) is None
    True
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if pd.api.types.is_scalar(value) and value != value:
        return None
    own: object = value.item() if isinstance(value, np.generic) else value
    return own if isinstance(own, str | int | float) else str(own)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number; a truth value is none.

    >>> is_number(0.1), is_number(True), is_number(None)
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def sentence(words: str) -> str:
    """Words with a capital letter first, whatever case the others have.

    >>> sentence("distance in L2")
    'Distance in L2'
    """
    return words[:1].upper() + words[1:]


def epoch_metric(metric: str) -> str:
    """An epoch's metric in words.

    A metric that names no split is of the images trained on, with their noise and augmentation.

    >>> epoch_metric("loss"), epoch_metric("validation_loss")
    ('training loss', 'validation loss')
    """
    return ("training " if metric in OF_TRAINING else "") + metric.replace("_", " ")


def in_order(column: pd.Series) -> list[Value]:
    """The different values of a column: numbers ascending, anything else in order of appearance.

    >>> in_order(pd.Series([0.1, 0.0, 0.1]))
    [0.0, 0.1]
    """
    values = [plain(value) for value in column.drop_duplicates()]
    numbers = [value for value in values if is_number(value)]
    return values if len(numbers) < len(values) else [*sorted(numbers)]


def show(value: object, digits: int = 3) -> str:
    """A setting's value as a reader writes it.

    >>> show(8 / 255), show(None), show(True), show('["flip", "crop"]'), show(60_000)
    ('0.0314', 'none', 'yes', 'flip+crop', '60000')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.{digits}g}"
    text = str(value)
    if text.startswith("["):
        try:
            items = json.loads(text)
            words = all(isinstance(item, str) for item in items)
            return ("+" if words else ", ").join(show(item, digits) for item in items) or "none"
        except ValueError:
            return text
    return text


def short_names(settings: Sequence[str]) -> list[str]:
    """The shortest telling name of each setting.

    >>> short_names(["recipe.optimiser", "recipe.input_noise.radius"])
    ['optimiser', 'input noise']
    """
    names = []
    for setting in settings:
        parts = setting.split(".")
        alone = parts[-1] not in GENERIC and sum(other.endswith(f".{parts[-1]}") for other in settings) < 2
        group = parts[-2] if len(parts) > 1 else parts[-1]
        siblings = sum(other.rsplit(".", 1)[0] == setting.rsplit(".", 1)[0] for other in settings) > 1
        chosen = parts[-1] if alone else f"{group} {parts[-1]}" if siblings or len(parts) < 2 else group
        names.append(chosen.replace("_", " "))
    return names


def recipe_labels(settings: pd.DataFrame, fallback: str) -> tuple[list[str], list[str]]:
    """A short label a trial for its varied settings, and the different labels in order.

    Args:
        settings: one line a trial, one column a varied setting (dotted names).
        fallback: the label where nothing varies.

    >>> settings = pd.DataFrame({"optimiser": ["sgd", "sgd"], "input_noise.radius": [0.1, 0.0]})
    >>> recipe_labels(settings, "all")
    (['sgd, input noise 0.1', 'sgd, input noise 0'], ['sgd, input noise 0', 'sgd, input noise 0.1'])
    """
    if settings.shape[1] == 0:
        return [fallback] * len(settings), [fallback]
    # words before numbers: "sgd, noise 0.1" and, in order, all of sgd before all of adam
    numeric = {name: all(map(is_number, in_order(column))) for name, column in settings.items()}
    settings = settings[sorted(settings.columns, key=lambda name: numeric[name])]
    names = short_names(list(settings.columns))
    ranks = [{_key(value): rank for rank, value in enumerate(in_order(settings[name]))} for name in settings.columns]
    points = [tuple(plain(value) for value in line) for line in settings.itertuples(index=False)]
    different = {tuple(map(_key, point)) for point in points}
    for digits in (3, 6, 17):
        labels = [
            ", ".join(_phrase(name, value, digits) for name, value in zip(names, point, strict=True))
            for point in points
        ]
        if len(set(labels)) == len(different):
            break
    order = {
        label: tuple(rank[_key(value)] for rank, value in zip(ranks, point, strict=True))
        for label, point in zip(labels, points, strict=True)
    }
    return labels, sorted(order, key=lambda label: order[label])


def _key(value: object) -> str:
    return repr(plain(value))


def _phrase(name: str, value: Value, digits: int) -> str:
    """A word speaks for itself, a number needs its name."""
    if isinstance(value, str):
        return show(value, digits)
    return f"{name} {show(value, digits)}"
