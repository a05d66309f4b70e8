"""Security curves agree with the closed form on a linear model and with plain runs.

The slow twin is a plain run at each radius. Also what they cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from known_models import Meter, images, linear_with_distances, smooth
from torch import Tensor

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.auto import auto
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.common.security_curve import security_curve
from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.attacks.square import square
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import norm_of
from tasks.parts.settings import UserError

Attack = Callable[..., AttackResult]


def between(distance: Tensor) -> list[float]:
    """A ladder whose radii lie amid the examples' distances, some of them below the smallest, not
    all reached by the largest.
    """
    ordered = distance.sort().values
    middles = (ordered[1:] + ordered[:-1]) / 2
    return [float(ordered[0]) / 2, *middles[2:-1:3].tolist()]


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize(
    ("attack", "norm", "how"),
    [
        (pgd, "Linf", {}),
        (pgd, "L2", {}),
        (pgd, "L2", {"restarts": 2, "loss": "margin", "momentum": 0.5}),
        (apgd, "Linf", {"steps": 20}),
        (apgd, "L2", {"steps": 20}),
        (auto, "L2", {"steps": 20, "queries": 20}),
        (fmn, "L2", {}),
        (ddn, "L2", {}),
    ],
)
def test_linear_model(attack: Attack, norm: str, how: dict[str, Any], batch: int) -> None:
    model, points, labels, distance = linear_with_distances(norm, 17)
    if attack is not ddn:
        how = how | {"norm": norm}
    ladder = between(distance)
    found, radius = security_curve(attack, model, points, labels, ladder[::-1], batch=batch, **how)
    wanted = [min((r for r in ladder if r > d), default=torch.inf) for d in distance.tolist()]
    assert radius.tolist() == wanted
    assert set(wanted) > {torch.inf}
    assert found.success.tolist() == [r < torch.inf for r in wanted]
    assert (found.distance <= radius + 1e-6).all()
    assert (in_batches(model, points + found.perturbation, 64).argmax(1) != labels)[found.success].all()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "top"), [("Linf", 0.2), ("L2", 0.6), ("L1", 2.0)])
def test_against_a_run_at_each_radius(norm: str, top: float, targeted: bool) -> None:
    x = images(60)
    labels = smooth()(x).argmax(1)
    labels[:5] = (labels[:5] + 1) % 4  # misclassified
    targets = (labels + 2) % 4 if targeted else None
    ladder = [top * i / 8 for i in range(1, 9)]
    how = {"norm": norm, "targets": targets, "share": 0.1}
    found, radius = security_curve(pgd, smooth(), x, labels, ladder, **how)
    aims = labels if targets is None else targets
    at = smooth()(x + found.perturbation).argmax(1)
    assert torch.equal(found.success, (at != aims) if targets is None else (at == aims))
    assert torch.equal(found.success, radius.isfinite())
    assert torch.equal(found.distance, norm_of(found.perturbation, norm))
    assert (found.distance <= radius + 1e-6).all()
    if targets is None:
        assert radius[:5].tolist() == [ladder[0]] * 5
        assert not found.perturbation[:5].any()
    for r in ladder:
        alone = pgd(smooth(), x, labels, epsilon=r, **how).success
        assert int((radius <= r).sum()) >= int(alone.sum())
    assert len(set(radius.tolist())) > 5


@pytest.mark.usefixtures("eight_rows")
def test_costs_less_than_two_radii() -> None:
    """Counted in passes that the model saw; a run in the middle of the ladder is the measure."""
    x = images(200)
    labels = smooth()(x).argmax(1)
    ladder = [0.15 * i / 8 for i in range(1, 9)]
    curve, middle = Meter(smooth()), Meter(smooth())
    found, _ = security_curve(pgd, curve, x, labels, ladder)
    one = pgd(middle, x, labels, epsilon=ladder[3])
    assert 40 < int(one.success.sum()) < 160
    assert sum(curve.calls) + curve.backwards < 2 * (sum(middle.calls) + middle.backwards)
    assert int(found.forwards.sum()) <= sum(curve.calls) <= int(found.forwards.sum()) + 7 * len(curve.calls)
    assert int(found.backwards.sum()) <= curve.backwards <= int(found.backwards.sum()) + 7 * len(curve.calls)


@pytest.mark.parametrize("attack", [pgd, apgd, square])
def test_the_same_bits_in_any_company(attack: Attack) -> None:
    x = images(24)
    labels = smooth()(x).argmax(1)
    ladder = [0.03, 0.1, 0.2]
    how = {"queries": 60} if attack is square else {"steps": 6, "restarts": 2}
    found, radius = security_curve(attack, smooth(), x, labels, ladder, **how)
    for rows in ([3], [20, 1, 7, 8, 15, 9, 2, 0, 11]):
        part, there = security_curve(attack, smooth(), x[rows], labels[rows], ladder, ids=rows, batch=8, **how)
        assert torch.equal(there, radius[rows])
        for field in vars(found):
            assert torch.equal(getattr(part, field), getattr(found, field)[rows]), field


def test_one_radius_is_the_attack_itself() -> None:
    x = images(10)
    labels = smooth()(x).argmax(1)
    found, radius = security_curve(pgd, smooth(), x, labels, [0.08])
    alone = pgd(smooth(), x, labels, epsilon=0.08)
    assert torch.equal(found.success, alone.success)
    assert torch.equal(radius.isfinite(), alone.success)
    assert torch.equal(found.perturbation, alone.perturbation)
    assert torch.equal(found.backwards, alone.backwards)


def test_several_networks_and_no_examples() -> None:
    def both(z: Tensor) -> Tensor:
        return torch.stack([smooth(0)(z), smooth(1)(z)], 1)

    x = images(40)
    labels = smooth(0)(x).argmax(1)
    found, radius = security_curve(pgd, both, x, labels, [0.1, 0.2, 0.3, 0.4])
    logits = both(x + found.perturbation)
    assert torch.equal(found.success, (logits.argmax(2) != labels[:, None]).all(1))
    assert int(found.success.sum()) > 10
    found, radius = security_curve(pgd, smooth(), x[:0], labels[:0], [0.1, 0.2])
    assert radius.shape == (0,)


@pytest.mark.parametrize(
    ("radii", "how", "message"),
    [
        ([], {}, "needs radii above 0"),
        ([0.1, 0.0], {}, r"needs radii above 0, not \[0\.1, 0\.0\]"),
        ([0.1], {"epsilon": 0.1}, "takes no epsilon"),
        ([0.1], {"stop": "last"}, "takes no stop"),
    ],
)
def test_bad_ladders(radii: list[float], how: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        security_curve(pgd, smooth(), images(2), torch.tensor([0, 0]), radii, **how)
