"""Thresholds against hand-computed numbers, and against trying every one of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.evaluation import metrics, thresholds

P, A, U = PRESENT, ABSENT, UNKNOWN


@st.composite
def scored_labels(draw, images=6, categories=3):
    """Scores with many ties, and labels of which some are unknown and at least one is present."""
    shape = draw(st.integers(1, images)), draw(st.integers(1, categories))
    size = shape[0] * shape[1]
    scores = draw(st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 3.0]), min_size=size, max_size=size))
    labels = draw(st.lists(st.sampled_from([P, A, U]), min_size=size, max_size=size))
    labels[draw(st.integers(0, size - 1))] = P
    return np.array(scores, dtype=np.float32).reshape(shape), np.array(labels, dtype=np.int8).reshape(shape)


def f1(scores, labels, threshold):
    """Of one category, entry by entry."""
    correct = predicted = present = 0
    for score, label in zip(scores, labels, strict=True):
        if label == U:
            continue
        predicted += score >= threshold
        present += label == P
        correct += score >= threshold and label == P
    return 2 * correct / (predicted + present) if predicted + present else 0.0


def try_every_threshold(scores, labels):
    """The definition of `chosen` for one category."""
    known = [label for label in labels if label != U]
    if P not in known or A not in known:
        return 0.0
    candidates = sorted({float(s) for s, label in zip(scores, labels, strict=True) if label != U}, reverse=True)
    return max(candidates, key=lambda threshold: f1(scores, labels, threshold))  # of equal ones the first


def every_combination(scores_NC, labels_NC):
    """The metrics of every set of thresholds there is; infinity predicts nothing."""
    candidates = [sorted({float(s) for s in column} | {np.inf}) for column in scores_NC.T]
    for point in itertools.product(*candidates):
        yield thresholds.evaluate(scores_NC, labels_NC, np.array(point))


@given(scored_labels())
def test_the_chosen_thresholds_are_the_best_of_all(case):
    scores_NC, labels_NC = case
    expected = [try_every_threshold(s, y) for s, y in zip(scores_NC.T.tolist(), labels_NC.T.tolist(), strict=True)]
    np.testing.assert_array_equal(thresholds.chosen(scores_NC, labels_NC), expected)


@given(scored_labels())
def test_with_the_usual_threshold_the_numbers_are_the_usual_ones(case):
    scores_NC, labels_NC = case
    if (labels_NC == U).any() and not (labels_NC == A).any():
        return  # refused by `metrics.evaluate`, as unknown may be meant to be absent
    usual = metrics.evaluate(scores_NC, labels_NC, surely_logits=True)
    found = thresholds.evaluate(scores_NC, labels_NC, np.zeros(labels_NC.shape[1]))
    assert found == {name: usual[name] for name in metrics.THRESHOLDED}


@given(scored_labels(), st.integers(0, 2**32 - 1))
def test_what_is_unknown_does_not_count(case, seed):
    scores_NC, labels_NC = case
    noise_NC = np.random.default_rng(seed).normal(size=scores_NC.shape).astype(np.float32)
    other_NC = np.where(labels_NC == U, noise_NC, scores_NC)
    chosen_C = thresholds.chosen(scores_NC, labels_NC)
    np.testing.assert_array_equal(thresholds.chosen(other_NC, labels_NC), chosen_C)
    assert thresholds.evaluate(other_NC, labels_NC, chosen_C) == thresholds.evaluate(scores_NC, labels_NC, chosen_C)
    assert thresholds.oracle(other_NC, labels_NC) == thresholds.oracle(scores_NC, labels_NC)


@given(scored_labels())
@settings(max_examples=60)
def test_no_thresholds_reach_a_higher_OF1_than_the_oracle_and_some_reach_it(case):
    tried = [found["OF1"] for found in every_combination(*case)]
    assert thresholds.oracle(*case)["OF1"] == pytest.approx(max(tried), abs=1e-12)


@given(scored_labels())
@settings(max_examples=60)
def test_the_oracles_CF1_is_reached_and_no_lower_than_any_that_is_known(case):
    scores_NC, labels_NC = case
    own_C, tried_C = thresholds.chosen(scores_NC, labels_NC), np.full(labels_NC.shape[1], -1.0)
    found = thresholds.oracle(scores_NC, labels_NC, [tried_C])["CF1"]
    reached = [each["CF1"] for each in every_combination(scores_NC, labels_NC)]
    assert min(abs(found - each) for each in reached) < 1e-12
    for thresholds_C in (own_C, tried_C, np.zeros(labels_NC.shape[1])):
        assert found >= thresholds.evaluate(scores_NC, labels_NC, thresholds_C)["CF1"] - 1e-12


def test_with_one_category_the_oracles_CF1_is_the_highest_there_is():
    scores_NC = np.array([[5.0], [4.0], [3.0], [2.0], [1.0]])
    labels_NC = np.array([[P], [A], [P], [P], [A]], dtype=np.int8)
    # at 2: precision 3/4, recall 1
    assert thresholds.oracle(scores_NC, labels_NC) == pytest.approx({"OF1": 6 / 7, "CF1": 6 / 7})


def test_a_category_that_nobody_can_choose_by_keeps_the_usual_threshold():
    scores_NC = np.array([[-1.0, -1.0, -1.0], [-2.0, -2.0, -2.0]])
    labels_NC = np.array([[P, P, A], [P, U, A]], dtype=np.int8)
    np.testing.assert_array_equal(thresholds.chosen(scores_NC, labels_NC), [0.0, 0.0, 0.0])


def test_equal_scores_are_predicted_together():
    scores_NC = np.array([[1.0], [1.0], [0.0], [-1.0]])
    labels_NC = np.array([[P], [A], [P], [A]], dtype=np.int8)
    # F1 at 1 is 2/4, at 0 it is 4/5, at -1 it is 4/6
    np.testing.assert_array_equal(thresholds.chosen(scores_NC, labels_NC), [0.0])


def test_of_equally_good_thresholds_the_highest_is_chosen():
    scores_NC = np.array([[3.0], [2.0], [1.0], [0.0]])
    labels_NC = np.array([[P], [A], [A], [P]], dtype=np.int8)
    # F1 at 3 is 2/3, at 0 it is 4/6
    np.testing.assert_array_equal(thresholds.chosen(scores_NC, labels_NC), [3.0])


def test_scores_that_lie_elsewhere_have_a_bad_f1_and_good_chosen_thresholds():
    random = np.random.default_rng(0)
    labels_NC = np.where(random.random((200, 4)) < 0.2, P, A).astype(np.int8)
    scores_NC = (2.0 * labels_NC + random.normal(size=labels_NC.shape) - 6).astype(np.float32)
    chosen_C = thresholds.chosen(scores_NC[:100], labels_NC[:100])
    usual = thresholds.evaluate(scores_NC[100:], labels_NC[100:], np.zeros(4))
    found = thresholds.evaluate(scores_NC[100:], labels_NC[100:], chosen_C)
    assert usual["OF1"] < 0.1 and found["OF1"] > 0.8


def test_numbers_of_sixteen_bits_are_compared_as_they_are():
    scores_NC = np.array([[0.1], [0.2], [-0.1]], dtype=np.float16)
    labels_NC = np.array([[P], [P], [A]], dtype=np.int8)
    chosen_C = thresholds.chosen(scores_NC, labels_NC)
    assert thresholds.evaluate(scores_NC, labels_NC, chosen_C)["OF1"] == 1.0
