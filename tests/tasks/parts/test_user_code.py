"""A user's own code is identified by what it says.

How it is written does not count, nor does the version of Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tasks.parts.user_code import meaning, source_hash

CODE = '''
"""A module."""
import os  # of the system
from helping import scale

class Network:
    """A network."""

    name = f"{os.name}: # {{not}} a comment {scale('a')}"

    def forward(self, x):
        "Says what." ; y = 'a "string"'
        # a reason
        return """no
docstring # either""" + x + y


async def later():
    """Only
    a docstring."""
'''
OTHERWISE = '''
import os
from helping import scale
class Network:
    """Another
    word (ü)."""  # and more
    name = f"{os.name}: # {{not}} a comment {scale('a')}"
    def forward(self, x):
        "Says it." ; y = 'a "string"'
        return """no
docstring # either""" + x + y
async def later():
    """Another."""
'''


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_words_do_not_count() -> None:
    assert meaning(CODE) == meaning(OTHERWISE)
    assert "not}} a comment" in meaning(CODE)
    assert "docstring # either" in meaning(CODE)
    assert "reason" not in meaning(CODE)


@pytest.mark.parametrize(("old", "new"), [("os.name", "os.sep"), ("# either", "# neither"), ("x + y", "y + x")])
def test_code_counts(old: str, new: str) -> None:
    assert meaning(CODE) != meaning(CODE.replace(old, new))


def test_what_cannot_be_parsed_counts_as_it_is() -> None:
    assert meaning("def f(:\n  # no") == "def f(:\n  # no"


def test_the_hash_is_that_of_every_version_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The constant stands for the others, which tokenize and print code in other ways."""
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, {"told_a.py": CODE})
    assert source_hash("told_a") == "d49af9c1e37434316fa210a4ba3e7c1f"


def test_modules_of_the_same_folder_that_are_imported_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "told_b.py": "def build():\n    import helping_b\n    from shelf_b import inner\n",
        "helping_b.py": "import deep_b, numpy, told_b\n",
        "deep_b.py": "x = 1\n",
        "shelf_b/__init__.py": "",
        "shelf_b/inner.py": "from . import other\n",
        "shelf_b/other.py": "x = 1\n",
        "aside_b.py": "x = 1\n",
        "tasks.py": "x = 1\n",
    }
    write(tmp_path, files)
    first = source_hash("told_b")
    for name in ("helping_b.py", "deep_b.py", "shelf_b/__init__.py", "shelf_b/inner.py", "shelf_b/other.py"):
        (tmp_path / name).write_text(f"{files[name]}y = 2\n")
        assert source_hash("told_b") != first, name
        (tmp_path / name).write_text(f"{files[name]}# y = 2\n")
        assert source_hash("told_b") == first, name
    for name in ("aside_b.py", "tasks.py"):
        (tmp_path / name).write_text("y = 2\n")
        assert source_hash("told_b") == first, name


def test_of_a_package_its_own_modules_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "pack_c/__init__.py": "",
        "pack_c/nets/__init__.py": "from .. import base\n",
        "pack_c/nets/small.py": "from ..base import x\nfrom pack_c.more import y\nimport beside_c\n",
        "pack_c/base.py": "x = 1\n",
        "pack_c/more.py": "y = 1\n",
        "pack_c/unused.py": "y = 1\n",
        "beside_c.py": "x = 1\n",
    }
    write(tmp_path, files)
    first = source_hash("pack_c.nets.small")
    for name in ("pack_c/base.py", "pack_c/more.py", "pack_c/nets/small.py"):
        (tmp_path / name).write_text(f"{files[name]}z = 2\n")
        assert source_hash("pack_c.nets.small") != first, name
        (tmp_path / name).write_text(files[name])
    for name in ("pack_c/unused.py", "beside_c.py"):
        (tmp_path / name).write_text("z = 2\n")
        assert source_hash("pack_c.nets.small") == first, name


def test_a_compiled_module_is_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"compiled_d{EXTENSION_SUFFIXES[0]}").write_bytes(b"1")
    first = source_hash("compiled_d")
    (tmp_path / f"compiled_d{EXTENSION_SUFFIXES[0]}").write_bytes(b"2")
    assert source_hash("compiled_d") != first


def test_a_module_without_a_file_is_refused() -> None:
    for name in ("no_such_module", "itertools"):
        with pytest.raises(ImportError, match=f"no file of {name}"):
            source_hash(name)
