"""One thread for all: what a test computes, and how long it takes, then does not depend on the machine's cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tasks.parts import batching


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def eight_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are padded to a multiple of 8, as on some processors: how many rows a search takes then is the same on all."""
    monkeypatch.setattr(batching, "grain", lambda threads: 8)
