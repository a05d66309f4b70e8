"""Settings of an attack, and what it leaves.

Its distances have closed forms, for one network or several, in pixels and in hidden spaces.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.adversarial_examples import run_attack
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
from tasks.parts.batching import in_batches
from tasks.parts.data import load as data
from tasks.parts.finite import NotFinite
from tasks.parts.models.build import Classifier
from tasks.parts.settings import UserError
from tasks.parts.training.recipes import Recipe

SIDE = 4
PIXELS = SIDE * SIDE
COUNT = 6


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plane(direction: Tensor, offset: float = 0.0) -> nn.Module:
    """Two classes, whose logits differ by direction * (x - 1/2) + offset.

    The second class is where that is positive.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(direction.numel(), 2)).requires_grad_(False)
    model[1].weight.copy_(torch.stack([-direction / 2, direction / 2]))
    model[1].bias.copy_(torch.tensor([-1.0, 1.0]) * (offset - float(direction.sum()) / 2) / 2)
    return model.eval()


def amid(count: int = COUNT) -> Tensor:
    """Images so near the middle of the box that its walls play no part."""
    return 0.5 + 0.05 * gaussian(3, count, 1, SIDE, SIDE)


def heights(direction: Tensor, points: Tensor, offset: float) -> Tensor:
    return (points.flatten(1).double() - 0.5) @ direction.double() + offset


DIRECTION = gaussian(1, PIXELS)
OFFSET = -0.5
MODEL = plane(DIRECTION, OFFSET)
IMAGES = amid()
LABELS = (heights(DIRECTION, IMAGES, OFFSET) > 0).long()
DUAL = {"Linf": DIRECTION.abs().sum(), "L2": DIRECTION.norm(), "L1": DIRECTION.abs().max()}


def exact(norm: str) -> Tensor:
    return heights(DIRECTION, IMAGES, OFFSET).abs() / float(DUAL[norm])


def attacked(
    attack: Attack, networks: Sequence[nn.Module] = (MODEL,), **arguments: Any
) -> adversarial_examples.AdversarialExamples:
    given: dict[str, Any] = {"images": IMAGES, "labels": LABELS, "ids": range(len(IMAGES))} | arguments
    return run_attack(attack, networks, given.pop("images"), given.pop("labels"), given.pop("ids"), **given)


# --- settings

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt attack": ({"name": "pdg"}, "name: ...unknown attack pdg; there are alma, ...did you mean pgd?"),
    "unknown package": ({"name": "foolbx:LinfPGD"}, "name: ...unknown package 'foolbx'...did you mean foolbox?"),
    "norm that it lacks": ({"name": "apgd", "norm": "L1"}, "norm: ...apgd has Linf, L2"),
    "no such norm": ({"norm": "L3"}, "norm: Input should be 'Linf', 'L2', 'L1' or 'L0'"),
    "setting that it lacks": ({"name": "ddn", "restarts": 2}, "restarts: ...no setting of ddn (it has steps"),
    "radius of a smallest one": ({"name": "fmn", "epsilon": 0.1}, "epsilon: ...no setting of fmn"),
    "radius 0": ({"epsilon": 0}, "epsilon: ...greater than 0"),
    "no radius": ({"epsilon": math.inf}, "epsilon: ...finite"),
    "no steps": ({"steps": 0}, "steps: ...greater than 0"),
    "loss": ({"loss": "dlrr"}, "loss: ...pgd has ce, margin, dlr"),
    "end": ({"stop": "never"}, "stop: ...pgd has first, last"),
    "misspelt option": ({"options": {"momentun": 1}}, "options: ...momentun: ...did you mean momentum?"),
    "option that is a setting": ({"options": {"steps": 1}}, "options: ...steps: belongs beside options"),
    "option that is not the user's": ({"options": {"box": 1}}, "options: ...box: unknown field; pgd has schedule"),
    "option of another type": (
        {"options": {"momentum": "fast"}},
        "options: ...momentum: must be a number or a fraction such",
    ),
    "true for a number": ({"options": {"momentum": True}}, "options: ...momentum: must be a number"),
    "part of a number": (
        {"name": "square", "options": {"queries": 1.5}},
        "options: ...queries: must be a whole number, not 1.5",
    ),
    "negative option": ({"options": {"momentum": -1}}, "options: ...momentum: must be at least 0, not -1"),
    "option of several words": (
        {"options": {"schedule": "cosin"}},
        "options: ...schedule: must be one of constant, cosine, linear, not cosin",
    ),
    "negative target": ({"target": -1}, "target: ...greater than or equal to 0"),
    "misspelt space": ({"space": "hiden:1"}, "space: ...did you mean hidden:1?"),
    "no stage": ({"space": "hidden"}, "space: ...names no stage"),
    "pixels only": ({"name": "square", "space": "hidden:1"}, "space: square attacks pixels only"),
    "negative weight noise": ({"weight_noise": {"sigma": -1}}, "weight_noise.sigma: ...greater than or equal to 0"),
    "weight noise on an ensemble": (
        {"name": "auto", "weight_noise": {"sigma": 0.1}},
        "...weight_noise: auto is several attacks in turn...fmn",
    ),
    "no draws": ({"weight_noise": {"draws": 0}}, "weight_noise.draws: ...greater than 0"),
    "joint": ({"joint": "sum"}, "joint: ...'mean', 'worst' or 'unfooled'"),
    "unknown setting": ({"radius": 1}, "radius: Extra inputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_is_refused(case: str) -> None:
    settings, wanted = REFUSED[case]
    with pytest.raises(ValidationError) as error:
        Attack(**settings)
    told = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.value.errors()]
    assert any(matches(text, wanted) for text in told), told


def matches(said: str, expected: str) -> bool:
    """Whether a line has what is expected, where `...` stands for anything."""
    return re.search(".*".join(map(re.escape, expected.split("..."))), said) is not None


def test_arguments_are_those_that_were_given_and_the_radius() -> None:
    assert Attack().resolve().arguments == {"norm": "Linf", "epsilon": 0.15}
    assert Attack(norm="L2").resolve().arguments == {"norm": "L2", "epsilon": 1.0}
    assert Attack(name="fmn").resolve().arguments == {"norm": "L2"}
    assert Attack(name="ddn", steps=7).resolve().arguments == {"steps": 7}
    attack = Attack(
        epsilon="8/255", steps=3, loss="margin", stop="last", options={"momentum": "1/4", "schedule": "cosine"}
    )
    assert attack.resolve().arguments == {
        "norm": "Linf",
        "epsilon": 8 / 255,
        "steps": 3,
        "loss": "margin",
        "stop": "last",
        "momentum": 0.25,
        "schedule": "cosine",
    }
    assert Attack(name="class_probability", options={"start": "noise"}).resolve().arguments == {"start": "noise"}
    assert Attack(space="hidden: 2").space == "hidden:2"
    assert Attack(space="hidden:0").space == "pixel"


def identity(radii: Any = None, networks: int = 1, **attack: Any) -> str:
    recipes = tuple(Recipe(seed=seed) for seed in range(networks))
    request = adversarial_examples.Request(networks=recipes, attack=Attack(**attack), radii=radii)
    found = adversarial_examples.identity(request, None)
    return json.dumps([found, len(adversarial_examples.needs(request))], sort_keys=True)


def test_attacks_that_mean_the_same_have_one_identity() -> None:
    plain = identity()
    assert identity(epsilon=0.15) == identity(steps=20, norm="Linf", stop="first", options={"momentum": 0.0}) == plain
    assert identity(weight_noise={"draws": 5}) == plain  # of no noise
    assert identity(joint="worst") == plain  # of one network
    assert identity(radii=[0.1, 0.2], epsilon=0.3) == identity(radii=[0.2, 0.1])
    assert identity(name="fmn", radii=[0.1]) == identity(name="fmn", radii=[0.1, 0.2]) == identity(name="fmn")


def test_what_decides_the_examples_changes_the_identity() -> None:
    others = [
        *({"epsilon": 0.1}, {"norm": "L2"}, {"steps": 3}, {"step_size": 0.1}, {"restarts": 2}, {"loss": "margin"}),
        *({"stop": "last"}, {"options": {"momentum": 1}}, {"target": 2}, {"space": "hidden:1"}, {"name": "apgd"}),
        *({"weight_noise": {"sigma": 0.1}}, {"weight_noise": {"sigma": 0.1, "draws": 2}}, {"radii": [0.1, 0.2]}),
        *({"radii": [0.1]}, {"networks": 2}, {"networks": 2, "joint": "worst"}),
    ]
    found = [identity(**other) for other in others if other != {"networks": 2}]
    assert len({identity(), *found}) == 1 + len(found)
    wanted, of = adversarial_examples.Request(networks=(Recipe(),), attack=Attack()), adversarial_examples.identity
    assert of(wanted, None) == of(wanted.model_copy(update={"batch": 3}), None)
    assert of(wanted, None) != of(wanted.model_copy(update={"seed": 1}), None)
    assert of(wanted, None) != of(wanted.model_copy(update={"split": "train"}), None)


def test_classes_that_an_attack_cannot_do_with() -> None:
    split = data.load("blobs", "test")
    check_classes(Attack(target=2, loss="ce"), split, [0, "blob 1"])
    for attack, classes, field, told in [
        (Attack(target=3), None, "target", "3 is no class; the classes are 0 to 2"),
        (Attack(target=1), None, "target", "1 is the label of examples that are measured"),
        (Attack(target=1), ["blob 1"], "target", "1 is the label"),
        (Attack(target=2, loss="dlr"), [0], "loss", "the loss dlr needs 4 classes, there are 3"),
    ]:
        with pytest.raises(UserError, match=told) as error:
            check_classes(attack, split, classes)
        assert error.value.field == field


def test_options_are_tried_before_the_work() -> None:
    Attack(options={"momentum": 0.5, "schedule": "cosine"}).try_options()
    Attack(norm="L1", options={"share": 0.1}).try_options()
    Attack(name="class_probability", options={"learning_rate": "1/10", "start": "zeros"}).try_options()
    for attack, field, told in [
        (Attack(norm="L1", options={"share": 70}), "options", "pgd cannot run with"),
        (
            Attack(name="class_probability", options={"optimiser": "addam"}),
            "options.optimiser",
            "unknown optimiser 'addam'",
        ),
    ]:
        with pytest.raises(UserError, match=told) as error:
            attack.try_options()
        assert error.value.field == field


# --- closed form


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_smallest_perturbation_of_a_linear_model(norm: str) -> None:
    found = attacked(Attack(name="fmn", norm=norm))
    assert found.success.all()
    assert (found.distance.double() >= exact(norm) * (1 - 1e-4)).all()  # never inside
    assert found.distance.double().numpy() == pytest.approx(exact(norm).numpy(), rel=2e-3)
    assert torch.equal(found.radius, found.distance)
    assert found.unseen.isnan().all()
    delta = (found.points - IMAGES).flatten(1)
    measured = {"Linf": delta.abs().amax(1), "L2": delta.norm(dim=1), "L1": delta.abs().sum(1)}[norm]
    assert measured.numpy() == pytest.approx(found.distance.numpy(), rel=1e-4)
    assert (in_batches(MODEL, found.points, 64).argmax(1) != LABELS).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_smallest_radius_of_a_ladder(norm: str) -> None:
    distance = exact(norm)
    ladder = [float(distance.median()) * factor for factor in (0.5, 0.9, 1.02, 1.2, 1.5)]
    wanted = [min((r for r in ladder if r > d), default=math.inf) for d in distance.tolist()]
    assert len(set(wanted)) > 2
    found = attacked(Attack(norm=norm, epsilon=0.1, steps=40), radii=ladder)
    assert found.radius.tolist() == pytest.approx(wanted)
    assert torch.equal(found.success, found.radius.isfinite())
    reached = found.success
    assert (found.distance.double()[reached] <= found.radius[reached] * (1 + 1e-5)).all()
    assert (found.distance.double()[reached] >= distance[reached] * (1 - 1e-4)).all()


def test_a_fixed_radius() -> None:
    radius = float(exact("L2").median()) * 1.02
    found = attacked(Attack(norm="L2", epsilon=radius, steps=40))
    assert torch.equal(found.success, exact("L2") < radius)
    assert 0 < found.success.sum() < COUNT
    assert found.radius[found.success].tolist() == pytest.approx([radius] * int(found.success.sum()))
    assert found.radius[~found.success].isinf().all()


def test_several_networks_are_fooled_where_their_half_spaces_meet() -> None:
    """Orthogonal planes at distances h1 / |w1| and h2 / |w2|.

    The nearest point beyond both is their corner, at the root of the sum of squares.
    """
    other = gaussian(2, PIXELS)
    other -= DIRECTION * (other @ DIRECTION) / (DIRECTION @ DIRECTION)
    second = plane(other, -0.7)
    first_height, second_height = heights(DIRECTION, IMAGES, OFFSET), heights(other, IMAGES, -0.7)
    same = (first_height < 0) & (second_height < 0)
    images, labels = IMAGES[same], LABELS[same]
    assert len(images) > 2
    corner = ((first_height / DIRECTION.norm()) ** 2 + (second_height / other.norm()) ** 2).sqrt()[same]
    for how, excess in (
        ("mean", 1.0),
        ("worst", 0.04),
        ("unfooled", 0.08),
    ):  # the mean goes on where one is fooled already
        attack = Attack(name="fmn", norm="L2", steps=300, joint=how)
        found = attacked(attack, [MODEL, second], images=images, labels=labels, ids=range(len(images)))
        assert found.success.all()
        assert (found.distance.double() >= corner * (1 - 1e-4)).all()
        assert (found.distance.double() <= corner * (1 + excess)).all()
        assert all((model(found.points).argmax(1) == 1).all() for model in (MODEL, second))
    for factor, fooled in ((0.97, False), (1.05, True)):
        attack = Attack(
            norm="L2", epsilon=float(corner.max() if fooled else corner.min()) * factor, joint="worst", steps=100
        )
        found = attacked(attack, [MODEL, second], images=images, labels=labels, ids=range(len(images)))
        assert found.success.tolist() == [fooled] * len(images)


def layered() -> Classifier:
    """Linear to a hidden layer of 5 numbers, linear from there."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 5), nn.Linear(5, 2)).requires_grad_(False)
    for number, parameter in enumerate(network.parameters()):
        parameter.copy_(gaussian(20 + number, *parameter.shape))
    return Classifier(network, (1, SIDE, SIDE), 2).eval()


def test_a_hidden_space_has_distances_of_its_own() -> None:
    model = layered()
    labels = model(IMAGES).argmax(1)
    stage, unit = len(model.stages) - 1, 2.5
    model.magnitudes = tuple(unit if k == stage else 1.0 for k in range(1, len(model.stages) + 1))
    logits = model(IMAGES).double()
    rows = model.network[2].weight.double()
    wanted = (logits[:, 0] - logits[:, 1]).abs() / (rows[0] - rows[1]).norm() / unit
    found = attacked(Attack(name="fmn", norm="L2", space=f"hidden:{stage}", steps=200), [model], labels=labels)
    assert found.points.shape == (COUNT, 5)
    assert found.success.all()
    assert found.distance.double().numpy() == pytest.approx(wanted.numpy(), rel=5e-3)
    assert (model.tail(found.points * unit, stage).argmax(1) != labels).all()
    begin = model.head(IMAGES, stage) / unit
    assert (found.points - begin).norm(dim=1).numpy() == pytest.approx(found.distance.numpy(), rel=1e-4)


# --- properties


@pytest.mark.parametrize("name", ["pgd", "fmn", "square"])
def test_a_misclassified_image_stays_where_it_is(name: str) -> None:
    for radii in (None, [0.05, 0.1]) if name == "pgd" else (None,):
        attack = Attack(name=name, **({"options": {"queries": 20}} if name == "square" else {}))
        found = attacked(attack, labels=1 - LABELS, radii=radii)
        assert found.success.all()
        assert torch.equal(found.points, IMAGES)
        assert not found.distance.any()
        assert not found.radius.any()


@pytest.mark.parametrize(
    "settings",
    [
        {"options": {"momentum": 0.5}, "restarts": 2},
        {"name": "fmn", "norm": "L1"},
        {"name": "square", "options": {"queries": 50}},
        {"weight_noise": {"sigma": 0.1, "draws": 2}},
    ],
    ids=["pgd", "fmn", "square", "noisy"],
)
def test_chunks_do_not_matter(settings: dict[str, Any]) -> None:
    attack = Attack(
        **{"epsilon": float(exact("Linf").median()), **settings} if settings.get("name") != "fmn" else settings
    )
    together = attacked(attack, seed=3, batch=4)
    for rows in ([4, 1], [0], [5, 3, 2]):
        part = attacked(attack, images=IMAGES[rows], labels=LABELS[rows], ids=rows, seed=3, batch=2)
        for name, value in vars(part).items():
            assert torch.allclose(value.double(), getattr(together, name)[rows].double(), atol=1e-5, equal_nan=True), (
                name
            )


def test_weight_noise_is_faced_and_scored_on_unseen_networks() -> None:
    radius = 1.5 * float(exact("L2").max())
    faint = attacked(Attack(norm="L2", epsilon=radius, stop="last", weight_noise={"sigma": 1e-6}))
    assert torch.equal(faint.unseen, faint.success.to(faint.unseen))  # noise that changes nothing
    assert faint.success.all()
    loud = attacked(Attack(norm="L2", epsilon=radius, stop="first", weight_noise={"sigma": 0.5}))
    assert ((loud.unseen >= 0) & (loud.unseen <= 1)).all()
    assert 0 < loud.unseen.mean() < 1
    assert not torch.equal(loud.points, faint.points)
    assert torch.equal(loud.success, MODEL(loud.points).argmax(1) != LABELS)  # judged by the network itself


class Bent(nn.Module):
    """The linear model with something done to its logits."""

    def __init__(self, bend: Any):
        super().__init__()
        self.model, self.bend = MODEL, bend

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(self.model(x))


BENDS = {
    "not a number": (lambda z: z * torch.nan, "not finite"),
    "probabilities": (lambda z: z.softmax(1), "the network returns probabilities"),
    "no gradient": (lambda z: z.detach(), "no gradient"),
    "steps": (lambda z: (z * 5).round(), "gradient that is zero everywhere"),
    "one number": (lambda z: z[:, 0], "must return logits"),
}


@pytest.mark.parametrize("case", BENDS)
def test_a_network_that_cannot_be_attacked(case: str) -> None:
    bend, told = BENDS[case]
    with pytest.raises(NotFinite if case == "not a number" else UserError, match=told):
        attacked(Attack(), [Bent(bend)])


@pytest.mark.parametrize("case", ["no gradient", "steps"])
def test_an_attack_without_gradients_needs_none(case: str) -> None:
    attack = Attack(name="square", epsilon=3 * float(exact("Linf").max()), options={"queries": 300})
    found = attacked(attack, [Bent(BENDS[case][0])])
    assert found.success.any()
    assert not found.backwards.any()


def test_what_the_door_refuses_reaches_the_user() -> None:
    for arguments, told in [
        ({"images": IMAGES + 0.6}, r"images must lie in \[0, 1\]"),
        ({"labels": LABELS + 5}, "label [56] is out of range"),
        ({"radii": [0.0, 0.1]}, "radii above 0"),
    ]:
        with pytest.raises(UserError, match=told):
            attacked(Attack(), **arguments)
    with pytest.raises(UserError, match="a target must differ from the label"):
        attacked(Attack(target=int(LABELS[0])))
    with pytest.raises(UserError, match="several networks share no hidden space"):
        attacked(Attack(space="hidden:1"), [MODEL, MODEL])
    with pytest.raises(UserError, match="the typical size of hidden:1 is unknown"):
        attacked(Attack(space="hidden:1"), [layered()])
    with pytest.raises(UserError, match="no stage '9'"):
        attacked(Attack(space="hidden:9"), [layered()])
