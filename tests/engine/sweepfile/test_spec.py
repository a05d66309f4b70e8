"""From a sweep file to trials: equal forms, overrides, searches, and the resolved sweep."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Protocol

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.plan.plan import plan
from engine.results import finish as results
from engine.sweepfile.load import Spec, load
from engine.sweepfile.schema import Distribution
from engine.sweepfile.task_modules import task_names
from engine.sweepfile.yaml_lines import SpecError
from tasks.parts.settings import UserError

NESTED = """\
task: input_flatness
fixed:
  examples: 5
  radii: [0.1, 8/255]
  attack: {epsilon: 0.3, steps: 2}
  recipe:
    dataset: blobs
    network: mlp
    network_options: {width: 8}
    input_noise: {kind: sphere}
grid:
  recipe:
    optimiser: [sgd, adam]
    input_noise:
      radius: [0, 1/4]
seeds: 2
"""
DOTTED = """\
seeds: [0, 1]
grid.recipe.optimiser: [sgd, adam]
grid.recipe.input_noise.radius: [0.0, 0.25]
fixed.recipe.network_options.width: 8
fixed.recipe.input_noise.kind: sphere
fixed.recipe.network: 'mlp'
fixed.recipe: {dataset: "blobs"}
fixed.attack.steps: 2
fixed.attack.epsilon: 3e-1
fixed.radii: [1/10, 0.03137254901960784]
fixed.examples: 5
task: input_flatness
"""
SEARCH = """\
task: input_flatness
fixed: {recipe: {dataset: blobs, network: linear}}
search:
  recipe.learning_rate: {loguniform: [0.001, 0.1]}
  recipe.input_noise.radius: {uniform: [0.1, 1/2]}
  recipe.epochs: {int: [1, 3]}
  recipe.optimiser: {choice: [sgd, adam]}
trials: %d
"""


class Written(Protocol):
    """Loads a sweep from text."""

    def __call__(self, text: str, *overrides: str, name: str = "x.yaml") -> Spec: ...


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Loads a sweep from text."""

    def load_text(text: str, *overrides: str, name: str = "x.yaml") -> Spec:
        (tmp_path / name).write_text(text)
        return load(tmp_path / name, overrides)

    return load_text


def configs(spec: Spec) -> list[dict[str, object]]:
    return [trial.config.model_dump() for trial in spec.trials]


def test_grid_has_all_combinations_and_seeds_come_last(written: Written) -> None:
    spec = written(NESTED)
    expected = list(itertools.product(["sgd", "adam"], [0, 0.25], [0, 1]))
    found = [(t.config.recipe.optimiser, t.config.recipe.input_noise.radius, t.config.recipe.seed) for t in spec.trials]
    assert found == expected
    assert spec.trials[3].point == {"recipe.optimiser": "sgd", "recipe.input_noise.radius": "1/4", "recipe.seed": 1}
    assert spec.trials[0].label == "optimiser=sgd radius=0 seed=0"
    assert all(trial.config.recipe.input_noise.kind == "sphere" for trial in spec.trials)
    assert spec.name == "x"


def test_dotted_and_nested_forms_are_the_same_trials(written: Written) -> None:
    nested, dotted = written(NESTED), written(DOTTED)
    assert configs(nested) == configs(dotted)
    assert [item.key for item in plan(nested)] == [item.key for item in plan(dotted)]


def shuffled(entries: object, shuffle: random.Random) -> object:
    """The same entries with the keys of all mappings in another order."""
    if not isinstance(entries, dict):
        return entries
    keys = list(entries)
    shuffle.shuffle(keys)
    return {key: shuffled(entries[key], shuffle) for key in keys}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_keys_changes_no_hash(written: Written, seed: int) -> None:
    other = yaml.safe_dump(shuffled(yaml.safe_load(NESTED), random.Random(seed)), sort_keys=False)
    assert other != NESTED
    assert {item.key for item in plan(written(other))} == {item.key for item in plan(written(NESTED))}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["recipe.optimiser=adam"],
        ["recipe.input_noise={radius: 0.5}", "seeds=1"],
        ["grid.recipe.epochs=[1, 2]", "resources.gpus=0.5", "data_root=/nowhere at all"],
        ["figures=[effects, {recipes: {level: 0.9}}]", 'about="1e3"', "objective.metric=accuracy"],
        ["classes=['08', 1]", "recipe.classes=['blob 0', 2]", "seeds="],
    ],
)
@pytest.mark.parametrize("text", [NESTED, DOTTED, SEARCH % 3])
def test_the_resolved_sweep_has_the_same_trials(written: Written, text: str, overrides: list[str]) -> None:
    if "search" in text:
        overrides = [override.replace("grid.recipe.epochs=[1, 2]", "recipe.epochs=2") for override in overrides]
    spec = written(text, *overrides)
    again = written(results.resolved(spec), name="y.yaml")
    assert configs(again) == configs(spec)
    assert [trial.point for trial in again.trials] == [trial.point for trial in spec.trials]
    assert again.sweep == spec.sweep


@pytest.mark.parametrize("names", [["08"], ["1e3"], ["no"], ["~"], [".5"], ["2020-01-01"], ["true"], ["0x1"], ["a: b"]])
def test_the_resolved_sweep_keeps_text_text(written: Written, names: list[str]) -> None:
    spec = written(NESTED, f"classes={yaml.safe_dump([*names], default_style=chr(39), default_flow_style=True)}")
    assert spec.trials[0].config.classes == names
    assert written(results.resolved(spec), name="y.yaml").trials[0].config.classes == names


@pytest.mark.parametrize(
    ("value", "seeds"), [("3", [0, 1, 2]), ("1", [0]), ("[5, 3]", [5, 3]), ("[0]", [0]), ("2.0", [0, 1])]
)
def test_seeds(written: Written, value: str, seeds: list[int]) -> None:
    spec = written(NESTED, f"seeds={value}", "recipe.optimiser=sgd", "recipe.input_noise.radius=0")
    assert [trial.config.recipe.seed for trial in spec.trials] == seeds
    assert [trial.config.seed for trial in spec.trials] == [0] * len(seeds)


def test_without_anything_that_varies_there_is_one_trial(written: Written) -> None:
    (trial,) = written("task: input_flatness\n").trials
    assert trial.point == {}
    assert trial.label == "the only trial"


def test_an_override_fixes_what_varies(written: Written) -> None:
    spec = written(NESTED, "recipe.optimiser=adamw")
    assert {trial.config.recipe.optimiser for trial in spec.trials} == {"adamw"}
    assert spec.sweep.varied == ["recipe.input_noise.radius"]
    assert len(spec.trials) == 4


def test_an_override_of_a_group_fixes_all_in_it(written: Written) -> None:
    spec = written(NESTED, "recipe.input_noise={radius: 0.5}")
    assert spec.sweep.varied == ["recipe.optimiser"]
    assert {(t.config.recipe.input_noise.radius, t.config.recipe.input_noise.kind) for t in spec.trials} == {
        (0.5, "additive")  # the group as it is given, not what the file had in it
    }


def test_overrides_come_in_order_and_the_last_wins(written: Written) -> None:
    spec = written(NESTED, "samples=3", "attack.steps=9", "attack={epsilon: 0.2}", "samples=4")
    config = spec.trials[0].config
    assert (config.samples, config.attack.steps, config.attack.epsilon) == (4, None, 0.2)


def test_an_override_of_the_grid_and_of_the_sweep(written: Written) -> None:
    spec = written(NESTED, "grid.recipe.optimiser=[adamw]", "grid.samples=[3, 4]", "seeds=1", "resources.chunk=2")
    assert spec.sweep.grid == {
        "recipe.optimiser": ["adamw"],
        "recipe.input_noise.radius": [0, "1/4"],
        "samples": [3, 4],
    }
    assert spec.sweep.resources.chunk == 2


def test_the_whole_grid_may_be_fixed(written: Written) -> None:
    spec = written(NESTED, "recipe.optimiser=sgd", "recipe.input_noise.radius=0", "seeds=")
    assert [trial.point for trial in spec.trials] == [{}]


def test_a_search_of_which_all_is_fixed_needs_no_trials(written: Written) -> None:
    fixed = ["recipe.learning_rate=0.1", "recipe.input_noise.radius=0", "recipe.epochs=1", "recipe.optimiser=sgd"]
    assert len(written(SEARCH % 5, *fixed).trials) == 1
    assert len(written(SEARCH % 5, *fixed[:3]).trials) == 5


def test_a_grid_of_whole_groups(written: Written) -> None:
    text = "task: input_flatness\ngrid:\n  recipe: [{epochs: 1}, {epochs: 2, network: mlp}]\nseeds: 2\n"
    spec = written(text)
    assert [(t.config.recipe.epochs, t.config.recipe.network, t.config.recipe.seed) for t in spec.trials] == [
        (1, "convnet", 0),
        (1, "convnet", 1),
        (2, "mlp", 0),
        (2, "mlp", 1),
    ]
    assert spec.sweep.grid["recipe"] == [{"epochs": 1}, {"epochs": 2, "network": "mlp"}]
    assert spec.trials[1].point == {"recipe": {"epochs": 1}, "recipe.seed": 1}


def test_a_longer_search_keeps_its_points(written: Written) -> None:
    short, long = written(SEARCH % 4), written(SEARCH % 9)
    assert [trial.point for trial in long.trials[:4]] == [trial.point for trial in short.trials]
    assert [trial.point for trial in written(SEARCH % 9).trials] == [trial.point for trial in long.trials]


def test_another_searched_setting_leaves_the_values_of_the_others(written: Written) -> None:
    more = SEARCH.replace("trials:", "  samples: {int: [2, 9]}\ntrials:") % 5
    for point, other in zip(written(SEARCH % 5).trials, written(more).trials, strict=True):
        assert point.point.items() <= other.point.items()


def test_search_draws_from_the_whole_range_and_no_further(written: Written) -> None:
    points = [trial.point for trial in written(SEARCH % 400).trials]
    rates = [point["recipe.learning_rate"] for point in points]
    radii = [point["recipe.input_noise.radius"] for point in points]
    assert 0.001 <= min(rates) <= max(rates) <= 0.1
    assert 0.1 <= min(radii) <= max(radii) <= 0.5
    # 400 uniform draws: their mean is within five standard errors of the middle, on its own scale.
    error = 5 / math.sqrt(12 * 400)
    assert abs(sum(radii) / 400 - 0.3) < error * 0.4
    assert abs(sum(map(math.log, rates)) / 400 - math.log(0.01)) < error * math.log(100)
    for name, among in [("recipe.epochs", [1, 2, 3]), ("recipe.optimiser", ["sgd", "adam"])]:
        counts = [sum(point[name] == value for point in points) for value in among]
        assert sum(counts) == 400
        assert min(counts) > 400 / len(among) - 5 * math.sqrt(400 / len(among))


ends = st.floats(-1e300, 1e300)
positive = st.floats(1e-300, 1e300)
whole = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None)
@given(
    st.tuples(ends, ends).map(sorted), st.tuples(positive, positive).map(sorted), st.tuples(whole, whole).map(sorted)
)
def test_draws_are_inside_their_bounds(between: list[float], scale: list[float], numbers: list[int]) -> None:
    for given_as, (low, high) in {"uniform": between, "loguniform": scale, "int": numbers}.items():
        if low < high:
            distribution = Distribution.model_validate({given_as: [low, high]})
            drawn = [distribution.draw("x", index) for index in range(5)]
            assert all(low <= value <= high for value in drawn)


def test_every_task_on_disk_is_known() -> None:
    assert "input_flatness" in task_names()
    assert not {"parts", "__init__"} & set(task_names())


def test_errors_found_later_are_placed_in_the_file(written: Written) -> None:
    spec = written(NESTED, "attack.steps=3")
    at = {
        "recipe.dataset": "7: fixed.recipe.dataset",
        "recipe.optimiser": "13: grid.recipe.optimiser",
        "recipe.weights": "6: fixed.recipe.weights",
        "seeds": "16: seeds",
    }
    for field, expected in at.items():
        assert spec.error(UserError("no", field)).message.endswith(f"x.yaml:{expected}: no")
    assert spec.error(UserError("no", "attack.steps")).message == "override attack.steps=3: fixed.attack.steps: no"
    assert spec.error(UserError("no")).message.endswith("x.yaml: no")
    second = spec.trials[2]
    assert spec.error(UserError("no", "recipe.input_noise.radius"), second).message.endswith(
        "x.yaml:15: grid.recipe.input_noise.radius.1: no"
    )
    assert spec.error(UserError("no", "recipe.seed"), second).message.endswith("x.yaml:16: seeds: no")
    already = SpecError("whole")
    assert spec.error(already) is already
