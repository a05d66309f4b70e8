"""Folders of images are identified by their content, wherever they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from data_on_disk import CIFAR10, folders, forget, tiny_imagenet

from tasks.parts.data import load as data


def test_equal_folders_have_one_fingerprint_wherever_they_are(tmp_path: Path) -> None:
    folders(tmp_path / "here", CIFAR10, each=1)
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "moved")
    (tmp_path / "there" / "moved" / "test").rename(tmp_path / "there" / "moved" / "val")
    here, there = (
        data.fingerprint(f"imagefolder:{tmp_path}/here"),
        data.fingerprint("imagefolder:moved", root=tmp_path / "there"),
    )
    assert here == there
    assert data.fingerprint("cifar10", root=tmp_path / "here") not in (here, "cifar10")
    tiny_imagenet(tmp_path / "one" / "tiny-imagenet-200")
    tiny_imagenet(tmp_path / "two")
    assert data.fingerprint("tiny_imagenet", root=tmp_path / "one") == data.fingerprint(
        "tiny_imagenet", root=tmp_path / "two"
    )


def rewrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # same name, same size
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: rewrite(root / "train" / "a" / "0.png"),
        lambda root: (root / "train" / "a" / "0.png").rename(root / "train" / "a" / "9.png"),
        lambda root: (root / "test" / "b" / "1.png").unlink(),
        lambda root: shutil.move(root / "train" / "a" / "1.png", root / "train" / "b" / "7.png"),
        lambda root: (root / "train" / "c").mkdir(),
        lambda root: (root / "train" / "a").rename(root / "train" / "A"),
    ],
)
def test_different_folders_have_different_fingerprints(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folders(tmp_path, ["a", "b"])
    shutil.rmtree(tmp_path / "test" / "a")
    before = data.fingerprint(f"imagefolder:{tmp_path}")
    change(tmp_path)
    forget()
    assert data.fingerprint(f"imagefolder:{tmp_path}") != before
