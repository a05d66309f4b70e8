"""Logits that are not finite are noticed wherever a network is asked, by one sum.

Finite ones never are, however large.
"""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from tasks.parts.attacks.pgd import pgd
from tasks.parts.batching import in_batches
from tasks.parts.finite import KEPT, NotFinite, Watch, all_finite, checked, watched
from tasks.parts.losses import margin, value_and_gradient
from tasks.parts.models import build as models

ODD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_each_odd_number_is_noticed_and_no_large_one(dtype: torch.dtype) -> None:
    large = torch.full((7, 5), torch.finfo(dtype).max / (1e6 if dtype == torch.float64 else 1), dtype=dtype)
    assert checked(large) is large
    assert all_finite([large, torch.tensor([3])])
    for number in ODD:
        values = large.clone()
        values[3, 2] = number
        assert not all_finite([large, values])
        with pytest.raises(NotFinite, match="not finite"):
            checked(values)


def test_infinities_of_both_signs_are_noticed() -> None:
    assert not all_finite([torch.tensor([torch.inf, -torch.inf])])
    assert not all_finite([torch.tensor([torch.inf]), torch.tensor([-torch.inf])])
    assert all_finite([])


def test_whole_numbers_and_no_rows_are_in_order() -> None:
    checked(torch.tensor([1, 2]))
    checked(torch.zeros(0, 10))


def test_the_error_keeps_its_example_on_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(NotFinite("the column x is odd", 17)))
    assert (str(error), error.example) == ("the column x is odd for example 17", 17)


def network(number: float = 1.0) -> models.Classifier:
    """A network whose logits are multiplied by a number."""
    model = models.build("mlp", (1, 4, 4), 3, options={"width": 8}).eval()
    with torch.no_grad():
        list(model.parameters())[-1].mul_(number).add_(number - 1)
    return model


X = torch.linspace(0, 1, 5 * 16).reshape(5, 1, 4, 4)


@pytest.mark.parametrize("number", ODD)
def test_in_batches_and_a_gradient_step_refuse(number: float) -> None:
    with pytest.raises(NotFinite, match="the network returns"):
        in_batches(network(number), X, 2)
    with pytest.raises(NotFinite, match="the network returns"):
        value_and_gradient(network(number), X, lambda logits: logits.sum(1), 8)


def test_a_gradient_that_is_not_finite_is_no_failed_search() -> None:
    """The sign of NaN is 0: an attack would stand still, and the image would pass for robust."""

    def rooted(x: Tensor) -> Tensor:  # finite everywhere; no gradient at 0, where the last image is
        total = x.flatten(1).sum(1)
        return torch.stack([1 + total.sqrt(), 0 * total, 2 * total.sqrt()], 1)

    images = torch.full((10, 1, 2, 2), 0.5)
    images[-1] = 0
    labels = torch.zeros(10, dtype=torch.long)
    with pytest.raises(NotFinite, match="gradient"):
        pgd(rooted, images, labels, epsilon=0.1)


def test_a_watch_sees_every_way_of_asking() -> None:
    model = network()
    ways = [
        lambda m: m(X),
        lambda m: m.tail(m.head(X, 1), 1),
        lambda m: m.tail(X, 0),
        lambda m: torch.func.vmap(lambda x: m(x[None])[0])(X),
        lambda m: torch.func.grad(lambda x: m(x).sum())(X),
        lambda m: torch.func.functional_call(nn.Sequential(m), {}, (X,)),
    ]
    for way in ways:
        with watched([model]):
            way(model)
        with pytest.raises(NotFinite), watched([odd := network(torch.nan)]):
            way(odd)
        assert odd.watch is None
    with torch.inference_mode(), watched([model]):
        model(X)


def test_a_watch_lets_other_errors_through() -> None:
    def failing(model: nn.Module) -> None:
        model(X)
        raise KeyError

    with pytest.raises(KeyError), watched([model := network(torch.nan)]):
        failing(model)


def test_a_watch_remembers_many_passes() -> None:
    watch = Watch()
    for number in range(3 * KEPT):
        watch(torch.tensor([torch.nan if number == 5 else 0.0]))
    with pytest.raises(NotFinite):
        watch.check()


def test_margins_of_what_is_finite_are_finite() -> None:
    """The masked class has a logit of minus infinity on the way, which no gradient meets."""
    _, _, gradient = value_and_gradient(
        network(), X, lambda logits: margin(logits, torch.zeros(5, dtype=torch.long)), 8
    )
    assert gradient.isfinite().all()
