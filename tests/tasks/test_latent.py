"""Attacks and noise in the latent space of an autoencoder: closed forms and errors.

The autoencoder is linear. Its codes are the principal components, so that a linear classifier has
exact distances in them.
"""

from __future__ import annotations

import json
import math
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import norm as gauss
from torch import Tensor

from tasks import adversarial_search, input_flatness, transfer
from tasks.parts.artifacts import adversarial_examples, autoencoder, representations
from tasks.parts.artifacts.common.attack_settings import Attack
from tasks.parts.artifacts.common.attack_spaces import check_same_images, space_of
from tasks.parts.artifacts.common.kind import Saved
from tasks.parts.autoencoders.common import build as autoencoders
from tasks.parts.autoencoders.common.autoencoder import Autoencoder
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.contract import Batch, TaskConfig, prepared
from tasks.parts.data import load as data
from tasks.parts.models import build as models
from tasks.parts.models.classifier import Classifier
from tasks.parts.settings import UserError
from tasks.parts.training.recipes import Recipe

PIXELS = 16
RECIPE = {"dataset": "blobs", "network": "linear", "epochs": 1}
FULL = {"kind": "linear", "bottleneck": PIXELS}
PLANE = {"kind": "linear", "bottleneck": 5}
SMALLEST = {"name": "fmn", "norm": "L2", "steps": 100}


def network(seed: int = 1, offset: float = 0.1) -> Classifier:
    """Three classes; the third is never near. The other two part near the middle of the box."""
    model = models.build("linear", (1, 4, 4), 3).eval().requires_grad_(False)
    weight, bias = model.parameters()
    drawn = torch.randn(PIXELS, generator=torch.Generator().manual_seed(seed))
    weight.copy_(torch.stack([drawn, -drawn, torch.zeros(PIXELS)]))
    bias.copy_(torch.tensor([offset - float(drawn.sum()) / 2, float(drawn.sum()) / 2, -1e3]))
    return model


def amid(model: Classifier, count: int = 12) -> Batch:
    """Images near the middle of the box, whose walls play no part, as the network sees them."""
    images = 0.5 + 0.03 * torch.randn((count, 1, 4, 4), generator=torch.Generator().manual_seed(3))
    return Batch(range(count), images, model(images).argmax(1))


def given(task: ModuleType, config: TaskConfig, model: Classifier, batch: Batch) -> dict[str, Any]:
    return prepared(task.needs(config), model, batch)


def searched(attack: dict[str, Any], batch: Batch, model: Classifier, **settings: Any) -> pd.DataFrame:
    config = adversarial_search.Config(recipe=RECIPE, attack=attack, **{"black_box": 0, **settings})
    made = given(adversarial_search, config, model, batch)
    return pd.DataFrame(adversarial_search.measure(config, made, batch))


def made_of(how: dict[str, Any], batch: Batch, model: Classifier) -> Autoencoder:
    config = input_flatness.Config(recipe=RECIPE, space="latent", conditions=["genuine"], autoencoder=how)
    made: Autoencoder = given(input_flatness, config, model, batch)["autoencoder"]
    return made


def slope(coder: Autoencoder, model: Classifier) -> float:
    """By how much the margin changes along its gradient, for a step of 1 in latent space."""
    basis = torch.eye(len(coder.coder.components.T)) * coder.magnitude
    moved = coder.decode(basis) - coder.decode(torch.zeros_like(basis))
    return float((moved.flatten(1).double() @ difference(model)).norm())


def difference(model: Classifier) -> Tensor:
    weight = next(model.parameters()).double()
    return (weight[0] - weight[1]) / float(model.std)


def margins(model: Classifier, images: Tensor) -> Tensor:
    logits = model(images).double()
    return (logits[:, 0] - logits[:, 1]).abs()


# --- attacks


def test_in_all_components_a_latent_attack_is_the_attack_in_pixels() -> None:
    """Such a code is the image, turned and scaled: radii and distances are too."""
    model = network()
    batch = amid(model)
    scale = slope(made_of(FULL, batch, model), model) / float(difference(model).norm())  # pixel units in a latent one
    radii = [0.02, 0.05, 0.1]
    pixel = searched({**SMALLEST}, batch, model, radii=radii)
    latent = searched({**SMALLEST, "space": "latent"}, batch, model, radii=[r / scale for r in radii], autoencoder=FULL)
    exact = (margins(model, batch.images) / difference(model).norm()).repeat_interleave(3).numpy()
    assert pixel["found"].nunique() == 2
    assert latent["found"].tolist() == pixel["found"].tolist()
    assert latent["distance"].to_numpy() * scale == pytest.approx(exact, rel=2e-3)
    assert latent["image_distance"].to_numpy() == pytest.approx(exact, rel=2e-3)
    assert latent["off_manifold"].max() < 1e-5
    assert pixel["image_distance"].isna().all()
    assert pixel["off_manifold"].isna().all()


def test_on_a_plane_the_smallest_perturbation_is_the_margin_over_the_projected_weights() -> None:
    """It begins at the reconstruction, whose margin counts, and never leaves the plane."""
    model = network()
    batch = amid(model)
    coder = made_of(PLANE, batch, model)
    again = coder(batch.images)
    batch = Batch(batch.ids, batch.images, model(again).argmax(1))
    rows = searched({**SMALLEST, "space": "latent"}, batch, model, radii=[9], autoencoder=PLANE)
    assert rows["correct"].all()
    assert rows["found"].all()
    assert rows["distance"].to_numpy() == pytest.approx((margins(model, again) / slope(coder, model)).numpy(), rel=2e-3)
    assert rows["off_manifold"].max() < 1e-5
    off = (again - batch.images).flatten(1).norm(dim=1).numpy()
    assert (rows["image_distance"].to_numpy() > 0.99 * off).all()  # the plane is no nearer than its nearest point


def test_rows_of_a_latent_attack_do_not_depend_on_the_chunks() -> None:
    model = network()
    batch = amid(model)
    attack = {"space": "latent", "epsilon": 0.3, "steps": 5}
    config = adversarial_search.Config(recipe=RECIPE, attack=attack, autoencoder=PLANE)
    rows = []
    for piece in (torch.arange(12), torch.arange(7), torch.arange(7, 12)):
        some = batch[piece]
        made = given(adversarial_search, config, model, some)
        rows.append(pd.DataFrame(adversarial_search.measure(config, made, some)))
    pd.testing.assert_frame_equal(pd.concat(rows[1:], ignore_index=True), rows[0], rtol=1e-5, atol=1e-5)
    assert all(told is None for told in adversarial_search.checks(config, rows[0]).values())


def test_weight_noise_in_latent_space() -> None:
    """The search faces noisy networks, and unseen ones are asked about the decoded images."""
    model = network()
    batch = amid(model)
    plain = searched({**SMALLEST, "space": "latent"}, batch, model, radii=[9], autoencoder=PLANE)
    noise = {"weight_noise": {"sigma": 0.2, "draws": 2}}
    noisy = searched({**SMALLEST, **noise, "space": "latent"}, batch, model, radii=[9], autoencoder=PLANE)
    assert plain["unseen"].isna().all()
    assert noisy["unseen"].between(0, 1).all()
    assert noisy["verified"].all()
    assert noisy["distance"].mean() > plain["distance"].mean()  # beyond the boundary of several networks
    assert noisy["off_manifold"].max() < 1e-5


def test_several_networks_are_scored_on_the_decoded_images() -> None:
    """The networks share one autoencoder, whatever their seeds."""
    networks = [{"network": "linear"}, {"network": "mlp"}]
    attack = {"space": "latent", "epsilon": 1.5, "steps": 10, "norm": "L2"}
    config = transfer.Config(
        recipe=RECIPE, networks=networks, members=2, attack=attack, samples=2, autoencoder=PLANE, joint=True
    )
    needs = transfer.needs(config)
    coders = [request for name, request in needs.items() if name.startswith("autoencoder at")]
    assert len(coders) == len(config.sources())
    assert (
        len({json.dumps([autoencoder.identity(c, None), representations.identity(c.bank, None)]) for c in coders}) == 1
    )
    recipes = config.pool()
    trained = {name: models.build(how.network, (1, 4, 4), 3, generator_seed=how.seed) for name, how in recipes.items()}
    trained = {name: model.eval().requires_grad_(False) for name, model in trained.items()}
    images, labels = data.take(data.load("blobs", "test"), range(30))
    batch = Batch(range(30), images, labels)
    rows = pd.DataFrame(transfer.measure(config, prepared(needs, trained, batch), batch))
    own = rows[~rows["held_out"] & (rows["source"] != transfer.RANDOM)]
    every = own.groupby(["id", "source"]).agg(fooled=("fooled", "all"), found=("found", "first"))
    assert every["found"].any()
    assert (every["fooled"] == every["found"]).all()
    assert (rows["distance"][rows["found"] & (rows["source"] != transfer.RANDOM)] <= 1.5 * (1 + 1e-5)).all()
    unmoved = own[own["found"] & (own["distance"] == 0)]
    assert not unmoved["source_correct"].any()  # the reconstruction alone fools the source


# --- noise


def test_flatness_in_latent_space_is_that_of_the_projected_weights() -> None:
    """Phi(m / (sigma w)), w the length of the weights' difference in latent space."""
    model, n = network(), 256
    batch = amid(model, 40)
    coder = made_of(PLANE, batch, model)
    how = {"recipe": RECIPE, "space": "latent", "conditions": ["genuine"], "samples": n}
    config = input_flatness.Config(**how, radii=[0.05, 0.15], autoencoder=PLANE)
    rows = pd.DataFrame(input_flatness.measure(config, given(input_flatness, config, model, batch), batch))
    m, w = margins(model, coder(batch.images)).numpy(), slope(coder, model)
    for radius, around in rows[rows["radius"] > 0].groupby("radius"):
        keeps = gauss.cdf(m / (radius * w))
        error = math.sqrt((keeps * (1 - keeps) / n).sum()) / len(m)
        assert 0.5 < keeps.mean() < 0.99
        assert around["persistence"].mean() == pytest.approx(keeps.mean(), abs=4.5 * error)
    assert (rows["distance"] == 0).all()


@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_noise_around_what_a_latent_attack_found(space: str) -> None:
    """In pixels centres are the decoded images; in latent space they are the codes."""
    model = network()
    batch = amid(model)
    attack = {**SMALLEST, "space": "latent"}
    config = input_flatness.Config(recipe=RECIPE, attack=attack, autoencoder=PLANE, space=space, radii=[0.1], samples=8)
    made = given(input_flatness, config, model, batch)
    rows = pd.DataFrame(input_flatness.measure(config, made, batch))
    centres = rows[rows["radius"] == 0].set_index(["condition", "id"])
    found, again = made["adversarial"], made["autoencoder"](batch.images)
    wanted = found.distance.double()
    if space == "pixel":
        images = made["autoencoder"].decode(found.points * made["autoencoder"].magnitude).clamp(0, 1)
        wanted = (images - batch.images).flatten(1).norm(dim=1).double()
    assert centres.loc["adversarial", "distance"].to_numpy() == pytest.approx(wanted.numpy(), abs=1e-5)
    assert (centres.loc["adversarial", "centre"] != batch.labels.numpy()).all()
    started = (model(again).argmax(1) == batch.labels).double().numpy()
    assert 0 < started.mean() < 1
    assert centres.loc["genuine", "start_correct"].to_numpy() == pytest.approx(started)
    scores = input_flatness.scores(config, rows)
    assert set(scores["flatness_adversarial"].index) == set(np.flatnonzero(started))
    if space == "latent":
        random = centres.loc["random", "distance"].to_numpy()
        assert random == pytest.approx(found.distance.double().numpy(), rel=1e-4, abs=1e-6)


def test_noise_in_a_hidden_space() -> None:
    """Before a linear last layer, the logits are those of the points."""
    recipe = {"dataset": "blobs", "network": "mlp", "epochs": 1}
    images, labels = data.take(data.load("blobs", "test"), range(6))
    batch, attack = Batch(range(6), images, labels), {"norm": "L2", "epsilon": 0.5, "space": "hidden:1"}
    config = input_flatness.Config(recipe=recipe, space="hidden:1", attack=attack, kinds=["sphere"], radii=[0.3])
    made = prepared(input_flatness.needs(config), {}, batch)
    rows = pd.DataFrame(input_flatness.measure(config, made, batch))
    centres = rows[rows["radius"] == 0].set_index("condition").loc["adversarial"]
    assert centres["distance"].to_numpy() == pytest.approx(made["adversarial"].distance.numpy(), abs=1e-5)
    assert (rows["persistence"][rows["radius"] == 0] == 1).all()


# --- errors


@pytest.mark.parametrize(
    ("task", "settings", "told"),
    [
        (adversarial_search, {"attack": {"space": "latent"}}, "attack.space: the latent space is that of an autoenc"),
        (input_flatness, {"space": "latent", "attack": {"space": "latent"}}, "space: the latent space is that of an"),
        (input_flatness, {"space": "latent", "autoencoder": PLANE}, "attack.space: noise goes around points of latent"),
        (input_flatness, {"attack": {"space": "hidden:1"}}, "goes around images; take pixel or latent"),
        (
            transfer,
            {"attack": {"space": "latent"}, "autoencoder": {"stage": "relu1"}},
            "autoencoder.stage: images are decoded from codes of the pixels, not of stage relu1; take stage: 0",
        ),
        (input_flatness, {"space": "latnet"}, "unknown space 'latnet'"),
    ],
)
def test_what_is_refused_before_the_work(task: ModuleType, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        task.Config(**settings)
    assert told in str(error.value)


def test_a_hidden_space_that_the_network_lacks() -> None:
    config = input_flatness.Config(recipe=RECIPE, space="hidden:9", conditions=["genuine"])
    with pytest.raises(UserError, match=r"^space: no stage '9'"):
        input_flatness.check(config, data.load("blobs", "test"))


def test_networks_of_other_images_share_no_autoencoder() -> None:
    one, two = Recipe(dataset="blobs"), Recipe(dataset="digits")
    with pytest.raises(UserError, match=r"recipe.dataset: an autoencoder has one kind of images: digits here, blobs"):
        check_same_images([one, two])
    request = adversarial_examples.Request(
        networks=(one, two), attack=Attack(space="latent"), autoencoder=AutoencoderRecipe(**PLANE)
    )
    with pytest.raises(UserError, match=r"^recipe.dataset"):
        adversarial_examples.check(request, None)


def test_codes_that_are_all_0_have_no_unit() -> None:
    coder = autoencoders.build(AutoencoderRecipe(**PLANE), (1, 4, 4))
    with pytest.raises(UserError, match=r"^attack.space: the latent space has no unit"):
        space_of(Attack(space="latent"), [network()], coder)


def test_examples_that_were_kept_before_there_was_a_latent_space() -> None:
    request = adversarial_examples.Request(networks=(Recipe(**RECIPE),), autoencoder=AutoencoderRecipe(**PLANE))
    assert set(adversarial_examples.needs(request)) == {"0"}  # in pixels the autoencoder plays no part
    model = network()
    made = adversarial_examples.make(request, {"0": model}, amid(model))
    assert "off_manifold" not in made
    arrays = {name: value.numpy() for name, value in made.items()}
    found = adversarial_examples.load(request, Saved(arrays, ids=np.arange(12)), "cpu")
    assert found.off_manifold.isnan().all()
    assert torch.equal(found.points, made["points"])
