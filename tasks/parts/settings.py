"""The base of every settings class, the types they share, and the error of a user's mistake.

Settings are frozen, refuse unknown fields, and give each field a default, a unit (in its
description) and a bound. A field of type `Number`, or of a type built on it, can be written as a
fraction, `8/255`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

Item = TypeVar("Item")
Kind = Literal["value", "whole number"]

_FRACTION = re.compile(r"\s*([0-9.eE+-]+)\s*/\s*([0-9.eE+-]+)\s*")


class UserError(ValueError):
    """A mistake of the user's. As text it is one line, with the field before the message.

    A validator of settings may raise it; `messages.validated` puts the path before the field.

    Args:
        message: what came and what is allowed, without a full stop.
        field: dotted name of the setting at fault (`network`); each caller that knows where the
            setting lies puts its path before (`below`), and the engine adds file and line.
        kind: `value` where a value alone is refused, whatever the others are; `whole number` where
            it is refused because a whole number is needed.

    >>> print(UserError("must be above 0, not -1", "radius").below("recipe.input_noise"))
    recipe.input_noise.radius: must be above 0, not -1
    """

    def __init__(self, message: str, field: str | None = None, kind: Kind | None = None):
        super().__init__(message)
        self.message, self.field, self.kind = message, field, kind

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.field, self.kind)  # a worker sends it whole

    def below(self, path: str) -> UserError:
        """The same mistake, seen from where the setting lies below a path."""
        return UserError(self.message, ".".join(filter(None, (path, self.field))), self.kind)


@contextmanager
def below(path: str) -> Iterator[None]:
    """Puts a path before the field of a `UserError` that is raised within.

    An error without a field stays as it is.

    >>> with below("recipe"):
    ...     raise UserError("no such file", "weights")
    Traceback (most recent call last):
    tasks.parts.settings.UserError: recipe.weights: no such file
    """
    try:
        yield
    except UserError as error:
        raise (error.below(path) if error.field else error) from None


def as_number(value: object) -> object:
    """A fraction written as text, `"8/255"`, as a float; anything else unchanged.

    >>> as_number("1/4")
    0.25
    """
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
        try:
            return float(match[1]) / float(match[2])
        except (ValueError, ZeroDivisionError):
            return value
    return value


def _number(value: object) -> object:
    value = as_number(value)
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Probability = Annotated[Number, Field(ge=0, le=1)]


def _without_repeats(values: list[Item]) -> list[Item]:
    repeated = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if repeated is not None:
        raise UserError(f"{repeated} is given twice")
    return values


Several = Annotated[list[Item], AfterValidator(_without_repeats), Field(min_length=1)]
"""One value or more, each once."""


class Settings(BaseModel):
    """A frozen group of settings that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
