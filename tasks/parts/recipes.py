"""The recipe: everything that decides a trained network. Same recipe, same data, same hash, same network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.parts.settings import NonNegative, Number, Positive, Probability, Settings

LEARNING_RATES = {"sgd": 0.05, "adam": 0.002, "adamw": 0.002}


class InputNoise(Settings):
    """Noise on the training images."""

    kind: Literal["additive", "multiplicative", "sphere"] = Field(default="additive", description="as in `noise`")
    radius: NonNegative = Field(
        default=0.0, title="training-noise radius (pixel units)", description="pixel units (multiplicative: relative)"
    )
    probability: Probability = Field(
        default=1.0,
        title="share of noisy training examples",
        description="share of the examples that are moved, drawn for each by itself",
    )


class WeightNoise(Settings):
    """Multiplicative Gaussian noise on the weights, drawn anew each step; normalisation layers are left out."""

    sigma: NonNegative = Field(
        default=0.0, title="weight noise while training (relative)", description="relative to each weight"
    )


class Augmentation(Settings):
    """Standard image augmentation while training."""

    crop: int = Field(default=0, ge=0, description="random crop from the image padded by so many pixels of zero")
    flip: bool = Field(default=False, description="mirror left to right with probability 1/2")


class Recipe(Settings):
    """How a classifier is made."""

    dataset: str = Field(
        title="data set",
        default="digits",
        description="name of a data set, imagefolder:<path> or package.module:function",
    )
    image_size: int | None = Field(
        default=None, gt=0, le=4096, description="side that images are resized to (pixels); their own where null"
    )
    classes: list[str | int] | None = Field(default=None, description="the classes to tell apart; all where null")
    train_examples: int | None = Field(
        title="training examples",
        default=None,
        gt=0,
        description="training examples, balanced over the classes; all where null",
    )
    validation: Number = Field(
        default=0.0, ge=0, lt=1, description="share of the training split held out and scored each epoch"
    )

    network: str = Field(
        title="network",
        default="convnet",
        description="name of a network, of a torchvision classifier, or package.module:function",
    )
    network_options: dict[str, Any] = Field(default={}, description="keyword arguments of the network")
    weights: str = Field(default="none", description="none, DEFAULT (torchvision's own) or a file with a state dict")
    freeze_backbone: bool = Field(default=False, description="train the last layer only")
    normalisation: Literal["data", "imagenet", "none"] = Field(
        default="data",
        description="mean and standard deviation of the network's first layer: of the training images, of ImageNet, 0 and 1",
    )

    optimiser: Literal["sgd", "adam", "adamw"] = Field(title="optimiser", default="sgd", description="torch.optim")
    learning_rate: Positive | None = Field(
        title="peak learning rate", default=None, description=f"peak rate; by optimiser where null: {LEARNING_RATES}"
    )
    momentum: Number = Field(default=0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(default=True, description="of sgd")
    schedule: Literal["constant", "cosine", "one_cycle"] = Field(
        default="cosine", description="of the learning rate over all steps"
    )
    epochs: int = Field(
        title="epochs", default=20, ge=0, description="passes over the training split; 0 takes the weights as they are"
    )
    batch_size: int = Field(title="training batch size", default=64, gt=0, description="training examples a step")
    weight_decay: NonNegative = Field(
        title="weight decay",
        default=5e-4,
        description="as the optimiser has it: L2 for sgd and adam, decoupled for adamw",
    )
    label_smoothing: Number = Field(
        title="label smoothing", default=0.0, ge=0, lt=1, description="share of the target spread over all classes"
    )
    clip_norm: Positive | None = Field(
        default=None, description="largest L2 norm of the gradient; unlimited where null"
    )

    input_noise: InputNoise = Field(default=InputNoise(), description="noise on the training images")
    weight_noise: WeightNoise = Field(default=WeightNoise(), description="noise on the weights while training")
    augmentation: Augmentation = Field(default=Augmentation(), description="crops and flips while training")
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="of the initial weights, the order of the examples and all noise of the training",
    )

    @model_validator(mode="after")
    def _resolve(self) -> Recipe:
        if self.learning_rate is None:  # resolved here, so that the recipe's hash holds the number
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.optimiser])
        if self.nesterov and self.momentum == 0:
            object.__setattr__(self, "nesterov", False)  # there is none without momentum
        return self
