"""The task against comparisons of all pairs, and networks whose depth of change is planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tasks.hidden_neighbors import Config, check_settings, checks, measure, needs, summarise
from tasks.parts.artifacts.adversarial_examples import AdversarialExamples
from tasks.parts.artifacts.representations import Representations
from tasks.parts.contract import Batch, prepared
from tasks.parts.data import load as data
from tasks.parts.finite import NotFinite
from tasks.parts.measures.neighbors_by_stage import depth_of_change
from tasks.parts.models import spaces
from tasks.parts.models.classifier import Classifier
from tasks.parts.settings import UserError
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

IDS = tuple(range(0, 160, 8))
RECIPE = Recipe(dataset="digits", network="mlp", network_options={"width": 32}, epochs=3, train_examples=200)
MOVES = ["adversarial", "hidden", "random"]
K = 4


@pytest.fixture(scope="module")
def model() -> Classifier:
    model = training.trained(RECIPE, data.load("digits", "train")).requires_grad_(False)
    model.magnitudes = spaces.magnitudes(model, batch_of().images)
    return model


def batch_of(split: str = "test", ids: tuple[int, ...] = IDS) -> Batch:
    return Batch(ids, *data.take(data.load("digits", split), ids))


def config_of(**settings: Any) -> Config:
    attack = {"norm": "L2", "epsilon": 1.5, "steps": 10, "stop": "last"}
    usual = {"recipe": RECIPE, "attack": attack, "moves": MOVES, "hidden_epsilon": 2, "neighbors": K}
    return Config(**{**usual, "stages": [0, 1, 2, 3], **settings})


def rows_of(model: Classifier, config: Config, batch: Batch) -> pd.DataFrame:
    return pd.DataFrame(measure(config, prepared(needs(config), model, batch), batch))


def left(points: Tensor, distance: float | Tensor, success: bool = True) -> AdversarialExamples:
    """What an attack leaves that moved images to these points."""
    none = torch.zeros(len(points))
    held = torch.full((len(points),), success)
    return AdversarialExamples(
        points, held, none + distance, none + distance, none, none, none + torch.nan, none + torch.nan
    )


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("split", ["test", "train"])
def test_neighbours_are_those_of_a_comparison_of_all_pairs(model: Classifier, metric: str, split: str) -> None:
    """In double precision, one example at a time; of the training split without itself."""
    config = config_of(metric=metric, split=split, stages=[3, 0, "relu1"])
    train = data.load("digits", "train")
    chosen = data.choose(train, 200)
    batch = batch_of(
        split, (*(int(i) for i in chosen[:12]), *set(range(8)).difference(chosen)) if split == "train" else IDS
    )
    given = prepared(needs(config), model, batch)
    rows = pd.DataFrame(measure(config, given, batch))
    images, labels = data.take(train, chosen)
    unit = given["hidden"].points * model.magnitudes[0]
    for depth, stage in {0: "0", 2: "relu1", 3: "3"}.items():
        bank = model.head(images, depth).flatten(1).double()
        norm = bank.square().sum(1).mean().sqrt() if metric == "l2" else 1
        unmoved = model.head(batch.images, depth).flatten(1).double()
        moved = {"none": unmoved, "adversarial": model.head(given["adversarial"].points, depth).flatten(1).double()}
        if depth:
            moved["hidden"] = model.between(unit, 1, depth).flatten(1).double()
        for move, h in moved.items():
            here = rows[(rows["move"] == move) & (rows["stage"] == stage)]
            assert set(here["depth"]) == {depth}
            for place, example in enumerate(batch.ids):
                far = compared(h[place], bank, metric) / norm
                far = torch.where(torch.from_numpy(chosen == example), torch.inf, far) if split == "train" else far
                order = far.argsort(stable=True)[:K]
                one = here[here["id"] == example].sort_values("rank")
                assert one["neighbor"].tolist() == chosen[order].tolist()
                assert one["neighbor_label"].tolist() == labels[order].tolist()
                np.testing.assert_allclose(one["distance"], far[order], rtol=1e-5, atol=1e-6)
                own = compared(h[place], unmoved[place : place + 1], metric) / norm
                np.testing.assert_allclose(one["moved"], float(own), rtol=1e-4, atol=1e-6)
                shares = np.unique(labels[order], return_counts=True)[1] / K
                np.testing.assert_allclose(one["entropy"], -(shares * np.log(shares)).sum(), atol=1e-12)
    assert not ((rows["move"] == "hidden") & (rows["depth"] == 0)).any()
    assert (rows["true_class"] == (rows["neighbor_label"] == rows["label"])).all()
    assert (rows["old_class"] == (rows["neighbor_label"] == rows["predicted"])).all()
    new = (rows["neighbor_label"] == rows["class_after"]) & (rows["class_after"] != rows["predicted"])
    assert (rows["new_class"] == new).all()
    assert not [said for said in checks(config, rows).values() if said]


def compared(h: Tensor, bank: Tensor, metric: str) -> Tensor:
    if metric == "cosine":
        return 1 - (bank @ h) / (bank.norm(dim=1) * h.norm())
    return (bank - h).norm(dim=1)


def test_moves_are_as_far_and_classified_as_their_attacks_say(model: Classifier) -> None:
    config, batch = config_of(), batch_of()
    given = prepared(needs(config), model, batch)
    rows = pd.DataFrame(measure(config, given, batch))
    train = data.load("digits", "train")
    images, _ = data.take(train, data.choose(train, 200))
    norm = images.flatten(1).square().sum(1).mean().sqrt()
    pixels = rows[(rows["depth"] == 0) & (rows["rank"] == 1)].set_index("id")
    for move in ("adversarial", "random"):
        far = pixels.loc[pixels["move"] == move, "moved"]
        np.testing.assert_allclose(far * float(norm), given["adversarial"].distance, atol=1e-3)
    after = rows.drop_duplicates(["id", "move"]).set_index(["move", "id"])["class_after"]
    assert after["adversarial"].tolist() == model(given["adversarial"].points).argmax(1).tolist()
    hidden = spaces.hidden(model, 1).classify(given["hidden"].points)
    assert after["hidden"].tolist() == hidden.argmax(1).tolist()
    assert after["none"].tolist() == model(batch.images).argmax(1).tolist()


def test_rows_of_a_hidden_move_do_not_depend_on_the_chunks(model: Classifier) -> None:
    config = config_of()
    together = rows_of(model, config, batch_of())
    pieces = pd.concat([rows_of(model, config, batch_of(ids=ids)) for ids in (IDS[:7], IDS[7:])], ignore_index=True)
    pd.testing.assert_frame_equal(together, pieces, rtol=1e-5, atol=1e-5)


def test_a_move_of_length_0_changes_nothing(model: Classifier) -> None:
    config, batch = config_of(), batch_of()
    given = prepared(needs(config), model, batch)
    still = {
        "adversarial": left(batch.images, 0.0),
        "hidden": left(model.head(batch.images, 1) / model.magnitudes[0], 0.0),
    }
    rows = pd.DataFrame(measure(config, {**given, **still}, batch))
    same = ["id", "predicted", "depth", "rank", "neighbor", "neighbor_label", "class_after", "distance", "entropy"]
    none = rows[rows["move"] == "none"]
    for move in MOVES:
        of_move = rows[rows["move"] == move]
        base = none[none["depth"] >= of_move["depth"].min()]
        pd.testing.assert_frame_equal(
            of_move[same].reset_index(drop=True), base[same].reset_index(drop=True), rtol=1e-5, atol=1e-6
        )
        assert of_move["moved"].max() < 1e-6
        assert not of_move["new_class"].any()


# ------------------------------------------------------------------------------ planted networks


def linear(*diagonals: list[float]) -> Classifier:
    """A network of two pixels a, b whose stages multiply them by the numbers of each diagonal."""
    layers = [nn.Linear(len(diagonal), len(diagonal)) for diagonal in diagonals]
    network = nn.Sequential(nn.Flatten(), *layers)
    for layer, diagonal in zip(layers, diagonals, strict=True):
        layer.weight.data, layer.bias.data = torch.diag(torch.tensor(diagonal)), torch.zeros(len(diagonal))
    return Classifier(network, (1, 1, 2), 2).eval().requires_grad_(False)


def planted(model: Classifier, images: Tensor, labels: Tensor, points: Tensor, queries: Batch) -> pd.DataFrame:
    stages = list(range(len(model.stages) + 1))
    config = Config(moves=["adversarial"], stages=stages, neighbors=3)
    ids = np.arange(len(images))
    banks = {f"at {k}": Representations(model.head(images, k).numpy(), labels.numpy(), ids) for k in stages}
    far = (points - queries.images).flatten(1).norm(dim=1)
    return pd.DataFrame(measure(config, {"classifier": model, "adversarial": left(points, far), **banks}, queries))


def two_classes() -> tuple[Tensor, Tensor]:
    """Class 0 near (0.8, 0.2) and class 1 near (0.2, 0.8): the network's outputs are the pixels."""
    step = torch.linspace(-0.05, 0.05, 8)
    images = torch.cat([torch.stack([0.8 + step, 0.2 - step], 1), torch.stack([0.2 + step, 0.8 - step], 1)])
    return images.view(-1, 1, 1, 2), torch.arange(16) // 8


def test_identities_leave_the_neighbours_of_the_pixels() -> None:
    model, (images, labels) = linear([1.0, 1.0], [1.0, 1.0], [1.0, 1.0]), two_classes()
    points = torch.tensor([[0.35, 0.65], [0.75, 0.25]]).view(2, 1, 1, 2)
    queries = Batch(
        (0, 1), torch.tensor([[0.77, 0.23], [0.78, 0.23]]).view(2, 1, 1, 2), torch.zeros(2, dtype=torch.long)
    )
    rows = planted(model, images, labels, points, queries)
    pixels = rows[rows["depth"] == 0].drop(columns=["stage", "depth"]).reset_index(drop=True)
    for depth in (1, 2, 3):
        here = rows[rows["depth"] == depth].drop(columns=["stage", "depth"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(here, pixels)
    moved = rows[rows["move"] == "adversarial"]
    assert depth_of_change(moved, 4).to_dict() == {0: 0.0, 1: 1.0}


@pytest.mark.parametrize("change", [1, 2, 3])
def test_the_depth_of_change_is_the_planted_stage(change: int) -> None:
    """Up to there one pixel tells the classes apart, and from there on only the other one does.

    The classes lie far apart in a, by 0.6, and close in b, by 0.02. The move is by 0.02 in b. The
    stage of the change takes 0.001 of a and 1000 of b.
    """
    step = torch.linspace(-0.002, 0.002, 8)
    zero, one = torch.stack([0.2 + step, 0.51 + step], 1), torch.stack([0.8 + step, 0.49 + step], 1)
    images, labels = torch.cat([zero, one]).view(-1, 1, 1, 2), torch.arange(16) // 8
    diagonals = [[0.001, 1000.0] if stage == change else [1.0, 1.0] for stage in (1, 2, 3)]
    layers = linear(*diagonals)
    last = nn.Linear(2, 2)  # class 0 where b is above a half
    last.weight.data, last.bias.data = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([-500.0, 0.0])
    model = Classifier(nn.Sequential(*layers.network, last), (1, 1, 2), 2).eval().requires_grad_(False)
    queries = Batch((0, 1, 2), images[:3], labels[:3])
    points = images[:3] - torch.tensor([0.0, 0.02])
    rows = planted(model, images, labels, points, queries)
    assert rows.loc[rows["move"] == "none", "true_class"].all()
    moved = rows[rows["move"] == "adversarial"]
    assert (moved["class_after"] == 1).all()
    assert (moved["new_class"] == (moved["depth"] >= change)).all()
    config = Config(moves=["adversarial"], stages=[0, 1, 2, 3, 4], neighbors=3)
    scalars = summarise(config, rows)
    assert scalars["depth_of_change_adversarial"] == pytest.approx(change / 5)
    assert (scalars["new_class_adversarial_first"], scalars["new_class_adversarial_last"]) == (0, 1)
    assert (scalars["true_class_adversarial_first"], scalars["true_class_adversarial_last"]) == (1, 0)
    assert scalars["true_class_none_last"] == scalars["accuracy"] == 1


def test_scalars_are_of_what_was_correct_and_found(model: Classifier) -> None:
    config = config_of()
    rows = rows_of(model, config, batch_of())
    rows["found"] &= rows["id"] > 40
    counted = rows[rows["correct"] & rows["found"]]
    scalars = summarise(config, rows)
    for move, first in (("adversarial", 0), ("hidden", 1), ("random", 0)):
        of_move = counted[counted["move"] == move]
        for name, depth in (("first", first), ("last", 3)):
            here = of_move[of_move["depth"] == depth]
            assert scalars[f"new_class_{move}_{name}"] == pytest.approx(here["new_class"].mean())
            assert scalars[f"true_class_{move}_{name}"] == pytest.approx(here["true_class"].mean())
    assert scalars["accuracy"] == pytest.approx(rows.groupby("id")["correct"].first().mean())
    assert set(summarise(config, rows.assign(found=False))) == {"accuracy"}


def test_checks_tell_what_is_wrong(model: Classifier) -> None:
    config = config_of()
    rows = rows_of(model, config, batch_of())
    assert set(checks(config, rows).values()) == {None}
    other = {**rows, "class_after": rows["class_after"].where(rows["move"] != "hidden", rows["label"])}
    wrong = [said for said in checks(config, pd.DataFrame(other)).values() if said]
    assert len(wrong) == 1
    assert wrong[0].startswith("not so for ")
    mixed = rows.assign(neighbor_label=(rows["label"] + 1) % 10)
    assert [said for said in checks(config, mixed).values() if said] == [
        f"0.0% do, {by_chance(mixed):.1%} would by chance"
    ]


def by_chance(rows: pd.DataFrame) -> float:
    here = rows[(rows["move"] == "none") & (rows["depth"] == 3)]
    return sum((here["label"] == c).mean() * (here["neighbor_label"] == c).mean() for c in range(10))


def test_representations_that_are_all_0_have_no_unit() -> None:
    model, (images, labels) = linear([0.0, 0.0]), two_classes()
    with pytest.raises(NotFinite, match="training representations of a stage are 0, which is no unit"):
        planted(model, images, labels, images[:2], Batch((0, 1), images[:2], labels[:2]))


# ------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"stages": [0, "network.7"]}, "stages.1", "no stage 'network.7': .*relu1, hidden2"),
        ({"stages": [9]}, "stages.0", "no stage '9'"),
        ({"stages": [2, "relu1"], "moves": ["random"]}, "stages.1", "relu1 is the same stage as 2"),
        ({"stages": [0, 1], "hidden": 3}, "hidden", "3 lies after all stages .*: 0, 1"),
        ({"hidden": "network.7"}, "hidden", "no stage 'network.7'"),
        ({"neighbors": 201}, "neighbors", "more than the 200 training examples"),
        ({"neighbors": 200, "split": "train"}, "neighbors", "200 training examples .* an image itself does not count"),
        ({"recipe": RECIPE.model_copy(update={"network": "mlpp"})}, "recipe.network", "mlpp"),
    ],
)
def test_what_only_network_and_data_can_tell_is_told_before_any_work(
    settings: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        check_settings(config_of(**settings), None)
    assert error.value.field == field


def test_what_can_be_done_is_not_refused() -> None:
    check_settings(config_of(neighbors=200), None)
    check_settings(config_of(neighbors=199, split="train"), None)
    check_settings(config_of(stages=[0], hidden=3, moves=["random"]), None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden": 0}, "0 are the pixels"),
        ({"attack": {"space": "hidden:1"}}, "the attack is one of pixels"),
        ({"attack": {"name": "fmn"}}, "hidden_epsilon: no setting of fmn"),
        ({"attack": {"name": "square"}}, "square attacks pixels only"),
        ({"moves": ["hidden", "hidden"]}, "hidden is given twice"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config_of(**settings)
