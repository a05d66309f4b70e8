"""Losses: written out with Python's numbers, and what does not change them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tasks.parts import losses
from tasks.parts.losses import objective
from tasks.parts.settings import UserError

B, K = 40, 6


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(seed: int, count: int = B) -> Tensor:
    return torch.randint(0, K, (count,), generator=torch.Generator().manual_seed(seed))


def written_out(loss: str, z: list[float], y: int, t: int | None) -> float:
    down = sorted(z, reverse=True)
    aim = y if t is None else t
    other = max(value for i, value in enumerate(z) if i != aim)
    sign = 1 if t is None else -1
    if loss == "ce":
        return sign * (math.log(sum(math.exp(value) for value in z)) - z[aim])
    if loss == "margin":
        return sign * (other - z[aim])
    if t is None:
        return -(z[y] - other) / (down[0] - down[2])
    return -(z[y] - z[t]) / (down[0] - (down[2] + down[3]) / 2)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_the_formula(loss: str, targeted: bool) -> None:
    z, y = gaussian(0, B, K), classes(1)
    t = (y + 1 + classes(2) % (K - 1)) % K if targeted else None
    wanted = [written_out(loss, z[i].tolist(), int(y[i]), None if t is None else int(t[i])) for i in range(B)]
    assert objective(loss, z, y, t).tolist() == pytest.approx(wanted, rel=1e-9)


@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50), scale=st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_dlr_does_not_see_the_shift_and_the_scale_of_the_logits(seed: int, shift: float, scale: float) -> None:
    z, y, t = gaussian(seed, B, K), classes(seed), classes(seed + 1)
    for targets in (None, t):
        before, after = objective("dlr", z, y, targets), objective("dlr", scale * z + shift, y, targets)
        assert torch.allclose(before, after, rtol=1e-6, atol=1e-8)


def test_dlr_of_a_right_prediction_lies_between_minus_1_and_0() -> None:
    z = gaussian(0, 500, K)
    right, wrong = z.argmax(1), z.argmin(1)
    assert (losses.dlr(z, right) < 0).all()
    assert (losses.dlr(z, right) >= -1).all()
    assert (losses.dlr(z, wrong) > 1).all()


def test_signs_tell_the_class() -> None:
    z, y = gaussian(3, B, K), classes(4)
    right = z.argmax(1) == y
    assert torch.equal(objective("margin", z, y) < 0, right)
    assert torch.equal(objective("dlr", z, y) < 0, right)
    assert torch.equal(objective("margin", z, y, y) > 0, right)  # the target is reached


@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_a_confident_network_keeps_its_gradient(loss: str) -> None:
    """Logits so far apart that the cross-entropy is flat in float32."""
    z, y = (gaussian(0, B, K) * 1e5).float().requires_grad_(True), classes(0)
    y = z.argmax(1)
    (flat,) = torch.autograd.grad(objective("ce", z, y).sum(), z)
    (steep,) = torch.autograd.grad(objective(loss, z, y).sum(), z)
    assert not flat.any()
    assert steep.abs().sum(1).min() > 0


def test_equal_logits_give_no_nan() -> None:
    z, y = torch.zeros(3, K, requires_grad=True), torch.tensor([0, 1, 2])
    for targets in (None, torch.tensor([3, 3, 3])):
        value = objective("dlr", z, y, targets)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        assert value.tolist() == [0, 0, 0]
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("count", "targets", "least"), [(2, None, 3), (3, torch.tensor([1]), 4)])
def test_dlr_says_how_many_classes_it_wants(count: int, targets: Tensor | None, least: int) -> None:
    with pytest.raises(UserError, match=f"needs {least} classes, the classifier has {count}; take ce or margin"):
        objective("dlr", torch.zeros(1, count), torch.tensor([0]), targets)
    assert objective("margin", torch.zeros(1, count), torch.tensor([0]), targets).shape == (1,)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("how", ["mean", "worst", "unfooled"])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_joint_losses_are_those_of_the_networks_one_by_one(loss: str, how: str, targeted: bool) -> None:
    z, y = torch.stack([gaussian(m, B, K) for m in range(3)], 1), classes(4)
    t = (y + 1 + classes(5) % (K - 1)) % K if targeted else None
    got = losses.joint(loss, how)(z, y, t)
    fooled = z.argmax(2) != y[:, None] if t is None else z.argmax(2) == t[:, None]
    seen = set()
    for i in range(B):
        each = [written_out(loss, z[i, m].tolist(), int(y[i]), None if t is None else int(t[i])) for m in range(3)]
        left = [value for value, done in zip(each, fooled[i].tolist(), strict=True) if not done] or each
        wanted = {"mean": sum(each) / 3, "worst": min(each), "unfooled": sum(left) / len(left)}[how]
        assert float(got[i]) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        seen.add(len(left))
    assert seen == {1, 2, 3}
    if how == "mean":
        assert torch.allclose(objective(loss, z, y, t), got)
    one = losses.joint(loss, how)(z[:, 0], y, t)
    assert torch.equal(one, objective(loss, z[:, 0], y, t))


@pytest.mark.parametrize("targeted", [False, True])
def test_the_verdict_on_several_networks_is_that_of_the_one_fooled_least(targeted: bool) -> None:
    z, y = torch.stack([gaussian(m, B, K) for m in range(2)], 1), classes(4)
    t = (y + 1) % K if targeted else None
    beyond, fooled = losses.verdict(z, y, t)
    each = [losses.verdict(z[:, m], y, t) for m in range(2)]
    assert torch.equal(beyond, torch.minimum(each[0][0], each[1][0]))
    assert torch.equal(fooled, each[0][1] & each[1][1])
    assert fooled.any()
    assert not fooled.all()


def test_a_loss_of_ones_own_sees_the_logits_as_they_are() -> None:
    z, y = torch.stack([gaussian(m, B, K) for m in range(2)], 1), classes(4)

    def own(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is None
        return logits.flatten(1).sum(1) + labels

    assert torch.equal(objective(own, z, y), z.flatten(1).sum(1) + y)
    assert torch.allclose(losses.joint(own, "mean")(z, y, None), z.sum(2).mean(1) + y)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="unknown loss 'hinge'; ce, margin, dlr"):
        objective("hinge", torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(UserError, match="mean, worst, unfooled"):
        losses.joint("ce", "best")


@pytest.mark.usefixtures("eight_rows")
def test_value_and_gradient() -> None:
    x, weight, y = gaussian(0, 5, 1, 2, 2), gaussian(1, K, 4).requires_grad_(True), classes(0, 5)

    def model(points: Tensor) -> Tensor:
        assert len(points) == 8  # padded
        return points.flatten(1).square() @ weight.T

    with torch.no_grad():
        logits, value, gradient = losses.value_and_gradient(model, x, lambda z: losses.cross_entropy(z, y), 5)
        p = (x.flatten(1).square() @ weight.T).softmax(1)
    wanted = 2 * x.flatten(1) * ((p - torch.eye(K)[y]) @ weight.detach())
    assert torch.allclose(gradient.flatten(1), wanted)
    assert torch.allclose(value, -p[range(5), y].log())
    assert not logits.requires_grad
    assert weight.grad is None
