"""The door: each mistake is told in a line with its field, and what is right passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.parts.artifacts.common import attack_functions
from tasks.parts.attacks.common import checks
from tasks.parts.finite import NotFinite
from tasks.parts.settings import UserError

ATTACKS = attack_functions.names()
X, Y = torch.rand((5, 1, 2, 3), generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ torch.arange(18.0).reshape(6, 3) / 5 - 1


MISTAKES = [
    ({"epsilon": 0.0}, "epsilon", r"pgd needs a radius above 0, not 0\.0"),
    ({"epsilon": -1}, "epsilon", "above 0, not -1"),
    ({"epsilon": float("nan")}, "epsilon", "above 0, not nan"),
    ({"epsilon": torch.tensor([1.0, 2, 0, 3, 0])}, "epsilon", r"above 0, not 0\.0 \(2 of 5\)"),
    ({"epsilon": torch.ones(3)}, "epsilon", r"one for each of 5 images, not \(3,\)"),
    ({"norm": "linf"}, "norm", "pgd has no norm linf; it has Linf, L2; did you mean Linf"),
    ({"norm": "L0"}, "norm", "pgd has no norm L0; it has Linf, L2"),
    ({"targets": torch.tensor([1, 0, 2, 1, 0])}, "targets", "a target must differ from the label; both are 2 in row 2"),
    ({"targets": torch.tensor([1, 0])}, "targets", r"each of 5 images, not int64 \(2,\)"),
    ({"targets": torch.tensor([1, 0, 0, 1, -2])}, "targets", "target -2 is out of range"),
    ({"labels": torch.tensor([1, 0, 0, 1, -1])}, "labels", "label -1 is out of range"),
    ({"labels": torch.ones(5)}, "labels", "a whole number, a class"),
    ({"images": 255 * X}, "images", r"images must lie in \[0, 1\], these reach from"),
    ({"images": X - 0.5}, "images", r"images must lie in \[0, 1\], these reach from -0\."),
    ({"images": X.masked_fill(X > 0.5, torch.nan)}, "images", "not a number"),
    ({"images": (255 * X).to(torch.uint8)}, "images", "floating point numbers, not uint8"),
    ({"box": (-1.0, 0.2)}, "images", r"must lie in \[-1, 0\.2\]"),
]


@pytest.mark.parametrize(("change", "field", "message"), MISTAKES)
def test_what_the_arguments_say(change: dict[str, Any], field: str, message: str) -> None:
    given: dict[str, Any] = {"images": X, "labels": Y, "epsilon": 0.1, "norm": "L2"}
    checks.check_arguments("pgd", given["images"], given["labels"], epsilon=0.1, norm="L2", norms=("Linf", "L2"))
    given |= change
    with pytest.raises(UserError, match=message) as caught:
        checks.check_arguments("pgd", given.pop("images"), given.pop("labels"), norms=("Linf", "L2"), **given)
    assert caught.value.field == field


def test_what_is_right_passes() -> None:
    box = (-torch.inf, torch.inf)
    checks.check_arguments("pgd", 9 * X, Y, epsilon=torch.linspace(0.1, 1, 5), targets=(Y + 1) % 3, box=box)
    checks.check_arguments("pgd", X[:0], Y[:0], epsilon=0.1)
    for model in (linear, lambda x: torch.stack([linear(x), -linear(x)], 1)):
        checks.check_network(model, X, Y)
    checks.check_network(linear, X[:0], Y[:0])


def constant(x: Tensor) -> Tensor:
    return torch.tensor([[2.0, 0, 0]]).expand(len(x), 3)


def stepped(x: Tensor) -> Tensor:
    return linear(x) + (linear((8 * x).round() / 8) - linear(x)).detach() - linear(x) + linear(x).detach()


NETWORKS: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda x: linear(x).softmax(1), "returns probabilities; logits are needed"),
    (constant, "no gradient with respect to its input"),
    (lambda x: linear(x.detach()), "no gradient with respect to its input"),
    (lambda x: constant(x) + 0 * x.sum(), "a gradient that is zero everywhere"),
    (stepped, "a gradient that is zero everywhere"),
    (lambda x: constant(x) + x.sum((1, 2, 3))[:, None], "zero everywhere"),  # all logits rise alike: no margin does
    (lambda x: linear(x)[:, :1], "a single class"),
    (lambda x: linear(x)[:, 0], r"must return logits \(B, K\)"),
    (lambda x: [linear(x)], "logits .* not list"),
    (lambda x: linear(x)[:, :2], r"label 2 is out of range: the network has the classes 0\.\.1"),
]


@pytest.mark.parametrize(("model", "message"), NETWORKS)
def test_what_the_network_says(model: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        checks.check_network(model, X, Y)
    assert caught.value.field == ("labels" if "label" in message else "model")


@pytest.mark.parametrize(
    "model",
    [lambda x: linear(x) / 0, lambda x: linear(x).masked_fill(x.sum((1, 2, 3))[:, None] > 3, torch.nan)],
)
def test_a_network_that_is_not_finite(model: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(NotFinite, match="the network returns numbers that are not finite"):
        checks.check_network(model, X, Y)


def test_a_flat_spot_is_no_flat_network() -> None:
    """All units are off at black images, as they may be in a ReLU network; a little further they
    are not.
    """
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(18.0).reshape(3, 6))
    checks.check_network(lambda x: layer((x.flatten(1) - 0.01).relu()), 0 * X, Y)


@pytest.mark.usefixtures("eight_rows")
def test_the_network_is_tried_at_few_points_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    seen: list[int] = []
    model.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    checks.check_network(model, X.repeat(20, 1, 1, 1), Y.repeat(20))
    assert seen == [8]
    assert all(p.grad is None for p in model.parameters())
