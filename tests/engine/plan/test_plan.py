"""What decides a trial and so its hash, what is checked before, and what is left to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import JsonValue

from engine import sweep
from engine.plan.identity import _source_hash
from engine.plan.plan import Planned, exists, missing, plan, status
from engine.store.store import Store
from engine.sweepfile.load import load
from tasks.input_flatness import Config
from tasks.parts.dotted import settings_of
from tasks.parts.models import build as models
from tasks.parts.training.identity import of_recipe
from tasks.parts.training.recipes import Recipe

BASE: dict[str, JsonValue] = {"examples": 5, "recipe": {"dataset": "blobs", "network": "mlp"}}

# Another value than the default (or than BASE's) of every setting.
OTHER: dict[str, JsonValue] = {
    "recipe.dataset": "digits",
    "recipe.image_size": 6,
    "recipe.classes": ["blob 0", "blob 2"],
    "recipe.train_examples": 50,
    "recipe.validation": 0.25,
    "recipe.network": "linear",
    "recipe.network_options": {"width": 9},
    "recipe.weights": "weights.pt",
    "recipe.freeze_backbone": True,
    "recipe.normalisation": "none",
    "recipe.optimiser": "adam",
    "recipe.learning_rate": 0.5,
    "recipe.momentum": 0.5,
    "recipe.nesterov": False,
    "recipe.schedule": "constant",
    "recipe.epochs": 7,
    "recipe.batch_size": 7,
    "recipe.weight_decay": 0,
    "recipe.label_smoothing": 0.5,
    "recipe.clip_norm": 3,
    "recipe.input_noise.kind": "sphere",
    "recipe.input_noise.radius": 0.5,
    "recipe.input_noise.probability": 0.5,
    "recipe.weight_noise.sigma": 0.5,
    "recipe.augmentation.crop": 2,
    "recipe.augmentation.flip": True,
    "recipe.adversarial_augmentation.space": "hidden:1",
    "recipe.adversarial_augmentation.direction": "away",
    "recipe.adversarial_augmentation.norm": "L2",
    "recipe.adversarial_augmentation.epsilon": 0.5,
    "recipe.adversarial_augmentation.relative": True,
    "recipe.adversarial_augmentation.steps": 7,
    "recipe.adversarial_augmentation.step_size": 0.5,
    "recipe.adversarial_augmentation.schedule": "rising",
    "recipe.adversarial_augmentation.probability": 0.25,
    "recipe.adversarial_augmentation.only": "correct",
    "recipe.adversarial_augmentation.confidence": 0.5,
    "recipe.adversarial_augmentation.equal_cost": False,
    "recipe.robust.method": "trades",
    "recipe.robust.norm": "L2",
    "recipe.robust.epsilon": 0.5,
    "recipe.robust.steps": 7,
    "recipe.robust.step_size": 0.5,
    "recipe.robust.beta": 0.5,
    "recipe.finetune_from": {"epochs": 3},
    "recipe.seed": 7,
    "split": "train",
    "examples": 6,
    "classes": ["blob 0", "blob 1", "blob 2"],
    "seed": 7,
    "batch": 7,
    "conditions": ["genuine"],
    "kinds": ["sphere"],
    "radii": [0.5],
    "samples": 7,
    "tolerance": 0.5,
    "max_samples": 7,
    "clip": False,
    "target": 1,
    "only_correct": True,
    "space": "hidden:1",
    "attack.space": "latent",
    "autoencoder": {"kind": "linear", "bottleneck": 2},
    "attack.norm": "L2",
    "attack.epsilon": 0.5,
    "attack.steps": 7,
    "attack.stop": "last",
    "attack.step_size": 0.5,
    "attack.restarts": 7,
    "attack.loss": "margin",
    "attack.name": "apgd",
    "attack.options": {"momentum": 0.5},
    "attack.target": 1,
    "attack.weight_noise.sigma": 0.5,
    "attack.weight_noise.draws": 7,
    "attack.joint": "worst",
}


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def planned(
    *overrides: str, file: str = "x.yaml", fixed: dict[str, JsonValue] = BASE, **entries: JsonValue
) -> list[Planned]:
    Path(file).write_text(json.dumps({"task": "input_flatness", "fixed": fixed, **entries}))
    return plan(load(file, overrides))


def key(*overrides: str, **entries: JsonValue) -> str:
    (item,) = planned(*overrides, **entries)
    return item.key


def save_weights(file: str, seed: int = 0) -> None:
    torch.save(models.build("mlp", (1, 4, 4), 3, generator_seed=seed).state_dict(), file)


def save_images(folder: Path) -> None:
    """Two classes, 8 x 8 pixels, in train/ and test/."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def test_every_setting_but_those_of_speed_changes_the_hash() -> None:
    save_weights("weights.pt")
    assert set(OTHER) == set(settings_of(Config)), "a setting is new: give it another value above"
    beside = {  # what a value cannot be without
        "attack.target": ["classes=[blob 0]"],
        "attack.space": ["autoencoder={kind: linear, bottleneck: 3}"],
        "autoencoder": ["attack.space=latent"],
        "space": ["attack.space=hidden:1"],
    }
    keys = {name: key(f"{name}={json.dumps(OTHER[name])}", *beside.get(name, [])) for name in OTHER}
    plain = key()
    same = {name for name in OTHER if keys[name] == plain}
    assert same == set(Config.performance) == {"batch"}
    different = [keys[name] for name in OTHER if name not in same]
    assert len(set(different)) == len(different)


def test_what_says_how_and_where_is_no_part_of_the_hash(tmp_path: Path) -> None:
    plain = key()
    assert key(file="another name.yaml") == plain
    assert key(resources={"cpus": 2, "gpus": 0, "chunk": 3, "max_concurrent": 1, "retries": 0}) == plain
    assert key(figures=["effects"], about="Other words.", objective={"metric": "accuracy"}) == plain
    assert key(data_root=str(tmp_path)) == plain
    assert key("batch=3") == plain
    # The way it varies does not count either.
    assert {item.key for item in planned(grid={"recipe.seed": [1, 0]})} >= {plain}
    assert planned(seeds=[0])[0].key == plain


def test_an_autoencoder_counts_where_its_codes_are_moved() -> None:
    kind = "autoencoder={kind: linear, bottleneck: 3}"
    assert key(kind) == key("space=pixel") == key()
    (item,) = planned(kind, "attack.space=latent")
    assert set(item.needs) == {"classifier", "adversarial", "autoencoder"}
    assert item.needs["adversarial"].needs["autoencoder"].key == item.needs["autoencoder"].key
    assert item.subject is item.needs["classifier"]
    assert key(kind, "attack.space=latent", "autoencoder.bottleneck=4") != item.key
    (genuine,) = planned(kind, "attack.space=latent", "conditions=[genuine]")
    assert set(genuine.needs) == {"classifier"}
    (noise,) = planned(kind, "space=latent", "conditions=[genuine]")
    assert set(noise.needs) == {"classifier", "autoencoder"}


def test_a_default_that_is_written_out_is_the_same_trial() -> None:
    assert key("recipe.learning_rate=0.05", "samples=64", "recipe.input_noise={radius: 0}") == key()
    assert key("recipe.learning_rate=1/20") == key()


def test_settings_of_the_measurement_share_a_network() -> None:
    items = planned(grid={"samples": [3, 4], "attack.steps": [2, 3]})
    assert len({item.key for item in items}) == 4
    assert len({item.needs["classifier"].key for item in items}) == 1
    items = planned(grid={"recipe.epochs": [3, 4], "samples": [3, 4]})
    assert len({item.needs["classifier"].key for item in items}) == 2


def test_weights_count_by_their_bytes() -> None:
    save_weights("a.pt")
    shutil.copy("a.pt", "b.pt")
    save_weights("c.pt", seed=1)
    first = key("recipe.weights=a.pt")
    assert key("recipe.weights=b.pt") == first
    assert key(f"recipe.weights={Path('a.pt').absolute()}") == first
    assert key("recipe.weights=c.pt") != first
    os.replace("c.pt", "a.pt")
    assert key("recipe.weights=a.pt") == key(f"recipe.weights={Path('a.pt').absolute()}") != first


def test_weights_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    save_weights("home/a.pt")
    assert key("recipe.weights=~/a.pt") == key("recipe.weights=home/a.pt")


def test_images_count_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    save_images(tmp_path / "one" / "set")
    fixed = {"recipe": {"dataset": "imagefolder:set", "network": "linear"}}
    first = key(fixed=fixed, data_root="one")
    shutil.copytree("one", "two")
    (tmp_path / "two" / "set").rename(tmp_path / "two" / "moved")
    assert key("recipe.dataset=imagefolder:moved", fixed=fixed, data_root="two") == first
    assert key(f"recipe.dataset=imagefolder:{tmp_path}/two/moved", fixed=fixed) == first
    shutil.copytree("two", "three")
    Image.new("RGB", (8, 8)).save("three/moved/train/cat/0.png")
    assert key("recipe.dataset=imagefolder:moved", fixed=fixed, data_root="three") != first


def test_a_network_of_the_users_own_counts_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from torch import nn\ndef build(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))\n"
    )
    (tmp_path / "my_networks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    first = key("recipe.network=my_networks:build")
    assert key("recipe.network=my_networks:build") == first
    (tmp_path / "my_networks.py").write_text(f"'Says more.'\n{code}# changed\n")
    _source_hash.cache_clear()  # as in another process: this one has the module as it was
    assert key("recipe.network=my_networks:build") == first
    (tmp_path / "my_networks.py").write_text(code.replace("nn.Flatten()", "nn.Flatten(1)"))
    _source_hash.cache_clear()
    assert key("recipe.network=my_networks:build") != first


def test_identity_holds_no_path(tmp_path: Path) -> None:
    save_weights("a.pt")
    save_images(tmp_path / "set")
    recipe = Recipe(dataset=f"imagefolder:{tmp_path}/set", weights=str(tmp_path / "a.pt"))
    assert str(tmp_path) not in json.dumps(of_recipe(recipe, None))


def test_examples_are_those_asked_for() -> None:
    (item,) = planned("examples=[7, 3]")
    assert item.ids == (3, 7)
    (item,) = planned("examples=")
    assert item.ids == tuple(range(60))
    assert item.classes == ("blob 0", "blob 1", "blob 2")
    (item,) = planned("examples=6", "classes=[blob 1]")
    assert len(item.ids) == 6
    assert {i % 3 for i in item.ids} == {1}
    (item,) = planned("recipe.classes=[blob 2, 0]")
    assert item.classes == ("blob 2", "blob 0")


def test_a_search_that_draws_a_point_again_runs_it_once() -> None:
    items = planned(search={"recipe.epochs": {"int": [1, 3]}}, trials=20)
    assert sorted(item.trial.config.recipe.epochs for item in items) == [1, 2, 3]


def test_status_and_what_is_left(tmp_path: Path) -> None:
    (item,) = planned("examples=[1, 2, 3]")
    store = Store(tmp_path / "results")
    assert item.folder == f"x/trials/{item.key}"
    assert status(item, store) == "new"
    assert missing(item.folder, item.ids, store) == [1, 2, 3]
    for name, ids in [("part-a.parquet", [3]), ("part-b.parquet", [1])]:
        table = pa.table({"id": pa.array([], pa.int64())})  # no rows: each was left out
        store.write_table(f"{item.folder}/rows/{name}", table.replace_schema_metadata({"ids": json.dumps(ids)}))
    assert status(item, store) == "begun"
    assert missing(item.folder, item.ids, store) == [2]
    for word, so_far in (("failed", "failed"), ("stopped", "stopped"), ("done", "begun")):
        store.write_json(f"{item.folder}/trial.json", {"status": word})
        assert status(item, store) == so_far  # it is not done while rows of an example are missing


def test_a_network_exists_once_its_last_file_does(tmp_path: Path) -> None:
    (item,) = planned()
    store, network = Store(tmp_path / "results"), item.needs["classifier"]
    store.write(f"{network.folder}/arrays.pt", b"weights")
    assert not exists(network, store)
    store.write_json(f"{network.folder}/artifact.json", {"history": [], "bytes": 7})
    assert exists(network, store)


def test_planning_writes_nothing(tmp_path: Path) -> None:
    planned(fixed={}, grid={"recipe.network": ["linear", "mlp", "resnet18"]})
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_a_dry_run_compares_no_two_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning takes no time that grows with the square of the trials.

    Two trials differ deep inside their settings. Comparing each of thousands with all others takes
    minutes.
    """
    monkeypatch.chdir(tmp_path)
    compared: list[Planned] = []
    monkeypatch.setattr(Planned, "__eq__", lambda one, other: compared.append(one) or one is other)
    Path("x.yaml").write_text("task: input_flatness\nfixed.recipe: {dataset: blobs, network: linear}\nseeds: 9\n")
    assert sweep.main(["x.yaml", "--dry-run"]) == 0
    assert compared == []
