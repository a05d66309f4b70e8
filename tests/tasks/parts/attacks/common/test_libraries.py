"""Attacks of other packages find closed forms on a linear model.

Also what they are held to, and what is refused.
"""

from __future__ import annotations

import importlib.util
import inspect
import random
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from known_models import Meter
from torch import Tensor, nn

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.common import attack_settings
from tasks.parts.attacks.common.libraries import check, library_attack, shared
from tasks.parts.geometry.balls import norm_of
from tasks.parts.settings import UserError

HERE = {package: importlib.util.find_spec(package) is not None for package in ("foolbox", "art")}
BOTH = pytest.mark.skipif(
    not all(HERE.values()), reason="needs the extra peers: foolbox and adversarial-robustness-toolbox"
)

FIXED = {
    "foolbox:LinfPGD": "Linf",
    "foolbox:L2PGD": "L2",
    "art:AutoProjectedGradientDescent": "Linf",
    "art:SquareAttack": "Linf",
}
SMALLEST = {"foolbox:DDNAttack": "L2", "foolbox:LInfFMNAttack": "Linf", "art:CarliniL2Method": "L2"}


class Counting(nn.Module):
    """Counts rows as a wrapper around the whole search sees them; libraries take modules alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.meter = model, Meter(model)

    def forward(self, x: Tensor) -> Tensor:
        return self.meter(x)

    @property
    def forwards(self) -> int:
        return sum(self.meter.calls)

    @property
    def backwards(self) -> int:
        return self.meter.backwards


def linear(norm: str, count: int = 6) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model of two classes, images well to either side of its boundary, their labels, and
    how far they are from it.
    """
    draw = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 64, generator=draw))
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)
        images = (0.5 + 0.15 * torch.randn(40, 1, 8, 8, generator=draw)).clamp(0.2, 0.8)
        logits, difference = model(images), model[1].weight[0] - model[1].weight[1]
    margin = (logits[:, 0] - logits[:, 1]).abs()
    chosen = (margin > 1).nonzero().flatten()[:count]
    distance = margin / (difference.abs().sum() if norm == "Linf" else difference.norm())
    return model, images[chosen], logits.argmax(1)[chosen], distance[chosen]


# -------------------------------------------------------------------------------------------------
# closed form


@BOTH
@pytest.mark.parametrize("name", FIXED)
def test_within_a_radius(name: str) -> None:
    """Above the largest distance every image is fooled, and below the smallest none."""
    norm = FIXED[name]
    model, images, labels, distance = linear(norm)
    options: dict[str, Any] = {"max_iter": 300} if "Square" in name else {}
    for epsilon, fooled in ((1.5 * float(distance.max()), True), (0.95 * float(distance.min()), False)):
        found = library_attack(name, options)(model, images, labels, epsilon=epsilon)
        assert (found.success == fooled).all()
        assert (found.distance <= epsilon * (1 + 1e-5)).all()
        assert found.distance.tolist() == norm_of(found.perturbation, norm).tolist()
        points = images + found.perturbation
        assert points.amin() >= 0
        assert points.amax() <= 1
        assert torch.equal(model(points).argmax(1) != labels, found.success)


@BOTH
@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_perturbation(name: str) -> None:
    model, images, labels, distance = linear(SMALLEST[name])
    options: dict[str, Any] = {"binary_search_steps": 10, "max_iter": 50} if "Carlini" in name else {"steps": 300}
    found = library_attack(name, options)(model, images, labels)
    assert found.success.all()
    assert (found.distance >= distance * 0.9999).all()
    assert (found.distance <= distance * 1.1).all()


@BOTH
def test_a_radius_for_each_image() -> None:
    """Images of one radius run together; each is fooled just where its own radius is beyond its
    distance.
    """
    model, images, labels, distance = linear("Linf")
    beyond = torch.tensor([True, False, True, True, False, False])
    epsilon = distance * torch.where(beyond, 1.05, 0.95)
    found = library_attack("foolbox:LinfPGD", {"random_start": False})(model, images, labels, epsilon=epsilon, steps=60)
    assert torch.equal(found.success, beyond)
    assert (found.distance <= epsilon * (1 + 1e-5)).all()


@BOTH
@pytest.mark.parametrize("name", ["foolbox:LinfPGD", "art:ProjectedGradientDescent"])
def test_towards_targets(name: str) -> None:
    model, images, labels, _ = linear("Linf")
    targets = 1 - labels
    found = library_attack(name)(model, images, labels, epsilon=0.4, targets=targets)
    assert torch.equal(model(images + found.perturbation).argmax(1), targets)
    assert found.success.all()


@BOTH
@pytest.mark.parametrize("name", ["foolbox:LinfPGD", "art:ProjectedGradientDescent"])
def test_as_the_attack_of_a_task(name: str) -> None:
    """With a ladder of radii: the smallest radius at which it succeeds is the first beyond the
    distance, for all but the nearest calls.
    """
    model, images, labels, distance = linear("Linf")
    model.requires_grad_(False)
    attack = attack_settings.Attack(name=name, steps=100, step_size=0.002)
    assert attack.fixed_radius
    assert attack.norm == "Linf"
    radii = [0.7 * float(distance.min()), 0.5 * float(distance.min() + distance.max()), 1.5 * float(distance.max())]
    found = adversarial_examples.run_attack(attack, [model], images, labels, range(len(images)), radii=radii, seed=0)
    wanted = [next(radius for radius in radii if radius > each) for each in distance.tolist()]
    assert found.radius.tolist() == pytest.approx(wanted)
    assert found.success.all()
    alone = adversarial_examples.run_attack(
        attack_settings.Attack(name=name, epsilon=radii[-1]), [model], images, labels, range(len(images)), seed=0
    )
    assert alone.success.all()
    assert alone.radius.tolist() == pytest.approx([radii[-1]] * len(images))


@BOTH
def test_a_smallest_perturbation_as_the_attack_of_a_task() -> None:
    model, images, labels, distance = linear("L2")
    attack = attack_settings.Attack(name="foolbox:DDNAttack", options={"steps": 200})
    assert not attack.fixed_radius
    found = adversarial_examples.run_attack(attack, [model.requires_grad_(False)], images, labels, range(len(images)))
    assert found.radius.tolist() == found.distance.tolist()
    assert (found.distance <= 1.1 * distance).all()
    assert (found.distance >= 0.9999 * distance).all()


# -------------------------------------------------------------------------------------------- what
# theirs are held to


@BOTH
@pytest.mark.parametrize(
    "name", ["foolbox:LinfPGD", "foolbox:DDNAttack", "art:AutoProjectedGradientDescent", "art:SquareAttack"]
)
def test_passes_are_those_the_network_sees(name: str) -> None:
    model, images, labels, distance = linear("Linf", count=7)
    counting = Counting(model)
    epsilon = {"epsilon": float(distance.median())} if name != "foolbox:DDNAttack" else {}
    found = library_attack(name)(counting, images, labels, steps=5, batch=3, **epsilon)
    probe = 1  # the first image, to see that the network is one
    assert int(found.forwards.sum()) == counting.forwards - probe - _padding(counting, images, batch=3)
    assert int(found.backwards.sum()) == counting.backwards
    assert (found.backwards.sum() > 0) == (name != "art:SquareAttack")


def _padding(counting: Counting, images: Tensor, batch: int) -> int:
    """Rows that `in_batches` adds, before and after the search."""
    sizes = [len(piece) for piece in images.split(batch)]
    return 2 * sum(-size % 8 for size in sizes)


def set_states() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # the state that theirs draw from
    random.seed(1)


def states() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.random()), random.random()


@BOTH
@pytest.mark.parametrize("name", ["foolbox:LinfPGD", "art:SquareAttack", "foolbox:L2AdditiveGaussianNoiseAttack"])
def test_random_numbers_repeat_and_leave_no_trace(name: str) -> None:
    model, images, labels, _ = linear("Linf")
    search = library_attack(name)
    set_states()
    wanted = states()
    set_states()
    first = search(model, images, labels, epsilon=0.01, ids=range(10, 16))
    assert states() == wanted
    again = search(model, images, labels, epsilon=0.01, ids=range(10, 16))
    other = search(model, images, labels, epsilon=0.01, ids=range(10, 16), seed=1)
    assert torch.equal(first.perturbation, again.perturbation)
    assert not torch.equal(first.perturbation, other.perturbation)
    alone = search(model, images, labels, epsilon=0.01, ids=range(10, 16), batch=1)
    part = search(model, images[3:], labels[3:], epsilon=0.01, ids=range(13, 16), batch=1)
    torch.testing.assert_close(alone.perturbation[3:], part.perturbation)


@BOTH
@pytest.mark.parametrize("name", ["foolbox:LinfPGD", "art:ProjectedGradientDescent"])
def test_the_network_is_left_as_it_was(name: str) -> None:
    model, images, labels, _ = linear("Linf")
    before = images.clone()
    model.train()
    library_attack(name)(model, images, labels, epsilon=0.1, steps=3)
    assert model.training
    assert all(each.grad is None and each.requires_grad for each in model.parameters())
    assert torch.equal(images, before)


@BOTH
def test_misclassified_images_are_not_searched() -> None:
    model, images, labels, _ = linear("Linf")
    wrong = labels.clone()
    wrong[2] = 1 - wrong[2]
    found = library_attack("foolbox:LinfPGD")(model, images, wrong, epsilon=0.01)
    assert found.success[2]
    assert found.distance[2] == 0
    assert (int(found.forwards[2]), int(found.backwards[2])) == (1, 0)
    assert (found.backwards[[0, 1, 3]] > 0).all()


@BOTH
def test_the_signature_says_what_can_be_set() -> None:
    search = library_attack("foolbox:LinfPGD", {"random_start": False})
    shown = inspect.signature(search).parameters
    assert {"epsilon", "steps", "step_size", "rel_stepsize"} <= set(shown)
    assert shown["random_start"].default is False
    assert get_type_hints(search)["norm"].__args__ == ("Linf",)
    assert "epsilon" not in inspect.signature(library_attack("art:DeepFool")).parameters  # theirs is an overshoot
    assert {"steps", "max_iter"} <= set(inspect.signature(library_attack("art:SquareAttack")).parameters)


# -------------------------------------------------------------------------------------------------
# refused


def refused(field: str, *said: str) -> Any:
    class Refused:
        def __enter__(self) -> None:
            self.raises = pytest.raises(UserError)
            self.caught = self.raises.__enter__()

        def __exit__(self, *what: Any) -> bool:
            swallowed = self.raises.__exit__(*what)
            assert self.caught.value.field == field
            assert all(each in str(self.caught.value) for each in said), str(self.caught.value)
            return bool(swallowed)

    return Refused()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module.split(".")[0])

    monkeypatch.setattr(shared.importlib, "import_module", missing)
    with refused("name", "pip install 'inputscape[peers]'", "adversarial-robustness-toolbox"):
        check("art:SquareAttack")
    with refused("name", "foolbox is not installed"):
        library_attack("foolbox:LinfPGD")


def test_unknown_package() -> None:
    with refused("name", "did you mean foolbox?"):
        check("foolbocks:LinfPGD")


@BOTH
@pytest.mark.parametrize(
    ("name", "options", "field", "said"),
    [
        ("foolbox:LinfPDG", {}, "name", "did you mean LinfPGD?"),
        ("foolbox:Attack", {}, "name", "no attack 'Attack'"),  # abstract
        ("art:autoprojectedgradientdescent", {}, "name", "did you mean AutoProjectedGradientDescent?"),
        ("foolbox:LinfPGD", {"random_stat": True}, "options.random_stat", "did you mean random_start?"),
        ("art:SquareAttack", {"eps": 1}, "options.eps", "by epsilon"),
        ("art:SquareAttack", {"verbose": True}, "options.verbose", "no option verbose"),
    ],
)
def test_names_and_options_that_are_not_there(name: str, options: dict[str, Any], field: str, said: str) -> None:
    with refused(field, said):
        library_attack(name, options)


@BOTH
def test_calls_that_make_no_sense() -> None:
    model, images, labels, _ = linear("Linf")
    with refused("epsilon", "give epsilon"):
        library_attack("foolbox:LinfPGD")(model, images, labels)
    with refused("epsilon", "takes no radius"):
        library_attack("foolbox:DDNAttack")(model, images, labels, epsilon=0.1)
    with refused("norm", "Linf"):
        library_attack("foolbox:LinfPGD")(model, images, labels, epsilon=0.1, norm="L2")
    with refused("epsilon", "above 0"):
        library_attack("foolbox:LinfPGD")(model, images, labels, epsilon=0.0)
    with refused("targets", "differ"):
        library_attack("foolbox:LinfPGD")(model, images, labels, epsilon=0.1, targets=labels)
    with refused("targets", "cannot search towards targets"):
        library_attack("art:DeepFool")(model, images, labels, targets=1 - labels)
    with refused("targets", "towards targets only"):
        library_attack("foolbox:GenAttack", {"steps": 1})(model, images, labels, epsilon=0.1)
    with refused("steps", "has no steps"):
        library_attack("foolbox:InversionAttack")(model, images, labels, steps=3)
    with refused("steps", "same"):
        library_attack("art:SquareAttack", {"max_iter": 4})(model, images, labels, epsilon=0.1, steps=3)
    with refused("options", "refuses its options"):
        library_attack("art:SquareAttack", {"p_init": 7.0})(model, images, labels, epsilon=0.1)
    with refused("name", "one network only"):
        library_attack("foolbox:LinfPGD")(lambda x: model(x)[:, None].expand(-1, 2, -1), images, labels, epsilon=0.1)
