"""Numbers that are not finite make a trial fail, and the others go on.

So does whatever else a user's code returns or raises.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pydantic import JsonValue

from engine import sweep
from engine.execution.trial import scalars
from engine.execution.workers import table
from tasks.parts.finite import NotFinite
from tasks.parts.models import build as models

Said = pytest.CaptureFixture[str]
RECIPE = {"dataset": "blobs", "network": "mlp", "epochs": 1}
ATTACK = {"norm": "Linf", "epsilon": 0.2, "steps": 2}
TASKS: dict[str, dict[str, JsonValue]] = {
    "input_flatness": {"conditions": ["genuine"], "radii": [0.2], "samples": 4},
    "evaluation": {"conditions": ["clean", "noise"], "radii": [0.2], "samples": 2},
    "adversarial_search": {"attack": ATTACK, "black_box": 0},
    "transfer": {"networks": [{}], "members": 2, "attack": ATTACK, "samples": 2},
}
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)
        torch.manual_seed(0)
        nn.init.normal_(self.layer.weight)

    def forward(self, x):
        logits = self.layer(x.flatten(1))
        return {odd}


def build(shape, classes):
    return Net()
"""
TASK = """
import sys
import numpy as np
from tasks.parts.batching import in_batches
from tasks.parts.contract import TaskConfig
from pydantic import Field

COLUMNS = {"id": "example", "hit": "correct", "size": "a number"}


class Config(TaskConfig):
    case: int = Field(default=0, description="0: all is well")


def needs(config):
    return {"classifier": config.recipe}


def columns(config, made, batch):
    hit = (made["classifier"](batch.images).argmax(1) == batch.labels).double().numpy()
    return {"id": np.array(batch.ids), "hit": hit, "size": np.arange(len(hit), dtype=float)}


def measure(config, made, batch):
    return columns(config, made, batch)


def summarise(config, rows):
    return {"accuracy": float(rows["hit"].mean())}
"""


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def run(task: str, *options: str, grid: dict[str, JsonValue] | None = None, **fixed: JsonValue) -> int:
    entries: dict[str, JsonValue] = {
        "task": task,
        "fixed": {"examples": 12, "recipe": RECIPE} | fixed,
    }
    entries |= {"grid": grid} if grid else {}
    Path("small.yaml").write_text(json.dumps({**entries, "resources": {"chunk": 5, "gpus": 0}}))
    return sweep.main(["small.yaml", "--local", *options])


def own_task(name: str, code: str) -> str:
    """A task of a user's own, in a package that no other test has."""
    Path(f"own_{name}").mkdir()
    Path(f"own_{name}", "task.py").write_text(code)
    return f"own_{name}.task"


def records() -> list[dict[str, Any]]:
    found = [json.loads(file.read_text()) for file in Path("results/small/trials").glob("*/trial.json")]
    return sorted(found, key=lambda record: json.dumps(record["point"]))


# -------------------------------------------------------------------------------- weights of a file


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(dtype: torch.dtype, number: float, capsys: Said) -> None:
    state = {name: value.to(dtype) for name, value in models.build("mlp", (1, 4, 4), 3).state_dict().items()}
    name = [name for name in state if name not in ("mean", "std")][1]
    state[name].flatten()[3] = number
    torch.save(state, "odd.pt")
    assert run("input_flatness", recipe=RECIPE | {"epochs": 0, "weights": "odd.pt"}) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(
        "small.yaml:1: fixed.recipe.weights: odd.pt has numbers that are not finite (NaN or infinite): "
    )
    assert name in said
    assert not Path("results").exists()


def test_weights_too_large_for_the_network_are_refused(capsys: Said) -> None:
    state = {name: value.double() for name, value in models.build("mlp", (1, 4, 4), 3).state_dict().items()}
    next(iter(state.values())).fill_(1e300)
    torch.save(state, "odd.pt")
    assert run("input_flatness", recipe=RECIPE | {"epochs": 0, "weights": "odd.pt"}) == 2
    assert "not finite" in capsys.readouterr().err


def test_statistics_of_a_batch_normalisation_are_weights_too(capsys: Said) -> None:
    model = models.build("resnet9", (1, 8, 8), 10, options={"width": 4})
    next(values for name, values in model.named_buffers() if name.endswith("running_var")).fill_(torch.nan)
    torch.save(model.state_dict(), "odd.pt")
    recipe = {
        "dataset": "digits",
        "network": "resnet9",
        "network_options": {"width": 4},
        "epochs": 0,
        "weights": "odd.pt",
    }
    assert run("input_flatness", recipe=recipe) == 2
    assert "running_var" in capsys.readouterr().err


def test_infinities_that_a_network_is_built_with_are_its_own(capsys: Said) -> None:
    """A mask, as in attention."""
    code = NETWORK.format(odd="logits + self.mask[2]").replace(
        "        torch.manual_seed(0)\n",
        "        torch.manual_seed(0)\n        self.register_buffer('mask', torch.full((3, 3), -torch.inf).triu(1))\n",
    )
    Path("masked.py").write_text(code)
    recipe = RECIPE | {"network": "masked:build"}
    torch.save(models.build("masked:build", (1, 4, 4), 3).state_dict(), "masked.pt")
    assert run("evaluation", **TASKS["evaluation"], recipe=recipe | {"weights": "masked.pt"}) == 0, (
        capsys.readouterr().err
    )


# ----------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_training_that_diverges_fails_its_trial_alone(optimiser: str, capsys: Said) -> None:
    recipe = RECIPE | {"epochs": 3, "optimiser": optimiser}
    rates = [0.01, 1e30]
    assert run("input_flatness", **TASKS["input_flatness"], recipe=recipe, grid={"recipe.learning_rate": rates}) == 1
    said = capsys.readouterr()
    assert "1 of 2 trials done, 1 failed" in said.out
    assert "failed: learning_rate=1e+30: training diverged: the " in said.err
    done, failed = records()
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert "not finite in epoch 1; take a smaller learning rate than 1e+30, or set clip_norm" in failed["error"]
    assert failed["error"].startswith("training diverged")
    assert len(list(Path("results/artifacts/classifier").iterdir())) == 1


# ----------------------------------------------------------------------------- what networks return

BRIGHT = "(x.flatten(1).mean(1) > {limit})[:, None]"


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize("task", TASKS)
def test_a_network_that_is_not_finite_for_some_image_fails_every_task(task: str, number: str, capsys: Said) -> None:
    """One image alone is too bright for it, and is named. The other trial goes on."""
    from tasks.parts.data import load as data

    split = data.load("blobs", "test")
    brightness = data.gather(split, range(12)).flatten(1).mean(1)
    limit = float(brightness.sort().values[-2:].mean())
    name = f"bright_{task}_{number}"
    Path(f"{name}.py").write_text(
        NETWORK.format(odd=f"torch.where({BRIGHT.format(limit=limit)}, torch.tensor(float('{number}')), logits)")
    )
    fixed = TASKS[task] | {"examples": list(range(12))}
    recipe = RECIPE | {"network": f"{name}:build", "epochs": 0, "normalisation": "none"}
    status = run(task, **fixed, recipe=recipe, grid={"seed": [0, 1]})
    said = capsys.readouterr()
    if status == 2:  # tried at the first images before any work
        assert "the network returns numbers that are not finite" in said.err
        return
    assert status == 1
    for record in records():
        assert record["status"] == "failed"
        assert "summary" not in record
        assert record["error"].startswith("the network returns numbers that are not finite (NaN or infinite) for ")


def test_the_example_is_named_when_it_fails_only_under_noise(capsys: Said) -> None:
    """The network is fine at the images themselves, and so in its training."""
    odd = "torch.where((x.flatten(1).amax(1) > 1.5)[:, None], torch.tensor(float('nan')), logits)"
    Path("noisy.py").write_text(NETWORK.format(odd=odd))
    fixed = {"conditions": ["genuine"], "radii": [2.0], "clip": False, "samples": 2, "examples": list(range(12))}
    recipe = RECIPE | {"network": "noisy:build", "normalisation": "none"}
    assert run("input_flatness", **fixed, recipe=recipe) == 1
    (record,) = records()
    assert record["error"] == "the network returns numbers that are not finite (NaN or infinite) for example 0"
    assert len(list(Path("results/artifacts/classifier").iterdir())) == 1  # it was sound until then


def test_a_users_task_that_asks_the_network_itself_is_watched(capsys: Said) -> None:
    """It takes the argmax of NaN, which is a class like any other."""
    Path("odd_net.py").write_text(NETWORK.format(odd="logits / (0 if len(x) and x.flatten(1)[0, 0] == 0.5 else 1)"))
    code = TASK.replace("(batch.images)", "(batch.images * 0 + (0.5 if 7 in batch.ids else 0.25))")
    task = own_task("asking", code)
    recipe = RECIPE | {"network": "odd_net:build", "normalisation": "none"}
    assert run(task, examples=list(range(12)), recipe=recipe) == 1
    (record,) = records()
    assert record["error"] == "the network returns numbers that are not finite (NaN or infinite) for example 7"


# ------------------------------------------------------------------------------ what a task returns

IDS = [4, 7]
LABELS = {"id": "example", "x": "a number"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_infinite_number_has_a_column_and_an_example(dtype: type) -> None:
    columns = {"id": np.array(IDS), "x": np.array([0, -np.inf], dtype)}
    with pytest.raises(NotFinite, match=r"^the column x has an infinite number for example 7$"):
        table(columns, LABELS, IDS, "cpu")


@pytest.mark.parametrize("values", [[0.5, np.nan], [None, "a"], [[1.0], [2.0, np.nan]]])
def test_what_may_be_missing_is_declared(values: object) -> None:
    columns = {"id": np.array(IDS), "x": pd.Series(values)}
    table(columns, LABELS, IDS, "cpu")  # a task that declares nothing
    table(columns, LABELS, IDS, "cpu", {"x"})
    with pytest.raises(NotFinite, match=r"^the column x has no value \(NaN\) for example [47]$"):
        table(columns, LABELS, IDS, "cpu", frozenset())


def test_lists_of_numbers_are_looked_into() -> None:
    columns = {"id": np.array(IDS), "x": [[1.0], [2.0, np.inf]]}
    with pytest.raises(NotFinite, match="for example 7"):
        table(columns, LABELS, IDS, "cpu")


def test_rows_are_of_the_examples_that_were_given() -> None:
    with pytest.raises(ValueError, match="rows of the example 0, which it was not given"):
        table({"id": np.arange(2), "x": np.zeros(2)}, LABELS, IDS, "cpu")
    with pytest.raises(TypeError, match="no columns but None"):
        table(None, LABELS, IDS, "cpu")
    assert table({"id": np.array([], int), "x": np.array([])}, LABELS, IDS, "cpu", frozenset()).num_rows == 0


@pytest.mark.parametrize(
    "value", [np.float32(3), np.int8(3), True, torch.tensor(3.0), np.array(3), pa.scalar(3).as_py()]
)
def test_a_scalar_is_any_number(value: object) -> None:
    (number,) = scalars({"n": value}).values()
    assert type(number) is float
    assert number == float(value)


@pytest.mark.parametrize(
    "summary", [None, [1], {"n": "3"}, {"n": [1, 2]}, {"n": np.zeros(2)}, {1: 2.0}, {"n": 1j}, {"n": {}}]
)
def test_what_is_no_number_is_told(summary: object) -> None:
    with pytest.raises(TypeError, match="summarise returned"):
        scalars(summary)


CASES = {
    "return None": "TypeError: measure returned no columns but None",
    "return {'id': np.array(batch.ids)}": "ValueError: measure returned the columns ['id'], but COLUMNS has ['hit', 'id', 'size']",
    "return columns(config, made, batch) | {'size': np.full(len(batch.ids), np.inf)}": "the column size has an infinite number",
    "return columns(config, made, batch) | {'size': np.zeros(1)}": "ValueError",
    "raise KeyError": "KeyError",
    "raise ValueError('first\\nlast')": "ValueError: last",
    "sys.exit(3)": "RuntimeError: measure raised SystemExit: 3, which ends a process",
    "raise BaseException('x')": "RuntimeError: measure raised BaseException: x, which ends a process",
    "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})": "Mute",
}
SUMMARIES = {
    "return None": "TypeError: summarise returned None, no mapping from names to numbers",
    "return {'a': 'b'}": "TypeError: summarise returned 'b' for a, which is no number",
    "return {'a': object}": "TypeError: summarise returned <class 'object'> for a, which is no number",
    "sys.exit()": "RuntimeError: summarise raised SystemExit, which ends a process",
    "raise RuntimeError": "RuntimeError",
}


def test_whatever_a_users_task_does_is_the_failure_of_that_trial(capsys: Said) -> None:
    """Of the trials the first does all well, each other one does something else."""
    measuring = "".join(f"    if config.case == {n}:\n        {case!s}\n" for n, case in enumerate(CASES, 1))
    first = len(CASES) + 1
    summing = "".join(f"    if config.case == {n}:\n        {case!s}\n" for n, case in enumerate(SUMMARIES, first))
    code = TASK.replace("    return columns(", f"{measuring}    return columns(", 1)
    code = code.replace('    return {"accuracy"', f'{summing}    return {{"n": np.float32(1.5), "accuracy"')
    task = own_task("wild", code)
    wanted = ["", *CASES.values(), *SUMMARIES.values()]
    assert run(task, grid={"case": list(range(len(wanted)))}) == 1
    said = capsys.readouterr()
    assert f"1 of {len(wanted)} trials done, {len(wanted) - 1} failed" in said.out
    assert "Traceback" not in said.err
    told = {record["point"]["case"]: record for record in records()}
    assert len(told) == len(wanted)
    assert told[0]["status"] == "done"
    assert told[0]["summary"]["n"] == 1.5
    for case, words in enumerate(wanted[1:], 1):
        assert told[case]["status"] == "failed"
        assert told[case]["error"].startswith(words), (case, told[case]["error"])
        assert not told[case]["error"].endswith(": ")


def test_what_a_users_task_raises_before_the_work_is_one_line(capsys: Said) -> None:
    task = own_task("early", TASK.replace('    return {"classifier": config.recipe}', "    return {}['x']"))
    assert run(task) == 2
    said = capsys.readouterr().err
    assert said == "small.yaml:1: task: own_early.task: needs failed: KeyError: 'x' (task.py, line 16)\n"


def test_a_scalar_that_is_infinite_is_told_and_is_no_objective(capsys: Said) -> None:
    """A mean over seeds that leaves it out would be too small."""
    task = own_task(
        "far", TASK.replace('    return {"accuracy"', '    return {"far": np.inf, "nowhere": np.nan, "accuracy"')
    )
    assert run(task) == 0
    (record,) = records()
    assert record["summary"]["far"] is None
    assert record["infinite"] == {"far": "inf"}
    line = pd.read_parquet("results/small/trials.parquet").iloc[0]
    assert line["summary.far"] == np.inf
    assert pd.isna(line["summary.nowhere"])
    (trial,) = Path("results/small/trials").iterdir()
    assert "Infinity" not in (trial / "trial.json").read_text()
    Path("small.yaml").write_text(Path("small.yaml").read_text()[:-1] + ', "objective": {"metric": "far"}}')
    capsys.readouterr()
    assert sweep.main(["small.yaml", "--local", "--fresh"]) == 1
    assert "the objective far is infinite" in capsys.readouterr().err
