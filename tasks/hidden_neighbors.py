"""Which training examples lie nearest before and after a move, at each stage of a classifier?

An image is moved, adversarially or at random, in its pixels or in a hidden space. At every stage
asked for, the k training examples with the nearest representations are found, exactly. Their labels
tell at which depth a moved image leaves its class (Papernot and McDaniel 2018, whose deep k-nearest
neighbours look at the labels at each layer).

Rows: one for each example, move (`none`: the image as it is), stage and rank of neighbour. A move
in a hidden space has none at the stages before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator

from tasks.parts.artifacts import classifier, representations
from tasks.parts.artifacts.adversarial_examples import space_of
from tasks.parts.artifacts.common.attack_settings import Attack
from tasks.parts.artifacts.common.kind import Given
from tasks.parts.attack_task import AttackConfig
from tasks.parts.columns import EXAMPLE, Column
from tasks.parts.contract import Batch, Needs
from tasks.parts.data.load import Split
from tasks.parts.measures.neighbors import Metric
from tasks.parts.measures.neighbors_by_stage import Move, depth_of_change, depths_of, neighborhood, passed, unit_of
from tasks.parts.messages import validated
from tasks.parts.models.classifier import hidden_stage
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.rows import Columns, example_columns, means, spread
from tasks.parts.self_checks import Outcome, found_again, more_alike_than_by_chance, weaker_at_random
from tasks.parts.settings import Positive, Several, Stage, UserError

VERSION = 1
NONE = "none"
"""The image as it is."""
UNIT = "share of the typical norm, a root mean square over training examples; of cosine 1 - cosine"
COLUMNS = {
    **EXAMPLE,
    "move": Column("move of the image", values=(NONE, "adversarial", "hidden", "random")),
    "stage": "stage of the classifier, as it was asked for; 0: the pixels",
    "depth": "stages before the representation",
    "rank": "rank of the neighbour; 1: the nearest",
    "neighbor": "neighbour (index in the training split)",
    "neighbor_label": "true class of the neighbour",
    "distance": f"distance of the neighbour ({UNIT})",
    "moved": f"how far the representation moved ({UNIT})",
    "class_after": "class predicted after the move",
    "found": "the move succeeded; at random: the attack did whose length it has",
    "entropy": "entropy of the neighbours' labels (nats)",
    "true_class": "share of neighbours of the true class",
    "old_class": "share of neighbours of the class predicted before the move",
    "new_class": "share of neighbours of the new class, predicted after the move and not before",
}
SHARES = (
    *("correct", "found", "true_class", "old_class", "new_class", "accuracy"),
    *("true_class_*", "new_class_*", "depth_of_change_*"),
)
MAY_BE_MISSING = frozenset[str]()


class Config(AttackConfig):
    """Settings of `hidden_neighbors`."""

    pixels_only: ClassVar[str] = "the attack is one of pixels, and the move hidden is its twin at the stage of hidden"

    attack: Attack = Field(default=Attack(stop="last"), description="how adversarial examples are found")
    moves: Several[Literal["adversarial", "hidden", "random"]] = Field(
        default=["adversarial", "random"],
        description="adversarial: the attack, in pixels; hidden: the attack in the space behind the stage `hidden`;"
        " random: as far as the adversarial one in a random direction",
    )
    hidden: Stage = Field(default=1, description="stage behind which the move hidden is made, its number or name")
    hidden_epsilon: Positive | None = Field(
        default=None, description="radius there (of its typical magnitude); the attack's where null"
    )
    stages: Several[Stage] = Field(
        default=[0, 1], description="stages at which neighbours are found, numbers or names; 0: the pixels"
    )
    neighbors: Annotated[int, Field(gt=0)] = Field(default=10, description="neighbours at each stage")
    metric: Metric = Field(default="l2", description="l2, or cosine: 1 - the cosine of the angle")

    @model_validator(mode="after")
    def _hidden_attack(self) -> Self:
        if self.hidden == 0:
            raise UserError("0 are the pixels, in which the move adversarial is made", "hidden")
        if "hidden" in self.moves:
            try:
                self.attack_behind()
            except UserError as error:
                raise UserError(error.message, {"epsilon": "hidden_epsilon"}.get(error.field or "", "hidden")) from None
        return self

    def attack_behind(self) -> Attack:
        """The attack of the move hidden."""
        radius = {} if self.hidden_epsilon is None else {"epsilon": self.hidden_epsilon}
        values = self.attack.model_dump(exclude_unset=True) | {"space": f"hidden:{self.hidden}"} | radius
        return validated(Attack, values, "the attack")

    def bank(self, stage: int | str) -> representations.Request:
        """The training representations at a stage."""
        return representations.Request(recipe=self.recipe, stage=stage)


def needs(config: Config) -> Needs:
    """The classifier, what attacks found, and the representations `at <stage>`."""
    pixels, hidden = {"adversarial", "random"} & set(config.moves), "hidden" in config.moves
    return {
        "classifier": config.recipe,
        **({"adversarial": config.adversarial()} if pixels else {}),
        **({"hidden": config.adversarial(attack=config.attack_behind())} if hidden else {}),
        **{f"at {stage}": config.bank(stage) for stage in config.stages},
    }


def check(config: Config, split: Split) -> None:
    """Refuses a target of the attack that is no class of the data, or is measured itself."""
    config.check_attack(split)


def check_settings(config: Config, root: str | None) -> None:
    """Refuses stages that the network lacks, and more neighbours than there are training examples.

    Raises:
        UserError: one of these, with its field.
    """
    classifier.check(classifier.Request(recipe=config.recipe), root)
    model = classifier.before_training(config.recipe, root)
    depths = depths_of(model, {f"stages.{place}": stage for place, stage in enumerate(config.stages)})
    if "hidden" in config.moves and depths_of(model, {"hidden": config.hidden})["hidden"] > max(depths.values()):
        given = ", ".join(map(str, config.stages))
        raise UserError(f"{config.hidden} lies after all stages at which neighbours are found: {given}", "hidden")
    there = len(representations.chosen(config.bank(0), root))
    if config.neighbors > there - (config.split == "train"):
        itself = ", of which an image itself does not count" if config.split == "train" else ""
        raise UserError(f"more than the {there} training examples there are{itself}", "neighbors")


def passes(config: Config) -> int:
    """Forward passes for one example at most, the attacks aside."""
    return 1 + len(config.moves)


def moves(config: Config, given: Given, batch: Batch) -> Iterator[Move]:
    """The image as it is, and each move asked for."""
    model, images = given["classifier"], batch.images
    yield Move(NONE, 0, images, torch.ones_like(batch.labels, dtype=torch.bool))
    for name in config.moves:
        found = given["hidden" if name == "hidden" else "adversarial"]
        if name == "adversarial":
            yield Move(name, 0, found.points, found.success)
        elif name == "hidden":
            unit = space_of(config.attack_behind(), [model]).unit
            yield Move(name, hidden_stage(model, config.hidden), found.points * unit, found.success)
        else:
            delta = randomly_moved(images, found.distance, config.attack.norm, ids=batch.ids, seed=config.seed)
            yield Move(name, 0, images + delta, found.success)


def measure(config: Config, given: Given, batch: Batch) -> Columns:
    """Rows in the order (example, move, depth, rank), as `COLUMNS` names their columns.

    `given` holds what `needs` names.
    """
    model, k, size = given["classifier"], config.neighbors, config.batch_for(batch.images)
    stages = dict(sorted((hidden_stage(model, stage), stage) for stage in config.stages))
    banks = {depth: given[f"at {stage}"] for depth, stage in stages.items()}
    units = {depth: unit_of(bank, config.metric, batch.images.device) for depth, bank in banks.items()}
    own = banks[next(iter(stages))].rows_of(batch.ids) if config.split == "train" else None
    of_moves: list[Columns] = []
    for move in moves(config, given, batch):
        values, after = passed(model, move, list(stages), size)
        if move.name == NONE:
            unmoved, predicted = values, after
        around = [
            neighborhood(h, unmoved[depth], banks[depth], k, config.metric, units[depth], own)
            for depth, h in values.items()
        ]
        neighbors, label, distance, moved, entropy = (torch.stack(each, 1) for each in zip(*around, strict=True))
        changed = (after != predicted)[:, None, None]
        columns = {
            **example_columns(batch, predicted),
            "move": ([move.name] * len(batch.labels), "example"),
            "stage": ([str(stages[depth]) for depth in values], "stage"),
            "depth": (list(values), "stage"),
            "rank": (np.arange(1, k + 1), "rank"),
            "neighbor": (neighbors, "example", "stage", "rank"),
            "neighbor_label": (label, "example", "stage", "rank"),
            "distance": (distance, "example", "stage", "rank"),
            "moved": (moved, "example", "stage"),
            "entropy": (entropy, "example", "stage"),
            "class_after": (after, "example"),
            "found": (move.found, "example"),
            "true_class": (label == batch.labels[:, None, None], "example", "stage", "rank"),
            "old_class": (label == predicted[:, None, None], "example", "stage", "rank"),
            "new_class": ((label == after[:, None, None]) & changed, "example", "stage", "rank"),
        }
        axes = {"example": len(batch.labels), "stage": len(values), "rank": k}
        of_moves.append({name: column.reshape(len(batch.labels), -1) for name, column in spread(axes, columns).items()})
    return {name: np.concatenate([columns[name] for columns in of_moves], 1).reshape(-1) for name in COLUMNS}


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Shares of neighbours at the first and the last stage of each move, and its depth of change.

    Counted are examples that were correct and for which the move was found. `depth_of_change` is
    the share of the stages asked for before the first from which on, up to the last, no majority of
    the neighbours has the class predicted before the move: 0 at the first stage, 1 never.
    """
    return means(scores(config, rows))


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The values by example whose means are the trial's scalars; shares have one a neighbour."""
    scored = {"accuracy": rows.drop_duplicates("id").set_index("id")["correct"]}
    for move, of_move in rows[rows["correct"] & rows["found"]].groupby("move", sort=False, observed=True):
        by_id = of_move.set_index("id")
        for place, depth in (("first", by_id["depth"].min()), ("last", by_id["depth"].max())):
            here = by_id[by_id["depth"] == depth]
            scored[f"true_class_{move}_{place}"] = here["true_class"]
            if move != NONE:
                scored[f"new_class_{move}_{place}"] = here["new_class"]
        if move != NONE:
            scored[f"depth_of_change_{move}"] = depth_of_change(of_move, len(config.stages))
    return scored


def checks(config: Config, rows: pd.DataFrame) -> Outcome:
    """What must hold for the numbers to mean anything."""
    each = rows.drop_duplicates(["id", "move"])
    target = config.attack.target
    fooled = each["class_after"] != each["label"] if target is None else each["class_after"] == target
    attacked = each["move"].isin(["adversarial", "hidden"])
    held = found_again(int((fooled != each["found"])[attacked].sum()), int(attacked.sum()))
    if {"adversarial", "random"} <= set(config.moves):
        share = {name: float(fooled[each["correct"] & (each["move"] == name)].mean()) for name in config.moves}
        held |= weaker_at_random(share["random"], share["adversarial"])
    last = rows[(rows["move"] == NONE) & (rows["depth"] == rows["depth"].max())]
    return held | more_alike_than_by_chance(last["label"], last["neighbor_label"])
