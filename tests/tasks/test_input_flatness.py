"""The task as a whole: a slow twin in float64, and closed forms.

Rows do not depend on the chunks, and adaptive sampling saves samples.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm as gauss
from torch import Tensor, nn

from tasks import input_flatness
from tasks.input_flatness import COLUMNS, Config, checks, measure, needs, summarise
from tasks.parts.attacks.pgd import pgd
from tasks.parts.contract import Batch, prepared
from tasks.parts.data import load as data
from tasks.parts.measures.flatness import ROUND
from tasks.parts.models.build import Classifier
from tasks.parts.randomness import BLOCK, normal
from tasks.parts.settings import UserError


@pytest.fixture(scope="module")
def digits() -> data.Split:
    return data.load("digits", "test")


class Recorder(nn.Module):
    """A model that keeps every distinct image that it is asked, and counts the rows."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.asked, self.rows = model, set[bytes](), 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked |= {row.numpy().tobytes() for row in x.detach()}
        self.rows += len(x)
        return self.model(x)


def measured(config: Config, model: Any, batch: Batch) -> dict[str, Any]:
    return measure(config, prepared(needs(config), model, batch), batch)


def rows_of(config: Config, model: Callable[[Tensor], Tensor], split: data.Split, ids: Sequence[int]) -> pd.DataFrame:
    images, labels = data.take(split, ids)
    return pd.DataFrame(measured(config, model, Batch(tuple(ids), images, labels)))


def assert_same_rows(rows: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """The same up to the order of the examples; float reductions to 1e-5, all else exactly."""
    keys = ["id", "kind", "condition", "radius"]
    pd.testing.assert_frame_equal(
        rows.sort_values(keys, ignore_index=True), wanted.sort_values(keys, ignore_index=True), rtol=1e-5, atol=1e-5
    )
    exact = [name for name in COLUMNS if rows[name].dtype != np.float64] + ["radius", "accuracy", "persistence"]
    pd.testing.assert_frame_equal(
        rows.sort_values(keys, ignore_index=True)[exact],
        wanted.sort_values(keys, ignore_index=True)[exact],
        check_exact=True,
    )


# -------------------------------------------------------------------------------------- closed form


def linear(shift: float) -> nn.Module:
    """Two classes that differ by the mean of 64 pixels; the boundary is at 1/2 + shift."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    model[1].weight.copy_(torch.randn((2, 64), generator=generator))
    model[1].bias.copy_(-model[1].weight.sum(1) * 0.5)
    model[1].bias[0] += shift
    return model


def test_linear_model_around_genuine_adversarial_and_random_centres() -> None:
    """Phi(m / (s |d|)) at each centre, where m is the margin there.

    It is that of the genuine image less what the attack took from it. Noise, attack and control
    must agree on what a margin is. 40 examples at one image see independent noise.
    """
    model, image, n, count = linear(2.0), torch.full((1, 8, 8), 0.5), 128, 40
    difference = (model[1].weight[0] - model[1].weight[1]).double()
    config = Config(radii=[0.1, 0.3], samples=n, clip=False, attack={"norm": "L2", "epsilon": 0.1, "steps": 5})
    batch = Batch(range(count), image.expand(count, 1, 8, 8), torch.zeros(count, dtype=torch.long))
    rows = pd.DataFrame(measured(config, model, batch))
    m = 2.0
    assert 0.1 < m / float(difference.norm()) < 0.3  # the attack fails, and ends on the sphere of 0.1
    assert not rows["found"][rows["condition"] != "genuine"].any()
    assert rows["distance"][rows["condition"] != "genuine"].to_numpy() == pytest.approx(0.1, abs=1e-6)
    for (condition, radius), group in rows[rows["radius"] > 0].groupby(["condition", "radius"]):
        if condition == "random":
            straight = normal(0, "random control", range(count), (1, 8, 8)).double().flatten(1)
            margin = m + 0.1 * (straight / straight.norm(dim=1, keepdim=True)) @ difference
        else:
            margin = torch.full((count,), m - (0.1 * float(difference.norm()) if condition == "adversarial" else 0))
        keeps = gauss.cdf(margin.numpy() / (radius * float(difference.norm())))
        error = math.sqrt((keeps * (1 - keeps) / n).sum()) / count
        assert group["persistence"].mean() == pytest.approx(keeps.mean(), abs=4.5 * error)
        assert (group["accuracy"] == group["persistence"]).all()


def test_the_attack_succeeds_just_above_the_distance_to_the_boundary() -> None:
    model, image = linear(2.0), torch.full((1, 1, 8, 8), 0.5)
    difference = model[1].weight[0] - model[1].weight[1]
    for norm, size in (("L2", difference.norm()), ("Linf", difference.abs().sum())):
        for factor in (1.003, 0.997):
            attack = {"norm": norm, "epsilon": 2.0 / float(size) * factor, "steps": 8, "restarts": 2}
            config = Config(attack=attack, radii=[0.1])
            rows = measured(config, model, Batch([0], image, torch.tensor([0])))
            adversarial = rows["condition"] == "adversarial"
            assert (rows["found"][adversarial] == (factor > 1)).all()
            assert (rows["centre"][adversarial] == int(factor > 1)).all()


# ---------------------------------------------------------------------------------------- slow twin


def twin(config: Config, model: Classifier, split: data.Split, ids: Sequence[int]) -> pd.DataFrame:
    """One loop in float64 with the same keyed directions; only the attack is not done once more."""
    exact = copy.deepcopy(model).double()
    table = []
    for example in ids:
        image, label = (t[0] for t in data.take(split, [example]))
        genuine = int(exact(image[None].double()).argmax())
        if config.only_correct and genuine != int(label):
            continue
        how = config.attack.resolve().arguments
        found = pgd(model, image[None], label[None], ids=[example], seed=config.seed, **how)
        step = normal(config.seed, "random control", [example], image.shape)[0].double()
        step = step.sign() if config.attack.norm == "Linf" else step / step.norm()
        step = step * float(found.distance)
        step = torch.where((image + step < 0) | (image + step > 1), -step, step)  # turned inwards
        if config.attack.norm == "L2":
            assert ((image + step >= 0) & (image + step <= 1)).all()
        centres = {
            "genuine": (image.double(), True),
            "adversarial": ((image + found.perturbation[0]).double(), bool(found.success)),
            "random": (image.double() + step, bool(found.success)),
        }
        for kind in config.kinds:
            for condition in config.conditions:
                centre, success = centres[condition]
                at_centre = int(exact(centre[None]).argmax())
                for radius in [0.0, *sorted(set(config.radii) - {0.0})]:
                    p, predicted, loss = [], [], []
                    for replicate in range(config.samples if radius else 1):
                        block, place = divmod(replicate, BLOCK)
                        n = normal(config.seed, "flatness", [example], (BLOCK, *image.shape), block)[0, place].double()
                        moved = {
                            "additive": centre + radius * n,
                            "multiplicative": centre * (1 + radius * n),
                            "sphere": centre + radius * n / n.norm(),
                        }[kind]
                        logits = exact((moved.clamp(0, 1) if config.clip else moved)[None])[0]
                        share = logits.softmax(0)
                        p.append(share[[int(label), at_centre, config.target or 0]].numpy())
                        predicted.append(int(logits.argmax()))
                        loss.append(-float(logits.log_softmax(0)[label]))
                    p = np.array(p)
                    error = p.std(0, ddof=1) / math.sqrt(len(p)) if radius else np.zeros(3)
                    nowhere = config.target is None
                    distance = (centre - image).flatten()
                    table.append(
                        {
                            "id": example,
                            "label": int(label),
                            "predicted": genuine,
                            "correct": genuine == int(label),
                            "condition": condition,
                            "found": success,
                            "start_correct": np.nan,
                            "distance": float(
                                distance.abs().max() if config.attack.norm == "Linf" else distance.norm()
                            ),
                            "centre": at_centre,
                            "kind": kind,
                            "radius": radius,
                            "samples": len(p),
                            "p_true": p[:, 0].mean(),
                            "p_true_se": error[0],
                            "p_centre": p[:, 1].mean(),
                            "p_centre_se": error[1],
                            "p_target": np.nan if nowhere else p[:, 2].mean(),
                            "p_target_se": np.nan if nowhere else error[2],
                            "accuracy": np.mean([one == int(label) for one in predicted]),
                            "persistence": np.mean([one == at_centre for one in predicted]),
                            "loss_mean": np.mean(loss),
                            "loss_max": max(loss),
                            "p_true_low": bounds(p[:, 0])[0] if radius else p[0, 0],
                            "p_true_high": bounds(p[:, 0])[1] if radius else p[0, 0],
                        }
                    )
    model.float()
    return pd.DataFrame(table)


def bounds(p: np.ndarray) -> tuple[float, float]:
    """Wilson's interval with the numbers' own variance."""
    z, n = gauss.ppf(0.975), len(p)
    centre = (p.mean() + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p.var() / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def width(rows: Any) -> Any:
    return rows["p_true_high"] - rows["p_true_low"]


@pytest.mark.parametrize(
    "settings",
    [
        {"kinds": ["additive", "multiplicative", "sphere"], "radii": [0.3, 0.1, 0], "samples": 35},
        {
            "conditions": ["random", "genuine", "adversarial"],
            "kinds": ["sphere", "additive"],
            "radii": [0.2, 2],
            "samples": 5,
            "clip": False,
            "target": 3,
            "seed": 7,
            "attack": {"epsilon": 0.06, "steps": 1, "step_size": 0.01, "restarts": 3, "loss": "margin"},
        },
        {"conditions": ["adversarial"], "radii": [0.2], "samples": 4, "only_correct": True},
        {"conditions": ["genuine"], "radii": [0], "samples": 4},
    ],
)
def test_slow_twin(settings: dict[str, Any], convnet: Classifier, digits: data.Split) -> None:
    config, ids = Config(**settings), [5, 0, 21, 10]
    wanted = twin(config, convnet, digits, ids)
    rows = rows_of(config, convnet, digits, ids)
    assert list(rows) == list(COLUMNS)
    for name in COLUMNS:
        if rows[name].dtype.kind == "f":
            assert rows[name].to_numpy() == pytest.approx(wanted[name].to_numpy(), abs=1e-5, rel=1e-5, nan_ok=True), (
                name
            )
        else:
            assert rows[name].tolist() == wanted[name].tolist(), name


# ----------------------------------------------------------------------------------- in any company


@pytest.mark.parametrize(
    "settings",
    [
        {"attack": {"epsilon": 0.12, "restarts": 2, "steps": 6}},
        {"attack": {"norm": "L2", "epsilon": 0.8, "steps": 6}, "kinds": ["sphere", "multiplicative"]},
        {"tolerance": 0.2, "only_correct": True, "attack": {"steps": 3}},
    ],
)
def test_rows_do_not_depend_on_chunks_or_order(
    settings: dict[str, Any], convnet: Classifier, digits: data.Split
) -> None:
    """All images that the network is asked, attacked and noisy, are the same, bit for bit."""
    config, ids = Config(radii=[0.1, 0.3], samples=40, **settings), list(range(100, 115))

    def measured(pieces: Sequence[Sequence[int]], **other: Any) -> tuple[pd.DataFrame, set[bytes]]:
        model = Recorder(convnet)
        chunks = [rows_of(config.model_copy(update=other), model, digits, piece) for piece in pieces]
        return pd.concat([chunk for chunk in chunks if len(chunk)]), model.asked

    together, asked = measured([ids])
    assert not together["found"].all()
    assert together["found"].any()
    mixed = [ids[i] for i in np.random.default_rng(0).permutation(len(ids))]
    for pieces in ([[i] for i in ids], [ids[:7], ids[7:14], ids[14:]], [mixed], [mixed[:4], mixed[4:]]):
        rows, others = measured(pieces)
        assert_same_rows(rows, together)
        assert others == asked
    for batch in (1, 20, 4096):
        rows, others = measured([ids], batch=batch)
        assert_same_rows(rows, together)
        assert others == asked


def test_a_chunk_without_rows_joins_the_others(convnet: Classifier, digits: data.Split) -> None:
    images, labels = data.take(digits, range(6))
    labels = (convnet(images).argmax(1) + 1) % 10  # all are misclassified
    config = Config(only_correct=True, radii=[0.1], samples=2)
    nothing = pd.DataFrame(measured(config, convnet, Batch(range(6), images, labels)))
    something = rows_of(config, convnet, digits, range(6))
    assert list(nothing) == list(COLUMNS)
    assert len(nothing) == 0
    assert nothing.dtypes.to_dict() == something.dtypes.to_dict()


# --------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.15), ("L2", 0.8)])
def test_the_control_is_as_far_as_the_adversarial_image(
    norm: str, epsilon: float, convnet: Classifier, digits: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from what the noise is put around: the centres (B * conditions, C, H, W)."""
    seen = {}

    def statistics(model: Any, cells: Any, centres: Tensor, *rest: Any, **options: Any) -> Any:
        seen["centres"] = centres
        return original(model, cells, centres, *rest, **options)

    original = input_flatness.statistics
    monkeypatch.setattr(input_flatness, "statistics", statistics)
    config = Config(attack={"norm": norm, "epsilon": epsilon}, samples=2, radii=[0.1])
    rows = rows_of(config, convnet, digits, range(40))
    images, labels = data.take(digits, range(40))
    genuine, adversarial, control = seen["centres"].unflatten(0, (40, 3)).unbind(1)
    assert torch.equal(genuine, images)
    order = math.inf if norm == "Linf" else 2
    far = (adversarial - images).double().flatten(1).norm(order, dim=1)
    assert far.max() <= epsilon + 1e-6
    assert (control - images).double().flatten(1).norm(order, dim=1).numpy() == pytest.approx(far.numpy(), abs=2e-6)
    assert control.min() >= 0
    assert control.max() <= 1
    per = rows[rows["radius"] == 0].set_index(["id", "condition"])
    for name, distance in (("genuine", torch.zeros(40)), ("adversarial", far), ("random", far)):
        assert per["distance"].xs(name, level=1).to_numpy() == pytest.approx(distance.numpy(), abs=2e-6)
    fooled = (convnet(adversarial).argmax(1) != labels).tolist()
    assert per["found"].xs("adversarial", level=1).tolist() == fooled
    assert per["found"].xs("random", level=1).tolist() == fooled
    wrong = per["predicted"].xs("genuine", level=1) != per["label"].xs("genuine", level=1)
    assert wrong.any()
    assert (far.numpy()[wrong] == 0).all()  # a misclassified image is its own adversarial image
    assert not torch.equal(control[~torch.tensor(wrong.to_numpy())], adversarial[~torch.tensor(wrong.to_numpy())])


def test_conditions_are_measured_with_the_same_noise(convnet: Classifier, digits: data.Split) -> None:
    """The rows around the genuine image are the same with and without the other conditions.

    Those around a misclassified image are all alike.
    """
    config = Config(samples=8, radii=[0.1, 0.2])
    rows = rows_of(config, convnet, digits, range(40))
    alone = rows_of(config.model_copy(update={"conditions": ["genuine"]}), convnet, digits, range(40))
    assert_same_rows(rows[rows["condition"] == "genuine"], alone)
    wrong = rows[~rows["correct"]]
    assert len(wrong)
    for _, group in wrong.groupby(["id", "radius"]):
        assert group["p_true"].nunique() == 1


def test_only_correct_leaves_the_other_rows_as_they_are(convnet: Classifier, digits: data.Split) -> None:
    config = Config(samples=8, radii=[0.1], conditions=["genuine"])
    rows = rows_of(config, convnet, digits, range(60))
    kept = rows_of(config.model_copy(update={"only_correct": True}), convnet, digits, range(60))
    assert 0 < len(kept) < len(rows)
    assert_same_rows(kept, rows[rows["correct"]])


def test_a_target_that_the_classifier_does_not_have(convnet: Classifier, digits: data.Split) -> None:
    assert set(rows_of(Config(target=9, samples=2), convnet, digits, [0])["p_target"].isna()) == {False}
    with pytest.raises(UserError, match=r"no class 10; the classifier has the classes 0\.\.9") as error:
        rows_of(Config(target=10), convnet, digits, [0])
    assert error.value.field == "target"


# -------------------------------------------------------------------------------- adaptive sampling


def test_adaptive_sampling_takes_a_third_of_the_passes_or_fewer(convnet: Classifier, digits: data.Split) -> None:
    """Compared with giving every cell what the neediest took, for the same largest interval."""
    ids, tolerance = range(30), 0.05
    model = Recorder(convnet)
    rows = rows_of(Config(conditions=["genuine"], tolerance=tolerance), model, digits, ids)
    noisy = rows[rows["radius"] > 0]
    neediest = noisy.loc[noisy["samples"].idxmax()]
    assert width(noisy).max() <= tolerance

    counted = Recorder(convnet)
    fixed = Config(conditions=["genuine"], samples=int(neediest["samples"]))
    alike = rows_of(fixed, counted, digits, [int(neediest["id"])])
    there = alike["radius"] == neediest["radius"]
    assert width(alike[there]).item() == pytest.approx(width(neediest), rel=1e-5)
    shorter = fixed.model_copy(update={"samples": fixed.samples - ROUND})
    assert width(rows_of(shorter, convnet, digits, [int(neediest["id"])])).max() > tolerance
    assert 3 * model.rows <= counted.rows * len(ids)


def test_max_samples_ends_what_a_tolerance_does_not(convnet: Classifier, digits: data.Split) -> None:
    config = Config(conditions=["genuine"], tolerance=1e-3, max_samples=70, samples=3, radii=[0.4])
    rows = rows_of(config, convnet, digits, range(5))
    assert set(rows["samples"][rows["radius"] > 0]) == {70}
    fixed = rows_of(Config(conditions=["genuine"], samples=70, radii=[0.4]), convnet, digits, range(5))
    assert_same_rows(rows, fixed)


# ------------------------------------------------------------------------------------------ summary


def test_summary() -> None:
    """By hand: of four examples one is misclassified, and of the others two are fooled.

    There is one radius besides the centre.
    """
    rows = pd.DataFrame(
        [
            (example, correct, condition, condition == "genuine" or fooled, "additive", radius, value)
            for example, correct, fooled, genuine, adversarial in [
                (0, True, True, 0.9, 0.2),
                (1, True, True, 0.8, 0.4),
                (2, True, False, 0.7, 0.05),
                (3, False, True, 0.4, 0.06),
            ]
            for condition, p in (("genuine", genuine), ("adversarial", adversarial))
            for radius, value in ((0.0, 1.0), (0.1, p))
        ],
        columns=["id", "correct", "condition", "found", "kind", "radius", "persistence"],
    )
    scalars = summarise(Config(conditions=["genuine", "adversarial"]), rows)
    wanted = {"accuracy": 3 / 4, "attack_success": 2 / 3, "flatness_genuine": 0.85, "flatness_adversarial": 0.65}
    assert scalars == pytest.approx(wanted)
    assert all(type(value) is float for value in scalars.values())
    assert set(summarise(Config(conditions=["genuine"]), rows[rows["condition"] == "genuine"])) == {
        "accuracy",
        "flatness_genuine",
    }


def test_self_checks_hold_and_fail(convnet: Classifier, digits: data.Split) -> None:
    config = Config(radii=[0.1], samples=4)
    rows = rows_of(config, convnet, digits, range(12))
    held = checks(config, rows)
    assert len(held) == 2
    assert set(held.values()) == {None}
    found = rows["condition"].eq("adversarial") & rows["found"]
    again, chance = list(held)
    assert found.any()
    assert "not so for" in str(checks(config, rows.assign(centre=rows["centre"].mask(found, rows["label"])))[again])
    lucky = rows.assign(centre=rows["centre"].mask(rows["condition"] == "random", rows["label"] + 1), found=False)
    assert "it fools" in str(checks(config, lucky)[chance])
    assert checks(config, rows[rows["condition"] == "genuine"]) == {}
