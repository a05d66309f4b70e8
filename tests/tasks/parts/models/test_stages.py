"""Hidden spaces: the stages of every network add up to the network."""

from __future__ import annotations

import copy
from pathlib import Path

import networks_of_a_user
import pytest
import torch
import torch.nn.functional as F
from staged_networks import IMAGENET, as_if_trained, assert_stages_add_up, images
from torch import Tensor, nn

from tasks.parts.models import build as models
from tasks.parts.settings import UserError

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


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that a user has written."""
    return networks_of_a_user.written(tmp_path, monkeypatch)


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
    """Batch normalisation and dropout do the same as in the network, random numbers included."""
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


# --- networks of the user's own


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
