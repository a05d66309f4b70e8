"""The documented line that tries a module of a user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from commands import PROJECT

KIND = '''
"""The images, doubled."""
from tasks.parts.data.load import load as load_data
from tasks.parts.settings import Settings

PER_EXAMPLE = True

class Request(Settings):
    factor: float = 2.0

def identity(request, root):
    return {"factor": request.factor}

def split(request, root):
    return load_data("blobs", "test", root=root)

def make(request, given, batch):
    return {"images": request.factor * batch.images}

def load(request, saved, device):
    return saved.arrays["images"]
'''


def test_a_kind_of_ones_own_is_tried(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/doubled.py").write_text(KIND)
    line = (
        "-m pytest -q -p no:cacheprovider -p engine.conformance.plugin --pyargs engine.conformance --own mine.doubled"
    )
    ran = subprocess.run(
        [sys.executable, *line.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout
    assert "test_tasks" not in ran.stdout
