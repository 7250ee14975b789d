"""Bounds and thresholds: the arithmetic against counting, and promises kept on entries that were never looked at."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import beta

from mlrpl_bench.tools.filling import thresholds
from mlrpl_bench.tools.filling.thresholds import (
    CONFIDENCE,
    LOOSE,
    STRICT,
    Choice,
    Trial,
    allowed_wrong,
    choose,
    labels_needed,
    may_be_wrong,
    most_wrong,
)


def counted_bound(checked, wrong, others, risk):
    """By drawing every sample from every lot."""
    bound = -1
    for more in range(others + 1):
        lot = [1] * (wrong + more) + [0] * (checked + others - wrong - more)
        samples = list(combinations(lot, checked))
        if sum(sum(sample) <= wrong for sample in samples) / len(samples) > risk:
            bound = more
    return bound


@pytest.mark.parametrize("risk", [0.05, 0.3])
@pytest.mark.parametrize(("checked", "wrong", "others"), [(4, 0, 5), (5, 1, 4), (3, 3, 4), (6, 2, 3), (0, 0, 4)])
def test_the_bound_is_what_counting_all_samples_gives(checked, wrong, others, risk):
    assert most_wrong(checked, wrong, others, risk) == counted_bound(checked, wrong, others, risk)


def test_of_very_many_entries_the_bound_is_that_of_clopper_and_pearson():
    found = most_wrong(checked=300, wrong=6, others=10**7, risk=0.05)
    assert found / 10**7 == pytest.approx(beta.ppf(0.95, 7, 294), abs=1e-4)


@pytest.mark.parametrize("others", [1, 30, 500, 10**6])
@pytest.mark.parametrize("checked", [0, 10, 80, 400])
def test_so_many_may_be_wrong_that_the_bound_still_holds(checked, others):
    limit = may_be_wrong(checked, others, 0.9, 0.04)
    held = [most_wrong(checked, wrong, others, 0.04) <= allowed_wrong(others, 0.9) for wrong in range(checked + 1)]
    assert held == [wrong <= limit for wrong in range(checked + 1)]


@pytest.mark.parametrize("precision", [0.8, 0.95, 0.99])
def test_so_many_labels_are_needed_and_not_one_less(precision):
    needed = labels_needed(precision)
    assert may_be_wrong(needed, 10**9, precision, LOOSE.risk) == 0
    assert may_be_wrong(needed - 1, 10**9, precision, LOOSE.risk) == -1


def test_a_share_that_binary_numbers_do_not_have_allows_as_many_as_on_paper():
    assert [allowed_wrong(others, 0.9) for others in (9, 10, 30, 100)] == [0, 1, 3, 10]


def test_the_risks_of_the_trials_add_up_to_that_of_the_promise():
    assert LOOSE.risk + STRICT.risk == pytest.approx(1 - CONFIDENCE)
    assert LOOSE.chance < STRICT.chance


def halves(entries, seed=0, slope=3.0):
    """Sureness of calibrating, choosing and unknown entries, and which of the last two are right."""
    random = np.random.default_rng(seed)
    parts = []
    for _ in range(3):
        sureness_S = 1 / (1 + np.exp(-slope * random.normal(size=entries)))
        parts.append((sureness_S, random.random(entries) < sureness_S))
    (calibrating_S, _), (choosing_S, is_right_S), (unknown_S, truth_S) = parts
    return calibrating_S, choosing_S, is_right_S, unknown_S, truth_S


def test_what_is_counted_belongs_to_the_threshold():
    calibrating_S, choosing_S, is_right_S, unknown_S, truth_S = halves(2000)
    found = choose(calibrating_S, choosing_S, is_right_S, unknown_S, 0.9)
    above_S, set_S = choosing_S >= found.threshold, unknown_S >= found.threshold
    assert found.set == set_S.sum() > 500
    assert (found.checked, found.wrong) == (above_S.sum(), (above_S & ~is_right_S).sum())
    assert found.expected_wrong == pytest.approx((1 - unknown_S[set_S]).sum())
    assert found.expected_wrong < found.at_most_wrong <= 0.1 * found.set
    assert abs((set_S & ~truth_S).sum() - found.expected_wrong) < 4 * math.sqrt(found.expected_wrong)


def test_more_is_set_at_a_lower_precision_and_nothing_below_a_half():
    parts = halves(4000)[:4]
    sets = [choose(*parts, precision).set for precision in (0.99, 0.95, 0.9, 0.8, 0.6)]
    assert sets == sorted(sets) and 0 < sets[1] < sets[-1]
    assert choose(*parts, 0.51).threshold > 0.5


def test_the_labels_that_try_a_threshold_do_not_propose_it(monkeypatch):
    """Both halves of the labels turned round: the same thresholds are proposed, and then they fail."""
    calibrating_S, choosing_S, is_right_S, unknown_S, _ = halves(2000)
    proposed = []
    original = thresholds._proposed
    monkeypatch.setattr(thresholds, "_proposed", lambda *given: proposed.append(original(*given)) or proposed[-1])
    assert choose(calibrating_S, choosing_S, is_right_S, unknown_S, 0.9).set
    first = proposed[:]
    assert choose(calibrating_S, choosing_S, ~is_right_S, unknown_S, 0.9) == Choice()
    assert proposed[len(first)] == first[0] and len(proposed) - len(first) == 2  # the loose one, then the strict one


def test_the_strict_threshold_is_kept_where_the_loose_one_fails():
    calibrating_S, choosing_S, is_right_S, unknown_S, _ = halves(6000)
    loose = choose(calibrating_S, choosing_S, is_right_S, unknown_S, 0.95)
    barely_S = choosing_S < loose.threshold + 0.01
    spoilt = choose(calibrating_S, choosing_S, is_right_S & ~barely_S, unknown_S, 0.95)
    assert spoilt.threshold > loose.threshold and 0 < spoilt.set < loose.set


@pytest.mark.parametrize("sizes", [(0, 0, 0), (0, 50, 50), (50, 0, 50), (50, 50, 0), (30, 30, 1000)])
def test_with_too_few_labels_nothing_is_set(sizes):
    calibrating_S, choosing_S, unknown_S = (np.full(size, 0.999) for size in sizes)
    assert choose(calibrating_S, choosing_S, np.ones(sizes[1], dtype=bool), unknown_S, 0.95) == Choice()


def test_entries_that_are_equally_sure_are_set_together():
    sure_S = np.repeat([0.99, 0.7, 0.3], 200)
    found = choose(sure_S, sure_S, np.arange(600) < 200, sure_S, 0.9)
    assert (found.threshold, found.set, found.checked, found.wrong) == (0.99, 200, 200, 0)


def broken(repeats, entries, precision, share, seed=0):
    """The share of repeats in which a promise was made and broken, and in which one was made; all are equally sure."""
    random = np.random.default_rng(seed)
    outcomes = []
    for _ in range(repeats):
        right_S, truth_S = random.random(entries) < share, random.random(entries) < share
        found = choose(np.full(entries, 0.97), np.full(entries, 0.97), right_S, np.full(entries, 0.97), precision)
        outcomes.append((found.set > 0, found.set > 0 and (~truth_S).sum() > (1 - precision) * found.set))
    made, broke = np.mean(outcomes, axis=0)
    return broke, made


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.945, 0.95, 0.955, 0.96])
def test_a_promise_that_cannot_or_can_just_be_kept_is_broken_no_more_often_than_stated(share):
    repeats = 1000
    broke, made = broken(repeats, 400, 0.95, share)
    assert broke <= 1 - CONFIDENCE + 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert made > 0  # else there was nothing to break


@pytest.mark.slow
def test_without_the_bound_it_would_be_broken_more_often(monkeypatch):
    monkeypatch.setattr(thresholds, "most_wrong", lambda checked, wrong, others, risk: others * wrong // checked)
    broke, _ = broken(300, 400, 0.95, 0.95)
    assert broke > 3 * (1 - CONFIDENCE)


def test_a_trial_is_proposed_with_its_chance():
    """The lower the chance that is asked for, the looser the threshold."""
    falling_S, unknown_S = np.sort(halves(3000)[0])[::-1], np.sort(halves(3000)[3])
    found = [thresholds._proposed(falling_S, unknown_S, 0.95, Trial(chance, 0.04)) for chance in (0.2, 0.8, 0.99)]
    assert found == sorted(found) and found[0] < found[2]


def test_labels_that_tell_less_propose_a_stricter_threshold():
    falling_S, unknown_S = np.sort(halves(3000)[0])[::-1], np.sort(halves(3000)[3])
    single, by_pairs = (thresholds._proposed(falling_S, unknown_S, 0.95, LOOSE, effect) for effect in (1, 2))
    assert single < by_pairs
