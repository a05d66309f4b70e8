"""Classifiers: hidden spaces that add up to the network, weights from files, initial weights from the seed."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from tasks.parts.models import build as models
from tasks.parts.models import torchvision_networks
from tasks.parts.models.checkpoints import last_layer
from tasks.parts.settings import UserError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# The smallest size that each takes, or the smallest that keeps every map larger than a pixel.
TORCHVISION = [
    ("resnet18", 32),
    ("squeezenet1_1", 32),
    ("shufflenet_v2_x0_5", 32),
    ("mobilenet_v3_small", 32),
    *(
        pytest.param(name, size, marks=pytest.mark.slow)
        for name, size in [
            ("alexnet", 64),
            ("convnext_tiny", 64),
            ("densenet121", 64),
            ("efficientnet_b0", 64),
            ("googlenet", 64),
            ("inception_v3", 75),
            ("maxvit_t", 224),
            ("mnasnet0_5", 64),
            ("mobilenet_v2", 64),
            ("regnet_y_400mf", 64),
            ("swin_t", 64),
            ("swin_v2_t", 64),
            ("vgg11", 32),
            ("vit_b_16", 32),
        ]
    ),
]


def assert_stages_add_up(model: models.Classifier, x: Tensor, step: int = 1) -> None:
    """tail(head(x, k), k) == model(x) for every `step`-th k, by number and name, and both ends are what they should be."""
    with torch.no_grad():
        wanted = model(x)
        assert len(set(model.stages)) == len(model.stages)
        assert model.head(x, 0) is x
        for k in range(0, len(model.stages) + 1, step):
            h = model.head(x, k)
            before = h.clone()
            torch.testing.assert_close(model.tail(h, k), wanted, atol=1e-5, rtol=1e-5)
            assert torch.equal(h, before), f"the tail of stage {k} wrote into its input"
        torch.testing.assert_close(model.head(x, len(model.stages)), wanted, atol=1e-5, rtol=1e-5)
        name = model.stages[len(model.stages) // 2]
        assert torch.equal(model.head(x, name), model.head(x, model.stages.index(name) + 1))


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def as_if_trained(model: models.Classifier, x: Tensor) -> models.Classifier:
    """In evaluation mode, with the statistics of x in batch normalisation, and logits that are not all tiny or zero."""
    torch.manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    last = model.network.get_submodule(last_layer(model.network, model.classes))
    nn.init.normal_(last.weight, std=last.weight[0].numel() ** -0.5)
    with torch.no_grad():
        model.train()(x)
        assert model.eval()(x).std(0).max() > 1e-3
    return model


# --- hidden spaces


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, (1, 8, 8)) for name in models.names()]
    + [(name, shape) for name in ("mlp", "convnet", "resnet9", "resnet20") for shape in ((1, 28, 28), (3, 32, 32))],
    ids=str,
)
def test_own_networks_stage(name: str, shape: tuple[int, int, int]) -> None:
    options = {} if name == "linear" else {"width": 8}
    x = images(3, *shape)
    model = models.build(name, shape, 7, mean=(0.4,), std=(0.3,), options=options)
    assert_stages_add_up(as_if_trained(model, x), x)


@pytest.mark.parametrize(("name", "size"), TORCHVISION)
def test_torchvision_networks_stage(name: str, size: int) -> None:
    """Every stage of the first four, some of the others'."""
    x = images(4 if size < 100 else 2, 3, size, size)
    model = as_if_trained(models.build(name, (3, size, size), 10, **IMAGENET), x)
    all_of_them = name in ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small")
    assert_stages_add_up(model, x[:1], step=1 if all_of_them else max(1, len(model.stages) // 6))


def test_stage_names() -> None:
    assert models.build("linear", (1, 8, 8), 10).stages == ("linear",)
    assert models.build("mlp", (1, 8, 8), 10).stages == ("hidden1", "relu1", "hidden2", "relu2", "linear")
    convnet = models.build("convnet", (1, 8, 8), 10)
    assert convnet.stages == ("conv1", "relu1", "conv2", "relu2", "conv3", "relu3", "linear")
    blocks = tuple(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1))
    resnet = models.build("resnet18", (3, 32, 32), 10)
    assert resnet.stages == ("conv1", "bn1", "relu", "maxpool", *blocks, "avgpool", "fc")


@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet56", 9)])
def test_a_residual_block_is_one_stage(name: str, n: int) -> None:
    blocks = tuple(f"layer{i}.{j}" for i in (1, 2, 3) for j in range(n))
    assert models.build(name, (3, 32, 32), 10).stages == ("conv1", "bn1", "relu", *blocks, "avgpool", "linear")


def test_a_changed_hidden_state_changes_the_output_as_in_the_network() -> None:
    """The slow twin: a forward hook that adds delta to the block's output, shortcut and all."""
    x = images(4, 3, 16, 16)
    model = as_if_trained(models.build("resnet20", (3, 16, 16), 10, **IMAGENET), x)
    for name in ("layer1.0", "layer2.0", "layer3.1"):
        h = model.head(x, name)
        delta = 0.1 * torch.randn(h.shape, generator=torch.Generator().manual_seed(3))
        hook = model.network.get_submodule(name).register_forward_hook(lambda m, i, out, delta=delta: out + delta)
        wanted = model(x)
        hook.remove()
        torch.testing.assert_close(model.tail(h + delta, name), wanted, atol=1e-5, rtol=1e-5)
        assert (wanted - model(x)).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "shape"), [("resnet20", (3, 16, 16)), ("squeezenet1_1", (3, 32, 32))])
def test_gradients_flow_through_head_and_tail(name: str, shape: tuple[int, int, int]) -> None:
    model = as_if_trained(models.build(name, shape, 10), images(4, *shape))
    x = images(2, *shape).requires_grad_()
    (wanted,) = torch.autograd.grad(model(x).square().sum(), x)
    for k in (1, len(model.stages) // 2, len(model.stages) - 1):
        (got,) = torch.autograd.grad(model.tail(model.head(x, k), k).square().sum(), x)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
        h = model.head(x, k).detach().requires_grad_()  # a leaf: squeezenet's in-place ReLUs must not write into it
        (got,) = torch.autograd.grad(model.tail(h, k).square().sum(), h)
        assert got.abs().sum() > 0


def test_stages_use_the_network_s_own_parameters_and_buffers(users: str) -> None:
    """Also those that hang on no layer, and also when the tensors themselves are exchanged."""
    model, other = (models.build(f"{users}:branches", (3, 8, 8), 4, generator_seed=seed).eval() for seed in (0, 1))
    x = images(2, 3, 8, 8)
    before = model.tail(model.head(x, 3), 3)
    other.network.scale.data.mul_(3)
    other.network.shift.sub_(2)
    model.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(model.tail(model.head(x, 3), 3), other(x))
    assert not torch.allclose(before, other(x), atol=1e-2)
    model.tail(model.head(x, 3), 3).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert_stages_add_up(model.double(), x.double())


def test_stages_respect_training_mode() -> None:
    """Batch normalisation and dropout in the stages do what they do in the network, random numbers included."""
    x = images(4, 3, 32, 32)
    plain = as_if_trained(models.build("mobilenet_v3_small", (3, 32, 32), 10), x)
    staged = copy.deepcopy(plain)
    torch.manual_seed(0)
    wanted = plain.train()(x)
    torch.manual_seed(0)
    got = staged.train().tail(staged.head(x, 5), 5)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(staged.state_dict()[key], value, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(staged.eval().tail(staged.head(x, 5), 5), wanted, atol=1e-3)


def test_functional_dropout_follows_the_mode() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 50), nn.Linear(50, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.dropout(self.first(x.flatten(1)), 0.5, self.training))

    model = models.Classifier(Network(), (1, 8, 8), 3).eval()
    x = images(2, 1, 8, 8)
    h = model.head(x, "first")
    assert torch.equal(model.tail(h, "first"), model(x))
    torch.manual_seed(0)
    wanted = model.train()(x)
    torch.manual_seed(0)
    assert torch.equal(model.tail(h, "first"), wanted)


def test_hidden_spaces_work_under_the_transforms_of_torch_func() -> None:
    model = models.build("mlp", (1, 8, 8), 10).eval()
    x = images(5, 1, 8, 8)
    h = model.head(x, "relu1")
    v = images(*h.shape)
    rows = torch.func.vmap(torch.func.jacrev(lambda one: model.tail(one[None], "relu1")[0]))(h)  # (B, 10, 128)
    _, moved = torch.func.jvp(lambda h: model.tail(h, "relu1"), (h,), (v,))
    torch.testing.assert_close(moved, torch.einsum("bkd,bd->bk", rows, v), atol=1e-5, rtol=1e-4)


def test_a_classifier_is_copied_and_pickled_with_or_without_stages() -> None:
    model = models.build("convnet", (1, 8, 8), 10, mean=(0.3,), std=(0.4,)).eval()
    x = images(2, 1, 8, 8)
    assert model.stages
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
        twin.network.conv3.weight.data.zero_()
        assert torch.equal(twin.tail(twin.head(x, 2), 2), twin(x))
        assert not torch.equal(twin(x), model(x))
    assert set(model.state_dict()) == {"mean", "std"} | {f"network.{key}" for key in model.network.state_dict()}


def test_an_unknown_stage_is_refused() -> None:
    model = models.build("convnet", (1, 8, 8), 10)
    assert [models.hidden_stage(model, k) for k in (0, "0", 3, "3", "conv2", "linear", 7)] == [0, 0, 3, 3, 3, 7, 7]
    for wrong in ("conf2", 8, -1, "8", True, False, 1.0):
        with pytest.raises(UserError, match="conv1, relu1, conv2, relu2, conv3, relu3, linear"):
            models.hidden_stage(model, wrong)
    with pytest.raises(UserError, match=r"did you mean conv2\?"):
        model.head(images(1, 1, 8, 8), "conf2")


# --- networks of the user's own

USERS = '''
import torch
from torch import nn
import torch.nn.functional as F

class Branches(nn.Module):
    """Two branches that meet, a module used twice, in-place operations and a size kept from the input."""

    def __init__(self, channels, classes, width):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.left = nn.Conv2d(width, width, 3, padding=1)
        self.right = nn.Conv2d(width, width, 1)
        self.meet = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.scale = nn.Parameter(torch.full((1, width, 1, 1), 0.5))
        self.register_buffer("shift", torch.ones(1, width, 1, 1))
        self.last = nn.Linear(width, classes)

    def forward(self, x, features=False):
        x = self.relu(self.conv(x))
        x = self.relu(self.meet(self.left(x) + self.right(x)))
        x = self.norm(x) * self.scale + self.shift
        x.relu_()
        x = x.view(x.size(0), x.size(1), -1).mean(2)
        if features:
            return x
        return self.last(x)

class Bends(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.line = nn.Linear(width, width)

    def forward(self, x):
        return self.line(x) if float(x.sum()) > 0 else x

def branches(shape, classes, width=6):
    return Branches(shape[0], classes, width)

def partly(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 5), Bends(5), nn.ReLU(), nn.Linear(5, classes))

class Untraceable(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.line = nn.Linear(64, classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.line(x if float(x.mean()) > 0 else -x)

def untraceable(shape, classes):
    return Untraceable(classes)

class Deceptive(Untraceable):
    def forward(self, x):
        return self.line(x.flatten(1) if isinstance(x, torch.Tensor) else -x.flatten(1))

def deceptive(shape, classes):
    return Deceptive(classes)

def wrong_classes(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))

def no_module(shape, classes):
    return "resnet"
'''


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that a user has written."""
    (tmp_path / "users_networks.py").write_text(USERS)
    (tmp_path / "users_broken.py").write_text("import torch\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_networks", raising=False)
    return "users_networks"


def test_a_users_own_network(users: str) -> None:
    model = models.build(f"{users}:branches", (3, 8, 8), 4, options={"width": 5})
    model = as_if_trained(model, images(3, 3, 8, 8))
    assert model.stages == ("conv", "relu", "meet", "relu_1", "norm", "last")
    assert_stages_add_up(model, images(3, 3, 8, 8))
    assert model.head(images(3, 3, 8, 8), "meet").shape == (3, 5, 8, 8)


def test_a_part_that_cannot_be_traced_is_kept_whole(users: str) -> None:
    model = models.build(f"{users}:partly", (1, 8, 8), 4).eval()
    assert model.stages == ("network.1", "network.2", "network.3", "network.4")
    assert models.hidden_stage(model, "network.1") == 1
    assert_stages_add_up(model, images(3, 1, 8, 8))


@pytest.mark.parametrize(("function", "why"), [("untraceable", "cannot trace"), ("deceptive", "other logits")])
def test_a_network_without_hidden_spaces_still_classifies(users: str, function: str, why: str) -> None:
    model = models.build(f"{users}:{function}", (1, 8, 8), 4).eval()
    x = images(3, 1, 8, 8)
    assert model(x).shape == (3, 4)
    assert torch.equal(model.tail(model.head(x, 0), 0), model(x))  # pixels need no stages
    for use in (lambda: model.head(x, 1), lambda: model.tail(x, "line"), lambda: model.stages):
        with pytest.raises(UserError, match=f"hidden spaces are unavailable for this network: .*{why}"):
            use()


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


# --- what is refused before anything is built


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


# --- normalisation, initial weights


def test_normalisation_is_the_first_step() -> None:
    """Closed form: the linear network on (x - mean) / std."""
    model = models.build("linear", (3, 4, 4), 5, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    x = images(6, 3, 4, 4)
    normal = torch.stack([(x[:, 0] - 0.1) / 0.5, x[:, 1] - 0.2, (x[:, 2] - 0.3) / 2], 1)
    weight, bias = model.network.linear.weight, model.network.linear.bias
    torch.testing.assert_close(model(x), normal.flatten(1) @ weight.T + bias)


def test_a_grey_channel_is_repeated() -> None:
    """A colour image of three equal channels and its grey channel are the same, with one mean or three."""
    grey, colour = images(2, 1, 32, 32), images(2, 1, 32, 32).expand(-1, 3, -1, -1)
    for statistics in ({"mean": (0.4,), "std": (0.2,)}, IMAGENET):
        model = models.build("squeezenet1_1", (1, 32, 32), 10, **statistics).eval()
        wanted = models.build("squeezenet1_1", (3, 32, 32), 10, **statistics).eval()(colour)
        torch.testing.assert_close(model(grey), wanted)
        assert_stages_add_up(model, grey)


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


def test_parameters_of_the_cifar_resnets() -> None:
    """Table 6 of He et al. 2015: 0.27, 0.46, 0.66 and 0.85 million parameters."""
    for name, millions in [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)]:
        model = models.build(name, (3, 32, 32), 10)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_the_shortcut_of_the_cifar_resnets_has_no_parameters() -> None:
    """With its convolutions at zero, a block is the ReLU of every second pixel between channels of zeros."""
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


# --- frozen backbones


@pytest.mark.parametrize(
    ("name", "shape", "last"),
    [
        ("resnet20", (3, 16, 16), "linear"),
        ("shufflenet_v2_x0_5", (1, 32, 32), "fc"),
        ("squeezenet1_1", (3, 32, 32), "classifier.1"),
        ("mobilenet_v3_small", (3, 32, 32), "classifier.3"),
    ],
)
def test_freeze_backbone_trains_the_last_layer_only(name: str, shape: tuple[int, int, int], last: str) -> None:
    model = models.build(name, shape, 4, freeze_backbone=True)
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.eval()
        twin.train()
        assert not any(m.training for m in twin.modules() if isinstance(m, nn.BatchNorm2d))
        assert twin.training
    F.cross_entropy(model(images(8, *shape)), torch.arange(8) // 3).backward()
    optimiser.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"network.{last}.weight", f"network.{last}.bias"}


def test_freeze_backbone_needs_a_last_layer() -> None:
    with pytest.raises(UserError, match="no linear layer or convolution with 10 outputs") as caught:
        models.Classifier(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ConstantPad1d(1, 0.0)), (1, 8, 8), 10, freeze_backbone=True
        )
    assert caught.value.field == "freeze_backbone"


# --- weights from files


@pytest.fixture
def source() -> models.Classifier:
    return models.build("resnet20", (3, 32, 32), 10, generator_seed=7, **IMAGENET)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model.network.state_dict(),
        lambda model: model.state_dict(),
        lambda model: {"state_dict": nn.DataParallel(model.network).state_dict(), "best_prec1": 91.7},
        lambda model: {"net": model.network.state_dict(), "acc": 91.7, "epoch": 3},
        lambda model: {"model": {f"module.{key}": value for key, value in model.state_dict().items()}},
        lambda model: {f"_orig_mod.{key}": value for key, value in model.network.state_dict().items()},
        lambda model: {k: v for k, v in model.network.state_dict().items() if not k.endswith("num_batches_tracked")},
    ],
)
def test_weights_in_all_their_forms(source: models.Classifier, wrap: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(wrap(source), path)
    x = images(2, 3, 32, 32)
    model = models.build("resnet20", (3, 32, 32), 10, weights=str(path), **IMAGENET).eval()
    assert torch.equal(model(x), source.eval()(x))
    bare = models.build("resnet20", (3, 32, 32), 10).network.eval()
    models.load_weights(bare, path)
    torch.testing.assert_close(bare(source.normalise(x)), source(x))


def test_weights_of_a_users_network_whose_part_is_called_network(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x.flatten(1))

    one, other = (models.Classifier(Wrapped(), (1, 2, 2), 2) for _ in range(2))
    for state in (one.state_dict(), one.network.state_dict()):
        torch.save(state, tmp_path / "weights.pt")
        nn.init.zeros_(other.network.network.weight)
        models.load_weights(other, tmp_path / "weights.pt")
        assert torch.equal(other.network.network.weight, one.network.network.weight)


def test_weights_that_do_not_match(source: models.Classifier, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    state = source.network.state_dict()
    gone = ["conv1.weight", *[key for key in state if key.startswith("layer3.2")]]
    torch.save({key: value for key, value in state.items() if key not in gone} | {"extra.bias": torch.zeros(3)}, path)
    model = models.build("resnet20", (3, 32, 32), 10)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError) as caught:
        models.load_weights(model, path)
    assert "missing network.conv1.weight, network.layer3.2.bn1.bias, " in caught.value.message
    assert " and 6 more; unexpected network.extra.bias" in caught.value.message  # 11 in all: 1 + 2 + 2 * 4
    assert caught.value.field == "weights"
    torch.save(state, path)
    with pytest.raises(
        UserError, match=r"wrong shape network.linear.weight \(10x64, not 7x64\), network.linear.bias \(10, not 7\)$"
    ):
        models.build("resnet20", (3, 32, 32), 7, weights=str(path))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    model = models.build("linear", (1, 8, 8), 10)
    path = tmp_path / "weights.pt"
    with pytest.raises(UserError, match=r"no such weights file: '.*weights.pt'"):
        models.load_weights(model, path)
    for spoil in (
        lambda: path.write_bytes(b""),
        lambda: path.write_text("not a checkpoint"),
        lambda: torch.save(model.state_dict(), path) or path.write_bytes(path.read_bytes()[:500]),
        lambda: torch.save(model, path),  # a pickled module runs code: refused
    ):
        spoil()
        with pytest.raises(UserError, match="is not a checkpoint of tensors alone") as caught:
            models.load_weights(model, path)
        assert caught.value.field == "weights"
    for content in ([1, 2], {}, {"state_dict": 3}, {"epoch": 3, "lr": 0.1}, torch.zeros(3)):
        torch.save(content, path)
        with pytest.raises(UserError, match="holds no state dict"):
            models.load_weights(model, path)


def test_weights_are_checked_before_building(tmp_path: Path) -> None:
    for weights, message in [("DEFAULT", "mlp has no weights DEFAULT"), (str(tmp_path), "no such weights file")]:
        with pytest.raises(UserError, match=message) as caught:
            models.check("mlp", weights=weights)
        assert caught.value.field == "weights"


def test_auxiliary_heads_in_a_file_are_left_out(tmp_path: Path) -> None:
    network = torchvision_networks.builder("googlenet")(num_classes=10, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "googlenet.pth")
    model = models.build("googlenet", (3, 64, 64), 10, weights=str(tmp_path / "googlenet.pth"))
    assert torch.equal(model.network.fc.weight, network.fc.weight)
    assert isinstance(model.train()(images(2, 3, 64, 64)), Tensor)  # in training too: no heads beside the logits


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


# --- networks that nobody here trained


def _data(*names: str) -> Path:
    root = os.environ.get("INPUTSCAPE_TEST_DATA")
    for name in names if root else ():
        if (Path(root or "") / name).exists():
            return Path(root or "") / name
    pytest.skip(f"needs {' or '.join(names)} below INPUTSCAPE_TEST_DATA")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "accuracy"), [("resnet20", 0.810), pytest.param("resnet56", 0.832, marks=pytest.mark.slow)]
)
def test_weights_from_elsewhere_reach_their_accuracy(name: str, accuracy: float) -> None:
    """CIFAR-10 saved as JPEG, 2000 test images: four standard errors of a proportion are 0.035."""
    weights = _data(f"models/cifar10_{name}.th", f"cifar10_{name}.th")
    folder = ImageFolder(str(_data("cifar10-jpeg/test", "cifar10/test", "test")))
    chosen = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0))[:2000].tolist()
    pairs = [folder[i] for i in chosen]
    x = torch.stack([pil_to_tensor(image) for image, _ in pairs]).float() / 255
    y = torch.tensor([label for _, label in pairs])
    model = models.build(name, (3, 32, 32), 10, weights=str(weights), **IMAGENET).eval()
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x.split(500)]) == y
        part = x[:50]
        for k in (1, len(model.stages) // 2, len(model.stages)):
            torch.testing.assert_close(model.tail(model.head(part, k), k), model(part), atol=1e-4, rtol=1e-5)
    assert right.double().mean().item() == pytest.approx(accuracy, abs=0.035)
