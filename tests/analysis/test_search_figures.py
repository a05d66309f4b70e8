"""The figures of searches: linear models, whose smallest perturbation is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linear_sweeps import OPTIMISER, SEED, grid, margins, write
from planted_searches import LADDER, RANDOM_SLACK, SEARCH_COLUMNS, searched, smallest

from analysis import catalogue
from analysis.report import build
from analysis.results import ReportError, Results
from analysis.table import load
from engine.store.records import SweepRecord

CORRECT = np.arange(40) % 7 != 3
Point = Mapping[str, str | float]


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    points = grid(attack__name=["pgd", "apgd", "square"], recipe__seed=[0, 1, 2])
    return load(write(tmp_path_factory.mktemp("attacks"), points, measure=searched))


def compute(results: Results, entry: object) -> pd.DataFrame:
    chosen = catalogue.parse(entry, columns=list(results.rows))
    frame = chosen.module.compute(results, chosen.options)
    assert isinstance(frame, pd.DataFrame)
    return frame


def changed(results: Results, rows: pd.DataFrame) -> Results:
    return Results(results.sweep, results.trials, rows, results.varied, results.replicates)


def seeds_of(name: str) -> list[Point]:
    return [{"attack.name": name, "recipe.seed": seed} for seed in range(3)]


def test_security_curve_is_the_share_beyond_the_radius(attacks: Results) -> None:
    """Robust at r: classified correctly, and the smallest perturbation is longer; seeds pooled."""
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
    """The norm is not varied, each attack has its own. Still L2 and L-inf do not share an axis."""
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


def test_of_a_search_for_the_smallest_the_distribution_function_is_known(tmp_path: Path) -> None:
    results = load(write(tmp_path, seeds_of("fmn"), measure=searched, sweep={"varied": ["attack.name"]}))
    line = compute(results, {"distances": {"points": 500}})
    far = np.array([smallest(point, 40)[CORRECT] for point in seeds_of("fmn")])
    far[far > LADDER[-1]] = np.inf
    assert np.allclose(line["mean"], (far[:, :, None] <= line["x"].to_numpy()).mean((0, 1)))
    assert set(line["n"]) == {CORRECT.sum()}
    assert set(line["known"]) == {"everywhere"}
    known = np.unique(far[np.isfinite(far)])
    assert np.allclose(line["x"], [0.0, *known, LADDER[-1]])  # as far as was searched
    assert line["mean"].iloc[-1] == pytest.approx(np.isfinite(far).mean())
    coarse = compute(results, {"distances": {"points": 5}})
    assert len(coarse) <= 7
    assert coarse["mean"].iloc[-1] == line["mean"].iloc[-1]
    assert np.isin(coarse["x"], line["x"]).all()
    assert "hatched" not in line.attrs["caption"]


def test_of_an_attack_within_radii_the_distribution_function_is_known_at_them(attacks: Results) -> None:
    """In between it lies between its values at the two.

    The lengths of the points that were found are not drawn.
    """
    frame = compute(attacks, "distances")
    assert set(frame["known"]) == {"at the radii"}
    assert "hatched" in frame.attrs["caption"]
    between = np.linspace(0, LADDER[-1], 200)
    for name, line in frame.groupby("recipe", observed=True):
        far = np.array([smallest(point, 40)[CORRECT] for point in seeds_of(str(name))])[:, :, None]
        assert np.allclose(line["x"], [0.0, *LADDER])
        assert np.allclose(line["mean"], (far <= line["x"].to_numpy()).mean((0, 1)))
        assert set(line["n"]) == {CORRECT.sum()}
        below = np.searchsorted(line["x"], between, side="right") - 1
        truth, ends = (far <= between).mean((0, 1)), [*line["mean"], line["mean"].iloc[-1]]
        assert (np.array(ends)[below] <= truth + 1e-12).all()
        assert (truth <= np.array(ends)[below + 1] + 1e-12).all()
    options = catalogue.parse("distances").options
    (ax,) = catalogue.find("distances").draw(frame, options).axes
    assert {line.get_linestyle() for line in ax.lines} == {"None"}  # no claim between the radii


def test_attacks_that_know_lengths_and_brackets_are_drawn_side_by_side(tmp_path: Path) -> None:
    points = grid(attack__name=["pgd", "fmn"], recipe__optimiser=["sgd", "adam"])
    frame = compute(load(write(tmp_path, points, measure=searched)), "distances")
    assert frame.groupby("colour")["known"].agg(set).to_dict() == {"pgd": {"at the radii"}, "fmn": {"everywhere"}}
    assert set(frame["column"]) == {"sgd", "adam"}
    drawn = catalogue.find("distances").draw(frame, catalogue.parse("distances").options)
    for ax in drawn.axes:
        assert sorted(line.get_linestyle() for line in ax.lines) == ["-", "None"]


@pytest.mark.parametrize("name", ["pgd", "fmn"])
def test_rows_without_distance_ends_are_brackets(name: str, tmp_path: Path) -> None:
    """As earlier versions left them: their distances may be those of an attack's steps."""
    results = load(write(tmp_path, seeds_of(name), measure=searched, sweep={"varied": ["attack.name"]}))
    wanted = compute(results, "security_curve").query("what == 'search' and x > 0")
    bare = changed(results, results.rows.drop(columns=["distance_low", "distance_high"]))
    mixed = results.rows["id"] < 10
    ends = results.rows[["distance_low", "distance_high"]].mask(mixed)
    for old in (bare, changed(results, results.rows.assign(**ends))):
        frame = compute(old, "distances")
        assert set(frame["known"]) == {"at the radii"}
        assert np.allclose(frame["x"], [0.0, *LADDER])
        assert np.allclose(1 - frame["mean"][1:], wanted["mean"] / CORRECT.mean())


def test_a_folder_of_an_earlier_version_is_drawn_by_the_report(tmp_path: Path) -> None:
    def before(point: Point) -> pd.DataFrame:
        return searched(point).drop(columns=["distance_low", "distance_high"])

    points = grid(attack__name=["pgd", "fmn"], recipe__seed=[0, 1])
    for folder, measure, known in (
        ("old", before, {"at the radii"}),
        ("new", searched, {"at the radii", "everywhere"}),
    ):
        write(tmp_path / folder, points, measure=measure)
        build(tmp_path / folder, figures=["distances", "attack_gap"])
        told = pd.read_csv(tmp_path / folder / "figures" / "distances.csv", comment="#")
        assert set(told["known"]) == known


def test_shares_are_over_radii_and_failures_are_infinite(tmp_path: Path) -> None:
    """What succeeds at a radius succeeds at all larger ones, also where the attack there failed.

    A best try is no success.
    """

    def three(_: Point) -> pd.DataFrame:
        lines = [
            *[(0, 0.1, False, 0.05), (0, 0.2, True, 0.15), (0, 0.3, False, 0.3)],
            *[(1, 0.1, False, 0.1), (1, 0.2, False, 0.2), (1, 0.3, False, 0.01)],
            *[(2, 0.1, True, 0.1), (2, 0.2, True, 0.1), (2, 0.3, True, 0.1)],
        ]
        rows = pd.DataFrame(lines, columns=["id", "radius", "found", "distance"])
        return rows.assign(correct=True, fooled_random=False, forwards=1, backwards=1)

    frame = compute(load(write(tmp_path, grid(recipe__seed=[0]), measure=three)), "distances")
    assert np.allclose(frame["x"], [0, 0.1, 0.2, 0.3])
    assert np.allclose(frame["mean"], [0, 1 / 3, 2 / 3, 2 / 3])
    assert "33.3 %" in frame.attrs["caption"]


# ----------------------------------------------------------------------------------- attack_gap

GAP = "attack_gap"
ALL = ("pgd", "apgd", "square", "fmn")


def test_the_strongest_attack_is_told_though_distances_say_the_reverse(tmp_path: Path) -> None:
    results = load(write(tmp_path, grid(attack__name=ALL, recipe__seed=[0, 1, 2]), measure=searched))
    rows = results.rows[results.rows["correct"] & results.rows["found"] & (results.rows["radius"] == LADDER[-1])]
    far = rows[rows["id"].isin(set.intersection(*rows.groupby("trial", observed=True)["id"].agg(set)))]
    mean = far.groupby("recipe", observed=True)["distance"].mean()
    assert mean["apgd"] > max(mean["pgd"], mean["fmn"])

    frame = compute(results, GAP)
    radii = np.array(LADDER)
    margin = np.array([smallest(point, 40) for point in seeds_of("apgd")])[:, :, None]
    best = frame[frame["what"] == "best"]
    assert np.allclose(best["x"], [0.0, *LADDER])
    assert np.allclose(best["mean"][1:], (CORRECT[:, None] & (margin > radii)).mean((0, 1)))
    most = {}
    for name in ALL:
        reach = np.array([smallest(point, 40) for point in seeds_of(name)])[:, :, None]
        left = (CORRECT[:, None] & (reach > radii) & (margin <= radii)).mean((0, 1))
        line = frame[(frame["what"] == "gap") & (frame["attack"] == name)]
        assert np.allclose(line["x"], radii)
        assert np.allclose(line["mean"], left)
        assert set(line["n"]) == {40}
        most[name] = 100 * left.max()
    assert most["apgd"] == 0 < most["fmn"] < most["pgd"] < most["square"]
    others = ", ".join(f"{name} {most[name]:.1f}".removesuffix(".0") for name in ("fmn", "pgd", "square"))
    words = "apgd leaves nothing standing that another attack fools"
    assert frame.attrs["caption"].startswith(f"{words}; {others} points at most.")


@pytest.mark.parametrize("seed", range(3))
def test_no_attacks_curve_is_below_the_best_of_all(seed: int, tmp_path: Path) -> None:
    """What an attack leaves standing is the difference: at least 0, whatever each of them fools.

    It is 0 for all only if all fool the same.
    """

    def at_random(point: Point) -> pd.DataFrame:
        rng = np.random.default_rng([seed, ALL.index(str(point["attack.name"])), int(point["recipe.seed"])])
        rows = searched(point).sort_values(["id", "radius"], ignore_index=True)
        first = rng.integers(0, len(LADDER) + 1, size=40)
        return rows.assign(found=rows.groupby("id").cumcount() >= first[rows["id"]])

    results = load(write(tmp_path, grid(attack__name=ALL, recipe__seed=[0, 1]), measure=at_random))
    frame, curves = compute(results, GAP), compute(results, "security_curve").query("what == 'search' and x > 0")
    best = frame[(frame["what"] == "best") & (frame["x"] > 0)]["mean"].to_numpy()
    for name in ALL:
        alone = curves.loc[curves["recipe"] == name, "mean"].to_numpy()
        left = frame.loc[(frame["what"] == "gap") & (frame["attack"] == name), "mean"].to_numpy()
        assert (alone >= best).all()
        assert left == pytest.approx(alone - best)
    rows = results.rows.assign(stands=results.rows["correct"] & ~results.rows["found"])
    worst = rows.groupby([f"config.{SEED}", "id", "radius"], observed=True)["stands"].min()
    assert best == pytest.approx(worst.groupby("radius").mean().to_numpy())


def test_attacks_meet_by_image_seed_and_recipe(tmp_path: Path) -> None:
    """A seed, an image and a radius count where all attacks were run; recipes are not mixed."""
    points = grid(attack__name=["pgd", "apgd"], recipe__optimiser=["sgd", "adam"], recipe__seed=[0, 1, 2])
    whole = load(write(tmp_path / "whole", points, measure=searched))
    frame = compute(whole, GAP)
    assert set(frame["recipe"]) == {"sgd", "adam"}
    for recipe in ("sgd", "adam"):
        margin = np.array([smallest({**p, OPTIMISER: recipe}, 40) for p in seeds_of("apgd")])[:, :, None]
        best = frame[(frame["what"] == "best") & (frame["recipe"] == recipe)]
        assert np.allclose(best["mean"][1:], (CORRECT[:, None] & (margin > np.array(LADDER))).mean((0, 1)))
    one_less = compute(load(write(tmp_path / "less", points, measure=searched, failed=[1])), GAP)
    assert one_less.groupby("recipe")["seeds"].agg(set).to_dict() == {"sgd": {2}, "adam": {3}}
    apgd = whole.rows["config.attack.name"] == "apgd"
    fewer = changed(whole, whole.rows[~apgd | ((whole.rows["id"] < 25) & (whole.rows["radius"] < 0.3))])
    frame = compute(fewer, GAP)
    assert set(frame["n"]) == {25}
    assert set(frame["x"]) == {0.0, *LADDER[:-1]}
    alone = changed(whole, whole.rows[~apgd])
    with pytest.raises(ReportError, match="needs two attacks or more of the same networks"):
        compute(alone, GAP)


def test_an_attack_is_what_varies_of_it_but_its_norm_and_radius(tmp_path: Path) -> None:
    points = grid(attack__name=["pgd", "apgd"], attack__steps=[10, 40], attack__norm=["Linf", "L2"])
    frame = compute(load(write(tmp_path / "steps", points, measure=searched)), GAP)
    assert frame.groupby("column")["attack"].agg(set).to_dict() == {
        norm: {"", *(f"{name}, steps {steps}" for name in ("pgd", "apgd") for steps in (10, 40))}
        for norm in ("Linf", "L2")
    }
    assert frame.attrs["caption"].startswith("Linf: apgd, steps 10 and apgd, steps 40 leave nothing standing")
    assert len(catalogue.find(GAP).draw(frame, catalogue.parse(GAP).options).axes) == 4

    def within(point: Point) -> pd.DataFrame:
        return searched(point, ladder=[float(point["attack.epsilon"])])

    points = grid(attack__name=["pgd", "apgd"], attack__epsilon=[0.05, 0.1])
    frame = compute(load(write(tmp_path / "radii", points, measure=within)), GAP)
    assert set(frame["attack"]) == {"", "pgd", "apgd"}
    assert set(frame.loc[frame["what"] == "gap", "x"]) == {0.05, 0.1}


def test_passes_are_medians_of_whole_searches(attacks: Results) -> None:
    frame = compute(attacks, GAP)
    for name in ("pgd", "apgd", "square"):
        rows = pd.concat([searched(point).query("radius == 0.3 and correct") for point in seeds_of(name)])
        wanted = (rows["forwards"] + rows["backwards"]).median()
        assert set(frame.loc[frame["attack"] == name, "passes"]) == {wanted}
    figure = catalogue.find(GAP).draw(frame, catalogue.parse(GAP).options)
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told[0].startswith("pgd (")
    assert told[0].endswith(" passes)")


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"varied": ["recipe.optimiser"]}, "nothing of the attack varies"),
        ({"varied": ["attack.norm", "attack.epsilon"]}, "nothing of the attack varies"),
        (
            {"varied": ["attack.steps", "recipe.learning_rate"], "search": {"attack.steps": "int"}},
            "differ in learning rate",
        ),
        ({"varied": ["attack.name", "recipe.optimiser"], "search": {}}, None),
        ({"varied": ["attack"]}, None),
        ({}, None),
    ],
)
def test_a_sweep_of_one_attack_has_no_gap(entries: dict[str, object], why: str | None) -> None:
    sweep = SweepRecord.read(entries)
    columns = list(searched({}, examples=1))
    fits = {chosen.name for chosen in catalogue.fitting(columns, sweep)}
    assert (GAP in fits) is (why is None)
    if why is not None:
        with pytest.raises(ValueError, match=f"needs two attacks or more of the same networks, and .*{why}"):
            catalogue.parse(GAP, columns, sweep=sweep)


def test_of_many_recipes_those_are_drawn_that_differ_most(tmp_path: Path) -> None:
    points = grid(attack__name=["pgd", "apgd"], recipe__input_noise__radius=[0.01 * i for i in range(9)])
    frame = compute(load(write(tmp_path, points, measure=searched)), GAP)
    assert frame["recipe"].nunique() == 9
    assert "Only the 6 most telling of 9 recipes are drawn" in frame.attrs["caption"]
    figure = catalogue.find(GAP).draw(frame, catalogue.parse(GAP).options)
    assert [len(ax.lines) for ax in figure.axes] == [6, 12]


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
    for radius in (0.02, 0.1, 0.3):
        frame = compute(attacks, {"search_cost": {"radius": radius}})
        far = np.array([smallest(point, 40)[CORRECT] for point in seeds_of("pgd")])
        assert np.allclose(frame.loc[frame["recipe"] == "pgd", "mean"], (far <= radius).mean())
    with pytest.raises(ReportError, match=r"radius 0.15 was not searched; there are 0.02, 0.05"):
        compute(attacks, {"search_cost": {"radius": 0.15}})


def test_success_is_told_where_it_tells_most(tmp_path: Path, attacks: Results) -> None:
    """At the radius at which all attacks of a ladder fool a share that is nearest to a half."""
    far = np.array([[smallest(p, 40)[CORRECT] for p in seeds_of(name)] for name in ("pgd", "apgd", "square")])
    share = [(far <= radius).mean() for radius in LADDER]
    chosen = LADDER[int(np.abs(np.array(share) - 0.5).argmin())]
    assert chosen not in (LADDER[0], LADDER[-1])
    frame = compute(attacks, "search_cost")
    pd.testing.assert_frame_equal(frame, compute(attacks, {"search_cost": {"radius": chosen}}), check_like=True)
    assert f"within the radius {chosen:g}, the one at which" in frame.attrs["caption"]

    def within(point: Point) -> pd.DataFrame:
        return searched(point, ladder=[0.1, 0.3] if point["attack.norm"] == "L2" else [0.02, 0.05])

    results = load(write(tmp_path, grid(attack__norm=["Linf", "L2"]), measure=within))
    frame = compute(results, "search_cost")
    for norm, radius in (("Linf", 0.05), ("L2", 0.1)):
        share = (smallest({}, 40)[CORRECT] <= radius).mean()
        assert np.allclose(frame.loc[frame["recipe"] == norm, "mean"], share)
    assert "within the radius of each ladder" in frame.attrs["caption"]


def test_both_kinds_of_passes_have_the_same_scale(attacks: Results) -> None:
    rank = attacks.rows["recipe"].cat.codes
    spread = changed(attacks, attacks.rows.assign(forwards=10.0 + 30 * rank, backwards=7.0 * 5.0**rank))
    frame = compute(spread, "search_cost")
    figure = catalogue.find("search_cost").draw(frame, catalogue.parse("search_cost").options)
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]


def test_cost_that_grows_along_the_ladder_counts_once(attacks: Results) -> None:
    """Where each radius tells what was spent up to it, the whole attack is what the last tells."""
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
def test_lengths_are_told_with_norm_and_unit(settings: dict[str, str], label: str, tmp_path: Path) -> None:
    """From the attack's settings; the column's own words where these do not tell."""
    folder = write(
        tmp_path, grid(recipe__seed=[0]), measure=searched, fixed=settings, sweep={"columns": SEARCH_COLUMNS}
    )
    assert compute(load(folder), "distances").attrs["x"] == label
