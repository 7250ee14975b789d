"""How many seeds would tell: checked against intervals and by repetition."""

import math

import numpy as np
import pytest

from mlrpl_bench.evaluation import intervals
from mlrpl_bench.evaluation.power import MOST, images_alone_cannot_tell, more_seeds


def test_so_many_seeds_tell_in_about_80_percent_of_repetitions():
    distance, images_error, spread, images = 1.0, 0.2, 0.8, 200
    total = 2 + more_seeds(distance, images_error, spread, seeds=2, alpha=0.05)
    random = np.random.default_rng(0)
    told = 0
    for _ in range(300):
        influences_N = random.normal(scale=images_error * math.sqrt(images), size=images)
        influences_N -= influences_N.mean()
        estimates_S = distance + images_error * random.normal() + spread * random.normal(size=total)
        zero = intervals.Measured(np.zeros((total, images)), np.zeros(total))
        found = intervals.paired(
            intervals.Measured(np.tile(influences_N, (total, 1)), estimates_S), zero, resamples=300
        )
        told += not found.low < 0 < found.high
    assert 0.7 < told / 300 < 0.92


def test_a_smaller_difference_a_wider_spread_and_a_stricter_level_need_more():
    usual = more_seeds(1.0, 0.1, 1.0, seeds=2, alpha=0.05)
    assert usual < more_seeds(0.5, 0.1, 1.0, seeds=2, alpha=0.05)
    assert usual < more_seeds(1.0, 0.1, 2.0, seeds=2, alpha=0.05)
    assert usual < more_seeds(1.0, 0.1, 1.0, seeds=2, alpha=0.005)


def test_it_counts_those_to_add():
    assert more_seeds(1.0, 0.1, 1.0, seeds=4, alpha=0.05) == more_seeds(1.0, 0.1, 1.0, seeds=2, alpha=0.05) - 2


def test_where_the_images_alone_do_not_tell_no_number_is_enough():
    assert more_seeds(0.5, 0.5, 0.1, seeds=3, alpha=0.05) == math.inf
    assert images_alone_cannot_tell(0.5, 0.5, 0.05)
    assert not images_alone_cannot_tell(5.0, 0.5, 0.05)


@pytest.mark.parametrize("distance", [0.0, 1e-3])
def test_more_than_anybody_trains_is_infinity(distance):
    assert more_seeds(distance, 0.0, 1.0, seeds=2, alpha=0.05) == math.inf
    assert MOST >= 100


def test_it_is_always_one_or_more():
    assert more_seeds(10.0, 0.0, 0.0, seeds=3, alpha=0.05) == 1
