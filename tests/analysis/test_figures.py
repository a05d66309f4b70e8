"""The numbers of the figures are the known truth of linear models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from linear_sweeps import NOISE, OPTIMISER, RADII, grid, margins, persistence, write

from analysis import catalogue
from analysis.drawing import draw
from analysis.results import ReportError, Results
from analysis.table import load

RADIUS = "recipe__input_noise__radius"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Results:
    points = grid(**{RADIUS: [0.0, 0.05, 0.1, 0.2], "recipe__optimiser": ["sgd", "adam"], "recipe__seed": [0, 1, 2]})
    return load(write(tmp_path_factory.mktemp("two"), points, examples=40))


def test_flatness_curves_are_the_closed_form(two: Results) -> None:
    """Phi(m / sigma) of each example, and their means by class and over all, seeds pooled."""
    chosen = catalogue.parse({"flatness_curves": {"recipe": "adam, input noise 0.1", "examples": 1000}})
    frame = chosen.module.compute(two, chosen.options)
    point = {NOISE: 0.1, OPTIMISER: "adam"}
    margin = np.mean(
        [persistence(margins({**point, "recipe.seed": s}, 40)[:, None], np.array(RADII)) for s in range(3)], 0
    )
    single = frame[frame["level"] == "example"]
    assert single["name"].nunique() == 40
    for name, line in single.groupby("name"):
        assert np.allclose(line["mean"], margin[int(name)])
    plane = frame[frame["name"] == "plane"]
    assert np.allclose(plane["mean"], margin[::10].mean(0))
    assert (plane["n"] == 4).all()
    overall = frame[frame["level"] == "all"]
    assert np.allclose(overall["mean"], margin.mean(0))
    assert (overall["seeds"] == 3).all()


def test_single_examples_have_the_interval_of_their_samples(two: Results) -> None:
    for y in ("p_true", "persistence"):
        chosen = catalogue.parse({"flatness_curves": {"y": y}})
        frame = chosen.module.compute(two, chosen.options)
        single = frame[(frame["level"] == "example") & (frame["x"] == 0.3)]
        width = 2 * 1.96 * np.sqrt(single["mean"] * (1 - single["mean"]) / 300)  # 3 seeds of 100 samples
        assert np.allclose(single["high"] - single["low"], width, rtol=0.1), y
        still = frame[(frame["level"] == "example") & (frame["x"] == 0)]
        assert np.allclose(still["high"] - still["low"], 0)


def test_conditions_compare_the_same_examples(two: Results) -> None:
    chosen = catalogue.parse("conditions")
    frame = chosen.module.compute(two, chosen.options)
    kept = [i for i in range(40) if i % 10 != 9 and i % 7 != 3]  # search succeeded, image classified correctly
    assert set(frame["n"]) == {len(kept)}
    radii = np.array(RADII)
    seeds = [margins({NOISE: 0.0, OPTIMISER: "sgd", "recipe.seed": s}, 40)[kept, None] for s in range(3)]
    genuine = np.mean([persistence(m, radii) for m in seeds], 0)
    adversarial = np.mean([persistence(0.25 * m, radii) for m in seeds], 0)
    mean = frame[frame["what"] == "mean"]
    assert np.allclose(mean.loc[mean["condition"] == "genuine", "mean"], genuine.mean(0))
    difference = frame[(frame["what"] == "difference") & (frame["condition"] == "adversarial")]
    assert np.allclose(difference["mean"], (genuine - adversarial).mean(0))
    assert (difference["p_holm"].to_numpy()[1:] < 0.01).all()
    assert difference["p_holm"].to_numpy()[0] == 1  # without noise every centre keeps its class
    assert f"{len(kept)} of 40 examples" in frame.attrs["caption"]


def test_moved_centres_of_misclassified_images_can_be_kept(two: Results) -> None:
    chosen = catalogue.parse({"conditions": {"only_found": False}})
    assert set(chosen.module.compute(two, chosen.options)["n"]) == {40}


def test_only_correct_leaves_out_genuine_images_too(two: Results) -> None:
    chosen = catalogue.parse({"recipes": {"only_correct": True}})
    frame = chosen.module.compute(two, chosen.options)
    assert set(frame.loc[frame["condition"] == "genuine", "n"]) == {sum(i % 7 != 3 for i in range(40))}


def test_effects_grow_with_training_noise(two: Results) -> None:
    """The area under the curve, over the ladder's length. It rises with the training noise."""
    chosen = catalogue.parse("effects")
    frame = chosen.module.compute(two, chosen.options)
    means = frame[(frame["what"] == "mean") & (frame["condition"] == "genuine")]
    for optimiser, line in means.groupby("line"):
        truth = [
            np.trapezoid(
                np.mean(
                    [
                        persistence(
                            margins({NOISE: x, OPTIMISER: optimiser, "recipe.seed": s}, 40)[:, None], np.array(RADII)
                        )
                        for s in range(3)
                    ],
                    axis=(0, 1),
                ),
                RADII,
            )
            / RADII[-1]
            for x in line["x"]
        ]
        assert np.allclose(line["mean"], truth)
        assert line["mean"].is_monotonic_increasing
    seeds = frame[frame["what"] == "seed"]
    assert len(seeds) == 3 * len(frame[frame["what"] == "mean"])
    assert set(seeds["seed"]) == {"0", "1", "2"}


def test_effects_at_one_radius(two: Results) -> None:
    chosen = catalogue.parse({"effects": {"radius": 0.3}})
    frame = chosen.module.compute(two, chosen.options)
    here = frame[
        (frame["what"] == "mean") & (frame["condition"] == "genuine") & (frame["recipe"] == "sgd, input noise 0.2")
    ]
    truth = [persistence(margins({NOISE: 0.2, "recipe.seed": s}, 40), 0.3).mean() for s in range(3)]
    assert here["mean"].item() == pytest.approx(np.mean(truth))
    chosen = catalogue.parse({"effects": {"radius": 0.33}})
    with pytest.raises(ReportError, match=r"0.33 was not measured; there are 0, 0.02"):
        chosen.module.compute(two, chosen.options)


def test_effects_take_one_number_an_example(tmp_path: Path) -> None:
    """Rows of a task without a ladder, conditions or kinds: the column as it is."""
    results = load(write(tmp_path, grid(**{RADIUS: [0.0, 0.1], "recipe__seed": [0, 1]}), radii=[0.1], examples=20))
    bare = Results(
        results.sweep,
        results.trials,
        results.rows.drop(columns=["radius", "condition", "kind", "found"]).drop_duplicates(["trial", "id"]),
        results.varied,
        results.replicates,
    )
    chosen = catalogue.parse({"effects": {"y": "p_true"}}, columns=list(bare.rows))
    frame = chosen.module.compute(bare, chosen.options)
    assert len(frame[frame["what"] == "mean"]) == 2
    assert (
        chosen.module.draw(frame, chosen.options).axes[0].get_ylabel().replace("\n", " ")
        == "probability of the true class"
    )


def test_recipes_tell_all_recipes_apart(two: Results) -> None:
    chosen = catalogue.parse("recipes")
    frame = chosen.module.compute(two, chosen.options)
    looks = frame.groupby("recipe")[["colour", "column", "dash"]].agg(lambda values: values.iloc[0])
    assert len(looks.drop_duplicates()) == 8
    by = catalogue.parse({"recipes": {"by": OPTIMISER}})
    assert set(by.module.compute(two, by.options)["colour"]) == {"sgd", "adam"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"recipes": {"kind": "purple"}}, "no rows of the kind 'purple'; there are additive"),
        ({"flatness_curves": {"condition": "blue"}}, "condition 'blue'; there are adversarial, genuine, random"),
        ({"conditions": {"recipe": "lion"}}, "no recipe 'lion'; there are sgd, input noise 0"),
        ({"effects": {"x": "dataset"}}, "x: dataset does not differ between the recipes"),
        ({"recipes": {"by": "dataset"}}, "by: dataset does not differ between the recipes"),
        ({"recipes": {"y": "nothing"}}, "the column nothing holds no number"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(entry: object, said: str, two: Results) -> None:
    chosen = catalogue.parse(entry)
    empty = Results(two.sweep, two.trials, two.rows.assign(nothing=np.nan), two.varied, two.replicates)
    drawn = draw(chosen, empty, chosen.name)
    assert drawn.error is not None
    assert said in drawn.error
    assert drawn.png is None


@pytest.mark.parametrize("name", ["effects", "recipes"])
def test_caption_tells_how_many_centres_are_left_out(name: str, two: Results, tmp_path: Path) -> None:
    missed = sum(i % 10 == 9 or i % 7 == 3 for i in range(40))
    chosen = catalogue.parse(name)
    caption = chosen.module.compute(two, chosen.options).attrs["caption"]
    assert f"did not fool are left out: {missed} of 40 examples a trial" in caption
    assert "recipes are compared on different subsets" in caption
    every = catalogue.parse({name: {"only_found": False}})
    assert "left out" not in every.module.compute(two, every.options).attrs["caption"]
    correct = catalogue.parse({name: {"only_correct": True}})
    right = sum(i % 7 != 3 for i in range(40))
    told = correct.module.compute(two, correct.options).attrs["caption"]
    assert f"{sum(i % 10 == 9 and i % 7 != 3 for i in range(40))} of {right} examples" in told
    alone = load(write(tmp_path, grid(recipe__seed=[0]), examples=10, conditions=["genuine"]))
    assert "left out" not in chosen.module.compute(alone, chosen.options).attrs["caption"]


def test_a_failure_in_some_recipes_only_is_told_as_a_range(two: Results) -> None:
    """Of one recipe every search succeeds: the recipes' subsets differ in size."""
    rows = two.rows.copy()
    rows["found"] = rows["found"].to_numpy() | (rows["recipe"] == two.recipes[0]).to_numpy()
    results = Results(two.sweep, two.trials, rows, two.varied, two.replicates)
    chosen = catalogue.parse("recipes")
    wrong, missed = sum(i % 7 == 3 for i in range(40)), sum(i % 10 == 9 or i % 7 == 3 for i in range(40))
    assert (
        f"left out: {wrong} to {missed} of 40 examples"
        in chosen.module.compute(results, chosen.options).attrs["caption"]
    )
