"""Scores of ensembles, and the pseudo-values of all pairs of seeds."""

from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit, logit

from mlrpl_bench.evaluation import ensembles, intervals
from mlrpl_bench.evaluation.intervals import Measured
from tests.helpers.tiny_study import refusal

RANDOM = np.random.default_rng(0)


def test_pooled_logits_are_those_of_the_mean_probability():
    logits_KNC = RANDOM.normal(scale=3, size=(3, 7, 4))
    assert ensembles.pooled_logits(logits_KNC) == pytest.approx(logit(expit(logits_KNC).mean(axis=0)), rel=1e-9)


def test_a_member_alone_keeps_its_scores():
    logits_NC = RANDOM.normal(scale=20, size=(50, 3)).astype(np.float32)
    assert ensembles.pooled_logits([logits_NC]) == pytest.approx(logits_NC, rel=1e-12)


def test_probabilities_that_round_to_one_keep_their_order():
    assert expit(50.0) == expit(60.0) == 1
    low, high = ensembles.pooled_logits([[[50.0, 60.0]], [[50.0, 60.0]]])[0]
    assert (low, high) == pytest.approx((50, 60))


def test_a_member_with_larger_logits_does_not_decide_alone():
    # The mean of the logits would be +7: the probabilities are 1 and 0.0025.
    assert ensembles.pooled_logits([[[20.0]], [[-6.0]]])[0, 0] == pytest.approx(logit((1 + expit(-6.0)) / 2), rel=1e-6)


def pairs_of(kernel, seeds):
    return {
        pair: Measured(np.array([kernel(*pair)[0]]), np.array([kernel(*pair)[1]])) for pair in combinations(seeds, 2)
    }


@pytest.mark.parametrize("seeds", [3, 4, 6])
def test_pseudo_values_are_those_of_leaving_out_each_seed(seeds):
    drawn_SN, numbers_S = RANDOM.normal(size=(seeds, 5)), RANDOM.normal(size=seeds)
    pairs = pairs_of(lambda a, b: (drawn_SN[a] * drawn_SN[b], max(numbers_S[a], numbers_S[b])), range(seeds))
    found = ensembles.over_pairs(pairs, seeds)
    for name, of_pair in (("estimates_S", "estimates_S"), ("influences_SN", "influences_SN")):
        every = np.mean([getattr(pair, of_pair)[0] for pair in pairs.values()], axis=0)
        for place in range(seeds):
            without = np.mean([getattr(m, of_pair)[0] for pair, m in pairs.items() if place not in pair], axis=0)
            assert getattr(found, name)[place] == pytest.approx(seeds * every - (seeds - 1) * without)
        assert getattr(found, name).mean(axis=0) == pytest.approx(every)


def test_of_means_of_two_seeds_the_pseudo_values_are_the_seeds_own_numbers():
    numbers_S = RANDOM.normal(size=5)
    pairs = pairs_of(lambda a, b: (np.zeros(2), (numbers_S[a] + numbers_S[b]) / 2), range(5))
    assert ensembles.over_pairs(pairs, 5).estimates_S == pytest.approx(numbers_S)


def test_the_spread_over_pseudo_values_estimates_the_error_of_the_mean_over_pairs():
    values, errors = [], []
    for _ in range(600):
        numbers_S = RANDOM.normal(size=6)
        pairs = pairs_of(lambda a, b, of=numbers_S: (np.zeros(2), np.logaddexp(of[a], of[b])), range(6))
        found = intervals.interval(*ensembles.over_pairs(pairs, 6), resamples=1)
        values.append(found.mean)
        errors.append(found.seeds_error)
    # Pairs taken for independent repetitions would give 0.64 of it.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.12)


def test_two_seeds_have_one_pair_and_no_spread():
    found = ensembles.over_pairs(pairs_of(lambda a, b: (np.ones(3), 5.0), range(2)), 2)
    assert found.influences_SN.shape == (1, 3) and intervals.interval(*found).caution == intervals.ONE_SEED


def test_a_row_taken_as_one_seed_has_the_means():
    found = ensembles.as_one(Measured(np.array([[1.0, 2.0], [3.0, 6.0]]), np.array([1.0, 2.0])))
    assert found.influences_SN.tolist() == [[2, 4]] and found.estimates_S.tolist() == [1.5]


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (lambda: ensembles.pooled_logits([[1.0]]), "members x images x categories"),
        (lambda: ensembles.pooled_logits([[[np.inf]]]), "must be finite"),
        (lambda: ensembles.over_pairs({}, 1), "train with --seeds 2"),
    ],
)
def test_bad_input_is_refused(action, line):
    assert line in refusal(action)
