"""What the tests of the engine share: whole sweeps take little time."""

from __future__ import annotations

import pytest

from engine.search import importance


@pytest.fixture(autouse=True)
def quick(blank_figures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "RESAMPLES", 3)
