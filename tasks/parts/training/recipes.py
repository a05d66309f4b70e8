"""The recipe: everything that decides a trained network.

Same recipe, same data, same hash, same network.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.parts.geometry.balls import Ball
from tasks.parts.settings import NonNegative, Number, Positive, Probability, Settings, UserError

LEARNING_RATES = {"sgd": 0.05, "adam": 0.002, "adamw": 0.002}

SAME_AS_BASE = ("dataset", "image_size", "classes", "network", "network_options", "normalisation")
"""Settings in which a recipe and the one it finetunes from agree."""
INHERITED = (*SAME_AS_BASE, "train_examples", "validation", "seed")
"""Settings that a recipe to finetune from takes from the recipe around it, unless it names them."""


class InputNoise(Settings):
    """Noise on the training images."""

    kind: Literal["additive", "multiplicative", "sphere"] = Field(default="additive", description="as in `noise`")
    radius: NonNegative = Field(
        default=0.0, title="training-noise radius (pixel units)", description="pixel units (multiplicative: relative)"
    )
    probability: Probability = Field(
        default=1.0,
        title="share of noisy training examples",
        description="share of the examples that are moved, drawn for each by itself; with additive noise, 0.5 is the recipe of"
        " Kireev, Andriushchenko and Flammarion 2022",
    )

    @property
    def active(self) -> bool:
        """Whether any example gets noise."""
        return self.radius > 0 and self.probability > 0


class WeightNoise(Settings):
    """Multiplicative Gaussian noise on the weights, drawn anew each step.

    Normalisation layers are left out.
    """

    sigma: NonNegative = Field(
        default=0.0, title="weight noise while training (relative)", description="relative to each weight"
    )


class Augmentation(Settings):
    """Standard image augmentation while training."""

    crop: int = Field(default=0, ge=0, description="random crop from the image padded by so many pixels of zero")
    flip: bool = Field(default=False, description="mirror left to right with probability 1/2")


class AdversarialAugmentation(Settings):
    """Training examples moved before the network sees them, or before its later layers do.

    They are moved in pixels or in a hidden layer. Off at epsilon or probability 0.
    """

    space: str = Field(
        default="pixel",
        title="space of the augmentation",
        description="what is moved: pixel, or hidden:<k> with k the number or the name of a stage",
    )
    direction: Literal["runner_up", "away", "random_class", "random"] = Field(
        default="runner_up",
        title="direction of the augmentation",
        description="up the logit of the class that is likeliest besides the true one, down the true class's logit, up the logit of a"
        " random other class, or a random direction of the same norm",
    )
    norm: Ball = Field(
        default="Linf", description="of the move: Linf goes along the gradient's sign, L2 along the gradient"
    )
    epsilon: NonNegative = Field(
        default=0.0,
        title="augmentation radius",
        description="norm of the move (pixel units, or those of the layer; see relative), before clipping to [0, 1] in pixels",
    )
    relative: bool | None = Field(
        default=None,
        description="epsilon in units of the root mean square of the batch's values in that space; where null, so in hidden layers and"
        " not so in pixels",
    )
    steps: int = Field(default=1, ge=1, description="gradient steps, all within epsilon of the start")
    step_size: Positive | None = Field(
        default=None,
        description="in the units of epsilon; 2.5 epsilon / steps where null, so that one step goes as far as epsilon",
    )
    schedule: Literal["constant", "rising", "falling"] = Field(
        default="constant",
        description="of epsilon over the epochs: rising in equal steps to epsilon in the last epoch, falling from epsilon in the first",
    )
    probability: Probability = Field(
        default=0.5,
        title="share of augmented training examples",
        description="share of the examples that are moved, drawn for each by itself",
    )
    only: Literal["all", "correct", "confident"] = Field(
        default="all",
        title="examples that are augmented",
        description="of the examples drawn, move all, those classified correctly, or those with a true class at least as probable as"
        " `confidence`",
    )
    confidence: Probability = Field(default=0.9, description="probability of the true class that counts as confident")
    equal_cost: bool = Field(
        default=True,
        description="a random direction makes the passes that a gradient would take, for a control of equal cost in time as well",
    )

    @model_validator(mode="after")
    def _resolve(self) -> AdversarialAugmentation:
        kind, colon, stage = self.space.partition(":")
        if kind == "latent":
            raise UserError("the latent space of an autoencoder is not there yet; pixel or hidden:<k>", "space")
        if self.space != "pixel" and not (kind == "hidden" and colon and stage.strip()):
            raise UserError(
                f"must be pixel or hidden:<k>, with the number or the name of a stage, not {self.space}", "space"
            )
        if self.space == "hidden:0":
            object.__setattr__(self, "space", "pixel")  # which is what lies before the first stage
        if self.relative is None:
            object.__setattr__(self, "relative", self.space != "pixel")
        return self

    @property
    def active(self) -> bool:
        """Whether any example is moved."""
        return self.epsilon > 0 and self.probability > 0

    @property
    def stage(self) -> str:
        """The stage after which examples are moved, as `Classifier.head` takes it."""
        return "0" if self.space == "pixel" else self.space.partition(":")[2]


class Robust(Settings):
    """Training on the worst images found around each, in pixels."""

    method: Literal["none", "pgd", "trades"] = Field(
        default="none",
        title="robust training",
        description="pgd: adversarial training (Madry et al. 2018); trades (Zhang et al. 2019)",
    )
    norm: Ball = Field(default="Linf", description="of the ball that is searched")
    epsilon: NonNegative = Field(
        default=8 / 255,
        title="radius of robust training (pixel units)",
        description="of the ball (pixel units); 0 is off",
    )
    steps: int = Field(default=10, ge=1, description="gradient steps of the search")
    step_size: Positive | None = Field(default=None, description="pixel units; 2.5 epsilon / steps where null")
    beta: NonNegative = Field(
        default=6.0, description="weight of the robust term of trades, 1 / lambda of the paper; 0 is off"
    )

    @property
    def active(self) -> bool:
        """Whether the training differs from a plain one."""
        return self.method != "none" and self.epsilon > 0 and (self.method != "trades" or self.beta > 0)


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
    adversarial_augmentation: AdversarialAugmentation = Field(
        default=AdversarialAugmentation(), description="examples moved along the network's own gradients while training"
    )
    robust: Robust = Field(default=Robust(), description="adversarial training to compare with")
    finetune_from: Recipe | None = Field(
        default=None,
        title="finetuned from",
        description="recipe whose trained network is the start; data, network and seed are as here where it does not name them",
    )
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
        if self.robust.active and self.adversarial_augmentation.active:
            raise UserError(
                f"{self.robust.method} moves the training examples, and so does adversarial_augmentation; take one of them",
                "robust",
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: object) -> object:
        if not isinstance(values, dict) or not isinstance(base := values.get("finetune_from"), dict):
            return values
        return {**values, "finetune_from": {name: values[name] for name in INHERITED if name in values} | base}

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        base = self.finetune_from
        if base is None:
            return self
        if self.weights != "none":
            raise UserError(
                f"those of finetune_from are the start, so that there is no place for {self.weights}", "weights"
            )
        for name in SAME_AS_BASE:
            here, there = getattr(self, name), getattr(base, name)
            if here != there:
                raise UserError(f"its {name} is {there}, but {here} here; they must be the same", "finetune_from")
        return self

    def effective(self) -> Recipe:
        """The recipe in which what is switched off is as it is by default.

        It makes the same network, and two such recipes are equal.
        """
        off = {
            name: type(part)()
            for name, part in vars(self).items()
            if isinstance(part, InputNoise | AdversarialAugmentation | Robust) and not part.active
        }
        base = {} if self.finetune_from is None else {"finetune_from": self.finetune_from.effective()}
        return self.model_copy(update=off | base)
