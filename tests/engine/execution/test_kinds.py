"""Artifact kinds of the user's own: a file each.

They are made whole or by example, and made again only where something is missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import environment
from pydantic import JsonValue

from engine import sweep
from engine.store import arrays
from engine.store.damaged import Damaged
from engine.store.store import Store
from tasks.parts.artifacts.common.kind import Saved

WHOLE = '''
"""The mean training image of each class, in steps of one class, and a network's logits for it."""
import numpy as np
import torch
from tasks.parts.artifacts import classifier
from tasks.parts.artifacts.common.kind import Attachment, Product, Progress
from tasks.parts.settings import Settings
from tasks.parts.training.recipes import Recipe

PER_EXAMPLE = False
DOING = "averaging"

class Request(Settings):
    recipe: Recipe
    scale: float = 1.0

def needs(request):
    return {"network": classifier.Request(recipe=request.recipe)}

def identity(request, root):
    return {"scale": request.scale}

def cost(request):
    return {"classes to average": 3}

def make(request, given, root, device):
    with open("made", "a") as file:
        file.write("whole ")
    train = classifier.split_of(request.recipe, "train", root)
    images = np.array(train.images, dtype=float)
    images = images / 255 if train.images.dtype == np.uint8 else images
    means = []
    for label in range(len(train.classes)):
        means.append(request.scale * images[train.labels == label].mean(0))
        yield Progress(label + 1, len(train.classes), {"brightness": float(means[-1].mean())})
    means = np.stack(means).astype(np.float32)
    logits = given["network"](torch.tensor(means, device=device)).detach().cpu().numpy()
    tiles = np.round(255 * means.clip(0, 1)).astype(np.uint8)[None, :, 0, :, :, None].repeat(3, -1)
    yield Product({"means": means, "logits": logits}, {"classes": len(means)}, {"means": Attachment(tiles, {"rows": 1})})

def load(request, saved, device):
    assert saved.facts["classes"] == len(saved.arrays["means"])
    return torch.tensor(saved.arrays["means"], device=device)
'''
BANK = '''
"""What a network gives for training images, of which there are always the same, whatever a trial measures."""
from tasks.parts.artifacts import classifier
from tasks.parts.settings import Settings
from tasks.parts.training.recipes import Recipe

PER_EXAMPLE = True

class Request(Settings):
    recipe: Recipe
    size: int = 30

def needs(request):
    return {"network": classifier.Request(recipe=request.recipe)}

def identity(request, root):
    return {}

def split(request, root):
    return classifier.split_of(request.recipe, "train", root)

def examples(request, ids, root):
    return split(request, root).ids[: request.size]

def cost(request):
    return {"representations": 1}

def make(request, given, batch):
    with open("made", "a") as file:
        file.write(f"{len(batch.ids)} ")
    return {"logits": given["network"](batch.images), "pixels": batch.images, "label": batch.labels}

def load(request, saved, device):
    return saved
'''
TASK = '''
"""How far an image is from the mean images, and from the images of a bank."""
import numpy as np
from own import bank, means
from tasks.parts.contract import TaskConfig

COLUMNS = {"id": "example", "to_mean": "L2", "to_bank": "L2", "bank": "rows"}

class Config(TaskConfig):
    size: int = 30

def needs(config):
    return {"means": means.Request(recipe=config.recipe), "bank": bank.Request(recipe=config.recipe, size=config.size)}

def measure(config, given, batch):
    means, rows = given["means"], given["bank"]
    assert list(rows.ids) == list(range(config.size))
    here = batch.images.flatten(1).cpu().numpy()
    to_bank = np.linalg.norm(here[:, None] - rows.arrays["pixels"].reshape(len(rows.ids), -1)[None], axis=2).min(1)
    to_mean = (batch.images[:, None] - means[None]).flatten(2).norm(dim=2).min(1).values
    return {"id": batch.ids, "to_mean": to_mean, "to_bank": to_bank, "bank": [len(rows.ids)] * len(batch.ids)}

def summarise(config, rows):
    return {"to_mean": rows["to_mean"].mean(), "to_bank": rows["to_bank"].mean()}
'''
SWEEP: dict[str, JsonValue] = {
    "task": "own.task",
    "fixed": {"examples": 8, "recipe": {"dataset": "blobs", "network": "linear", "epochs": 1}},
    "resources": {"gpus": 0, "chunk": 4},
}


@pytest.fixture(autouse=True)
def package(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_tmp_path / "cache"))
    Path("own").mkdir()
    for name, content in (("means", WHOLE), ("bank", BANK), ("task", TASK)):
        Path("own", f"{name}.py").write_text(content)
    Path("x.yaml").write_text(json.dumps(SWEEP))
    yield
    for name in [name for name in sys.modules if name == "own" or name.startswith("own.")]:
        del sys.modules[name]  # it must not outlive the test: others have an `own` too


def made() -> list[str]:
    """What the makers have been asked for since the last look: `whole`, or examples in a chunk."""
    file = Path("made")
    words = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return words


def rows() -> pd.DataFrame:
    parts = [pd.read_parquet(part) for part in Path("results/x/trials").glob("*/rows/part-*.parquet")]
    return pd.concat(parts).sort_values("id", ignore_index=True)


def run(*options: str) -> int:
    return sweep.main(["x.yaml", "--local", *options])


def test_a_kind_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole and by example, counted, made once, used by a task and shared.

    Lost rows are made again.
    """
    assert run("--dry-run") == 0
    told = capsys.readouterr().out
    assert "1 networks to train, 1 epochs; 3 classes to average; 30 representations; 8 examples to measure" in told
    assert run() == 0
    assert made() == ["whole", *["4"] * 6, "3", "3"]
    before = rows()
    assert (before["bank"] == 30).all()
    assert (before["to_mean"] > 0).all()

    about = json.loads(next(Path("results/artifacts/own.means").glob("*/artifact.json")).read_text())
    assert [step["brightness"] > 0 for step in about["history"]] == [True] * 3
    assert about["attachments"] == {"means": {"rows": 1}}
    record = json.loads(next(Path("results/x/trials").glob("*/trial.json")).read_text())
    # They are of the whole thing that the trial is about.
    assert record["attachments"] == {"means": {"rows": 1}}
    assert next(Path("results/x/trials").glob("*/attachments/means.png")).exists()

    capsys.readouterr()
    assert run("examples=12") == 0  # another trial, the same artifacts
    assert made() == []
    parts = sorted(Path("results/artifacts/own.bank").glob("*/rows/part-*.parquet"))
    parts[2].unlink()
    parts[3].write_bytes(b"cut")
    assert run("--fresh") == 0
    assert made() == ["4", "4"]
    again = rows()
    pd.testing.assert_frame_equal(again[again["id"].duplicated(keep=False)].drop_duplicates(ignore_index=True), before)


def test_examples_of_a_kinds_own_may_depend_on_the_trial() -> None:
    """What a process keeps loaded for one trial is not given to another with other examples."""
    Path("own/bank.py").write_text(
        BANK.replace("return split(request, root).ids[: request.size]", "return [i + 1 for i in ids]")
    )
    Path("own/task.py").write_text(TASK.replace("list(range(config.size))", "[i + 1 for i in config.examples]"))
    fixed = {name: value for name, value in SWEEP["fixed"].items() if name != "examples"}
    grid = {"examples": [[0, 1, 2, 3, 4], [20, 21, 22, 23, 24]]}
    Path("x.yaml").write_text(json.dumps({**SWEEP, "fixed": fixed, "grid": grid}))
    assert run() == 0
    assert rows()["id"].tolist() == [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]


def test_an_attachment_stays_in_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own/means.py").write_text(WHOLE.replace('{"means": Attachment', '{"../../means": Attachment'))
    assert run() == 1
    assert "the attachment '../../means' begins with a dot" in capsys.readouterr().err
    assert not list(Path("results").rglob("means.png"))


def test_curves_of_a_kinds_own_steps_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """By their own numbers, of which none is an accuracy."""
    assert run() == 0
    assert "could not be drawn" not in capsys.readouterr().err
    assert Path("results/x/figures/learning_curves.csv").exists()


def test_large_arrays_are_opened_by_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same rows at the end; nothing of them is read by the driver."""
    assert run() == 0
    before = rows()
    monkeypatch.setattr(arrays, "LARGE", 100)
    monkeypatch.setattr("engine.execution.workers.LARGE", 100)
    handed = []
    shared_rows = arrays.shared_rows
    monkeypatch.setattr(
        "engine.execution.artifacts.shared_rows", lambda *given: handed.append(shared_rows(*given)) or handed[-1]
    )
    assert run("--results", "large") == 0
    assert all(isinstance(one, arrays.Address) for one in handed)
    parts = [pd.read_parquet(part) for part in Path("large/x/trials").glob("*/rows/part-*.parquet")]
    pd.testing.assert_frame_equal(pd.concat(parts).sort_values("id", ignore_index=True), before)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("bank", "def load", "def loaded", "the artifact kind own.bank lacks load"),
        ("bank", "def split", "def splits", "the artifact kind own.bank lacks split"),
        ("means", "PER_EXAMPLE = False", "PER_EXAMPLE = 0", "own.means: PER_EXAMPLE must be True or False, not 0"),
        ("bank", "PER_EXAMPLE = True", "PER_EXAMPLE = True\nVERSION = '2'", "VERSION must be a whole number above 0"),
        ("bank", "class Request", "class Asked", "own.bank.Asked is no request of an artifact kind"),
        (
            "means",
            'return {"network": classifier.Request(recipe=request.recipe)}',
            'return {"again": request}',
            "the artifact kind own.means: what it needs, needs it in turn",
        ),
        (
            "means",
            'return {"network": classifier.Request(recipe=request.recipe)}',
            "from own import bank\n    return {'bank': bank.Request(recipe=request.recipe)}",
            "the artifact kind own.means is whole, and own.bank depends on the trial",
        ),
        (
            "bank",
            'return {"representations": 1}',
            "return 1 / 0",
            "own.bank failed: ZeroDivisionError: division by zero",
        ),
        ("bank", "ids[: request.size]", "ids[:0]", "the artifact kind own.bank asks for no examples"),
        ("bank", "ids[: request.size]", "ids + 9000", "own.bank asks for the example 9000, which is not in its split"),
    ],
)
def test_a_kind_that_breaks_the_contract_is_told_in_one_line(
    file: str, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "depends on the trial" in said:
        Path("own/bank.py").write_text(BANK.replace("def examples", "def some"))
    source = Path("own", f"{file}.py")
    source.write_text(source.read_text().replace(old, new))
    if "Asked" in new:
        Path("own/task.py").write_text(TASK.replace("bank.Request", "bank.Asked"))
    assert run() == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("x.yaml:1: task: ")
    assert said in told
    assert "\n" not in told
    assert not Path("results").exists()


def test_a_kind_with_the_name_of_one_of_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("classifier.py").write_text(BANK)
    Path("own/task.py").write_text(
        TASK.replace("from own import bank, means", "from own import means\nimport classifier as bank")
    )
    monkeypatch.delitem(sys.modules, "classifier", raising=False)
    assert run() == 2
    assert "the artifact kind classifier has the name of one of ours; rename its module" in capsys.readouterr().err


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From memory, from some parts, and gathered on the node; whatever parts they are in."""
    store = Store(tmp_path / "results")
    values = {i: np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * i for i in range(7)}
    for name, ids in (("part-a", [5, 1, 3]), ("part-b", [0, 6]), ("part-c", [2, 4])):
        columns = {"x": np.stack([values[i] for i in ids]), "flag": np.array([i % 2 == 0 for i in ids])}
        about = {"ids": json.dumps(ids), "device": "cpu"}
        store.write_table(f"k/rows/{name}.parquet", arrays.as_rows(columns, ids, about))
    for large in (10**6, 10):
        monkeypatch.setattr(arrays, "LARGE", large)
        shared = arrays.shared_rows(store, "k", [6, 1, 2, 4])
        assert isinstance(shared, Saved if large > 10 else arrays.Address)
        for ids in ([2, 6], None):
            found = arrays.opened(shared, ids)
            wanted = ids or [6, 1, 2, 4]
            assert found.ids is not None
            assert found.ids.tolist() == wanted
            assert np.array_equal(found.arrays["x"], [values[i] for i in wanted])
            assert found.arrays["flag"].tolist() == [i % 2 == 0 for i in wanted]
    with pytest.raises(KeyError, match="no row of the example 9"):
        arrays.opened(shared, [2, 9])
    with pytest.raises(RuntimeError, match="1 rows of k have disappeared"):
        arrays.shared_rows(store, "k", [1, 9])


def test_what_a_worker_writes_into_large_arrays_stays_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "results")
    size = arrays.write_whole(store, "k", {"x": np.arange(1000, dtype=np.float32), "n": np.array(3)})
    monkeypatch.setattr(arrays, "LARGE", 10)
    shared = arrays.shared_whole(store, "k", {"a": 1}, size)
    assert isinstance(shared, arrays.Address)
    found = arrays.opened(shared, None)
    torch.from_numpy(found.arrays["x"]).zero_()
    again = arrays.opened(shared, None)
    assert again.arrays["x"].tolist() == list(range(1000))
    assert again.arrays["n"] == 3
    assert again.facts == {"a": 1}
    store.write("k/arrays.pt", bytes(size))
    with pytest.raises(Damaged, match="torch cannot read it"):
        arrays.opened(shared, None)


MANY = '''
"""Half a gigabyte: 512 rows of 262144 numbers."""
import torch
from tasks.parts.artifacts import classifier
from tasks.parts.settings import Settings
from tasks.parts.training.recipes import Recipe

PER_EXAMPLE = True

class Request(Settings):
    recipe: Recipe

def identity(request, root):
    return {}

def split(request, root):
    return classifier.split_of(request.recipe, "train", root)

def examples(request, ids, root):
    return split(request, root).ids[:512]

def make(request, given, batch):
    ids = torch.tensor(batch.ids, dtype=torch.float32)
    return {"rows": ids[:, None].expand(-1, 262144)}

def load(request, saved, device):
    return saved.arrays["rows"]
'''
LOOKS = """
import os
import resource
from own import many
from tasks.parts.contract import TaskConfig

COLUMNS = {"id": "example", "bytes": "of the bank", "wrong": "rows", "pid": "of the worker"}
Config = type("Config", (TaskConfig,), {"__module__": __name__})

def needs(config):
    return {"many": many.Request(recipe=config.recipe)}

def measure(config, given, batch):
    rows = given["many"]
    wrong = int((rows[:, ::4096] != rows[:, :1]).any(1).sum() + (rows[:, 0] != range(len(rows))).sum())
    return {"id": batch.ids, "bytes": [rows.nbytes] * len(batch.ids), "wrong": [wrong] * len(batch.ids),
            "pid": [os.getpid()] * len(batch.ids)}

def summarise(config, rows):
    return {"wrong": rows["wrong"].sum()}
"""
DRIVER = """
import resource, sys
from engine import sweep
import engine.execution.ray_tune, ray, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
status = sweep.main(["y.yaml"])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before // 1024, after // 1024, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_half_a_gigabyte_goes_past_the_driver(tmp_path: Path) -> None:
    """Two workers read it, each node has one copy, and the driver's memory does not grow by it."""
    Path("own/many.py").write_text(MANY)
    Path("own/looks.py").write_text(LOOKS)
    fixed = {"examples": 32, "recipe": {"dataset": "digits", "network": "linear", "epochs": 1}}
    Path("y.yaml").write_text(json.dumps({"task": "own.looks", "fixed": fixed, "resources": {"gpus": 0, "chunk": 8}}))
    command, env = [sys.executable, "-c", DRIVER], environment(tmp_path, XDG_CACHE_HOME=str(tmp_path / "c"))
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert ran.returncode == 0, ran.stderr
    parts = [pd.read_parquet(part) for part in Path("results/y/trials").glob("*/rows/part-*.parquet")]
    found = pd.concat(parts)
    assert set(found["bytes"]) == {2**29}
    assert (found["wrong"] == 0).all()
    before, after = map(int, ran.stderr.split()[-2:])  # megabytes
    assert after - before < 300
    assert len(list((tmp_path / "c/inputscape/artifacts").iterdir())) == 1
