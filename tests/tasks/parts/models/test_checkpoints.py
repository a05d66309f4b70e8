"""Weights from files, in all forms in which they are saved; files that are none."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from staged_networks import IMAGENET, images
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from tasks.parts.models import build as models
from tasks.parts.models import torchvision_networks
from tasks.parts.settings import UserError


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


def test_auxiliary_heads_in_a_file_are_left_out(tmp_path: Path) -> None:
    network = torchvision_networks.builder("googlenet")(num_classes=10, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "googlenet.pth")
    model = models.build("googlenet", (3, 64, 64), 10, weights=str(tmp_path / "googlenet.pth"))
    assert torch.equal(model.network.fc.weight, network.fc.weight)
    assert isinstance(model.train()(images(2, 3, 64, 64)), Tensor)  # in training too: no heads beside the logits


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
