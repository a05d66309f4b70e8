"""The sweeps that come with the project, and those that the README shows, are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import PROJECT

from engine.sweep import check_figures, main
from engine.sweepfile.load import load

SHIPPED = sorted((PROJECT / "sweeps").glob("*.yaml"))
SHOWN = re.findall(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_sweep_is_accepted_and_says_what_it_asks(path: Path) -> None:
    spec = load(path)
    check_figures(spec)
    assert spec.sweep.about
    assert spec.sweep.figures


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_sweep_on_embedded_data_can_begin(path: Path, tmp_path: Path) -> None:
    if set(re.findall(r"dataset: (\w+)", path.read_text())) - {"digits"}:
        pytest.skip("its images are not embedded")
    assert main([str(path), "--dry-run", "--results", str(tmp_path / "results")]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", SHOWN, ids=lambda text: text.splitlines()[0].partition("#")[0].strip())
def test_a_sweep_of_the_readme_can_begin(text: str, tmp_path: Path) -> None:
    sweep = tmp_path / "shown.yaml"
    sweep.write_text(text)
    assert main([str(sweep), "--dry-run", "--results", str(tmp_path / "results")]) == 0
    assert list(tmp_path.iterdir()) == [sweep]
