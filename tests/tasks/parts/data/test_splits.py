"""Examples are chosen and divided fairly, and nobody is handed the shared images to write into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_on_disk import mnist
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.parts.data import load as data
from tasks.parts.settings import UserError


def split_of(labels: list[int], gaps: list[int] | None = None, classes: int = 4) -> data.Split:
    """A split without much of an image: the first pixel of example i is i."""
    count = len(labels)
    ids = np.cumsum(gaps if gaps is not None else [1] * count, dtype=np.int64) - 1
    images = (np.arange(count) % 256).astype(np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 2), np.uint8)
    images.flags.writeable = False
    return data.Split(images, np.array(labels, np.int64), ids, tuple(f"class {k}" for k in range(classes)))


@st.composite
def splits(draw: st.DrawFn) -> data.Split:
    labels = draw(st.lists(st.integers(0, 3), min_size=1, max_size=60))
    gaps = draw(st.lists(st.integers(1, 1000), min_size=len(labels), max_size=len(labels)))
    return split_of(labels, gaps)


# --- choosing, dividing


@settings(deadline=None)
@given(splits(), st.data())
def test_choose_is_nested_balanced_and_deterministic(split: data.Split, draws: st.DataObject) -> None:
    more = draws.draw(st.integers(1, len(split)))
    fewer = draws.draw(st.integers(1, more))
    large, small = data.choose(split, more), data.choose(split, fewer)
    assert len(large) == more
    assert set(small.tolist()) <= set(large.tolist()) <= set(split.ids.tolist())
    assert (np.diff(large) > 0).all()
    counts = np.bincount(split.labels[np.searchsorted(split.ids, large)], minlength=4)
    sizes = np.bincount(split.labels, minlength=4)
    lasting = counts < sizes  # a class that gave all it has may have given less
    assert counts.max() - counts[lasting].min(initial=counts.max()) <= 1
    again = data.Split(np.zeros((len(split), 3, 1, 1), np.float32), split.labels, split.ids, split.classes)
    assert data.choose(again, more).tolist() == large.tolist(), "labels and ids decide, nothing else"


@settings(deadline=None)
@given(splits(), st.data())
def test_choosing_in_classes_is_choosing_from_their_part(split: data.Split, draws: st.DataObject) -> None:
    present = sorted(set(split.labels.tolist()))
    wanted = draws.draw(st.lists(st.sampled_from(present), min_size=1, unique=True))
    inside = data.subset(split, split.ids[np.isin(split.labels, wanted)])
    count = draws.draw(st.integers(1, len(inside)))
    names = [split.classes[k] for k in wanted]
    assert data.choose(split, count, names).tolist() == data.choose(inside, count).tolist()
    assert data.choose(split, None, wanted).tolist() == inside.ids.tolist()


def test_choose_mixes_the_examples_of_a_class() -> None:
    """Not the first of each class: in a folder those are alike."""
    ids = data.choose(split_of([0] * 1000, classes=1), 100)
    assert 350 < ids.mean() < 650
    assert ids.max() > 900


def test_choose_takes_lists_of_ids() -> None:
    split = split_of([0, 1, 2, 3, 0, 1], gaps=[1, 2, 2, 2, 2, 2])  # ids 0, 2, 4, 6, 8, 10
    assert data.choose(split).tolist() == [0, 2, 4, 6, 8, 10]
    assert data.choose(split, [8, 2, 0]).tolist() == [0, 2, 8]
    assert data.choose(split, [8, 2, 0], classes=["class 0"]).tolist() == [0, 8]
    mistakes: list[tuple[object, list[str | int] | None, str]] = [
        ([8, 3], None, r"unknown example id 3; this split has 6 ids in 0\.\.10"),
        ([-1], None, "unknown example id -1"),
        ([2, 8, 2], None, "the id 2 is given more than once"),
        ([], None, "a number or a list of ids"),
        ([0.5], None, "a number or a list of ids"),
        ("all", None, "a number or a list of ids"),
        ([2], [0], "none of the ids is of the classes"),
        (7, None, "7 examples asked for, there are 6"),
        (3, ["class 0"], "3 examples asked for, there are 2"),
        (0, None, "0 examples asked for"),
        (True, None, "True examples asked for"),
    ]
    for examples, classes, line in mistakes:
        with pytest.raises(UserError, match=line) as caught:
            data.choose(split, examples, classes)
        assert caught.value.field == "examples"


@settings(deadline=None)
@given(splits(), st.floats(0, 1), st.integers(0, 2**40))
def test_divide_is_stratified_and_complete(split: data.Split, fraction: float, seed: int) -> None:
    train, validation = data.divide(split, fraction, seed)
    assert sorted([*train.ids, *validation.ids]) == split.ids.tolist()
    assert abs(len(validation) - fraction * len(split)) <= 0.5 + 1e-9
    counts, sizes = (np.bincount(part.labels, minlength=4) for part in (validation, split))
    assert (np.abs(counts - fraction * sizes) <= 1 + 1e-9).all()
    assert data.divide(split, fraction, seed)[1].ids.tolist() == validation.ids.tolist()
    for part in (train, validation):
        where = np.searchsorted(split.ids, part.ids)
        np.testing.assert_array_equal(np.asarray(part.images), split.images[where])
        assert part.labels.tolist() == split.labels[where].tolist()
        assert part.classes == split.classes


def test_divide_depends_on_the_seed_and_copies_nothing() -> None:
    split = data.load("digits", "train")
    train, validation = data.divide(split, 0.2, seed=0)
    assert data.divide(split, 0.2, seed=1)[1].ids.tolist() != validation.ids.tolist()
    assert isinstance(train.images, data.Selection)
    assert train.images.base is split.images
    deeper, _ = data.divide(train, 0.5)
    assert isinstance(deeper.images, data.Selection)
    assert deeper.images.base is split.images
    np.testing.assert_array_equal(np.asarray(deeper.images), split.images[deeper.ids])
    whole, none = data.divide(split, 0)
    assert whole is split
    assert len(none) == 0
    assert none.shape == split.shape
    with pytest.raises(UserError, match="must lie in"):
        data.divide(split, 1.5)


# --- reading


def test_gather_takes_positions_in_any_order() -> None:
    split = split_of(list(range(4)) * 5)
    part = data.subset(split, [3, 10, 17])
    expected = torch.tensor([17, 3, 3]) / 255
    for positions in ([2, 0, 0], np.array([2, 0, 0]), torch.tensor([2, 0, 0])):
        got = data.gather(part, positions)
        assert got.shape == (3, 1, 1, 2)
        assert torch.equal(got[:, 0, 0, 0], expected)
    assert data.gather(part, []).shape == (0, 1, 1, 2)


def test_take_is_by_id_and_in_the_order_asked() -> None:
    split = split_of([0, 1, 2, 3], gaps=[5, 5, 5, 5])  # ids 4, 9, 14, 19
    images, labels = data.take(split, [19, 4, 19])
    assert labels.tolist() == [3, 0, 3]
    assert torch.equal(images[:, 0, 0, 0], torch.tensor([3, 0, 3]) / 255)
    assert labels.dtype == torch.int64
    for unknown in (0, 5, 20, -1):
        with pytest.raises(UserError, match=rf"unknown example id {unknown}; this split has 4 ids in 4\.\.19"):
            data.take(split, [4, unknown])


@pytest.mark.parametrize("where", ["mapped", "memory", "part"])
def test_what_is_handed_out_never_aliases_the_shared_images(tmp_path: Path, where: str) -> None:
    if where == "mapped":
        mnist(tmp_path / "MNIST" / "raw")
        split = data.load("mnist", "test", root=tmp_path)
    else:
        split = data.load("digits", "test", classes=range(10) if where == "part" else None)
    before, labels = np.array(split.images), split.labels.copy()
    for ids in (split.ids, split.ids[:1], [0, 1, 2]):
        images, truth = data.take(split, ids)
        images.fill_(0.25)
        truth.fill_(-1)
        data.gather(split, ids).fill_(0.25)
    data.choose(split).fill(0)
    np.testing.assert_array_equal(np.asarray(split.images), before)
    np.testing.assert_array_equal(split.labels, labels)
    base = split.images.base if isinstance(split.images, data.Selection) else split.images
    for array in (base, split.labels, split.ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# --- statistics


def test_statistics_have_a_closed_form() -> None:
    half = np.zeros((6, 2, 2, 2), np.uint8)
    half[:, 0, 0] = 255  # channel 0: half black, half white
    half[:, 1] = 51
    split = data.Split(half, np.zeros(6, np.int64), np.arange(6), ("a",))
    mean, std = data.statistics(split)
    assert mean == pytest.approx((0.5, 0.2))
    assert std == pytest.approx((0.5, 0.0))
    floats = data.Split((half / 255).astype(np.float32), split.labels, split.ids, split.classes)
    assert data.statistics(floats) == (pytest.approx(mean), pytest.approx(std, abs=1e-6))


def test_statistics_of_a_sorted_folder_see_every_class() -> None:
    labels = np.repeat([0, 1], 20_000)
    images = (labels * 255).astype(np.uint8)[:, None, None, None]
    split = data.Split(images, labels, np.arange(40_000), ("dark", "bright"))
    mean, _ = data.statistics(split)
    assert mean == pytest.approx((0.5,))
