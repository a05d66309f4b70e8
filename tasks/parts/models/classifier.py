"""A classifier: normalisation and a network that is cut into stages.

Between two stages lies a hidden space, where the network can be left and entered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.parts.finite import Watch
from tasks.parts.messages import did_you_mean
from tasks.parts.models.checkpoints import last_layer
from tasks.parts.models.modes import all_modules, evaluating
from tasks.parts.models.stages import Stage, run, split, verify
from tasks.parts.models.tracing import unavailable
from tasks.parts.settings import UserError


@final
class Classifier(nn.Module):
    """A network that takes images with pixels in [0, 1], and normalises them as its first step.

    Args:
        network: from normalised images (B, C, H, W) to logits (B, classes).
        shape: (channels, height, width) of the images.
        classes: the number of classes.
        mean: of the pixels, one number or one a channel. For grey images in a network for colours
            there are as many numbers as the network has channels, and normalising repeats the grey
            channel.
        std: of the pixels, in the same form.
        freeze_backbone: train nothing but the last layer. The batch normalisation of the other
            layers then keeps and uses its running statistics: `train()` leaves it in evaluation
            mode.

    Attributes:
        magnitudes: the typical size of the numbers in hidden space k = 1, 2, ... (see
            `spaces.magnitudes`), which is the unit of radii there. Empty until whoever made the
            network sets it.
        watch: is called with all logits, where it is set; see `finite.watched`.

    Raises:
        UserError: with `freeze_backbone`, for a network without a layer that makes the logits.
    """

    mean: Tensor  # (1, C or 1, 1, 1)
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        freeze_backbone: bool = False,
    ):
        super().__init__()
        if min(std) <= 0:
            raise ValueError(f"every standard deviation must be positive, not {tuple(std)}")
        self.network = network
        self.shape = shape
        self.classes = classes
        self.magnitudes: tuple[float, ...] = ()
        self.watch: Watch | None = None
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self._frozen: list[nn.Module] = []
        self._splits: dict[tuple[bool, ...], tuple[Stage, ...]] = {}
        if freeze_backbone:
            last = network.get_submodule(last_layer(network, classes))
            network.requires_grad_(False)
            last.requires_grad_(True)
            self._frozen = [
                module for module in network.modules() if isinstance(module, _BatchNorm) and module is not last
            ]
            self.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, classes)."""
        return self._shown(self.network(self.normalise(x)))

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std for images x (B, C, H, W)."""
        return (x - self.mean) / self.std

    def train(self, mode: bool = True) -> Classifier:
        """Sets the mode, as for any module.

        The batch normalisation of a frozen backbone stays in evaluation mode.
        """
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, in order. Hidden space k lies after the first k of them.

        The last hidden space is that of the logits.

        Raises:
            UserError: the network cannot be traced, so it has no hidden spaces.
        """
        return tuple(stage.name for stage in self._split())

    def head(self, x: Tensor, k: int | str) -> Tensor:
        """The value after the first k stages, for images x (B, C, H, W) in [0, 1].

        Args:
            x: the images.
            k: 0 (the pixels, before normalisation) to the number of stages (the logits), or the
                name of the last stage to run.

        Returns:
            The hidden representation (B, ...), with gradients to x. `tail(head(x, k), k)` are the
            logits of x.
        """
        k, stages = self._cut(k)
        return x if k == 0 else run(self.network, stages[:k], self.normalise(x))

    def tail(self, h: Tensor, k: int | str) -> Tensor:
        """The logits (B, classes) for a value h (B, ...) after the first k stages; h is kept."""
        k, stages = self._cut(k)
        return self(h) if k == 0 else self._shown(run(self.network, stages[k:], h))

    def between(self, h: Tensor, start: int | str, end: int | str) -> Tensor:
        """The value after the first `end` stages, for a value after the first `start`.

        Args:
            h: (B, ...) where `start` is 0 the images in [0, 1]. It is kept.
            start: how many stages came before h, or the name of the last of them.
            end: how many come before what is returned, likewise; no less than `start`.

        Returns:
            (B, ...) with gradients to h. `between(head(x, j), j, k)` is `head(x, k)`.

        Raises:
            ValueError: `start` lies after `end`.
        """
        (first, _), (last, stages) = self._cut(start), self._cut(end)
        if first > last:
            raise ValueError(f"stage {start} lies after stage {end}, and a network runs forward only")
        if first == 0:
            return self.head(h, last)
        return h if first == last else run(self.network, stages[first:last], h)

    def hidden_values(self, x: Tensor) -> Iterator[Tensor]:
        """`head(x, k)` for k = 1, 2, ... up to the logits, in one pass; x is (B, C, H, W)."""
        value = self.normalise(x)
        for stage in self._split():
            value = run(self.network, (stage,), value)
            yield value

    def _shown(self, logits: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch(logits)
        return logits

    def _cut(self, k: int | str) -> tuple[int, tuple[Stage, ...]]:
        """The number of stages before hidden space k, and all stages (none for the pixels)."""
        if type(k) is not int or k < 0:
            k = hidden_stage(self, k)
        if k == 0:
            return 0, ()
        stages = self._split()
        return (k if k <= len(stages) else hidden_stage(self, k)), stages

    def _split(self) -> tuple[Stage, ...]:
        """The stages in the modules' current modes, on which a traced operation can depend."""
        modes = tuple([module.training for module in all_modules(self.network)])
        if not self._splits:
            # First in evaluation mode, where the stages can be compared with the network.
            with evaluating(self.network):
                stages = split(self.network)
                verify(self.network, stages, self._noise())
                self._splits[(False,) * len(modes)] = stages
        if modes not in self._splits:
            stages = split(self.network)
            (known, *_) = self._splits.values()
            if [stage.name for stage in stages] != [stage.name for stage in known]:
                raise unavailable("training and evaluation have different stages")
            self._splits[modes] = stages
        return self._splits[modes]

    def _noise(self) -> Tensor:
        """Two normalised images of noise (2, C, H, W) on the network's device, always the same."""
        noise = torch.rand((2, *self.shape), generator=torch.Generator().manual_seed(0))
        return self.normalise(noise.to(self.mean))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_splits": {}}  # without traces, which are cheap to make again


def hidden_stage(model: Classifier, k: int | str) -> int:
    """The number of stages before a hidden space.

    Args:
        model: the classifier.
        k: that number, also as text, or the name of the last of these stages.

    Raises:
        UserError: there is no such stage (the message lists them), or the network has no hidden
            spaces.
    """
    if (k == 0 and k is not False) or k == "0":
        return 0  # every network has the pixels
    stages = model.stages
    if isinstance(k, str) and k in stages:
        return stages.index(k) + 1
    if isinstance(k, str) and k.isdecimal():
        k = int(k)
    if isinstance(k, int) and not isinstance(k, bool) and 0 <= k <= len(stages):
        return k
    hint = did_you_mean(str(k), stages)
    raise UserError(f"no stage '{k}': 0 (pixels) to {len(stages)} (logits), or one of {', '.join(stages)}{hint}")
