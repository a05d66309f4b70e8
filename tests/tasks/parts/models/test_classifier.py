"""A classifier normalises first, can be copied and pickled, and freezes all but its last layer."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from staged_networks import IMAGENET, assert_stages_add_up, images
from torch import nn

from tasks.parts.models import build as models
from tasks.parts.settings import UserError


def test_normalisation_is_the_first_step() -> None:
    """Closed form: the linear network on (x - mean) / std."""
    model = models.build("linear", (3, 4, 4), 5, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    x = images(6, 3, 4, 4)
    normal = torch.stack([(x[:, 0] - 0.1) / 0.5, x[:, 1] - 0.2, (x[:, 2] - 0.3) / 2], 1)
    weight, bias = model.network.linear.weight, model.network.linear.bias
    torch.testing.assert_close(model(x), normal.flatten(1) @ weight.T + bias)


def test_a_grey_channel_is_repeated() -> None:
    """An image of three equal channels and its grey channel are alike, with one mean or three."""
    grey, colour = images(2, 1, 32, 32), images(2, 1, 32, 32).expand(-1, 3, -1, -1)
    for statistics in ({"mean": (0.4,), "std": (0.2,)}, IMAGENET):
        model = models.build("squeezenet1_1", (1, 32, 32), 10, **statistics).eval()
        wanted = models.build("squeezenet1_1", (3, 32, 32), 10, **statistics).eval()(colour)
        torch.testing.assert_close(model(grey), wanted)
        assert_stages_add_up(model, grey)


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


def test_stages_between_two_spaces_lead_from_one_to_the_other() -> None:
    for name, shape in (("convnet", (1, 8, 8)), ("resnet20", (3, 8, 8))):
        model = models.build(name, shape, 10, mean=(0.3,), std=(0.4,), options={"width": 4}).eval()
        x, stages = images(2, *shape), range(len(model.stages) + 1)
        values = [model.head(x, k) for k in stages]
        for start in stages:
            before = values[start].clone()
            for end in stages[start:]:
                assert torch.equal(model.between(values[start], start, end), values[end])
            assert torch.equal(values[start], before)
        named = model.between(values[1], model.stages[0], model.stages[-1])
        assert torch.equal(named, values[-1])
        with pytest.raises(ValueError, match="stage 2 lies after stage 1"):
            model.between(values[2], 2, 1)


def test_an_unknown_stage_is_refused() -> None:
    model = models.build("convnet", (1, 8, 8), 10)
    assert [models.hidden_stage(model, k) for k in (0, "0", 3, "3", "conv2", "linear", 7)] == [0, 0, 3, 3, 3, 7, 7]
    for wrong in ("conf2", 8, -1, "8", True, False, 1.0):
        with pytest.raises(UserError, match="conv1, relu1, conv2, relu2, conv3, relu3, linear"):
            models.hidden_stage(model, wrong)
    with pytest.raises(UserError, match=r"did you mean conv2\?"):
        model.head(images(1, 1, 8, 8), "conf2")


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
