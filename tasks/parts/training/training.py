"""Training a classifier by its recipe, one epoch at a time.

All randomness is keyed by the recipe's seed and its purpose, so that switching one kind of noise on
does not change what another draws: with radius, epsilon, sigma or probability 0 a noisy or
augmented training is the plain one, bit for bit. Results repeat exactly on one kind of device with
one number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.parts.batching import batch_size, in_batches
from tasks.parts.data import load as data
from tasks.parts.finite import NotFinite, all_finite
from tasks.parts.models import build as models
from tasks.parts.noise.weight_noise import noisy_weights
from tasks.parts.randomness import torch_generator
from tasks.parts.settings import UserError
from tasks.parts.training import adversarial_augmentation, augmentation, robust_training
from tasks.parts.training.recipes import Recipe
from tasks.parts.training.reports import Epoch, Tally, epoch_report

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels, as torchvision's own networks expect them."""

LOOK_EVERY = 40
"""The moved examples of one batch in so many, the first among them, are classified once more.

What the augmentation does is told from them.
"""


class TrainingDiverged(NotFinite):
    """The loss, the weights or what the network returns is not finite any more."""


def trained(recipe: Recipe, train: data.Split, device: torch.device | str = "cpu") -> models.Classifier:
    """The recipe's network after training, in evaluation mode.

    The network that it is finetuned from is trained first.

    Args:
        recipe: decides everything.
        train: the whole training split.
        device: where the network is trained, and stays.
    """
    start = None if recipe.finetune_from is None else trained(recipe.finetune_from, train, device).state_dict()
    model = untrained(recipe, train, start)
    for _ in epochs(recipe, model, train, device):
        pass
    return model.to(device).eval()


def untrained(recipe: Recipe, train: data.Split, start: Mapping[str, Tensor] | None = None) -> models.Classifier:
    """The recipe's network before training.

    It has its normalisation, and its initial or loaded weights.

    Args:
        recipe: decides everything.
        train: the training split, of which normalisation and shapes are taken.
        start: with `recipe.finetune_from`, the state of that recipe's trained network, which is
            copied.

    Raises:
        ValueError: a recipe that finetunes is not given where to start, or another one is.
        UserError: as `models.build`; or the state does not fit the network.
    """
    if (recipe.finetune_from is None) != (start is None):
        raise ValueError("the state of a network to start from belongs to a recipe with finetune_from")
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if recipe.normalisation == "data":
        mean, std = data.statistics(train)
    elif recipe.normalisation == "imagenet":
        mean, std = IMAGENET
    model = models.build(
        recipe.network,
        train.shape,
        len(train.classes),
        weights=recipe.weights,
        freeze_backbone=recipe.freeze_backbone,
        mean=mean,
        std=std,
        options=recipe.network_options,
        generator_seed=recipe.seed,
    )
    if start is not None:
        try:
            model.load_state_dict(dict(start))
        except RuntimeError as error:
            raise UserError(f"its network does not fit {recipe.network}: {error}", "finetune_from") from error
    return model


def epochs(recipe: Recipe, model: nn.Module, train: data.Split, device: torch.device | str = "cpu") -> Iterator[Epoch]:
    """Trains `model` in place, and yields after each epoch.

    At each yield the model is in evaluation mode, on `device`.

    Args:
        recipe: decides everything.
        model: what `untrained` gave.
        train: the training split, of which the recipe's subset and validation share are taken here.
        device: where the model is trained.

    Raises:
        UserError: no training examples are left, or the network lacks the layer to augment.
        TrainingDiverged: in an epoch the loss, the weights or the loss on the validation images
            became infinite or NaN.
    """
    device = torch.device(device)
    if recipe.train_examples is not None:
        train = data.subset(train, data.choose(train, recipe.train_examples, field="train_examples"))
    train, validation = data.divide(train, recipe.validation)
    if not len(train):
        raise UserError(f"a share of {recipe.validation} for validation leaves no training examples", "validation")
    adversarial_augmentation.check(recipe, model)
    stage = adversarial_augmentation.stage(recipe.adversarial_augmentation, model)
    model.to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = _optimiser(recipe, parameters)
    sizes = _batch_sizes(len(train.labels), recipe.batch_size)
    scheduler = _scheduler(recipe, optimiser, len(sizes))
    sound = [values for values in model.state_dict().values() if all_finite([values])]  # a mask may be of infinities
    for epoch in range(recipe.epochs):
        model.train()
        order = torch.randperm(len(train.labels), generator=torch_generator(recipe.seed, "order", epoch))
        batch_loss = _losses(recipe, epoch, stage)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        told: list[Tally] = []
        rate = float(scheduler.get_last_lr()[0])
        with _deterministic(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(
                torch_generator(recipe.seed, "layers", epoch).initial_seed() % 2**63
            )  # dropout and the like
            for step, positions in enumerate(order.split(sizes)):
                images = data.gather(train, positions.numpy()).to(device)
                labels = torch.tensor(train.labels[positions.numpy()], device=device)
                images = augmentation.augmented(recipe, images, epoch, step)
                optimiser.zero_grad(set_to_none=True)
                with _noisy(recipe, model, epoch, step):
                    loss, logits, tally = batch_loss(model, images, labels, step)
                    loss.backward()
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
                optimiser.step()
                scheduler.step()
                totals += torch.stack([loss.detach() * len(labels), (logits.argmax(1) == labels).sum()]).double()
                if tally is not None:
                    told.append(tally)
        mean_loss, accuracy = (totals / len(order)).tolist()
        if not math.isfinite(mean_loss):
            raise _diverged(recipe, epoch, "the loss is not finite")
        if not all_finite(sound):
            raise _diverged(recipe, epoch, "the weights are not finite")
        model.eval()
        report = Epoch(epoch=epoch + 1, loss=mean_loss, accuracy=accuracy, learning_rate=rate)
        if recipe.adversarial_augmentation.active:
            report |= epoch_report(told, len(order))
        if len(validation.labels):
            try:
                report["validation_loss"], report["validation_accuracy"] = score(model, validation, device)
            except NotFinite as error:
                raise _diverged(recipe, epoch, f"{error} for images of the validation share") from error
        yield report


def _diverged(recipe: Recipe, epoch: int, what: str) -> TrainingDiverged:
    """What ends a training in an epoch, counted from 0."""
    assert recipe.learning_rate is not None  # resolved by the recipe
    clip = "" if recipe.clip_norm is not None else ", or set clip_norm"
    advice = f"take a smaller learning rate than {recipe.learning_rate:g}{clip}"
    return TrainingDiverged(f"training diverged: {what} in epoch {epoch + 1}; {advice}")


def score(model: nn.Module, split: data.Split, device: torch.device | str = "cpu") -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy of a model in evaluation mode on a whole split.

    Raises:
        NotFinite: the model returns NaN or infinity for an image.
    """
    device = torch.device(device)
    model.to(device).eval()
    size = batch_size(int(torch.tensor(split.shape).prod()), device)
    loss = hits = 0.0
    for start in range(0, len(split.labels), 16 * size):
        positions = range(start, min(start + 16 * size, len(split.labels)))
        labels = torch.tensor(split.labels[positions.start : positions.stop], device=device)
        logits = in_batches(model, data.gather(split, positions).to(device), size)
        loss += float(cross_entropy(logits, labels, reduction="sum"))
        hits += float((logits.argmax(1) == labels).sum())
    return loss / len(split.labels), hits / len(split.labels)


def _batch_sizes(examples: int, batch: int) -> list[int]:
    """How many examples each step of an epoch has.

    One left over joins the step before: batch normalisation needs two.
    """
    sizes = [batch] * (examples // batch)
    rest = examples - sum(sizes)
    if rest == 1 and sizes and batch > 1:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    assert recipe.learning_rate is not None  # resolved by the recipe
    rate, decay = recipe.learning_rate, recipe.weight_decay
    match recipe.optimiser:
        case "sgd":
            return torch.optim.SGD(
                parameters, rate, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=decay
            )
        case "adam":
            return torch.optim.Adam(parameters, rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, rate, weight_decay=decay)


def _scheduler(recipe: Recipe, optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    total = max(1, steps * recipe.epochs)
    match recipe.schedule:
        case "constant":
            return torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
        case "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=total)
        case "one_cycle":
            peak = optimiser.defaults["lr"]
            return torch.optim.lr_scheduler.OneCycleLR(
                optimiser, max_lr=peak, total_steps=total + 1, cycle_momentum=False
            )


def _losses(
    recipe: Recipe, epoch: int, stage: int
) -> Callable[[nn.Module, Tensor, Tensor, int], tuple[Tensor, Tensor, Tally | None]]:
    """The function that gives the loss of each batch of an epoch.

    It is from (model, images, labels, step) to the loss, the logits, and what is told of the
    adversarial augmentation.
    """
    smoothing, settings, robust = recipe.label_smoothing, recipe.adversarial_augmentation, recipe.robust
    if robust.active:

        def found(model: nn.Module, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, None]:
            start = torch_generator(recipe.seed, "robust start", epoch, step)
            return *robust_training.loss(robust, model, images, labels, start, smoothing), None

        return found
    if settings.active:
        radius = adversarial_augmentation.radius_in(settings, epoch, recipe.epochs)
        random = adversarial_augmentation.random_numbers(recipe.seed, epoch)

        def moved(model: nn.Module, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, Tally]:
            look = step % LOOK_EVERY == 0
            logits, tally = adversarial_augmentation.forward(
                settings, model, stage, images, labels, radius=radius, random=random, look=look
            )
            return cross_entropy(logits, labels, label_smoothing=smoothing), logits, tally

        return moved

    def plain(model: nn.Module, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, None]:
        logits = model(images)
        return cross_entropy(logits, labels, label_smoothing=smoothing), logits, None

    return plain


def _noisy(recipe: Recipe, model: nn.Module, epoch: int, step: int) -> AbstractContextManager[None]:
    """The network with the weight noise of a step."""
    if recipe.weight_noise.sigma == 0:
        return nullcontext()
    return noisy_weights(model, recipe.weight_noise.sigma, torch_generator(recipe.seed, "weight noise", epoch, step))


@contextmanager
def _deterministic() -> Iterator[None]:
    """A context in which cuDNN chooses deterministic kernels, and not by a race."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
