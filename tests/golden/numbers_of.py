"""Small numbers of every task, attack, autoencoder and kind of artifact, computed anew.

The files beside this one hold them to what they were.

Networks and images are in double precision where their code allows it, so that processors agree to
far more than 1e-5.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tasks
from tasks.parts import artifacts, attacks
from tasks.parts.artifacts import adversarial_examples, autoencoder, classifier, representations
from tasks.parts.artifacts.common import attack_functions
from tasks.parts.artifacts.common.attack_settings import Attack
from tasks.parts.artifacts.common.kind import Product
from tasks.parts.autoencoders.common import build
from tasks.parts.autoencoders.common import training as autoencoder_training
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.contract import Batch, prepared, requests
from tasks.parts.data import load as data
from tasks.parts.models import build as models
from tasks.parts.models import spaces
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

FOLDER = Path(__file__).parent
Numbers = dict[str, list[float]]
RADII = {"Linf": 0.12, "L2": 0.4, "L1": 1.2, "L0": 3}
IDS = (3, 0, 14, 27, 41, 8)
BLOBS: dict[str, Any] = {"dataset": "blobs", "network": "mlp", "network_options": {"width": 12}, "epochs": 1}
TASKS: dict[str, dict[str, Any]] = {
    "adversarial_search": {"attack": {"norm": "L2", "steps": 8}, "radii": [0.1, 0.3, 0.6], "black_box": 30},
    "autoencoding": {"autoencoder": {"kind": "linear", "bottleneck": 3}},
    "evaluation": {"attack": {"epsilon": 0.1, "steps": 5}, "radii": [0.1, 0.3], "samples": 4},
    "hidden_neighbors": {
        "attack": {"epsilon": 0.2, "steps": 5},
        **{"moves": ["adversarial", "hidden", "random"], "stages": [0, 1, 2], "neighbors": 4},
    },
    "input_flatness": {
        "attack": {"epsilon": 0.2, "steps": 5, "restarts": 2},
        "kinds": ["additive", "multiplicative", "sphere"],
        "radii": [0.1, 0.4],
        "samples": 6,
    },
    "transfer": {
        "networks": [{"network": "mlp"}, {"network": "linear"}],
        "members": 2,
        "attack": {"epsilon": 0.2, "steps": 5},
        "samples": 6,
    },
}
"""Settings of each task that let it do all it can, in little time."""
LINEAR = AutoencoderRecipe(kind="linear", bottleneck=8)
SINGLE = ("autoencoding", "hidden_neighbors")
"""Tasks that work in single precision, as what they are given was made in it."""
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "adamw": {"optimiser": "adamw"},
    "noise": {"weight_noise": {"sigma": 0.1}, "input_noise": {"radius": 0.2}},
    "augmentation": {"augmentation": {"crop": 1, "flip": True}},
    "adversarial augmentation": {"adversarial_augmentation": {"epsilon": 0.2}},
    "robust": {"robust": {"method": "pgd", "epsilon": 0.1, "steps": 2}},
    "trades": {"robust": {"method": "trades", "epsilon": 0.1, "steps": 2}},
}


def members() -> list[str]:
    """All members: `tasks/<name>`, `attacks/<name>`, `autoencoders/<name>`, `kinds/<name>`."""
    found = [f"tasks/{module.name}" for module in pkgutil.iter_modules(tasks.__path__) if not module.ispkg]
    found += [f"attacks/{module.name}" for module in pkgutil.iter_modules(attacks.__path__) if not module.ispkg]
    found += [f"kinds/{module.name}" for module in pkgutil.iter_modules(artifacts.__path__) if not module.ispkg]
    found += [f"autoencoders/{name}" for name in build.names()]
    return sorted(found)


def module_of(member: str) -> ModuleType:
    """The module that holds the member's `VERSION`."""
    kind, _, name = member.partition("/")
    folder = {"tasks": "tasks", "kinds": artifacts.__name__}.get(kind, f"tasks.parts.{kind}")
    return importlib.import_module(f"{folder}.{name}")


def computed(member: str) -> Numbers:
    """The member's numbers, by name."""
    kind, _, name = member.partition("/")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if kind == "kinds":
            kinds = {"adversarial_examples": _examples, "autoencoder": _autoencoder, "classifier": _classifiers}
            return {**kinds, "representations": _representations}[name]()
        if kind == "autoencoders":
            return _trained_autoencoder(name)
        return _task(module_of(member), TASKS.get(name, {})) if kind == "tasks" else _attack(name)
    finally:
        torch.set_num_threads(threads)


def file_of(member: str) -> Path:
    return FOLDER / f"{member}.json"


def kept(member: str) -> Mapping[str, Any]:
    """`version` and `numbers` as they were when the version was raised."""
    return json.loads(file_of(member).read_text())


def keep(member: str) -> None:
    """Writes the numbers as they are now."""
    content = {"version": module_of(member).VERSION, "numbers": computed(member)}
    file_of(member).parent.mkdir(exist_ok=True)
    file_of(member).write_text(f"{json.dumps(content, indent=1)}\n")


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _network(seed: int = 0) -> nn.Module:
    """Blobs' images (B, 1, 4, 4) to three logits, without kinks."""
    split = data.load("blobs", "test")
    model = models.build("mlp", split.shape, len(split.classes), options={"width": 12}).double()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(_drawn(1000 * seed + number, *parameter.shape) * (0.5 if parameter.ndim == 2 else 0.1))
    return model.eval().requires_grad_(False)


def _batch(model: Callable[[Tensor], Tensor]) -> Batch:
    """Images that the network classifies correctly, but for one."""
    images, _ = data.take(data.load("blobs", "test"), IDS)
    images = images.double()
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    return Batch(IDS, images, labels)


def _listed(values: Any) -> list[float]:
    numbers = np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=float).reshape(-1)
    return [float(f"{number:.9g}") for number in numbers]


def _attack(name: str) -> Numbers:
    function = attack_functions.function_of(name)
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    model = _network()
    batch = _batch(model)
    numbers: Numbers = {}
    for norm in get_args(hints["norm"]) if get_origin(hints.get("norm")) is Literal else [None]:
        arguments: dict[str, Any] = {} if norm is None else {"norm": norm}
        arguments |= {"epsilon": RADII[norm or "L2"]} if "epsilon" in parameters else {}
        arguments |= {"ids": batch.ids} if "ids" in parameters else {}
        arguments |= {"queries": 60} if "queries" in parameters else {}
        found = function(model, batch.images, batch.labels, **arguments)
        for field in ("success", "distance", "forwards", "backwards"):
            numbers[f"{norm or 'any norm'}: {field}"] = _listed(getattr(found, field))
        numbers[f"{norm or 'any norm'}: perturbation"] = _listed(found.perturbation.flatten(1).sum(1))
    return numbers


def _task(task: ModuleType, settings: Mapping[str, Any]) -> Numbers:
    config = task.Config(recipe=BLOBS, **settings)
    precision = torch.float32 if task.__name__.rpartition(".")[2] in SINGLE else torch.float64
    batch = _batch(_network())
    batch = Batch(batch.ids, batch.images.to(precision), batch.labels)
    needs = requests(task.needs(config))
    whole = [name for name, request in needs.items() if isinstance(request, classifier.Request)]
    networks = {name: _network(number).to(precision) for number, name in enumerate(whole)}
    for network in networks.values():
        network.magnitudes = spaces.magnitudes(network, batch.images)
    made = prepared(needs, networks, batch)
    rows = pd.DataFrame(task.measure(config, made, batch))
    numbers = rows.select_dtypes(["number", "bool"]).astype(float).groupby("id").mean()
    by_example = {name: _listed(values) for name, values in numbers.items()}
    return by_example | {"summary": _listed(list(task.summarise(config, rows).values()))}


def _examples() -> Numbers:
    """A ladder of radii, noise on the weights, and several networks at once."""
    first, second = _network(0), _network(1)
    batch = _batch(first)
    recipe, other = Recipe(**BLOBS), Recipe(**BLOBS, seed=1)
    wanted = {
        "ladder": (
            adversarial_examples.Request(networks=(recipe,), attack=Attack(steps=8), radii=(0.05, 0.1, 0.2)),
            [first],
        ),
        "weight noise": (
            adversarial_examples.Request(
                networks=(recipe,), attack=Attack(epsilon=0.2, steps=4, weight_noise={"sigma": 0.1})
            ),
            [first],
        ),
        "joint": (
            adversarial_examples.Request(networks=(recipe, other), attack=Attack(epsilon=0.3, steps=6)),
            [first, second],
        ),
        "hidden": (
            adversarial_examples.Request(networks=(recipe,), attack=Attack(epsilon=0.3, steps=4, space="hidden:1")),
            [first],
        ),
        "latent": (
            adversarial_examples.Request(
                networks=(recipe,), attack=Attack(name="fmn", norm="L2", steps=12, space="latent"), autoencoder=LINEAR
            ),
            [first],
        ),
    }
    first.magnitudes = spaces.magnitudes(first, batch.images)
    numbers: Numbers = {}
    for name, (need, networks) in wanted.items():
        given = {str(number): network for number, network in enumerate(networks)}
        if need.coder is not None:
            given |= prepared({"autoencoder": need.coder}, {}, batch)
            given["autoencoder"].double()
        found = adversarial_examples.make(need, given, batch)
        for field, values in found.items():
            numbers[f"{name}: {field}"] = _listed(values.flatten(1).sum(1) if field == "points" else values)
    return numbers


def _classifiers() -> Numbers:
    """A few steps of each kind of training."""
    split = data.load("blobs", "train")
    numbers: Numbers = {}
    for name, settings in RECIPES.items():
        recipe = Recipe(**{**BLOBS, "epochs": 2, "train_examples": 48, "batch_size": 16, **settings})
        model = training.untrained(recipe, split)
        epochs = [dict(epoch) for epoch in training.epochs(recipe, model, split)]
        numbers[f"{name}: loss"] = _listed([epoch["loss"] for epoch in epochs])
        numbers[f"{name}: weights"] = _listed([parameter.detach().double().sum() for parameter in model.parameters()])
    return numbers


def _representations() -> Numbers:
    """Of a hidden layer and of the pixels."""
    model, recipe = _network(), Recipe(**BLOBS)
    batch, numbers = _batch(model), Numbers()
    for stage in (0, 1, 2):
        request = representations.Request(recipe=recipe, stage=stage)
        made = representations.make(request, {"classifier": model} if stage else {}, batch)
        numbers[f"stage {stage}"] = _listed(made["value"].flatten(1).sum(1))
    return numbers


def _autoencoder() -> Numbers:
    """The linear one, which is computed and not trained, with the images that are held out."""
    how = AutoencoderRecipe(kind="linear", bottleneck=3, standardise="channel", denoising=0.2)
    request = autoencoder.Request(recipe=Recipe(**BLOBS), autoencoder=how)
    made = prepared(autoencoder.needs(request), {}, _batch(_network()))
    *steps, product = autoencoder.make(request, made, None, "cpu")
    assert isinstance(product, Product)
    numbers = {name: [value] for step in steps for name, value in step.numbers.items()}
    numbers["held out"] = _listed(autoencoder.divided(30, 0.2, seed=1)[1])
    return numbers | {name: _listed(product.arrays[name].sum()) for name in ("center", "variance", "magnitude")}


class _Bank:
    """Representations in double precision."""

    def __init__(self, values: Tensor):
        self.values = values

    def take(self, rows: NDArray[np.int64], device: str | torch.device) -> Tensor:
        """Some of them."""
        return self.values[torch.from_numpy(rows)].to(device)


def _trained_autoencoder(kind: str) -> Numbers:
    """A few steps of training on smooth numbers, in double precision."""
    shape, numbers = (2, 5, 5), Numbers()
    x = (_drawn(1, 40, 4) @ _drawn(2, 4, 50)).reshape(40, *shape)
    recipe = AutoencoderRecipe(kind=kind, bottleneck=8, epochs=2, batch_size=10, denoising=0.1)
    model, rows = build.build(recipe, shape).double(), np.arange(40)
    for epoch in autoencoder_training.epochs(recipe, model, _Bank(x), rows[:30], rows[30:]):
        numbers |= {f"epoch {epoch['epoch']:g}: {name}": [float(f"{value:.9g}")] for name, value in epoch.items()}
    details = model.coder.details(model.standardised(x[:5]), list(range(5)), seed=0)
    return numbers | {name: _listed(values.detach()) for name, values in details.items()}
