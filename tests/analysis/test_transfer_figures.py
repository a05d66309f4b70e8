"""The figures of transfer, against counts in plain loops and planted answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linear_sweeps import grid, write
from planted_searches import NAMES, transferred
from scipy import stats as reference

from analysis import catalogue
from analysis.results import ReportError, Results
from analysis.stats import wilson
from analysis.table import load

EVERY, RIGHT = "all examples", "right before, and found at the source"


def sweep(folder: Path, measure: Callable[..., pd.DataFrame], seeds: int = 1, **how: object) -> Results:
    return load(write(folder, grid(recipe__seed=list(range(seeds))), measure=measure, **how))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sweep(tmp_path_factory.mktemp("one"), transferred)


def compute(results: Results, entry: object) -> pd.DataFrame:
    chosen = catalogue.parse(entry, columns=list(results.rows))
    frame = chosen.module.compute(results, chosen.options)
    assert isinstance(frame, pd.DataFrame)
    return frame


def changed(results: Results, rows: pd.DataFrame) -> Results:
    return Results(results.sweep, results.trials, rows, results.varied, results.replicates)


def test_matrix_is_counted_as_in_a_loop(one: Results) -> None:
    frame = compute(one, "transfer_matrix").set_index(["panel", "source", "x"])
    rows = transferred({}, examples=60).to_dict("records")
    for target in NAMES:
        for source in (*NAMES, "all others, jointly", "random"):
            name = f"all but {target}" if source == "all others, jointly" else source
            here = [row for row in rows if row["source"] == name and row["target"] == target]
            right = [
                row
                for row in here
                if row["target_correct"] and (source == "random" or (row["source_correct"] and row["found"]))
            ]
            for panel, images in ((EVERY, here), (RIGHT, right)):
                cell = frame.loc[(panel, source, target)]
                k, n = sum(row["fooled"] for row in images), len(images)
                assert cell["n"] == n
                assert cell["mean"] == pytest.approx(k / n)
                low, high = wilson(k, n)
                assert (cell["low"], cell["high"]) == pytest.approx((float(low), float(high)))
                assert cell["same"] == (source == target)
    assert len(frame) == 2 * 8 * 6
    assert (frame.loc[RIGHT].loc[lambda cells: cells["same"], "mean"] == 1).all()  # what was found fools its source


def test_joint_searches_count_where_their_target_was_held_out(one: Results) -> None:
    """On the networks that were searched they fool nearly always; that is no transfer."""
    rows = one.rows.copy()
    own = np.array(
        [source != f"all but {target}" for source, target in zip(rows["source"], rows["target"], strict=True)]
    )
    rows["fooled"] = rows["fooled"] | (rows["joint"] & own)
    frame = compute(changed(one, rows), "transfer_matrix")
    before = compute(one, "transfer_matrix")
    assert np.allclose(frame["mean"], before["mean"])


def test_a_joint_search_may_hold_out_an_architecture(one: Results) -> None:
    rows = one.rows[one.rows["source"].astype(str).isin([*NAMES, "all but mlp, seed 0"])].copy()
    rows["held_out"] = rows["held_out"].where(~rows["joint"], rows["target"].astype(str).str.startswith("mlp"))
    frame = compute(changed(one, rows), "transfer_matrix")
    joint = frame[frame["source"] == "all others, jointly"]
    assert set(joint["x"]) == {"mlp, seed 0", "mlp, seed 1", "mlp, seed 2"}


def test_seeds_are_no_more_examples(tmp_path: Path) -> None:
    """Three trials with the same rows: the same shares with the same intervals."""
    thrice = sweep(tmp_path / "three", lambda point: transferred({}), seeds=3)
    once = sweep(tmp_path / "one", lambda point: transferred({}))
    for name in ("transfer_matrix", "shared_examples", "flatness_and_transfer"):
        first, second = compute(once, name), compute(thrice, name)
        numbers = ["mean", "low", "high", "n"]
        assert np.allclose(first[numbers].astype(float), second[numbers].astype(float), atol=0.01), name
        assert set(second["seeds"]) == {3}


def test_a_control_is_known_by_what_it_is(tmp_path: Path) -> None:
    """Not by its name: a source that is no network, and not several."""

    def renamed(point: Mapping[str, object]) -> pd.DataFrame:
        return transferred(point).replace({"source": {"random": "a step aside"}})

    here, there = sweep(tmp_path / "here", transferred), sweep(tmp_path / "there", renamed)
    for name in ("transfer_matrix", "shared_examples", "flatness_and_transfer"):
        first, second = compute(here, name), compute(there, name)
        pd.testing.assert_frame_equal(first.replace({"source": {"random": "a step aside"}}), second)
        assert second.attrs["caption"] == first.attrs["caption"].replace("random: moved", "a step aside: moved")


def test_shared_images_are_counted_as_in_a_loop(one: Results) -> None:
    frame = compute(one, "shared_examples").set_index(["source", "x"])
    rows = transferred({}, examples=60)
    all_right = rows.groupby("id")["target_correct"].all()
    for source in (*NAMES, "random"):
        images = rows[(rows["source"] == source) & (rows["target"] == NAMES[0])]
        kept = [
            row for row in images.to_dict("records") if all_right[row["id"]] and (row["found"] or source == "random")
        ]
        for k in range(len(NAMES) + 1):
            bar = frame.loc[(source, k)]
            hits = sum(row["shared"] == k for row in kept)
            assert bar["n"] == len(kept)
            assert bar["mean"] == pytest.approx(hits / len(kept))
            assert (bar["low"], bar["high"]) == pytest.approx(tuple(map(float, wilson(hits, len(kept)))))
    assert np.allclose(frame["mean"].groupby("source").sum(), 1)
    joint = frame.loc["all but one, jointly", "mean"]
    assert joint[[5, 6]].sum() == pytest.approx(1)  # the five that were searched, and with luck the sixth
    assert f"{all_right.sum()} of 60 examples" in str(compute(one, "shared_examples").attrs["caption"])


def test_examples_that_some_network_misclassifies_can_be_kept(one: Results) -> None:
    every = compute(one, {"shared_examples": {"only_correct": False}})
    assert every.loc[every["source"] == "random", "n"].iloc[0] == 60
    with pytest.raises(ReportError, match="no example is classified correctly by every network"):
        compute(changed(one, one.rows.assign(target_correct=False)), "shared_examples")


def planted(slope: float, between: float, noise: float = 0.0) -> Callable[[object], pd.DataFrame]:
    """Six networks; images found at one fool the others as the flatness at the source has it.

    `slope` within a source, `between` sources: flatter sources transfer better by so much.
    """

    def measure(_: object, examples: int = 80) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        parts = []
        for place, source in enumerate(NAMES):
            flatness = np.linspace(0, 0.5, examples) + place / 10
            rate = (
                0.5 + slope * (flatness - flatness.mean()) + between * (place - 2.5) + noise * rng.normal(size=examples)
            )
            others = [name for name in NAMES if name != source]
            order = np.clip((rate * len(others)).round(), 0, len(others))
            for target in NAMES:
                fooled = np.ones(examples, bool) if target == source else others.index(target) < order
                same = {
                    "joint": False,
                    "held_out": target != source,
                    "source_correct": True,
                    "target_correct": True,
                    "found": True,
                }
                frame = pd.DataFrame({"id": range(examples), "source": source, "target": target, **same})
                parts.append(frame.assign(fooled=fooled, flatness=flatness, distance=0.1, shared=order + 1))
        return pd.concat(parts, ignore_index=True)

    return measure


def correlation(frame: pd.DataFrame) -> tuple[float, float, float]:
    """The numbers as they are told."""
    words = str(frame.attrs["correlation"]).replace("\u2212", "-")
    first, interval = words.removeprefix("mean rank correlation ").removesuffix(")").split(" (")
    low, _, high = interval.partition(" to ")
    return float(first), float(low), float(high)


def test_bins_are_means_of_equally_many_images(tmp_path: Path) -> None:
    results = sweep(tmp_path, planted(-1.0, 0.0))
    frame = compute(results, {"flatness_and_transfer": {"bins": 4}})
    rows = planted(-1.0, 0.0)(None)
    others = rows[rows["source"] != rows["target"]]
    for source, line in frame[frame["source"] != "all sources"].groupby("source"):
        assert set(line["n"]) == {20}
        mine = others[others["source"] == source].groupby("id")[["fooled", "flatness"]].mean()
        assert np.allclose(line["mean"], mine["fooled"].to_numpy().reshape(4, 20).mean(1))
        assert np.allclose(line["x"], mine["flatness"].to_numpy().reshape(4, 20).mean(1))
    pooled = frame[frame["source"] == "all sources"]
    assert pooled["mean"].is_monotonic_decreasing
    assert (pooled["high"].to_numpy()[-1] < pooled["low"].to_numpy()[0]).all()


def test_correlation_is_the_mean_within_sources(tmp_path: Path) -> None:
    """By scipy, of the share of other networks that are fooled. Its interval leaves out zero."""
    results = sweep(tmp_path, planted(-1.0, 0.0, noise=0.2))
    rows = planted(-1.0, 0.0, noise=0.2)(None)
    each = []
    for _, others in rows[rows["source"] != rows["target"]].groupby("source"):
        by_id = others.groupby("id")[["fooled", "flatness"]].mean()
        each.append(reference.spearmanr(by_id["flatness"], by_id["fooled"]).statistic)
    rho, low, high = correlation(compute(results, "flatness_and_transfer"))
    assert rho == pytest.approx(np.mean(each), abs=0.006)
    assert low < rho < high < 0


def test_flat_sources_alone_make_no_correlation(tmp_path: Path) -> None:
    """Flatter networks transfer better, but within each nothing depends on flatness.

    Over all images one would see 0.7.
    """
    results = sweep(tmp_path, planted(0.0, 0.12, noise=0.2))
    frame = compute(results, "flatness_and_transfer")
    rho, low, high = correlation(frame)
    assert low < 0 < high
    assert abs(rho) < 0.12
    rows = planted(0.0, 0.12, noise=0.2)(None)
    by_image = rows[rows["source"] != rows["target"]].groupby(["source", "id"])[["fooled", "flatness"]].mean()
    assert reference.spearmanr(by_image["flatness"], by_image["fooled"]).statistic > 0.4
    pooled = frame.loc[frame["source"] == "all sources", "mean"]
    assert pooled.max() - pooled.min() < 0.1


def test_only_found_images_of_networks_that_were_right_count(one: Results) -> None:
    """What source or target got wrong, joint attacks and random steps change nothing."""
    before = compute(one, "flatness_and_transfer")
    rows = one.rows.copy()
    aside = ~rows["found"] | ~rows["source_correct"] | ~rows["target_correct"] | rows["joint"]
    aside |= rows["source"].astype(str) == "random"
    rows.loc[aside, "fooled"] = True
    rows.loc[aside & rows["joint"], "flatness"] = 0.0
    after = compute(changed(one, rows), "flatness_and_transfer")
    pd.testing.assert_frame_equal(before, after)
    with pytest.raises(ReportError, match="no found image was tried on another network"):
        compute(changed(one, one.rows.assign(found=False)), "flatness_and_transfer")


def test_no_correlation_where_nothing_differs(one: Results) -> None:
    frame = compute(changed(one, one.rows.assign(flatness=1.0)), "flatness_and_transfer")
    assert "No rank correlation can be told" in frame.attrs["caption"]
    assert len(frame[frame["source"] == "all sources"]) == 1  # equal flatness, one bin


@pytest.mark.parametrize("name", ["transfer_matrix", "shared_examples", "flatness_and_transfer"])
def test_unknown_recipe_is_told(name: str, one: Results) -> None:
    with pytest.raises(ReportError, match="no recipe 'lion'; there are"):
        compute(one, {name: {"recipe": "lion"}})


def test_frame_marks_the_source_itself(one: Results) -> None:
    """Each matrix has a frame around each cell of its diagonal, and numbers in all cells."""
    from matplotlib.patches import Rectangle

    chosen = catalogue.parse("transfer_matrix")
    frame = chosen.module.compute(one, chosen.options)
    for ax in chosen.module.draw(frame, chosen.options).axes:
        boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle) and not patch.get_fill()]
        assert [(box.get_x() + 0.5, box.get_y() + 0.5) for box in boxes] == [(i, i) for i in range(6)]
        assert len(ax.texts) == 2 * 8 * 6
