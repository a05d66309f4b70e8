"""The task as a whole: closed forms for every condition, and a slow twin in float64.

It agrees with `input_flatness`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import norm as gauss
from torch import Tensor, nn

from tasks import evaluation, input_flatness
from tasks.evaluation import Config, checks, measure, needs, summarise
from tasks.parts.contract import Batch, prepared
from tasks.parts.data import load as data
from tasks.parts.models.build import Classifier
from tasks.parts.noise.corruptions import corrupted
from tasks.parts.randomness import normal


def digits(count: int) -> Batch:
    ids = data.choose(data.load("digits", "test"), count)
    images, labels = data.take(data.load("digits", "test"), ids)
    return Batch(tuple(ids), images, labels)


def rows_of(config: Config, model: Any, batch: Batch) -> pd.DataFrame:
    return pd.DataFrame(measure(config, prepared(needs(config), model, batch), batch))


def linear(shift: float) -> nn.Module:
    """Two classes of 8 x 8 images whose logits differ by `shift` at a grey image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    model[1].weight.copy_(0.3 * torch.randn((2, 64), generator=torch.Generator().manual_seed(0)))
    model[1].bias.copy_(-model[1].weight.sum(1) * 0.5)
    model[1].bias[0] += shift
    return model


def grey(count: int) -> Batch:
    return Batch(range(count), torch.full((count, 1, 8, 8), 0.5), torch.zeros(count, dtype=torch.long))


# -------------------------------------------------------------------------------------- closed form


def test_accuracy_of_a_linear_model_under_noise() -> None:
    """Phi(m / (radius |w|)): 200 copies of one image see independent noise.

    At these radii next to nothing is clipped.
    """
    model, count, samples = linear(0.5), 200, 32
    w = float((model[1].weight[0] - model[1].weight[1]).norm())
    rows = rows_of(Config(conditions=["noise"], radii=[0.05, 0.1], samples=samples), model, grey(count))
    for radius, group in rows[rows["condition"] == "noise"].groupby("strength"):
        keeps = gauss.cdf(0.5 / (radius * w))
        assert 0.7 < keeps < 0.999  # says something
        error = math.sqrt(keeps * (1 - keeps) / (count * samples))
        assert group["accuracy"].mean() == pytest.approx(keeps, abs=4.5 * error)
        assert (group["accuracy"] == group["persistence"]).all()
    curve = [1.0, *(gauss.cdf(0.5 / (radius * w)) for radius in (0.05, 0.1))]
    flatness = summarise(Config(), rows)["flatness_genuine"]
    assert flatness == pytest.approx(np.trapezoid(curve, [0, 0.05, 0.1]) / 0.1, abs=0.01)


def test_accuracy_of_a_linear_model_under_the_attack() -> None:
    """Fooled from m / |w|_1 on, in L-inf, and not before."""
    model = linear(0.5)
    smallest = 0.5 / float((model[1].weight[0] - model[1].weight[1]).abs().sum())
    for factor, stands in ((1.01, 0.0), (0.99, 1.0)):
        config = Config(conditions=["attack"], attack={"epsilon": smallest * factor})
        rows = rows_of(config, model, grey(3))
        attacked = rows[rows["condition"] == "attack"]
        assert (attacked["accuracy"] == stands).all()
        assert attacked["strength"].to_numpy() == pytest.approx(smallest * factor)
        assert set(attacked["change"]) == {"pgd"}
        assert summarise(config, rows)["robust_accuracy"] == stands
        assert all(wrong is None for wrong in checks(config, rows).values())


class Said(nn.Module):
    """Two classes; says class 1 with the probability that is the image's mean."""

    def forward(self, x: Tensor) -> Tensor:
        p = x.mean((1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([torch.log(1 - p), torch.log(p)], 1)


def test_calibration_of_planted_probabilities() -> None:
    """Class 1 with 0.9, right in 3 of 4; with 0.3, so class 0 with 0.7, right in 3 of 4."""
    p = torch.tensor([0.9] * 4 + [0.3] * 4)
    labels = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
    batch = Batch(range(8), p[:, None, None, None].expand(8, 1, 4, 4).contiguous(), labels)
    config = Config(conditions=["clean"])
    rows = rows_of(config, Said(), batch)
    assert list(rows["condition"].unique()) == ["clean"]
    summary = summarise(config, rows)
    assert summary["accuracy"] == 0.75
    assert summary["ece"] == pytest.approx(0.5 * 0.15 + 0.5 * 0.05, abs=1e-6)
    right, wrong = math.log(0.9) + math.log(0.7), math.log(0.1) + math.log(0.3)
    assert summary["nll"] == pytest.approx(-(3 * right + wrong) / 8, abs=1e-6)
    assert set(summary) == {"accuracy", "nll", "ece"}


def test_brightness_moves_what_it_says(convnet: Classifier) -> None:
    """`Said` sees the mean: one that is 0.45 becomes 0.55 at severity 1, and so another class."""
    batch = Batch([0], torch.full((1, 1, 4, 4), 0.45), torch.tensor([0]))
    config = Config(conditions=["corruption"], corruptions=["brightness", "contrast"], severities=[1])
    rows = rows_of(config, Said(), batch).set_index("change")
    assert rows.loc["brightness", "p_true"] == pytest.approx(0.45, abs=1e-5)
    assert rows.loc["brightness", "confidence"] == pytest.approx(0.55, abs=1e-5)
    assert rows.loc["brightness", "accuracy"] == rows.loc["brightness", "persistence"] == 0
    assert rows.loc["contrast", "accuracy"] == 1
    summary = summarise(config, rows.reset_index())
    assert summary["corruption_accuracy"] == 0.5
    assert (summary["accuracy_brightness"], summary["accuracy_contrast"]) == (0, 1)


# ---------------------------------------------------------------------------------------- slow twin


def test_slow_twin(convnet: Classifier) -> None:
    """One image at a time, in float64."""
    config = Config(
        radii=[0.3, 0.1],
        samples=5,
        severities=[4, 2],
        corruptions=["blur", "salt_and_pepper", "rotation"],
        attack={"epsilon": 0.1, "steps": 5, "restarts": 1},
        seed=3,
    )
    batch = digits(20)
    made = prepared(needs(config), convnet, batch)
    points = made["adversarial"].points
    rows = pd.DataFrame(measure(config, made, batch))
    exact = convnet.double()
    wanted = []
    for place, example in enumerate(batch.ids):
        image, label = batch.images[place].double(), int(batch.labels[place])
        predicted = int(exact(image[None]).argmax())

        def judged(copies: list[Tensor], label: int = label, predicted: int = predicted) -> dict[str, float]:
            shares = [exact(copy[None])[0].softmax(0) for copy in copies]
            given = [int(share.argmax()) for share in shares]
            return {
                "accuracy": float(np.mean([one == label for one in given])),
                "persistence": float(np.mean([one == predicted for one in given])),
                "p_true": float(np.mean([share[label] for share in shares])),
                "confidence": float(np.mean([share.max() for share in shares])),
                "loss": float(np.mean([-math.log(share[label]) for share in shares])),
            }

        directions = normal(3, "flatness", [example], (32, *image.shape))[0, :5].double()
        found = [("clean", "none", 0, 0.0, [image])]
        for level, radius in enumerate([0.1, 0.3], 1):
            found.append(("noise", "gaussian", level, radius, [(image + radius * n).clamp(0, 1) for n in directions]))
        found.append(("attack", "pgd", 1, 0.1, [points[place].double()]))
        for name in config.corruptions:
            for level, severity in enumerate([2, 4], 1):
                damaged = corrupted(name, image[None], severity, ids=[example], seed=3)[0]
                found.append(("corruption", name, level, severity, [damaged]))
        for condition, change, level, strength, copies in found:
            about = {"id": example, "label": label, "predicted": predicted, "correct": predicted == label}
            change_of = {"condition": condition, "change": change, "level": level, "strength": strength}
            wanted.append({**about, **change_of, **judged(copies)})
    convnet.float()
    assert rows["correct"].nunique() > 1 or rows["accuracy"].nunique() > 2
    pd.testing.assert_frame_equal(rows, pd.DataFrame(wanted), rtol=1e-4, atol=1e-5, check_dtype=False)


def test_noise_is_that_of_input_flatness(convnet: Classifier) -> None:
    batch, radii, samples = digits(30), [0.1, 0.3], 24
    here = rows_of(Config(conditions=["noise"], radii=radii, samples=samples), convnet, batch)
    there_config = input_flatness.Config(conditions=["genuine"], radii=radii, samples=samples)
    there = pd.DataFrame(
        input_flatness.measure(there_config, prepared(input_flatness.needs(there_config), convnet, batch), batch)
    )
    joined = here[here["condition"] != "attack"].merge(there, left_on=["id", "strength"], right_on=["id", "radius"])
    assert len(joined) == 30 * 3
    for column in ("accuracy", "persistence"):
        assert (joined[f"{column}_x"] == joined[f"{column}_y"]).all()
    assert joined["p_true_x"].to_numpy() == pytest.approx(joined["p_true_y"].to_numpy(), abs=1e-6)
    assert joined["loss"].to_numpy() == pytest.approx(joined["loss_mean"].to_numpy(), abs=1e-5)
    flatness = input_flatness.summarise(there_config, there)["flatness_genuine"]
    assert summarise(Config(), here)["flatness_genuine"] == pytest.approx(flatness, abs=1e-12)


# -------------------------------------------------------------------------------------- the summary


def planted() -> pd.DataFrame:
    """Four examples, one of them misclassified, with made-up outcomes."""
    accuracy = {"clean": [1, 1, 1, 0], "attack": [1, 0, 0, 0], "blur": [1, 1, 0, 0], "rotation": [1, 0, 0, 1]}
    parts = []
    for change, values in accuracy.items():
        condition = change if change in ("clean", "attack") else "corruption"
        loss = np.where(np.array(values) == 1, 0.1, 2.0) + (change != "clean") * 0.5
        about = {"id": range(4), "condition": condition, "change": change, "level": 1, "strength": 1.0}
        parts.append(
            pd.DataFrame({**about, "accuracy": values, "persistence": values, "loss": loss, "confidence": 0.75})
        )
    return pd.concat(parts, ignore_index=True)


def test_summary_of_planted_rows() -> None:
    summary = summarise(Config(), planted())
    assert summary["accuracy"] == 0.75
    assert summary["robust_accuracy"] == 0.25
    assert summary["corruption_accuracy"] == 0.5
    assert summary["accuracy_blur"] == summary["accuracy_rotation"] == 0.5
    assert summary["ece"] == pytest.approx(0)
    assert summary["corruption_ece"] == pytest.approx(0.25)
    assert summary["nll"] == pytest.approx((3 * 0.1 + 2.0) / 4)


def test_checks_hold_and_fail() -> None:
    rows = planted()
    assert list(checks(Config(), rows).values()) == [None, None]
    saved = rows.assign(accuracy=rows["accuracy"].mask((rows["condition"] == "attack") & (rows["id"] == 3), 1))
    assert checks(Config(), saved)["the attack makes no misclassified image correct"] == "it does 1"
    stuck = rows.assign(loss=rows["loss"].mask(rows["condition"] == "attack", 0.05))
    assert checks(Config(), stuck)["the loss rises along the attack"] == "it does not for 3 of 3 examples"
    noise = pd.DataFrame({"condition": "noise", "strength": [0.1, 0.2], "persistence": [0.5, 0.9], "id": 0})
    told = checks(Config(), pd.concat([rows, noise], ignore_index=True))["stronger noise changes more classes"]
    assert told is not None
    assert "50.0%" in told


@pytest.mark.usefixtures("eight_rows")
def test_passes_counts_what_the_network_sees(convnet: Classifier) -> None:
    seen = 0

    def counting(x: Tensor) -> Tensor:
        nonlocal seen
        seen += len(x)
        return convnet(x)

    batch, config = digits(16), Config(samples=8)
    made = prepared(needs(config), convnet, batch)
    measure(config, {**made, "classifier": counting}, batch)
    assert seen == 16 * evaluation.passes(config)  # 16 is no cause to pad


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"attack": {"space": "hidden:2"}}, "attack.space"),
        ({"attack": {"name": "fmn"}}, "attack.name: fmn has no radius"),
        ({"severities": [0]}, "greater than or equal to 1"),
        ({"severities": [2, 2]}, "given twice"),
        ({"corruptions": ["fog"]}, "blur"),
        ({"samples": 33}, "less than or equal to 32"),
        ({"radii": [0]}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Config(**settings)
