"""The figures of searches: linear models, whose smallest perturbation is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from linear_sweeps import OPTIMISER, grid, margins, write
from planted_searches import LADDER, RANDOM_SLACK, SEARCH_COLUMNS, searched, smallest

from analysis import catalogue
from analysis.results import ReportError, Results
from analysis.table import load

CORRECT = np.arange(40) % 7 != 3


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    points = grid(attack__name=["pgd", "apgd", "square"], recipe__seed=[0, 1, 2])
    return load(write(tmp_path_factory.mktemp("attacks"), points, measure=searched))


def compute(results: Results, entry: Any) -> pd.DataFrame:
    chosen = catalogue.parse(entry, columns=list(results.rows))
    frame = chosen.module.compute(results, chosen.options)
    assert isinstance(frame, pd.DataFrame)
    return frame


def changed(results: Results, rows: pd.DataFrame) -> Results:
    return Results(results.sweep, results.trials, rows, results.varied, results.replicates)


def seeds_of(name: str) -> Any:
    return [{"attack.name": name, "recipe.seed": seed} for seed in range(3)]


def test_security_curve_is_the_share_beyond_the_radius(attacks: Results) -> None:
    """Robust at r: classified correctly, and the smallest perturbation is longer than r; seeds pooled."""
    frame = compute(attacks, "security_curve")
    radii = np.array([0.0, *LADDER])
    for name in ("pgd", "apgd", "square"):
        far = np.array([smallest(point, 40) for point in seeds_of(name)])[:, :, None]
        line = frame[(frame["recipe"] == name) & (frame["what"] == "search")]
        assert np.allclose(line["x"], radii)
        assert np.allclose(line["mean"], (CORRECT[:, None] & (far > radii)).mean((0, 1)))
        assert set(line["n"]) == {40}
        assert set(line["seeds"]) == {3}
        assert line["mean"].iloc[0] == pytest.approx(CORRECT.mean())
        control = frame[(frame["recipe"] == name) & (frame["what"] == "random")]
        reach = np.array([RANDOM_SLACK * margins(point, 40) for point in seeds_of(name)])[:, :, None]
        assert np.allclose(control["mean"], (CORRECT[:, None] & (reach > radii)).mean((0, 1)))


def test_misclassified_images_are_robust_at_no_radius(attacks: Results) -> None:
    """However their search is marked: found at distance 0, or not searched for."""
    before = compute(attacks, "security_curve")
    for mark in (True, False):
        rows = attacks.rows.assign(found=attacks.rows["found"].where(attacks.rows["correct"], mark))
        assert np.allclose(compute(changed(attacks, rows), "security_curve")["mean"], before["mean"])


def test_control_can_be_absent(attacks: Results) -> None:
    """By option, or because no random step was tried."""
    assert set(compute(attacks, {"security_curve": {"random": None}})["what"]) == {"search"}
    frame = compute(changed(attacks, attacks.rows.assign(fooled_random=np.nan)), "security_curve")
    assert set(frame["what"]) == {"search"}
    assert "Dotted" not in frame.attrs["caption"]


def test_a_control_tried_on_some_examples_counts_these(attacks: Results) -> None:
    """Of the examples that were tried, not of all."""
    tried = attacks.rows["fooled_random"].astype(float).where(attacks.rows["id"] < 20)
    frame = compute(changed(attacks, attacks.rows.assign(fooled_random=tried)), "security_curve")
    assert set(frame.loc[frame["what"] == "random", "n"]) == {20}
    still = frame[(frame["what"] == "random") & (frame["x"] == 0)]
    assert np.allclose(still["mean"], CORRECT[:20].mean())


def test_recipes_with_different_norms_get_their_own_axes(tmp_path: Path) -> None:
    points = grid(attack__norm=["Linf", "L2"], recipe__optimiser=["sgd", "adam"])
    results = load(write(tmp_path, points, measure=searched))
    for name in ("security_curve", "distances"):
        frame = compute(results, name)
        assert set(frame["column"]) == {"Linf", "L2"}
        assert set(frame["colour"]) == {"sgd", "adam"}
        axes = catalogue.find(name).draw(frame, catalogue.parse(name).options).axes
        assert not axes[0].get_shared_x_axes().joined(axes[0], axes[1])
        assert axes[0].get_shared_y_axes().joined(axes[0], axes[1])


def test_attacks_that_measure_in_different_norms_by_themselves_get_their_own_axes(tmp_path: Path) -> None:
    """The norm is not varied: each attack has its own. Radii in L2 and in L-inf still do not share an axis."""
    norms = {"pgd": "Linf", "apgd": "Linf", "square": "L2"}
    points = [{"attack.name": name, "attack.norm": norm, "recipe.seed": 0} for name, norm in norms.items()]
    folder = write(tmp_path, points, measure=searched, sweep={"varied": ["attack.name"]})
    frame = compute(load(folder), "security_curve")
    assert frame.groupby("column")["colour"].agg(set).to_dict() == {"Linf": {"pgd", "apgd"}, "L2": {"square"}}


def test_of_many_recipes_the_colour_tells_the_attack(tmp_path: Path) -> None:
    points = grid(
        attack__name=["pgd", "apgd"], recipe__optimiser=["sgd", "adam"], recipe__input_noise__radius=[0.0, 0.1]
    )
    results = load(write(tmp_path, points, measure=searched))
    frame = compute(results, "security_curve")
    assert set(frame["colour"]) == {"pgd", "apgd"}
    looks = frame.groupby("recipe")[["colour", "column", "dash"]].agg(lambda values: values.iloc[0])
    assert len(looks.drop_duplicates()) == 8
    assert set(compute(results, {"security_curve": {"by": OPTIMISER}})["colour"]) == {"sgd", "adam"}
    with pytest.raises(ReportError, match="by: dataset does not differ between the recipes"):
        compute(results, {"security_curve": {"by": "dataset"}})


def test_distances_are_the_distribution_function(attacks: Results) -> None:
    frame = compute(attacks, {"distances": {"points": 500}})
    for name, line in frame.groupby("recipe", observed=True):
        far = np.array([smallest(point, 40)[CORRECT] for point in seeds_of(str(name))])
        far[far > LADDER[-1]] = np.inf
        assert np.allclose(line["mean"], (far[:, :, None] <= line["x"].to_numpy()).mean((0, 1)))
        assert set(line["n"]) == {CORRECT.sum()}
        known = np.unique(far[np.isfinite(far)])
        assert np.allclose(line["x"], [0.0, *known, LADDER[-1]])  # as far as was searched
        assert line["mean"].iloc[-1] == pytest.approx(np.isfinite(far).mean())
    coarse = compute(attacks, {"distances": {"points": 5}})
    for name, line in coarse.groupby("recipe", observed=True):
        assert len(line) <= 7
        fine = frame[frame["recipe"] == name]
        assert line["mean"].iloc[-1] == fine["mean"].iloc[-1]
        assert np.isin(line["x"], fine["x"]).all()


def test_smallest_distance_is_over_radii_and_failures_are_infinite(tmp_path: Path) -> None:
    """Each radius has its own perturbation: the shortest that succeeded counts, the best try of a failure does not."""

    def three(_: Any) -> pd.DataFrame:
        lines = [
            *[(0, 0.1, False, 0.05), (0, 0.2, True, 0.15), (0, 0.3, True, 0.3)],
            *[(1, 0.1, False, 0.1), (1, 0.2, False, 0.2), (1, 0.3, False, 0.01)],
            *[(2, 0.1, True, 0.1), (2, 0.2, True, 0.1), (2, 0.3, True, 0.1)],
        ]
        rows = pd.DataFrame(lines, columns=["id", "radius", "found", "distance"])
        return rows.assign(correct=True, fooled_random=False, forwards=1, backwards=1)

    frame = compute(load(write(tmp_path, grid(recipe__seed=[0]), measure=three)), "distances")
    assert np.allclose(frame["x"], [0, 0.1, 0.15, 0.3])
    assert np.allclose(frame["mean"], [0, 1 / 3, 2 / 3, 2 / 3])
    assert "33.3 %" in frame.attrs["caption"]


@pytest.mark.parametrize("name", ["distances", "search_cost"])
def test_different_subsets_of_examples_are_told(name: str, attacks: Results) -> None:
    assert "different subsets" not in compute(attacks, name).attrs["caption"]
    worse = attacks.rows["correct"] & ~((attacks.rows["recipe"] == "pgd") & (attacks.rows["id"] == 0))
    told = compute(changed(attacks, attacks.rows.assign(correct=worse)), name).attrs["caption"]
    assert "recipes are compared on different subsets" in told
    assert f"n = {CORRECT.sum() - 1} to {CORRECT.sum()} examples" in told


def test_no_search_that_found_anything_is_told(attacks: Results) -> None:
    nothing = changed(attacks, attacks.rows.assign(found=False))
    with pytest.raises(ReportError, match="no search found anything"):
        compute(nothing, "distances")
    with pytest.raises(ReportError, match="no example is classified correctly"):
        compute(changed(attacks, attacks.rows.assign(correct=False)), "search_cost")


def test_costs_are_medians_and_quartiles_of_whole_searches(attacks: Results) -> None:
    frame = compute(attacks, "search_cost")
    for what in ("forwards", "backwards"):
        for name in ("pgd", "apgd", "square"):
            spent = np.concatenate(
                [searched(point).query("radius == 0.3 and correct")[what].to_numpy() for point in seeds_of(name)]
            )
            point = frame[(frame["what"] == what) & (frame["recipe"] == name)]
            assert np.allclose(point[["x_low", "x", "x_high"]], np.quantile(spent, (0.25, 0.5, 0.75)))
            far = np.array([smallest(point, 40)[CORRECT] for point in seeds_of(name)])
            assert point["mean"].item() == pytest.approx((far <= 0.3).mean())
    near = compute(attacks, {"search_cost": {"radius": 0.1}})
    far = np.array([smallest(point, 40)[CORRECT] for point in seeds_of("pgd")])
    assert np.allclose(near.loc[near["recipe"] == "pgd", "mean"], (far <= 0.1).mean())
    with pytest.raises(ReportError, match=r"radius 0.15 was not searched; there are 0.02, 0.05"):
        compute(attacks, {"search_cost": {"radius": 0.15}})


def test_cost_that_grows_along_the_ladder_counts_once(attacks: Results) -> None:
    """Where each radius tells what was spent up to it, the whole search is what the last one tells."""
    rank = attacks.rows["radius"].map({radius: place for place, radius in enumerate(LADDER)})
    rows = attacks.rows.assign(forwards=10 * (1 + rank))
    frame = compute(changed(attacks, rows), "search_cost")
    assert set(frame.loc[frame["what"] == "forwards", "x"]) == {10.0 * len(LADDER)}


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"attack.norm": "L2", "attack.space": "pixel"}, "L2 distance (pixel units)"),
        ({"attack.norm": "L2", "attack.space": "hidden:2"}, "L2 distance (units of the typical magnitude of hidden:2)"),
        ({"attack.space": "pixel"}, "norm of the perturbation (pixel units)"),
    ],
)
def test_lengths_are_told_with_norm_and_unit(settings: Any, label: str, tmp_path: Path) -> None:
    """From the attack's settings; the column's own words where these do not tell."""
    folder = write(
        tmp_path, grid(recipe__seed=[0]), measure=searched, fixed=settings, sweep={"columns": SEARCH_COLUMNS}
    )
    assert compute(load(folder), "distances").attrs["x"] == label
