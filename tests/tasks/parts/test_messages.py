"""A mistake in settings is told in plain words, with the dotted path of the entry at fault."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from tasks.parts.messages import did_you_mean, quote, validated
from tasks.parts.settings import Number, Settings, Several, UserError


class Inner(Settings):
    size: int = Field(default=1, gt=0)
    share: Number = Field(default=0.5, ge=0, lt=1)
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value == 7:
            raise ValueError("odd numbers are not meant")
        if value % 2:
            raise UserError(f"must be even, not {value}")
        return value

    @model_validator(mode="after")
    def _fit(self) -> Inner:
        if self.size == 5:
            raise UserError("5 goes with nothing", "size")
        if self.size == 6:
            raise ValueError("size: 6 goes with nothing")
        return self


class Outer(Settings):
    inner: Inner = Inner()
    shapes: Several[Literal["sphere", "cube"]] = ["cube"]
    gpus: Number | Literal["auto"] = "auto"
    clock: Literal["o'clock", 12] | None = 12
    inners: list[Outer] = []
    pair: tuple[int, int] = (1, 2)
    options: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("entries", "told", "kind"),
    [
        ({"inner": {"size": "big"}}, "inner.size: must be a whole number, not big", "whole number"),
        ({"inner": {"size": 1.5}}, "inner.size: must be a whole number, not 1.5", "whole number"),
        ({"inner": {"size": 0}}, "inner.size: must be above 0, not 0", "value"),
        ({"inner": {"size": True}}, "inner.size: must be a number, not true", "value"),
        ({"inner": {"share": 1}}, "inner.share: must be below 1, not 1", "value"),
        ({"inner": {"share": "a/b"}}, "inner.share: must be a number or a fraction such as 8/255, not a/b", "value"),
        ({"inner": 3}, "inner: must be a mapping of names to values, not 3", "value"),
        ({"inner": {"sise": 3}}, "inner.sise: unknown field; inner has size, share, even; did you mean size?", None),
        ({"size": 3}, "size: unknown field; a model has inner, ...; did you mean inner.size?", None),
        (
            {"shapes": ["cube", "spere"]},
            "shapes.1: must be one of sphere, cube, not spere; did you mean sphere?",
            "value",
        ),
        ({"shapes": []}, "shapes: must be a list of at least 1 entry, not []", "value"),
        ({"shapes": ["cube", "cube"]}, "shapes: cube is given twice", None),
        ({"gpus": "many"}, "gpus: must be a number or a fraction such as 8/255 or auto, not many", "value"),
        ({"gpus": True}, "gpus: must be a number or auto, not true", "value"),
        ({"clock": "oclock"}, "clock: must be one of o'clock, 12, not oclock; did you mean o'clock?", "value"),
        ({"inners": [{"clock": 2}]}, "inners.0.clock: must be one of o'clock, 12, not 2", "value"),
        ({"pair": [1]}, "pair: must be a list of more entries, not [1]", "value"),
        ({"pair": [1, 2, 3]}, "pair: must be a list of at most 2 entries, not [1, 2, 3]", "value"),
        ({"options": {"rate": float("inf")}}, "options.rate: must be a finite number, not Infinity", "value"),
        ({"inner": {"even": 3}}, "inner.even: must be even, not 3", None),
        ({"inner": {"even": 7}}, "inner.even: odd numbers are not meant", None),
        ({"inner": {"size": 5}}, "inner.size: 5 goes with nothing", None),
        ({"inner": {"size": 6}}, "inner.size: 6 goes with nothing", None),
    ],
)
def test_the_first_mistake_is_told(entries: dict[str, Any], told: str, kind: str | None) -> None:
    with pytest.raises(UserError) as caught:
        validated(Outer, entries, "a model")
    start, _, end = told.partition("...")
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(end)
    assert caught.value.kind == kind
    assert caught.value.field == told.partition(": ")[0]


def test_a_misspelt_field_goes_before_what_it_causes() -> None:
    with pytest.raises(UserError, match="unknown field"):
        validated(Outer, {"shapes": 3, "innner": {}}, "a model")


def test_an_error_keeps_all_it_says_on_its_way_from_a_worker() -> None:
    error = UserError("must be a whole number, not 1.5", "size", "whole number").below("inner")
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.field, again.kind) == (error.message, "inner.size", "whole number")
    assert str(UserError("no such file")) == "no such file"


def test_no_name_is_meant_where_none_is_close() -> None:
    assert did_you_mean("radii", ["seed", "epochs"]) == ""
    assert did_you_mean("seed", []) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (" ", '" "'), (None, "null"), ({"ü": True}, '{"ü": true}'), ("x" * 80, "x" * 57 + "...")],
)
def test_values_are_quoted_as_they_are_written(value: object, text: str) -> None:
    assert quote(value) == text
