"""Networks that a user has written, sound ones and others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

USERS = '''
import torch
from torch import nn
import torch.nn.functional as F

class Branches(nn.Module):
    """Two branches that meet, a module used twice, in-place operations and a size kept from the input."""

    def __init__(self, channels, classes, width):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.left = nn.Conv2d(width, width, 3, padding=1)
        self.right = nn.Conv2d(width, width, 1)
        self.meet = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.scale = nn.Parameter(torch.full((1, width, 1, 1), 0.5))
        self.register_buffer("shift", torch.ones(1, width, 1, 1))
        self.last = nn.Linear(width, classes)

    def forward(self, x, features=False):
        x = self.relu(self.conv(x))
        x = self.relu(self.meet(self.left(x) + self.right(x)))
        x = self.norm(x) * self.scale + self.shift
        x.relu_()
        x = x.view(x.size(0), x.size(1), -1).mean(2)
        if features:
            return x
        return self.last(x)

class Bends(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.line = nn.Linear(width, width)

    def forward(self, x):
        return self.line(x) if float(x.sum()) > 0 else x

def branches(shape, classes, width=6):
    return Branches(shape[0], classes, width)

def partly(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 5), Bends(5), nn.ReLU(), nn.Linear(5, classes))

class Untraceable(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.line = nn.Linear(64, classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.line(x if float(x.mean()) > 0 else -x)

def untraceable(shape, classes):
    return Untraceable(classes)

class Deceptive(Untraceable):
    def forward(self, x):
        return self.line(x.flatten(1) if isinstance(x, torch.Tensor) else -x.flatten(1))

def deceptive(shape, classes):
    return Deceptive(classes)

def wrong_classes(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))

def no_module(shape, classes):
    return "resnet"
'''


def written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Writes the networks into a folder, from which they can be imported.

    Returns the name of their module. Beside it is `users_broken`, which raises on import.
    """
    (folder / "users_networks.py").write_text(USERS)
    (folder / "users_broken.py").write_text("import torch\n1 / 0\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "users_networks", raising=False)
    return "users_networks"
