"""How an autoencoder is made: the settings of all kinds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.parts.settings import NonNegative, Number, Positive, Settings, Stage, UserError
from tasks.parts.training.optimisation import Optimiser, Schedule


class AutoencoderRecipe(Settings):
    """How an autoencoder of a classifier's representations is made."""

    kind: str = Field(
        default="plain", title="autoencoder", description="name of a file in tasks/parts/autoencoders: linear, vae, ..."
    )
    options: dict[str, object] = Field(default={}, description="settings of this kind")
    bottleneck: int = Field(
        default=16, ge=1, title="bottleneck", description="numbers of a code; of topk, how many features are active"
    )
    stage: Stage = Field(
        default=0,
        title="stage",
        description="stage of the classifier whose values are encoded, its number or name; 0: the pixels",
    )
    pooled: bool = Field(
        default=False, description="encode the mean over all positions of a representation of channels and positions"
    )
    dtype: Literal["float32", "float16"] = Field(default="float32", description="in which representations are kept")
    standardise: Literal["whole", "channel", "none"] = Field(
        default="whole",
        description="whole: the mean representation is subtracted, and all numbers divided by their common standard"
        " deviation; channel: mean and standard deviation of each channel; none",
    )
    denoising: NonNegative = Field(
        default=0.0,
        title="denoising",
        description="standard deviation of noise that is added before the code, in those of the standardised numbers",
    )
    logits_weight: NonNegative = Field(
        default=0.0,
        title="weight of the logits",
        description="of the divergence (nats) between the classes predicted behind representation and reconstruction",
    )

    optimiser: Optimiser = Field(default="adam", description="torch.optim")
    learning_rate: Positive = Field(default=1e-3, title="learning rate of the autoencoder", description="peak rate")
    schedule: Schedule = Field(default="cosine", description="of the learning rate over all steps")
    weight_decay: NonNegative = Field(default=0.0, description="as the optimiser has it")
    clip_norm: Positive | None = Field(
        default=None, description="largest L2 norm of the gradient; unlimited where null"
    )
    epochs: int = Field(default=30, ge=0, description="passes over the training representations")
    batch_size: int = Field(default=64, ge=1, description="representations a step")
    validation: Number = Field(
        default=0.1, ge=0, lt=1, description="share of the training images held out and scored each epoch"
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="epochs without a lower validation loss after which training ends, at the best of them; never where"
        " null",
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="of initial weights, order and noise; the classifier's where null"
    )

    @model_validator(mode="after")
    def _patience(self) -> Self:
        if self.patience is not None and self.validation == 0:
            raise UserError("is counted on images that are held out; set validation above 0", "patience")
        return self
