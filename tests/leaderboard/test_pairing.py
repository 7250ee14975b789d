"""Which seeds two rows share, and their numbers there."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from mlrpl_bench.leaderboard import numbers, pairing
from tests.helpers import simulated_cells as simulated

ROWS = ("sarb", "kggr")


@pytest.fixture(scope="module")
def cells():
    return simulated.cells({"sarb": 1.0, "kggr": 0.9}, count=3)


def test_common_seeds_are_those_of_both_rows_at_every_ratio(cells):
    assert pairing.common_seeds(cells, ROWS, simulated.RATIOS, "mAP") == simulated.seeds(3)
    fewer = simulated.without(cells, "kggr", 0.5, (1, 1))
    assert pairing.common_seeds(fewer, ROWS, simulated.RATIOS, "mAP") == [(0, 0), (2, 2)]
    assert pairing.common_seeds(fewer, ROWS, (0.1, 0.9), "mAP") == simulated.seeds(3)


def test_a_seed_on_another_mask_is_another_seed(cells):
    moved = {**cells, ("kggr", 0.1): {(0, 7): cells["kggr", 0.1][0, 0]}}
    assert pairing.common_seeds(moved, ROWS, (0.1,), "mAP") == []
    assert pairing.unpaired_seeds(moved, ROWS, (0.1,), "mAP")[1] == "seed 0 (mask 7): sarb has none at 10 %"


def test_seeds_left_out_say_what_they_lack(cells):
    fewer = simulated.without(simulated.without(cells, "kggr", 0.5, (1, 1)), "kggr", 0.9, (1, 1))
    assert pairing.unpaired_seeds(fewer, ROWS, simulated.RATIOS, "mAP") == ["seed 1: kggr has none at 50 and 90 %"]
    assert pairing.unpaired_seeds(cells, ROWS, simulated.RATIOS, "mAP") == []


def test_without_common_seeds_it_is_said_why(cells):
    gone = simulated.without(cells, "kggr", 0.5)
    assert pairing.why_none_common(gone, ROWS, simulated.RATIOS, "mAP") == "kggr has no records at 50 %"
    apart = simulated.without(simulated.without(cells, "kggr", 0.5, (0, 0)), "sarb", 0.1, (1, 1), (2, 2))
    assert pairing.why_none_common(apart, ROWS, (0.1, 0.5), "mAP") == "no seed has sarb and kggr at 10 and 50 %"


def test_a_number_that_is_none_is_missing(cells):
    broken = {**cells, ("sarb", 0.1): {**cells["sarb", 0.1]}}
    broken["sarb", 0.1][0, 0] = dataclasses.replace(broken["sarb", 0.1][0, 0], loss_fluctuation=math.nan)
    assert (0, 0) not in pairing.common_seeds(broken, ROWS, (0.1,), numbers.FLUCTUATION)
    assert (0, 0) in pairing.common_seeds(broken, ROWS, (0.1,), "mAP")


def test_averages_are_taken_seed_by_seed_in_percent(cells):
    found = pairing.measured(pairing.by_seeds(cells, "sarb", simulated.RATIOS, simulated.seeds(3)), "OF1")
    by_hand = [
        100 * np.mean([cells["sarb", r][s].record.metrics["OF1"] for r in simulated.RATIOS]) for s in simulated.seeds(3)
    ]
    np.testing.assert_allclose(found.estimates_S, by_hand)
    of_one = 100 * np.mean([cells["sarb", r][1, 1].influences["OF1"] for r in simulated.RATIOS], axis=0)
    np.testing.assert_allclose(found.influences_SN[1], of_one, rtol=1e-5, atol=1e-5)


def test_over_seeds_it_is_the_paired_t_test():
    a_S, b_S = np.array([1.0, 2.5, 2.0, 4.0]), np.array([0.5, 2.6, 1.0, 3.0])
    found, theirs = pairing.paired_over_seeds(a_S - b_S), ttest_rel(a_S, b_S)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_one_seed_has_no_interval_and_equal_seeds_no_spread():
    assert math.isnan(pairing.paired_over_seeds(np.array([1.0])).p_value)
    assert pairing.paired_over_seeds(np.array([0.0, 0.0])).p_value == 1
    assert pairing.paired_over_seeds(np.array([1.0, 1.0])).p_value == 0


@pytest.mark.parametrize(
    ("p_value", "text"),
    [(0.5, "0.50"), (0.0996, "0.10"), (0.0994, "0.099"), (0.05, "0.050"), (1e-4, "<0.001"), (math.nan, "-")],
)
def test_p_values_as_text(p_value, text):
    assert pairing.p_text(p_value) == text


def test_differences_as_text():
    assert pairing.difference_text(2.3, -1.0, 5.6) == "+2.30 [-1.00, +5.60]"
    assert pairing.difference_text(2.3, math.nan, math.nan) == "+2.30"
    assert pairing.difference_text(math.nan, math.nan, math.nan) == "-"
