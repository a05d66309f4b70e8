"""The task as a whole: pools of networks, a matrix whose entries are known, and joint attacks.

And its checks, which fail when they should.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.contract import Batch, prepared
from tasks.parts.training.recipes import Recipe
from tasks.transfer import RANDOM, Config, checks, measure, needs, summarise

PIXELS, COUNT = 16, 7


# --------------------------------------------------------------------------------------------- pool


def test_a_pool_is_named_by_what_differs() -> None:
    config = Config(
        networks=[{"network": "mlp", "input_noise": {"radius": 0.2}}, {"network": "mlp"}, {}],
        members=2,
        recipe={"network": "convnet", "seed": 4},
    )
    assert list(config.pool()) == [
        *("mlp, radius 0.2, seed 4", "mlp, radius 0.2, seed 5", "mlp, seed 4", "mlp, seed 5", "seed 4", "seed 5"),
    ]
    alone = Config(networks=[{"network": "mlp"}, {"optimiser": "adam"}, {"network": "linear", "seed": 9}], members=1)
    assert list(alone.pool()) == ["mlp", "optimiser adam", "linear, seed 9"]


def changed(settings: dict[str, Any], **recipe: Any) -> Recipe:
    config = Config(networks=[settings, {"network": "linear", "epochs": 77}], members=1, recipe=recipe)
    return next(iter(config.pool().values()))


def test_what_differs_is_laid_over_the_recipe() -> None:
    assert changed({"network": "mlp"}, epochs=3, seed=7) == Recipe(network="mlp", epochs=3, seed=7)
    assert changed({"input_noise": {"radius": 0.2}}, input_noise={"kind": "sphere", "radius": 0.1}) == Recipe(
        input_noise={"kind": "sphere", "radius": 0.2}
    )


def test_what_the_recipe_left_open_is_chosen_anew() -> None:
    assert changed({"optimiser": "adam"}) == Recipe(optimiser="adam")
    assert (
        changed({"optimiser": "adam"}).learning_rate == Recipe(optimiser="adam").learning_rate != Recipe().learning_rate
    )
    assert changed({"optimiser": "adam"}, learning_rate=0.3).learning_rate == 0.3
    assert changed({"optimiser": "adam", "learning_rate": 0.3}).learning_rate == 0.3
    hidden = {"space": "hidden:1", "epsilon": 0.1}
    assert changed({"adversarial_augmentation": hidden}) == Recipe(adversarial_augmentation=hidden)
    assert changed({"momentum": 0.5}, momentum=0).nesterov
    sized = {"network": "mlp", "network_options": {"width": 8}}
    assert changed({"network": "convnet"}, **sized) == Recipe(network="convnet")  # which has no width
    assert changed({"epochs": 2}, **sized).network_options == {"width": 8}


def test_what_is_finetuned_from_goes_with_the_network() -> None:
    base = {"finetune_from": {"epochs": 3}}
    config = Config(networks=[{"network": "mlp"}, {"network": "linear"}], members=2, recipe=base)
    for name, recipe in config.pool().items():
        assert recipe == Recipe(network=name.split(",")[0], seed=int(name[-1]), **base)
        assert recipe.finetune_from is not None
        assert recipe.finetune_from.seed == recipe.seed
    fixed = {"finetune_from": {"epochs": 3, "seed": 5}}
    for recipe in Config(networks=[{}], members=2, recipe=fixed).pool().values():
        assert recipe.finetune_from is not None
        assert recipe.finetune_from.seed == 5


def test_a_pool_survives_its_way_through_text() -> None:
    config = Config(networks=[{"optimiser": "adam"}, {"network": "mlp"}], recipe={"finetune_from": {"epochs": 3}})
    again = Config.model_validate_json(config.model_dump_json())
    assert again == config
    assert again.pool() == config.pool()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"networks": []}, "at least 1 item"),
        (
            {"networks": [{"networc": "mlp"}]},
            r"networks\.0\.networc: unknown field; a recipe has .* did you mean network\?",
        ),
        ({"networks": [{}, {"epochs": -1}]}, r"networks\.1\.epochs: must be at least 0, not -1"),
        ({"networks": [{"input_noise": {"radios": 1}}]}, r"networks\.0\.input_noise\.radios: unknown field"),
        ({"networks": [{"seed": "x"}]}, r"networks\.0\.seed: must be a whole number"),
        ({"networks": [{"dataset": "blobs"}]}, r"networks\.0\.dataset: all networks see the same images"),
        ({"networks": [{"network": "mlp"}] * 2}, r"networks\.1: the network mlp, seed 0 is there twice"),
        ({"networks": [{}], "members": 1}, "two networks at least"),
        ({"members": 0}, "greater than 0"),
        ({"attack": {"space": "hidden:1"}}, "attack.space: networks share no hidden space"),
        ({"samples": 1}, "greater than or equal to 2"),
        ({"noise": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Config(**settings)


def test_needs_are_every_network_and_every_attack() -> None:
    config = Config(networks=[{"network": "mlp"}, {"network": "linear"}], members=2, seed=3, split="train")
    wanted = needs(config)
    pool = config.pool()
    assert [name for name, need in wanted.items() if isinstance(need, Recipe)] == list(pool)
    for name, need in wanted.items():
        if isinstance(need, adversarial_examples.Request):
            assert (need.seed, need.split) == (3, "train")
            source = name.removeprefix("found at ")
            if source in pool:
                assert need.networks == (pool[source],)
            else:
                left = source.removeprefix("all but ")
                assert need.networks == tuple(recipe for other, recipe in pool.items() if other != left)
    assert len(wanted) == 4 + 4 + 4
    assert len(needs(config.model_copy(update={"joint": False}))) == 8
    assert len(needs(Config(networks=[{}], members=2))) == 4  # all but one of two is one


# -------------------------------------------------------------------------------------- closed form


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plane(direction: Tensor, height: float = 0.5) -> nn.Module:
    """Gives the second class where direction * (x - 1/2) is above a height; not in the middle."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.stack([-direction / 2, direction / 2]))
    model[1].bias.copy_(torch.tensor([1.0, -1.0]) * (height + float(direction.sum()) / 2) / 2)
    return model.eval()


FIRST = gaussian(1, PIXELS)
SECOND = gaussian(2, PIXELS)
SECOND = SECOND - FIRST * (SECOND @ FIRST) / (
    FIRST @ FIRST
)  # what moves across one plane does not move across the other


def batch() -> Batch:
    images = 0.5 + 0.01 * gaussian(3, COUNT, 1, 4, 4)
    return Batch(tuple(range(10, 10 + COUNT)), images, torch.zeros(COUNT, dtype=torch.long))


def rows_of(models: Sequence[nn.Module], batch: Batch, **settings: Any) -> tuple[Config, pd.DataFrame]:
    """The rows of a pool of these networks."""
    attack = {"norm": "L2", "epsilon": 0.4, "steps": 30, "stop": "last", "joint": "worst"} | settings.pop("attack", {})
    given = {"members": 1, "attack": attack, "noise": 0.02, "samples": 16} | settings
    config = Config(networks=[{"epochs": number} for number in range(len(models))], **given)
    made = prepared(needs(config), dict(zip(config.pool(), models, strict=True)), batch)
    return config, pd.DataFrame(measure(config, made, batch))


def matrix(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    return rows.groupby(["source", "target"])["fooled"].mean().to_dict()


def test_a_copy_is_always_fooled_and_a_network_that_looks_elsewhere_never() -> None:
    config, rows = rows_of([plane(FIRST), plane(FIRST), plane(SECOND)], batch())
    a, copy, other = (f"epochs {number}" for number in range(3))
    found = matrix(rows)
    for source in (a, copy):
        assert [found[source, target] for target in (a, copy, other)] == [1, 1, 0]
    assert [found[other, target] for target in (a, copy, other)] == [0, 0, 1]
    assert [found[f"all but {other}", target] for target in (a, copy, other)] == [1, 1, 0]
    assert [found[f"all but {a}", target] for target in (a, copy, other)] == [1, 1, 1]  # its copy took part
    assert len(rows) == COUNT * 7 * 3
    assert rows["source_correct"].all()
    assert rows["found"].all()
    shared = rows.drop_duplicates(["id", "source"]).groupby("source")["shared"].agg(["min", "max"])
    assert shared.loc[a].tolist() == [2, 2]
    assert shared.loc[other].tolist() == [1, 1]
    assert shared.loc[f"all but {a}"].tolist() == [3, 3]
    held_out = rows[rows["held_out"]].groupby("source")["target"].unique().map(list).to_dict()
    assert held_out[a] == [copy, other]
    assert held_out[f"all but {other}"] == [other]
    assert held_out[RANDOM] == [a, copy, other]
    scalars = summarise(config, rows)
    # Single attacks: a to its copy and back, out of 6 pairs. Joint ones: two of three networks that
    # are left out are fooled.
    assert scalars["transfer"] == pytest.approx(2 / 6)
    assert scalars["transfer_joint"] == pytest.approx(2 / 3)
    assert scalars["white_box"] == scalars["accuracy"] == 1
    assert not any(checks(config, rows).values())


def test_flatness_is_how_often_noise_keeps_the_class() -> None:
    """Phi(m / (sigma |d|)), with the margin m at the found image.

    That is the end of the ball, 0.4 from the image along the normal.
    """
    there = batch()
    model, sigma, samples = plane(FIRST), 0.1, 2000
    _, rows = rows_of([model, plane(SECOND)], there, noise=sigma, samples=samples)
    own = rows[(rows["source"] == "epochs 0") & (rows["target"] == "epochs 0")]
    beyond = (there.images.flatten(1).double() - 0.5) @ FIRST.double() - 0.5 + 0.4 * FIRST.norm().double()
    wanted = torch.special.ndtr(beyond / (sigma * FIRST.norm().double())).numpy()
    error = np.sqrt(wanted * (1 - wanted) / samples)
    assert (np.abs(own["flatness"] - wanted) < 4.5 * error + 1e-3).all()
    assert rows[rows["source"] == RANDOM]["flatness"].isna().all()


def test_images_that_are_misclassified_are_marked_and_not_moved() -> None:
    there = batch()
    labels = there.labels.clone()
    labels[2] = 1
    config, rows = rows_of([plane(FIRST), plane(SECOND)], Batch(there.ids, there.images, labels))
    wrong = rows[rows["id"] == there.ids[2]]
    assert not wrong["source_correct"][wrong["source"] != RANDOM].any()
    assert not wrong["target_correct"].any()
    assert wrong["fooled"].all()
    assert not wrong["distance"].any()
    assert rows[rows["id"] != there.ids[2]]["source_correct"].all()
    scalars = summarise(config, rows)
    assert scalars["accuracy"] == pytest.approx(1 - 1 / COUNT)
    assert scalars["transfer"] == 0  # what was misclassified to begin with does not count
    assert "transfer_joint" not in scalars


def test_the_control_goes_as_far_as_the_attacks_on_average() -> None:
    there = batch()
    _, rows = rows_of(
        [plane(FIRST), plane(2 * FIRST, 0.9)], there, attack={"name": "fmn", "epsilon": None, "stop": None}
    )
    each = rows.drop_duplicates(["id", "source"]).set_index(["id", "source"])["distance"].unstack()
    assert each[RANDOM].to_numpy() == pytest.approx((each["epochs 0"] + each["epochs 1"]).to_numpy() / 2, rel=1e-5)
    assert not np.allclose(each["epochs 0"], each["epochs 1"])


# -------------------------------------------------------------------------- summary and self-checks


def planted() -> pd.DataFrame:
    """Two networks, three examples: a fools b with example 0 alone, and b fools nobody.

    The attack on b fails at example 2.
    """
    fooled = {("a", "a"): [1, 1, 1], ("a", "b"): [1, 0, 0], ("b", "a"): [0, 0, 1], ("b", "b"): [1, 1, 0]}
    lines = []
    for source in ("a", "b", RANDOM):
        for target in ("a", "b"):
            for example in range(3):
                lines.append(
                    {
                        **{"id": example, "label": 0, "source": source, "target": target, "joint": False},
                        **{"held_out": source != target, "source_correct": True, "target_correct": True},
                        "found": source != "b" or example < 2,
                        "distance": 0.1,
                        "fooled": bool(fooled.get((source, target), [0, 0, 0])[example]),
                        "flatness": math.nan if source == RANDOM else [0.2, 0.6, 0.9][example],
                        "shared": 1,
                    }
                )
    return pd.DataFrame(lines)


PAIR = Config(networks=[{}, {"epochs": 1}], members=1)


def test_summary() -> None:
    scalars = summarise(PAIR, planted())
    # Found elsewhere: three of a at b, of which one fools; two of b at a, none of which does (the
    # third was not found).
    wanted = {"accuracy": 1.0, "white_box": 5 / 6, "transfer": 1 / 5, "transfer_random": 0.0}
    # Flatness of the found images 0.2, 0.6, 0.9, 0.2, 0.6 and shares 1, 0, 0, 0, 0.
    ranks, shares = np.array([1.5, 3.5, 5, 1.5, 3.5]), np.array([5, 2.5, 2.5, 2.5, 2.5])
    wanted["flatness_correlation"] = float(np.corrcoef(ranks, shares)[0, 1])
    assert scalars == pytest.approx(wanted)
    assert all(type(value) is float for value in scalars.values())
    nothing = planted().assign(found=False)
    assert set(summarise(PAIR, nothing)) == {"accuracy", "white_box"}


def test_checks_fail_when_they_should() -> None:
    rows = planted()
    first, second = (
        "what was found is found again from its stored form",
        "moving at random fools less often than the attack",
    )
    assert checks(PAIR, rows) == {first: None, second: None}
    lost = rows.copy()
    lost.loc[(lost["source"] == "a") & (lost["target"] == "a") & (lost["id"] == 1), "fooled"] = False
    assert checks(PAIR, lost) == {first: "not so for 1 of 6", second: None}
    lucky = rows.copy()
    lucky.loc[lucky["source"] == RANDOM, "fooled"] = True
    assert checks(PAIR, lucky) == {first: None, second: "it fools 100.0%, the attack 83.3%"}
