"""Translates a search space and its points into Optuna's terms."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

from engine.sweepfile.schema import Distribution, Sweep

if TYPE_CHECKING:
    import optuna


def distributions(sweep: Sweep) -> dict[str, optuna.distributions.BaseDistribution]:
    """The search space as Optuna's distributions, by the name of the setting."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, drawn in sweep.search.items():
        if drawn.choice is not None:
            found[name] = CategoricalDistribution(_words(drawn.choice))
        elif drawn.whole is not None:
            found[name] = IntDistribution(*drawn.whole)
        elif drawn.bounds is not None:
            found[name] = FloatDistribution(*drawn.bounds, log=drawn.loguniform is not None)
    return found


def encoded(sweep: Sweep, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The values of a point as an Optuna study holds them; see `decoded`."""
    found = {}
    for name, drawn in sweep.search.items():
        value = found[name] = values[name]
        if drawn.choice is not None:
            found[name] = _words(drawn.choice)[list(map(json.dumps, drawn.choice)).index(json.dumps(value))]
    return found


def decoded(drawn: Distribution, value: JsonValue) -> JsonValue:
    """The value of a point's setting, from what a study holds; the inverse of `encoded`."""
    return value if drawn.choice is None else drawn.choice[_words(drawn.choice).index(str(value))]


def _words(choice: list[JsonValue]) -> list[str]:
    """The values of a choice as text.

    A study cannot hold lists or mappings, and takes 1 and true for the same value.
    """
    words = [value if isinstance(value, str) else json.dumps(value) for value in choice]
    return words if len(set(words)) == len(words) else [json.dumps(value) for value in choice]


def quiet() -> None:
    """Silences Optuna's messages below warnings, and its warnings of experimental features."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
