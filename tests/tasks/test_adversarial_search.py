"""The task as a whole: which examples an attack fools at which radius, in closed form.

And its checks, which fail when they should.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tasks.adversarial_search import LADDERS, Config, checks, measure, needs, summarise
from tasks.parts.contract import Batch, prepared
from tasks.parts.models.build import Classifier
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.settings import UserError

PIXELS, COUNT = 16, 8


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear() -> tuple[nn.Module, Batch, Tensor, Tensor]:
    """Two classes, images amid the box, their signed heights above the boundary, and the normal.

    The last image is misclassified.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 2)).requires_grad_(False)
    model[1].weight.copy_(gaussian(1, 2, PIXELS))
    model[1].bias.copy_(-model[1].weight.sum(1) / 2 + torch.tensor([0.4, 0.0]))
    images = 0.5 + 0.05 * gaussian(2, COUNT, 1, 4, 4)
    logits = model(images)
    labels = logits.argmax(1)
    labels[-1] = 1 - labels[-1]
    height = (logits[:, 0] - logits[:, 1]).double() * (1 - 2 * labels)
    assert (height > 0).tolist() == [True] * (COUNT - 1) + [False]
    return model.eval(), Batch(tuple(range(COUNT)), images, labels), height, model[1].weight[0] - model[1].weight[1]


MODEL, BATCH, HEIGHT, NORMAL = linear()
DUAL = {"Linf": float(NORMAL.abs().sum()), "L2": float(NORMAL.norm()), "L1": float(NORMAL.abs().max())}


def distances(norm: str) -> np.ndarray:
    """From each image to the boundary; 0 beyond it."""
    return (HEIGHT / DUAL[norm]).clamp_min(0).numpy()


def rows_of(config: Config, model: Any = MODEL, batch: Batch = BATCH) -> pd.DataFrame:
    return pd.DataFrame(measure(config, prepared(needs(config), model, batch), batch))


def ladder(norm: str) -> list[float]:
    return [round(float(np.median(distances(norm))) * factor, 5) for factor in (0.4, 0.8, 1.03, 1.3, 2.5)]


def held(config: Config, rows: pd.DataFrame) -> dict[str, str]:
    """The checks that did not hold."""
    return {what: told for what, told in checks(config, rows).items() if told is not None}


# -------------------------------------------------------------------------------------- closed form


@pytest.mark.parametrize(
    ("name", "norm"), [("pgd", "Linf"), ("pgd", "L2"), ("apgd", "L2"), ("fmn", "Linf"), ("fmn", "L1"), ("ddn", "L2")]
)
def test_found_where_the_radius_reaches_the_boundary(name: str, norm: str) -> None:
    config = Config(attack={"name": name, "norm": norm, "steps": 60}, radii=ladder(norm))
    rows = rows_of(config)
    assert len(rows) == COUNT * 5
    wanted = distances(norm)[rows["id"]] <= rows["radius"]
    assert 2 < wanted.sum() < len(rows) - 2
    assert (rows["found"] == wanted).all()
    assert rows["verified"].all()
    assert held(config, rows) == {}
    each = rows.drop_duplicates("id").set_index("id")
    assert each["correct"].tolist() == [True] * (COUNT - 1) + [False]
    assert each["distance"].iloc[-1] == 0
    reached = rows[rows["found"]].drop_duplicates("id")
    assert (reached["distance"] >= distances(norm)[reached["id"]] * (1 - 1e-4)).all()
    if name in ("fmn", "ddn"):
        assert reached["distance"].to_numpy() == pytest.approx(distances(norm)[reached["id"]], rel=5e-3)
    start = torch.nn.functional.softplus(-HEIGHT).numpy()  # the cross-entropy of two classes
    assert each["loss_start"].to_numpy() == pytest.approx(start, rel=1e-4)
    assert (each["loss_end"][:-1] > each["loss_start"][:-1]).all()


@pytest.mark.parametrize(
    ("name", "norm"), [("pgd", "Linf"), ("apgd", "L2"), ("pgd", "L1"), ("square", "Linf"), ("auto", "L2")]
)
def test_an_attack_within_a_radius_knows_brackets(name: str, norm: str) -> None:
    """The distance to the boundary lies between the last failure and the first success."""
    effort = {"square": {"options": {"queries": 300}}, "auto": {}}.get(name, {"steps": 60})
    config = Config(attack={"name": name, "norm": norm, **effort}, radii=ladder(norm), black_box=0)
    rows = rows_of(config)
    radii, known = np.array([0.0, *ladder(norm), np.inf]), 0
    for example, group in rows.groupby("id"):
        low, high = group["distance_low"].iloc[0], group["distance_high"].iloc[0]
        assert group["distance_low"].nunique() == 1
        if example == COUNT - 1:  # misclassified to begin with
            assert (low, high) == (0, 0)
            continue
        failed = int((~group["found"]).sum())
        assert low == radii[failed]
        assert low < distances(norm)[example] or name == "square"  # which finds less than there is
        if math.isinf(radii[failed + 1]):
            assert math.isnan(high)
            continue
        known += 1
        assert distances(norm)[example] * (1 - 1e-5) <= high <= radii[failed + 1]
        assert high == pytest.approx(min(group["distance"].iloc[0], radii[failed + 1]), rel=1e-6)
    assert known > 2


@pytest.mark.parametrize(("name", "norm"), [("fmn", "Linf"), ("ddn", "L2"), ("alma", "L2")])
def test_an_attack_that_minimises_knows_its_length(name: str, norm: str) -> None:
    """Also beyond the largest radius; nothing where it found nothing."""
    radii = ladder(norm)[:3]
    rows = rows_of(Config(attack={"name": name, "norm": norm, "steps": 200}, radii=radii, black_box=0))
    each = rows.drop_duplicates("id")
    assert (each["distance_low"] == each["distance_high"]).all()
    assert (each["distance_high"] > radii[-1]).any()
    assert each["distance_high"].to_numpy() == pytest.approx(distances(norm)[each["id"]], rel=1e-2)

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1e-3 * MODEL(x) + torch.tensor([2.0, 0.0])

    rows = rows_of(Config(attack={"name": name, "norm": norm}, radii=radii, black_box=0), Sure())
    right = rows["correct"]
    assert 0 < right.sum() == (~rows["found"]).sum()
    assert rows.loc[right, ["distance_low", "distance_high"]].isna().all(axis=None)
    assert (rows.loc[~right, ["distance_low", "distance_high"]] == 0).all(axis=None)


def test_one_radius_is_the_attacks_own() -> None:
    radius = ladder("L2")[2]
    for config in (
        Config(attack={"norm": "L2", "epsilon": radius}),
        Config(attack={"norm": "L2"}, radii=[radius]),
        Config(attack={"norm": "L2", "stop": "last"}, radii=[radius]),
    ):
        assert config.ladder == [radius]
        wanted = needs(config)["adversarial"]
        assert wanted.radii is None
        assert wanted.attack.resolve().radius == radius
        rows = rows_of(config)
        assert rows["found"].tolist() == (distances("L2") <= radius).tolist()
    assert needs(Config(attack={"norm": "L2", "epsilon": radius})) == needs(
        Config(attack={"norm": "L2"}, radii=[radius])
    )


def test_the_control_crosses_where_its_direction_does() -> None:
    """A random direction crosses at the distance over the cosine of its angle to the normal."""
    config = Config(attack={"norm": "L2", "steps": 5}, radii=[0.2, 0.4], black_box=0)
    rows = rows_of(config)
    for radius, group in rows.groupby("radius"):
        moved = randomly_moved(BATCH.images, torch.full((COUNT,), radius), "L2", ids=BATCH.ids, seed=0)
        height = HEIGHT + (moved.flatten(1).double() @ NORMAL.double()) * (1 - 2 * BATCH.labels)
        assert group["fooled_random"].tolist() == (height < 0).tolist()


def test_the_black_box_is_asked_where_the_attack_failed() -> None:
    config = Config(attack={"norm": "Linf", "steps": 60}, radii=ladder("Linf"), black_box=30)
    rows = rows_of(config)
    asked = rows[rows["fooled_black_box"].notna()]
    assert not asked["fooled_black_box"].any()  # no point of these balls is beyond the boundary
    failed = rows[~rows["found"]]
    assert asked["id"].tolist() == sorted(failed["id"].unique())
    assert asked["radius"].tolist() == failed.groupby("id")["radius"].max().tolist()
    for config in (
        Config(attack={"norm": "Linf"}, radii=[0.01], black_box=0),
        Config(attack={"norm": "L1"}, radii=[0.01]),
        Config(attack={"norm": "Linf", "target": 1}, radii=[0.01]),
    ):
        some = Batch(BATCH.ids[:1], BATCH.images[:1], torch.zeros(1, dtype=torch.long))
        assert rows_of(config, batch=some)["fooled_black_box"].isna().all()


def test_the_black_box_finds_out_masked_gradients() -> None:
    """Logits in steps with a slope that leads the wrong way: the attack fails, a check says so."""

    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = MODEL(x)
            return (20 * logits).round() - 0.01 * (logits - logits.detach())

    config = Config(attack={"norm": "Linf", "steps": 10}, radii=[3 * float(distances("Linf").max())], black_box=400)
    rows = rows_of(config, Masked())
    assert rows["fooled_black_box"].sum() > 3
    assert "gradients may be masked" in held(config, rows)["the black box is not stronger"]


def test_a_hidden_space() -> None:
    """From the last hidden layer on, the network is linear.

    The distance there is the margin over the norm of the difference of the rows.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 6), nn.Tanh(), nn.Linear(6, 2)).requires_grad_(False)
    for number, parameter in enumerate(network.parameters()):
        parameter.copy_(gaussian(10 + number, *parameter.shape) * 0.5)
    model = Classifier(network, (1, 4, 4), 2).eval()
    stage, unit = len(model.stages) - 1, 0.7
    model.magnitudes = (unit,) * len(model.stages)
    logits = model(BATCH.images).double()
    batch = Batch(BATCH.ids, BATCH.images, logits.argmax(1))
    wanted = (logits[:, 0] - logits[:, 1]).abs() / (network[3].weight[0] - network[3].weight[1]).norm() / unit
    radii = [float(wanted.median()) * factor for factor in (0.5, 1.05, 3)]
    for name in ("fmn", "pgd"):
        config = Config(attack={"name": name, "norm": "L2", "space": f"hidden:{stage}", "steps": 100}, radii=radii)
        rows = rows_of(config, model, batch)
        assert (rows["found"] == (wanted.numpy()[rows["id"]] <= rows["radius"])).all()
        assert rows["fooled_black_box"].isna().all()
        assert held(config, rows) == {}


# ----------------------------------------------------------------------------------------- settings


def test_the_ladder_is_that_of_the_norm_unless_told() -> None:
    assert Config().ladder == LADDERS["Linf"]
    assert Config(attack={"name": "ddn"}).ladder == LADDERS["L2"]
    assert Config(radii=[0.3, "1/10"]).ladder == [0.1, 0.3]
    assert Config(attack={"epsilon": 0.2}, radii=[0.2]).ladder == [0.2]
    config = Config(attack={"norm": "L2"})
    assert Config.model_validate_json(config.model_dump_json()) == config
    for settings, told in [
        ({"attack": {"epsilon": 0.1}, "radii": [0.1, 0.2]}, "attack.epsilon: radii are given"),
        ({"attack": {"epsilon": 0.1}, "radii": [0.2]}, "attack.epsilon: radii are given"),
        ({"attack": {"stop": "last"}}, "attack.stop: along a ladder"),
        ({"radii": [0]}, "greater than 0"),
        ({"radii": []}, "at least 1 item"),
        ({"radii": [0.1, 0.1]}, "given twice"),
        ({"black_box": -1}, "greater than or equal to 0"),
    ]:
        with pytest.raises(ValidationError, match=told):
            Config(**settings)


def test_a_network_that_cannot_be_attacked_is_told() -> None:
    class Soft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return MODEL(x).softmax(1)

    with pytest.raises(UserError, match="returns probabilities"):
        rows_of(Config(), Soft())


# -------------------------------------------------------------------------- summary and self-checks


def planted() -> pd.DataFrame:
    """Four examples at radii 0.1 and 0.2: found from 0.1, from 0.2, never; one misclassified."""
    lines = []
    for example, (first, distance) in enumerate([(0.1, 0.08), (0.2, 0.15), (math.inf, 0.2), (0.0, 0.0)]):
        for radius in (0.1, 0.2):
            lines.append(
                {
                    **{"id": example, "label": 0, "predicted": int(example == 3), "correct": example < 3},
                    **{"radius": radius, "found": first <= radius, "distance": distance},
                    **{"forwards": 10 * (example + 1), "backwards": 5, "loss_start": 0.1, "loss_end": 0.9},
                    **{"verified": True, "fooled_random": example == 3, "unseen": math.nan},
                    "fooled_black_box": 0.0 if example == 2 and radius == 0.2 else math.nan,
                }
            )
    return pd.DataFrame(lines)


def test_summary() -> None:
    rows = planted()
    wanted = {
        "accuracy": 3 / 4,
        "robust_accuracy": (2 / 4 + 1 / 4) / 2,
        "robust_accuracy_0.1": 2 / 4,
        "robust_accuracy_0.2": 1 / 4,
        "attack_success": 2 / 3,
        "median_distance_low": 0.1,  # of 0, 0.1 and 0.2
        "median_distance_high": 0.2,  # of 0.1, 0.2 and infinity, wherever the points lie that were found
        "passes": (15 + 25 + 35) / 3,
    }
    scalars = summarise(Config(radii=[0.1, 0.2]), rows)
    assert scalars == pytest.approx(wanted)
    assert all(type(value) is float for value in scalars.values())
    noisy = rows.assign(unseen=[0.5, 0.5, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    assert summarise(Config(radii=[0.1, 0.2]), noisy)["unseen"] == pytest.approx(0.5)
    one = rows[rows["radius"] == 0.2]
    assert set(summarise(Config(radii=[0.2]), one)) == set(wanted) - {"robust_accuracy_0.1", "robust_accuracy_0.2"}
    assert summarise(Config(radii=[0.2]), one)["median_distance_low"] == 0
    few = rows[rows["id"] != 0]
    assert summarise(Config(radii=[0.1, 0.2]), few)["median_distance_high"] == math.inf
    for radii in ([0.1, 0.2], [0.2]):
        exact = summarise(Config(attack={"name": "fmn"}, radii=radii), rows[rows["radius"].isin(radii)])
        assert exact["median_distance"] == 0.15
        assert not {"median_distance_low", "median_distance_high"} & set(exact)
    shuffled = summarise(Config(radii=[0.1, 0.2]), rows.sample(frac=1, random_state=0))
    assert shuffled == pytest.approx(wanted)
    hopeless = rows[rows["id"] == 3]
    assert summarise(Config(radii=[0.1, 0.2]), hopeless)["robust_accuracy"] == 0


def test_the_stronger_attack_is_never_said_to_find_them_farther_away() -> None:
    """It fools all that the other does and more, but from the end of each radius: farther away."""
    ids = np.arange(40)
    scalars = []
    for reach, length in (
        (1.3, 0.7),
        (1.0, 1.0),
    ):  # how far it finds the nearest, as a part of the radius where its points lie
        first = np.array([0.1, 0.2, 0.3, np.inf])[np.searchsorted([0.1, 0.2, 0.3], reach * (0.02 + 0.006 * ids))]
        parts = [
            planted()[:1]
            .loc[[0] * 40]
            .assign(id=ids, radius=r, found=first <= r, distance=length * first.clip(max=0.3))
            for r in (0.1, 0.2, 0.3)
        ]
        scalars.append(summarise(Config(radii=[0.1, 0.2, 0.3]), pd.concat(parts, ignore_index=True)))
    weak, strong = scalars
    assert strong["robust_accuracy"] < weak["robust_accuracy"]
    assert strong["median_distance_low"] <= weak["median_distance_low"]
    assert strong["median_distance_high"] <= weak["median_distance_high"]


def at(rows: pd.DataFrame, example: int, radius: float | None = None) -> pd.Series:
    there = rows["id"] == example
    return there if radius is None else there & (rows["radius"] == radius)


def spoilt(where: Callable[[pd.DataFrame], Any], column: str, value: Any) -> pd.DataFrame:
    rows = planted()
    rows.loc[where(rows), column] = value
    return rows


SPOILT: dict[str, tuple[pd.DataFrame, str, str]] = {
    "falls": (
        spoilt(lambda r: at(r, 0, 0.2), "found", False),
        "success never falls with the radius",
        "it falls 1 times",
    ),
    "not verified": (
        spoilt(lambda r: at(r, 1), "verified", False),
        "what was found is found again from its stored form",
        "not so for 1 of 4",
    ),
    "too long": (
        spoilt(lambda r: at(r, 1), "distance", 0.21),
        "no perturbation is longer than the radius at which it succeeds",
        "1 are",
    ),
    "longer than its own radius": (
        spoilt(lambda r: at(r, 0), "distance", 0.15),
        "no perturbation is longer than the radius at which it succeeds",
        "1 are",
    ),
    "random": (
        spoilt(lambda r: r["correct"], "fooled_random", True),
        "moving at random fools less often than the attack",
        "it fools 100.0%, the attack 50.0%",
    ),
    "loss": (
        spoilt(lambda r: at(r, 2), "loss_end", 0.1),
        "the loss rises along the attack",
        "it does not for 1 of 3 examples",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_check_fails_alone(case: str) -> None:
    rows, what, told = SPOILT[case]
    config = Config(radii=[0.1, 0.2])
    assert held(config, planted()) == {}
    assert held(config, rows) == {what: told}
    shuffled = rows.sample(frac=1, random_state=0)
    assert held(config, shuffled) == {what: told}


def test_the_black_box_may_be_lucky_once_but_not_more() -> None:
    def with_fooled(fooled: Sequence[float]) -> pd.DataFrame:
        plain = planted()[lambda r: r["id"] == 2]
        copies = [plain.assign(id=10 + number) for number in range(len(fooled))]
        for copy, value in zip(copies, fooled, strict=True):
            copy.loc[copy["radius"] == 0.2, "fooled_black_box"] = value
        return pd.concat([planted(), *copies], ignore_index=True)

    config = Config(radii=[0.1, 0.2])
    what = "the black box is not stronger"
    assert checks(config, with_fooled([1]))[what] is None
    assert "2 of 4 images that withstood" in str(checks(config, with_fooled([1, 1, 0]))[what])
    assert checks(config, with_fooled([1, 1] + [0] * 40))[what] is None
    assert what not in checks(config, planted().assign(fooled_black_box=math.nan))
