"""Networks by name and with options; initial weights from the seed; mistakes."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import networks_of_a_user
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from staged_networks import IMAGENET, images

from tasks.parts.models import build as models
from tasks.parts.models import torchvision_networks
from tasks.parts.settings import UserError


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that a user has written."""
    return networks_of_a_user.written(tmp_path, monkeypatch)


def test_names() -> None:
    own = ("convnet", "linear", "mlp", "resnet20", "resnet32", "resnet44", "resnet56", "resnet9")
    assert models.names() == own
    for name in [*own, "resnet18", "vit_b_16"]:
        models.check(name)
    for wrong, hint in [("resnett20", "resnet20"), ("resnet_18", "resnet18"), ("convnett", "convnet")]:
        with pytest.raises(UserError, match=rf"unknown network '{wrong}'.*did you mean {hint}\?") as caught:
            models.check(wrong)
        assert caught.value.field == "network"
    with pytest.raises(UserError, match="unknown network 'fasterrcnn_resnet50_fpn'"):
        models.check("fasterrcnn_resnet50_fpn")  # detection


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"widht": 64}, r"unknown option; mlp has depth, width; did you mean width\?"),
        ("linear", {"width": 64}, "unknown option; linear has none"),
        ("mlp", {"width": "64"}, "a whole number of at least 1 is needed, not '64'"),
        ("mlp", {"width": 6.5}, "a whole number"),
        ("mlp", {"depth": 0}, "a whole number of at least 1 is needed, not 0"),
        ("resnet9", {"scale": True}, "a number is needed, not True"),
        ("mlp", {"classes": 3}, "unknown option"),
        ("vgg11", {"dropuot": 0.1}, r"unknown option; vgg11 has dropout; did you mean dropout\?"),
        ("resnet18", {"num_classes": 3}, "unknown option"),
    ],
)
def test_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        models.check(name, options=options)
    assert caught.value.field == f"network_options.{next(iter(options))}"


def test_options_decide_the_network() -> None:
    assert models.build("mlp", (1, 8, 8), 10, options={"width": 5, "depth": 3}).stages[-2] == "relu3"
    assert models.build("mlp", (1, 8, 8), 10, options={"width": 5}).network.hidden2.weight.shape == (5, 5)
    assert models.build("squeezenet1_1", (3, 32, 32), 10, options={"dropout": 0.125}).network.classifier[0].p == 0.125


def test_images_that_a_network_cannot_take() -> None:
    for name, shape, message in [
        ("alexnet", (3, 32, 32), "'alexnet' cannot be had for 3x32x32 images"),
        ("vit_b_16", (3, 33, 33), "Input shape indivisible by patch size"),
        ("vit_b_16", (3, 32, 64), "takes square images, not 32x64"),
        ("resnet18", (4, 32, 32), "takes images with 1 or 3 channels, not 4"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            models.build(name, shape, 10)
        assert caught.value.field == "network"
    with pytest.raises(UserError, match="normalisation with 3 channels for images with 1"):
        models.build("convnet", (1, 8, 8), 10, **IMAGENET)


def test_mistakes_in_a_users_own_network(users: str) -> None:
    for name, message in [
        (f"{users}:branch", "has no function 'branch'"),
        ("no_such_package.networks:build", "no_such_package.networks cannot be imported: ModuleNotFoundError"),
        ("users_broken:build", "users_broken cannot be imported: ZeroDivisionError"),
        (f"{users}:wrong_classes", r"2 images give \(2, 5\), not logits \(2, 4\)"),
        (f"{users}:no_module", "not a torch.nn.Module"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            models.build(name, (1, 8, 8), 4)
        assert caught.value.field == "network"
    with pytest.raises(UserError, match=r"unknown option; .* has width; did you mean width\?"):
        models.check(f"{users}:branches", options={"witdh": 3})


def test_weights_are_checked_before_building(tmp_path: Path) -> None:
    for weights, message in [("DEFAULT", "mlp has no weights DEFAULT"), (str(tmp_path), "no such weights file")]:
        with pytest.raises(UserError, match=message) as caught:
            models.check("mlp", weights=weights)
        assert caught.value.field == "weights"


def test_torchvisions_own_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The download is replaced by one that fails, then by a state dict made here."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(
        UserError, match=r"weights of squeezenet1_1 could not be downloaded .*no route to host"
    ) as caught:
        models.build("squeezenet1_1", (3, 32, 32), 10, weights="DEFAULT")
    assert caught.value.field == "weights"
    for name, last in [("squeezenet1_1", "classifier.1"), ("shufflenet_v2_x0_5", "fc"), ("googlenet", "fc")]:
        options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
        theirs = torchvision_networks.builder(name)(**options).state_dict()
        monkeypatch.setattr(
            "torchvision.models.WeightsEnum.get_state_dict", lambda self, *a, theirs=theirs, **k: theirs
        )
        for classes in (10, 1000):
            model = models.build(name, (3, 64, 64), classes, weights="DEFAULT", generator_seed=1, freeze_backbone=True)
            again = models.build(name, (3, 64, 64), classes, weights="DEFAULT", generator_seed=1).network.state_dict()
            for key, value in model.network.state_dict().items():
                replaced = key.startswith(last) and classes != 1000
                assert torch.equal(value, again[key] if replaced else theirs[key]), key
            assert {p for p, v in model.network.named_parameters() if v.requires_grad} == {
                f"{last}.weight",
                f"{last}.bias",
            }


@pytest.mark.parametrize(
    ("name", "shape"), [("convnet", (1, 8, 8)), ("resnet20", (3, 32, 32)), ("squeezenet1_1", (3, 32, 32))]
)
def test_initial_weights_are_decided_by_the_seed_alone(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(5)
    first = models.build(name, shape, 10, generator_seed=3).state_dict()
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after), "building disturbed torch's generator"
    second = models.build(name, shape, 10, generator_seed=3).state_dict()
    other = models.build(name, shape, 10, generator_seed=4).state_dict()
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert any(not torch.equal(other[key], value) for key, value in first.items())
    assert all(module.training for module in models.build(name, shape, 10).modules())


# --- the networks


def test_parameters_of_the_cifar_resnets() -> None:
    """Table 6 of He et al. 2015: 0.27, 0.46, 0.66 and 0.85 million parameters."""
    for name, millions in [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)]:
        model = models.build(name, (3, 32, 32), 10)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_the_shortcut_of_the_cifar_resnets_has_no_parameters() -> None:
    """Without its convolutions, a block is the ReLU of every second pixel between zero channels."""
    block = models.build("resnet20", (3, 9, 9), 10).eval().network.layer2[0]
    block.bn2.weight.data.zero_()
    x = images(2, 16, 9, 9) - 0.5
    wanted = torch.zeros(2, 32, 5, 5)
    wanted[:, 8:24] = x[:, :, ::2, ::2].relu()
    assert torch.equal(block(x), wanted)


def test_convnet_learns_digits() -> None:
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
    y = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randperm(len(x), generator=generator).split([1437, 360])
    model = models.build("convnet", (1, 8, 8), 10, mean=(0.3,), std=(0.38,))
    optimiser = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=12 * 23)
    for _ in range(12):
        for batch in train[torch.randperm(len(train), generator=generator)].split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        assert (model.eval()(x[test]).argmax(1) == y[test]).double().mean() >= 0.965
