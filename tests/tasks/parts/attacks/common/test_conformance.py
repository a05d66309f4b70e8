"""The checks that every attack is held to (`engine/conformance`) notice what they are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.parts import attacks
from tasks.parts.artifacts.common import attack_functions
from tasks.parts.attacks import pgd
from tasks.parts.attacks.common import conformance
from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.geometry.balls import Convex
from tasks.parts.settings import UserError

ATTACKS = attack_functions.names()


EXTREMES: list[tuple[str, dict[str, Any]]] = [
    ("pgd", {"step_size": 3.0, "momentum": 1.0}),
    ("pgd", {"step_size": 1e-3, "schedule": "linear", "epsilon": 2.0}),
    ("apgd", {"loss": "dlr", "target_classes": 2, "epsilon": 1e-3}),
    ("apgd", {"loss": "margin", "epsilon": 2.0}),
    ("square", {"share": 1.0, "epsilon": 2.0}),
    ("square", {"share": 0.01, "queries": 1}),
    ("fmn", {"step_size": 10.0, "gamma": 0.5, "halvings": 0}),
    ("ddn", {"step_size": 10.0, "gamma": 0.5, "radius": 10.0, "halvings": 3}),
    ("ddn", {"step_size": 0.01, "gamma": 0.01, "radius": 0.01, "loss": "margin"}),
    ("class_probability", {"start": "noise", "objective": "logit", "learning_rate": 3.0}),
]


@pytest.mark.parametrize(("name", "settings"), EXTREMES)
def test_settings_far_from_the_usual(name: str, settings: dict[str, Any]) -> None:
    attack = attack_functions.function_of(name)
    for case in conformance.cases(attack, **settings):
        conformance.stays_in_the_box_and_says_what_it_found(attack, case)


def test_the_package_gives_the_functions() -> None:
    assert sorted(attacks.__all__) == ATTACKS
    assert all(getattr(attacks, name) is attack_functions.function_of(name) for name in ATTACKS)


ATTACK = Capabilities(norms=("Linf", "L2", "L1"), radius="fixed")
Change = Callable[..., AttackResult]


def spoiled(change: Change) -> Callable[..., AttackResult]:
    """PGD with something done to it."""

    def attack(
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float,
        norm: Convex = "Linf",
        steps: int = 20,
        targets: Tensor | None = None,
        box: tuple[float, float] = (0.0, 1.0),
        ids: Sequence[int] | None = None,
        batch: int | None = None,
    ) -> AttackResult:
        """PGD."""
        how: dict[str, Any] = {"epsilon": epsilon, "norm": norm, "steps": steps, "targets": targets, "box": box}
        return change(pgd(model, images, labels, **how, ids=ids, batch=batch), model, images, batch)

    return attack


def out_of_the_box(found: AttackResult, *_: Any) -> AttackResult:
    return replace(found, images=found.images + 0.5)


def out_of_the_ball(found: AttackResult, *_: Any) -> AttackResult:
    return replace(found, perturbation=2 * found.perturbation, distance=2 * found.distance)


def shorter_than_it_is(found: AttackResult, *_: Any) -> AttackResult:
    return replace(found, distance=found.distance / 2)


def always_lucky(found: AttackResult, *_: Any) -> AttackResult:
    return replace(found, success=torch.ones_like(found.success))


def half_the_price(found: AttackResult, *_: Any) -> AttackResult:
    return replace(found, forwards=(found.forwards + 1) // 2)


def by_batch(found: AttackResult, _model: Any, images: Tensor, batch: int | None) -> AttackResult:
    return replace(found, backwards=found.backwards + (batch or 0))


def at_random(found: AttackResult, *_: Any) -> AttackResult:
    torch.rand(1)
    return found


def trained(found: AttackResult, model: Any, *_: Any) -> AttackResult:
    return model.train() and found


def written(found: AttackResult, _model: Any, images: Tensor, *_: Any) -> AttackResult:
    images += 0
    images[:1] = 0.5
    return found


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (out_of_the_box, conformance.stays_in_the_box_and_says_what_it_found, r"outside of \[0, 1\]"),
        (out_of_the_ball, conformance.stays_in_the_box_and_says_what_it_found, "image \\+ perturbation"),
        (shorter_than_it_is, conformance.stays_in_the_box_and_says_what_it_found, "not the perturbation's norm"),
        (always_lucky, conformance.stays_in_the_box_and_says_what_it_found, "success"),
        (written, conformance.stays_in_the_box_and_says_what_it_found, "writes into the images"),
        (half_the_price, conformance.counts_what_it_costs, "forward passes"),
        (by_batch, conformance.does_not_depend_on_other_examples, "backwards of the examples"),
        (at_random, conformance.leaves_everything_as_it_was, "shared random generator"),
        (trained, conformance.leaves_everything_as_it_was, "training mode"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_noticed(change: Change, check: conformance.Check, said: str) -> None:
    attack = spoiled(change)
    with pytest.raises(AssertionError, match=said):
        check(attack, next(conformance.cases(attack)))


def test_a_function_without_a_declaration_is_refused() -> None:
    with pytest.raises(UserError, match=r"dropout declares no capabilities: its file needs ATTACK = Capabilities"):
        conformance.conform(torch.nn.functional.dropout)
