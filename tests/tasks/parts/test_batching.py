"""Batches: every row is computed once, and gives the same bits in a batch of any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.parts import batching
from tasks.parts.batching import GRAINS, batch_size, grain, in_batches, padded
from tasks.parts.data import load as data
from tasks.parts.models import build as models


@pytest.mark.parametrize("batch", [1, 7, 8, 12, 64])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64])
def test_padding_on_a_cpu(rows: int, batch: int) -> None:
    x = torch.arange(rows * 2.0).reshape(rows, 2)
    full, least = padded(x, batch), grain(torch.get_num_threads())
    assert len(full) == -(-rows // least) * least
    assert torch.equal(full[:rows], x)
    assert (full[rows:] == x[-1]).all()
    assert (full is x) == (rows % least == 0)


def test_the_grain_is_the_least_that_the_processor_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lru_cache is passed by: what this processor does is known to the other tests."""
    for allowed, wanted in [(8, 8), (16, 16), (24, 24), (1000, GRAINS[-1])]:
        monkeypatch.setattr(batching, "_same_bits", lambda rows, *layer, allowed=allowed: rows % allowed == 0)
        assert grain.__wrapped__(1) == wanted


class Elsewhere(Tensor):
    """A tensor that says it lies on another device."""

    device = property(lambda self: torch.device("cuda"))


@pytest.mark.parametrize(("rows", "wanted"), [(1, 64), (63, 64), (64, 64), (65, 128), (0, 0)])
def test_padding_on_other_devices_fills_the_batch(rows: int, wanted: int) -> None:
    assert len(padded(torch.empty(rows, 2).as_subclass(Elsewhere), 64)) == wanted


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 30])
def test_in_batches_is_the_function(rows: int) -> None:
    sizes = []

    def function(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.square().sum(1, keepdim=True)

    x = torch.rand(rows, 3, requires_grad=True)
    result = in_batches(function, x, 10)
    assert torch.equal(result, x.detach().square().sum(1, keepdim=True))
    assert not result.requires_grad
    assert len(sizes) == max(1, -(-rows // 10))
    assert max(sizes) <= 10 + grain(torch.get_num_threads())


def test_the_same_bits_in_any_batch() -> None:
    """A padded batch gives an image the same logits alone and among others."""
    model = models.build("convnet", (1, 8, 8), 10).eval()
    images, _ = data.take(data.load("digits", "test"), range(100))
    together = in_batches(model, images, 100)
    for batch in (1, 7, 8, 33, 64):
        assert torch.equal(in_batches(model, images, batch), together)
    assert torch.equal(in_batches(model, images[41:42], 64)[0], together[41])


def test_batch_sizes_shrink_with_the_images_and_fill_whole_grains() -> None:
    for device in ("cpu", "cuda"):
        sizes = [batch_size(3 * side * side, torch.device(device)) for side in (1, 8, 28, 32, 64, 224, 512)]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) > 2
        assert all(size >= 8 and size % 8 == 0 for size in sizes[-1:] + sizes[:2])
    assert batch_size(3 * 224 * 224, torch.device("cuda")) > batch_size(3 * 224 * 224, torch.device("cpu"))
