"""A searched space in Optuna's terms."""

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
    """The searched space in Optuna's terms."""
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
    """A point's values as a study holds them."""
    found = {}
    for name, drawn in sweep.search.items():
        value = found[name] = values[name]
        if drawn.choice is not None:
            found[name] = _words(drawn.choice)[list(map(json.dumps, drawn.choice)).index(json.dumps(value))]
    return found


def decoded(drawn: Distribution, value: JsonValue) -> JsonValue:
    """The value that a study holds as that of a point."""
    return value if drawn.choice is None else drawn.choice[_words(drawn.choice).index(str(value))]


def _words(choice: list[JsonValue]) -> list[str]:
    """A choice's values as text, since a study holds no lists or mappings and takes 1 and true for the same."""
    words = [value if isinstance(value, str) else json.dumps(value) for value in choice]
    return words if len(set(words)) == len(words) else [json.dumps(value) for value in choice]


def quiet() -> None:
    """Optuna says nothing of its own accord."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
