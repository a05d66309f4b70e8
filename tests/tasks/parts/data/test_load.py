"""Data sets by name, the project's own and a user's; classes that are kept; mistakes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_on_disk import forget, mnist

from tasks.parts.data import cache as decoded
from tasks.parts.data import load as data
from tasks.parts.settings import UserError


def test_names_are_the_files(tmp_path: Path) -> None:
    assert set(data.names()) >= {"blobs", "cifar10", "cifar100", "digits", "fashion_mnist", "imagefolder", "mnist"}
    assert not any(name.startswith("_") for name in data.names())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cifra10", "cifar10"),
        ("fashion-mnist", "fashion_mnist"),
        ("imagefoldr:/x", "imagefolder"),
        ("MNIST", None),
        ("", None),
    ],
)
def test_an_unknown_name_is_told_with_what_is_allowed(name: str, meant: str | None) -> None:
    for ask in (data.check, data.fingerprint, lambda name: data.load(name, "train")):
        with pytest.raises(UserError, match=r"unknown data set .*; allowed: blobs, cifar10") as caught:
            ask(name)
        assert caught.value.field == "dataset"
        assert meant is None or caught.value.message.endswith(f"did you mean {meant}?")


def test_other_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="unknown split 'val'; allowed: train, test"):
        data.load("digits", "val")
    with pytest.raises(UserError, match="image_size must be at least 1"):
        data.load("digits", "test", image_size=0)
    mistakes: list[tuple[list[str | int], str]] = [
        (["zebra"], r"unknown class 'zebra'; allowed: blob 0, blob 1, blob 2, or an index 0\.\.2"),
        (["blob0"], r"did you mean blob 0\?"),
        ([3], "unknown class 3"),
        ([-1], "unknown class -1"),
        ([True], "unknown class True"),
        ([1, "blob 1"], "name one class twice"),
        ([], "no class is left"),
    ]
    for classes, line in mistakes:
        with pytest.raises(UserError, match=line) as caught:
            data.load("blobs", "test", classes=classes)
        assert caught.value.field == "classes"


def test_a_class_filter_renumbers_labels_and_keeps_ids() -> None:
    whole = data.load("digits", "test")
    part = data.load("digits", "test", classes=["7", 2])
    assert part.classes == ("7", "2")
    assert part.ids.tolist() == np.flatnonzero(np.isin(whole.labels, [2, 7])).tolist()
    assert (np.array([7, 2])[part.labels] == whole.labels[part.ids]).all()
    for ids in (part.ids, part.ids[::-3].copy()):
        (left, _), (right, _) = data.take(part, ids), data.take(whole, ids)
        assert torch.equal(left, right)
    np.testing.assert_array_equal(np.asarray(part.images), whole.images[part.ids])
    with pytest.raises(UserError, match="unknown example id"):
        data.take(part, [int(np.flatnonzero(whole.labels == 3)[0])])


def test_loading_twice_gives_the_same_object(tmp_path: Path) -> None:
    mnist(tmp_path / "MNIST" / "raw")
    assert data.load("mnist", "test", root=tmp_path) is data.load("mnist", "test", root=str(tmp_path))


def test_roots_and_caches_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INPUTSCAPE_DATA", str(tmp_path / "data"))
    assert data.default_root() == tmp_path / "data"
    assert data.default_root(tmp_path / "given") == tmp_path / "given"
    assert decoded.cache_folder() == Path(os.environ["INPUTSCAPE_CACHE"])
    monkeypatch.delenv("INPUTSCAPE_DATA")
    monkeypatch.delenv("INPUTSCAPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.default_root() == tmp_path / "xdg" / "inputscape"
    assert decoded.cache_folder() == tmp_path / "xdg" / "inputscape" / "decoded"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.default_root() == tmp_path / ".cache" / "inputscape"


def test_a_users_function_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_1.py").write_text(
        "import numpy as np\n"
        "def stripes(split, root):\n"
        "    return np.full((4, 1, 2, 3), 0.5) * (root / 'x').exists(), [0, 1, 1, 0], ['thin', 'thick']\n"
        "def wrong(split, root):\n"
        "    return np.full((4, 1, 2, 3), 2.0), [0, 1, 1, 0], ['thin', 'thick']\n"
        "number = 3\n"
    )
    (tmp_path / "broken_1.py").write_text("1 / 0\n")
    (tmp_path / "broken_2").mkdir()
    (tmp_path / "broken_2" / "__init__.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "x").touch()
    data.check("mine_1:stripes", root=tmp_path)
    loaded = data.load("mine_1:stripes", "train", root=tmp_path)
    assert loaded.classes == ("thin", "thick")
    assert loaded.images.dtype == np.float32
    assert (np.asarray(loaded.images) == 0.5).all()
    elsewhere = data.load("mine_1:stripes", "train", root=tmp_path / "elsewhere")
    assert (np.asarray(elsewhere.images) == 0).all(), "another root may hold other data"
    assert data.fingerprint("mine_1:stripes", root="/a") == data.fingerprint("mine_1:stripes", root="/b")
    for name, line in (
        ("mine_1:number", "has no function 'number'"),
        ("mine_1:strips", "has no function 'strips'"),
        ("broken_1:stripes", "cannot be imported: ZeroDivisionError"),
        ("broken_2.inside:stripes", "cannot be imported: ZeroDivisionError"),
        ("mine_2:stripes", "unknown data set 'mine_2:stripes'"),
    ):
        with pytest.raises(UserError, match=line):
            data.check(name)
    with pytest.raises(UserError, match=r"images must be uint8, or floats in \[0, 1\]"):
        data.load("mine_1:wrong", "train")
    before = data.fingerprint("mine_1:stripes")
    with open(tmp_path / "mine_1.py", "a") as file:
        file.write("version = 2\n")
    forget()
    assert data.fingerprint("mine_1:stripes") != before
    assert "mine_1" in sys.modules
