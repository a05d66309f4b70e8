"""The figures of evaluations: linear models, whose accuracy under noise and attacks is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linear_sweeps import NOISE, OPTIMISER, SEED, grid, margins, persistence, write
from planted_evaluations import DAMAGE, EPSILON, RADII, correct, evaluated

from analysis import catalogue
from analysis.results import ReportError, Results
from analysis.stats import Floats
from analysis.table import load

SETTING = NOISE.replace(".", "__")
CORRECT = correct(40)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    points = grid(**{SETTING: [0.0, 0.1], "recipe__optimiser": ["sgd", "adam"], "recipe__seed": [0, 1, 2]})
    return load(write(tmp_path_factory.mktemp("evaluations"), points, measure=evaluated))


def compute(results: Results, entry: object) -> pd.DataFrame:
    chosen = catalogue.parse(entry, columns=list(results.rows), settings=[NOISE, OPTIMISER, SEED, "recipe.epochs"])
    frame = chosen.module.compute(results, chosen.options)
    assert isinstance(frame, pd.DataFrame)
    return frame


def points(optimiser: str, noise: float) -> list[dict[str, str | float]]:
    return [{OPTIMISER: optimiser, NOISE: noise, SEED: seed} for seed in range(3)]


def known(point: dict[str, str | float]) -> dict[str, Floats]:
    """The accuracy of each example under each condition, (40,)."""
    margin = margins(point, 40)
    damaged = [margin * left**n > 0.1 for left in DAMAGE.values() for n in (1, 2)]
    return {
        "clean": CORRECT * 1.0,
        "noise": CORRECT * np.mean([persistence(margin, radius) for radius in RADII], 0),
        "attack": CORRECT * (margin > EPSILON) * 1.0,
        "corruption": CORRECT * np.mean(damaged, 0),
    }


RECIPES = {
    f"{optimiser}, input noise {noise:g}": (optimiser, noise) for optimiser in ("sgd", "adam") for noise in (0.0, 0.1)
}


def test_effects_are_plain_means_over_ladders_and_changes(results: Results) -> None:
    """Of all examples: those misclassified to begin with count as well, though they are marked."""
    frame = compute(results, {"effects": {"y": "accuracy"}})
    means = frame[frame["what"] == "mean"]
    assert list(dict.fromkeys(frame["condition"])) == ["clean", "noise", "attack", "corruption"]
    assert len(means) == 4 * len(RECIPES)
    for _, line in means.iterrows():
        truth = [known(point)[line["condition"]] for point in points(*RECIPES[line["recipe"]])]
        assert line["mean"] == pytest.approx(np.mean(truth))
        assert line["n"] == 40
    kept = compute(results, {"effects": {"y": "accuracy", "only_correct": True}})
    assert set(kept["n"]) == {int(CORRECT.sum())}


def test_effects_against_a_control_are_paired(results: Results) -> None:
    """Adam minus SGD of the same noise: of the same examples under the same seeds."""
    frame = compute(results, {"effects": {"y": "accuracy", "against": OPTIMISER, "control": "sgd"}})
    means = frame[frame["what"] == "mean"]
    assert set(means["recipe"]) == {"adam, input noise 0", "adam, input noise 0.1"}
    assert set(means["line"]) == {""}  # what is left after the subtraction varies no more
    for _, line in means.iterrows():
        noise = RECIPES[line["recipe"]][1]
        pairs = zip(points("adam", noise), points("sgd", noise), strict=True)
        truth = [known(adam)[line["condition"]] - known(sgd)[line["condition"]] for adam, sgd in pairs]
        assert line["mean"] == pytest.approx(np.mean(truth))
        assert line["low"] <= line["mean"] <= line["high"]
    clean = means[means["condition"] == "clean"]
    assert (clean["mean"] == 0).all()  # equal example by example, which is no certainty for others
    assert ((clean["low"] < 0) & (clean["high"] > 0)).all()
    seeds = frame[(frame["what"] == "seed") & (frame["condition"] == "noise") & (frame["x"] == 0.1)]
    single = [
        known(a)["noise"] - known(s)["noise"] for a, s in zip(points("adam", 0.1), points("sgd", 0.1), strict=True)
    ]
    assert np.allclose(seeds.sort_values("seed")["mean"], np.mean(single, 1))
    assert "minus that of the same recipe with" in frame.attrs["caption"]
    other = compute(results, {"effects": {"y": "accuracy", "against": OPTIMISER, "control": "adam"}})
    assert np.allclose(other.loc[other["what"] == "mean", "mean"], -means["mean"])


def test_a_difference_is_narrower_than_what_it_is_of(results: Results) -> None:
    """Pairing takes out how hard the examples are."""
    alone = compute(results, {"effects": {"y": "accuracy"}})
    paired = compute(results, {"effects": {"y": "accuracy", "against": OPTIMISER}})
    widths = [
        (frame["high"] - frame["low"])[(frame["what"] == "mean") & (frame["condition"] == "noise")].max()
        for frame in (paired, alone)
    ]
    assert widths[0] < 0.8 * widths[1]


def test_a_number_can_be_the_control(tmp_path: Path) -> None:
    """Against 0, each other value is a line, or a place on the axis of another setting."""
    every = grid(**{SETTING: [0.0, 0.1, 0.2], "recipe__epochs": [5, 10]})
    results = load(write(tmp_path, every, measure=evaluated))
    frame = compute(results, {"effects": {"y": "accuracy", "x": "recipe.epochs", "against": NOISE, "control": 0}})
    means = frame[(frame["what"] == "mean") & (frame["condition"] == "noise")]
    assert set(means["line"]) == {"input noise 0.1", "input noise 0.2"}
    for _, line in means.iterrows():
        noise = float(line["line"].split()[-1])
        truth = known({NOISE: noise})["noise"] - known({NOISE: 0.0})["noise"]
        assert line["mean"] == pytest.approx(truth.mean())


def test_a_recipe_without_its_control_is_left_out(tmp_path: Path) -> None:
    """Only what was measured under both is compared."""
    every = grid(**{SETTING: [0.0, 0.1], "recipe__optimiser": ["sgd", "adam"]})
    results = load(write(tmp_path, every, measure=evaluated, failed=[0]))  # sgd without noise
    frame = compute(results, {"effects": {"y": "accuracy", "against": OPTIMISER, "control": "sgd"}})
    assert set(frame["recipe"]) == {"adam, input noise 0.1"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"against": "recipe.epochs"}, "does not differ"),
        ({"against": NOISE}, "is the horizontal axis"),
        ({"against": OPTIMISER, "control": "rmsprop"}, "is never rmsprop; it is sgd, adam"),
    ],
)
def test_what_cannot_be_compared_is_told(options: dict[str, object], said: str, results: Results) -> None:
    with pytest.raises(ReportError, match=said):
        compute(results, {"effects": {"y": "accuracy", **options}})


def test_tradeoff_is_accuracy_against_accuracy(results: Results) -> None:
    frame = compute(results, "tradeoff").set_index("recipe")
    assert set(frame.index) == set(RECIPES)
    for recipe, (optimiser, noise) in RECIPES.items():
        found = [known(point) for point in points(optimiser, noise)]
        assert frame.loc[recipe, "x"] == pytest.approx(np.mean([one["clean"] for one in found]))
        assert frame.loc[recipe, "mean"] == pytest.approx(np.mean([one["attack"] for one in found]))
        assert frame.loc[recipe, "x_low"] < frame.loc[recipe, "x"] < frame.loc[recipe, "x_high"]
    other = compute(results, {"tradeoff": {"across": "noise", "up": "corruption"}}).set_index("recipe")
    for recipe, (optimiser, noise) in RECIPES.items():
        found = [known(point) for point in points(optimiser, noise)]
        assert other.loc[recipe, "x"] == pytest.approx(np.mean([one["noise"] for one in found]))
        assert other.loc[recipe, "mean"] == pytest.approx(np.mean([one["corruption"] for one in found]))


def test_tradeoff_without_a_search_takes_the_last_condition(tmp_path: Path) -> None:
    some = load(write(tmp_path, grid(recipe__seed=[0, 1]), measure=evaluated, conditions=("clean", "noise")))
    assert compute(some, "tradeoff").attrs["mean"] == "accuracy (noise)"
    with pytest.raises(ReportError, match="no rows of the condition 'attack'"):
        compute(some, {"tradeoff": {"up": "attack"}})


def test_reliability_is_accuracy_by_bin(results: Results) -> None:
    frame = compute(results, {"calibration": {"bins": 4, "least": 1}})
    assert list(dict.fromkeys(frame["condition"])) == ["clean", "corruption"]
    for recipe, (optimiser, noise) in RECIPES.items():
        margin = np.array([margins(point, 40) for point in points(optimiser, noise)])
        confidence = 0.5 + 0.5 * np.minimum(margin, 0.99)
        place = np.ceil(confidence * 4) - 1
        here = frame[(frame["recipe"] == recipe) & (frame["condition"] == "clean")].set_index("bin")
        assert set(here.index) == set(np.unique(place))
        for b, line in here.iterrows():
            inside = place == b
            assert line["x"] == pytest.approx(confidence[inside].mean())
            assert line["mean"] == pytest.approx(np.broadcast_to(CORRECT, place.shape)[inside].mean())
            assert line["share"] == pytest.approx(inside.mean())
            assert line["n"] == inside.any(0).sum()


def test_bins_of_few_examples_are_left_out_and_told(results: Results) -> None:
    every, some = (compute(results, {"calibration": {"least": least}}) for least in (1, 12))
    assert 0 < len(some) < len(every)
    assert (some["n"] >= 12).all()
    assert "fewer than 12 examples are left out" in some.attrs["caption"]
    with pytest.raises(ReportError, match="no bin has 41 examples"):
        compute(results, {"calibration": {"least": 41}})


def test_differences_are_from_the_recipe_that_the_others_vary(tmp_path: Path) -> None:
    """Three recipes differ from plain SGD in one thing each: it is the baseline, not the first."""
    named = {
        "plain": ("sgd", 0.1, 10),
        "noise": ("sgd", 0.0, 10),
        "adam": ("adam", 0.1, 10),
        "longer": ("sgd", 0.1, 20),
    }
    order = ["adam", "noise", "plain", "longer"]
    every = [
        {OPTIMISER: named[name][0], NOISE: named[name][1], "recipe.epochs": named[name][2], SEED: seed}
        for name in order
        for seed in range(3)
    ]
    labels = {NOISE: "training-noise radius (pixel units)"}
    results = load(write(tmp_path, every, measure=evaluated, sweep={"labels": labels}))
    frame = compute(results, {"differences": {"y": "accuracy"}}).set_index(["condition", "x"])
    assert set(frame.index.get_level_values("x")) == {"training-noise radius 0", "adam", "epochs 20"}
    plain = [known(point) for point in points("sgd", 0.1)]
    for x, (optimiser, noise) in {"training-noise radius 0": ("sgd", 0.0), "adam": ("adam", 0.1)}.items():
        other = [known(point) for point in points(optimiser, noise)]
        for condition in ("clean", "noise", "attack", "corruption"):
            truth = np.mean([a[condition] - b[condition] for a, b in zip(other, plain, strict=True)])
            assert frame.loc[(condition, x), "mean"] == pytest.approx(truth)
    same = frame.xs("epochs 20", level="x")  # epochs change nothing in a linear model
    assert (same["mean"] == 0).all()


def test_the_only_recipe_is_drawn_as_it_is(tmp_path: Path) -> None:
    results = load(write(tmp_path, grid(recipe__seed=[0, 1, 2]), measure=evaluated))
    frame = compute(results, {"differences": {"y": "accuracy"}}).set_index("condition")
    truth = [known({SEED: seed})["attack"].mean() for seed in range(3)]
    assert frame.loc["attack", "mean"] == pytest.approx(np.mean(truth))
    assert "of the only recipe" in frame.attrs["caption"]
