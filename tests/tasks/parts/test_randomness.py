"""Random numbers are those of Philox, and (seed, purpose, example, block) alone decide them."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tasks.parts.randomness import BLOCK, generator, normal, torch_generator, uniform

DRAWS = [normal, uniform]


def philox(key: tuple[int, int], counter: list[int]) -> list[int]:
    """Philox 4x64-10 in whole numbers, from the paper (Salmon et al. 2011, section 3.3)."""
    word = 2**64
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        high0, low0 = divmod(c0 * 0xD2E7470EE14C6C93, word)
        high1, low1 = divmod(c2 * 0xCA5A826395121157, word)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % word, (k1 + 0xBB67AE8584CAA73B) % word
    return [c0, c1, c2, c3]


@pytest.mark.parametrize(("seed", "example", "block"), [(0, 0, 0), (1, 2, 3), (2**63 - 1, 2**64 - 1, 128)])
def test_the_numbers_are_philox_at_their_place(seed: int, example: int, block: int) -> None:
    """Pins every key to its word, so that stored results can be made again."""
    purpose = int.from_bytes(hashlib.sha256(b"noise").digest()[:8], "little")
    wanted = [philox((seed, purpose), [count, 0, block, example]) for count in (1, 2, 3)]
    raw = generator(seed, "noise", example, block).bit_generator.random_raw(12)
    assert raw.tolist() == list(itertools.chain(*wanted))


@pytest.mark.parametrize("draw", DRAWS)
def test_an_example_draws_the_same_in_any_company(draw) -> None:
    ids = [5, 0, 123456789, 7, 2]
    together = draw(3, "noise", ids, (2, 4, 4), 1)
    assert together.shape == (5, 2, 4, 4)
    assert together.dtype == torch.float32
    for row, example in enumerate(ids):
        assert torch.equal(draw(3, "noise", [example], (2, 4, 4), 1)[0], together[row])
    assert torch.equal(draw(3, "noise", np.array(ids[::-1]), (2, 4, 4), 1), together.flip(0))


@pytest.mark.parametrize("draw", DRAWS)
def test_one_number_an_example(draw) -> None:
    assert draw(0, "distance", [4, 9], ()).shape == (2,)
    assert draw(0, "distance", [4, 9], ())[1] == draw(0, "distance", [9], (1,))[0, 0]
    assert draw(0, "distance", [], (3,)).shape == (0, 3)


@pytest.mark.parametrize("draw", DRAWS)
def test_every_key_matters_and_no_two_places_are_related(draw) -> None:
    """Any two of these draws are uncorrelated.

    The correlation is below 5 standard errors of that of independent numbers.
    """
    places = [
        (0, "noise", 0, 0),
        (1, "noise", 0, 0),
        (0, "noisf", 0, 0),
        (0, "noise", 1, 0),
        (0, "noise", 0, 1),
        (0, "noise", 2**32, 0),
        (0, "noise", 1, 1),
    ]
    drawn = np.stack([draw(seed, purpose, [i], (4096,), block)[0].numpy() for seed, purpose, i, block in places])
    between = np.corrcoef(drawn) - np.eye(len(places))
    assert np.abs(between).max() < 5 / 64


def test_distributions() -> None:
    assert kstest(normal(0, "a", range(20), (BLOCK, 64)).flatten().numpy(), "norm").pvalue > 1e-3
    drawn = uniform(0, "a", range(20), (BLOCK, 64)).flatten().numpy()
    assert kstest(drawn, "uniform").pvalue > 1e-3
    assert drawn.min() >= 0
    assert drawn.max() < 1


def test_torch_generators_repeat_and_differ() -> None:
    def drawn(*place) -> list[float]:
        return torch.rand(4, generator=torch_generator(*place)).tolist()

    places = [(0, "order"), (0, "crop"), (1, "order"), (0, "order", 1), (0, "order", 0, 1)]
    assert [drawn(*place) for place in places] == [drawn(*place) for place in places]
    assert len({tuple(drawn(*place)) for place in places}) == len(places)


def test_the_shared_generators_are_left_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    normal(0, "a", [1], (8,))
    uniform(0, "a", [1], (8,))
    torch_generator(0, "a")
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
