"""The metrics against hand-computed numbers, against plain loops, and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.evaluation.metrics import average_precisions, evaluate, mean_average_precision
from mlrpl_bench.utils.errors import UserError

P, A, U = PRESENT, ABSENT, UNKNOWN
COUNTED = ("OP", "OR", "OF1", "CP", "CR", "CF1")
SCALARS = ("mAP", "average_precision", *COUNTED, *(f"{name}_top3" for name in COUNTED))

# Four categories: one ranked imperfectly, one ranked backwards, one never predicted, one without positives.
SCORES_NC = np.array(
    [
        [4.0, 2.0, -1.0, 1.0],
        [3.0, 1.0, -2.0, -1.0],
        [2.0, -1.0, -3.0, -2.0],
        [1.0, -2.0, -4.0, -3.0],
        [-1.0, -3.0, -5.0, -4.0],
    ]
)
LABELS_NC = np.array([[P, A, P, A], [A, A, A, A], [P, A, A, A], [P, A, A, A], [A, P, A, A]], dtype=np.int8)


def loop_over_everything(scores_NC, labels_NC):
    """The definitions, entry by entry, with nothing but Python's numbers and loops."""
    images, categories = range(len(scores_NC)), range(len(scores_NC[0]))
    interpolated, plain, counts = [], [], {}
    for c in categories:
        rows = [n for n in images if labels_NC[n][c] != UNKNOWN]
        rows.sort(key=lambda n: -scores_NC[n][c])  # Python's sort is stable: of equal scores the earlier row first
        num_positives = sum(labels_NC[n][c] == PRESENT for n in rows)
        curve, found, plain_sum = [], 0, 0.0
        for rank, n in enumerate(rows, start=1):
            found += labels_NC[n][c] == PRESENT
            if num_positives:
                curve.append((found / num_positives, found / rank))
                plain_sum += found / rank if labels_NC[n][c] == PRESENT else 0
        area, last_recall = 0.0, 0.0
        for k, (recall, _) in enumerate(curve):
            area += (recall - last_recall) * max(precision for _, precision in curve[k:])
            last_recall = recall
        interpolated.append(area if num_positives else math.nan)
        plain.append(plain_sum / num_positives if num_positives else math.nan)

    for suffix, limit in (("", len(categories)), ("_top3", 3)):
        correct, predicted, present = ([0 for _ in categories] for _ in range(3))
        for n in images:
            known = [c for c in categories if labels_NC[n][c] != UNKNOWN]
            chosen = sorted(known, key=lambda c: -scores_NC[n][c])[:limit]
            for c in known:
                present[c] += labels_NC[n][c] == PRESENT
                if c in chosen and scores_NC[n][c] >= 0:
                    predicted[c] += 1
                    correct[c] += labels_NC[n][c] == PRESENT
        kept = [c for c in categories if present[c]]
        op = sum(correct) / sum(predicted) if sum(predicted) else 0.0
        or_ = sum(correct) / sum(present)
        cp = sum(correct[c] / predicted[c] if predicted[c] else 0.0 for c in kept) / len(kept)
        cr = sum(correct[c] / present[c] for c in kept) / len(kept)
        of1 = 2 * op * or_ / (op + or_) if op + or_ else 0.0
        cf1 = 2 * cp * cr / (cp + cr) if cp + cr else 0.0
        counts |= dict(zip([name + suffix for name in COUNTED], (op, or_, of1, cp, cr, cf1), strict=True))

    def mean(values):
        defined = [value for value in values if not math.isnan(value)]
        return sum(defined) / len(defined)

    return {
        "mAP": mean(interpolated),
        "average_precision": mean(plain),
        **counts,
        "AP_C": interpolated,
        "categories_without_positives": sum(map(math.isnan, interpolated)),
    }


@st.composite
def problems(draw, states=(PRESENT, ABSENT, UNKNOWN), ties=True):
    """Scores that look like logits and labels with something to evaluate; by default with many ties."""
    images, categories = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    size = images * categories
    if ties:
        scores = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    else:
        scores = draw(st.permutations(range(-(size // 2) - 1, size - size // 2 - 1)))
    labels = draw(st.lists(st.sampled_from(states), min_size=size, max_size=size))
    scores_NC = np.array(scores, dtype=np.float64).reshape(images, categories)
    labels_NC = np.array(labels, dtype=np.int8).reshape(images, categories)
    assume((labels_NC == PRESENT).any() and ((labels_NC == ABSENT).any() or (labels_NC == PRESENT).all()))
    assume(scores_NC.min() < 0 or scores_NC.max() != 1)
    return scores_NC, labels_NC


def test_numbers_computed_by_hand():
    result = evaluate(SCORES_NC, LABELS_NC)
    # Category 0: positives at ranks 1, 3, 4 with precisions 1, 2/3, 3/4; interpolated 1, 3/4, 3/4.
    # Category 1: its positive comes last of five. Category 2: its positive comes first. Category 3 has none.
    assert result["AP_C"] == pytest.approx([5 / 6, 1 / 5, 1, math.nan], nan_ok=True)
    assert result["mAP"] == pytest.approx((5 / 6 + 1 / 5 + 1) / 3)
    assert result["average_precision"] == pytest.approx(((1 + 2 / 3 + 3 / 4) / 3 + 1 / 5 + 1) / 3)
    # Predicted 4, 2, 0, 1; correct 3, 0, 0, 0; present 3, 1, 1, 0.
    assert result["OP"] == pytest.approx(3 / 7)
    assert result["OR"] == pytest.approx(3 / 5)
    assert result["OF1"] == pytest.approx(0.5)
    assert result["CP"] == pytest.approx((3 / 4 + 0 + 0) / 3)
    assert result["CR"] == pytest.approx((1 + 0 + 0) / 3)
    assert result["CF1"] == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert result["categories_without_positives"] == 1


def test_top3_predicts_the_three_highest_of_those_at_or_above_zero():
    scores_NC = [[4.0, 3.0, 2.0, 1.0], [1.0, -1.0, -2.0, -3.0]]
    result = evaluate(scores_NC, [[P, P, A, P], [P, P, P, A]])
    assert (result["OP"], result["OP_top3"]) == (4 / 5, 3 / 4)
    assert (result["OR"], result["OR_top3"]) == (4 / 6, 3 / 6)
    # The last category is right without the limit and never predicted with it.
    assert (result["CP"], result["CP_top3"]) == (3 / 4, 2 / 4)


def test_a_logit_of_exactly_zero_is_a_prediction():
    assert evaluate([[0.0, -1.0]], [[P, A]])["OR"] == 1


def test_equal_scores_rank_by_row():
    assert evaluate([[-1.0], [-1.0]], [[P], [A]])["mAP"] == 1
    assert evaluate([[-1.0], [-1.0]], [[A], [P]])["mAP"] == 0.5


def test_equal_scores_in_an_image_rank_by_category():
    assert evaluate([[2.0, 2.0, 2.0, 2.0]], [[P, A, A, A]])["OR_top3"] == 1
    assert evaluate([[2.0, 2.0, 2.0, 2.0]], [[A, A, A, P]])["OR_top3"] == 0


def test_unknown_entries_take_no_place_among_the_top_three():
    assert evaluate([[5.0, 4.0, 3.0, 2.0]], [[A, A, U, P]])["OR_top3"] == 1


def test_an_image_without_evaluated_entries_changes_nothing():
    with_it = evaluate(np.vstack([SCORES_NC[:2], np.full(4, 9.0), SCORES_NC[2:]]), np.insert(LABELS_NC, 2, U, axis=0))
    without = evaluate(SCORES_NC, LABELS_NC)
    assert {name: with_it[name] for name in SCALARS} == {name: without[name] for name in SCALARS}


def test_nothing_predicted_counts_as_zero_and_not_as_nan():
    result = evaluate([[-1.0, -2.0], [-3.0, -1.0]], [[P, A], [A, P]])
    assert [result[name] for name in COUNTED] == [0] * 6
    assert [result[f"{name}_top3"] for name in COUNTED] == [0] * 6


def test_a_never_predicted_category_adds_no_false_prediction():
    assert evaluate([[1.0, -1.0]], [[P, A]])["OP"] == 1


@settings(max_examples=200, deadline=None)
@given(problems())
def test_equals_plain_loops(problem):
    scores_NC, labels_NC = problem
    result, expected = evaluate(scores_NC, labels_NC), loop_over_everything(scores_NC.tolist(), labels_NC.tolist())
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=0, atol=1e-12, err_msg=name)


@settings(max_examples=200, deadline=None)
@given(problems(), st.sampled_from([1.0, 1e-44, 1e37]))
def test_float32_scores_give_the_very_numbers_of_float64(problem, scale):
    scores_NC, labels_NC = problem
    single_NC = (scores_NC * scale).astype(np.float32)
    single_NC[::2] *= -1  # -0.0 and 0.0 tie
    result, expected = evaluate(single_NC, labels_NC, surely_logits=True), loop_over_everything(single_NC, labels_NC)
    np.testing.assert_allclose(result["AP_C"], expected["AP_C"], rtol=0, atol=1e-12)
    for name, value in evaluate(single_NC.astype(np.float64), labels_NC, surely_logits=True).items():
        np.testing.assert_array_equal(result[name], value, err_msg=name)


def test_average_precisions_alone_are_those_of_the_full_set():
    random_numbers = np.random.default_rng(0)
    labels_NC = random_numbers.choice([P, A, U], size=(50, 40), p=[0.02, 0.7, 0.28])
    scores_NC = random_numbers.normal(size=(50, 40)).astype(np.float32)
    result, alone_C = evaluate(scores_NC, labels_NC), average_precisions(scores_NC, labels_NC)
    np.testing.assert_array_equal(alone_C, result["AP_C"])
    assert mean_average_precision(alone_C) == result["mAP"] and np.isnan(alone_C).any()
    # Only the order counts, so probabilities will do.
    np.testing.assert_array_equal(average_precisions(1 / (1 + np.exp(-scores_NC)), labels_NC), alone_C)


def test_average_precisions_alone_refuse_what_the_full_set_refuses():
    with pytest.raises(UserError, match="no label is present"):
        average_precisions(SCORES_NC, np.full_like(LABELS_NC, ABSENT))
    with pytest.raises(UserError, match="images x categories"):
        average_precisions(SCORES_NC.T, LABELS_NC)


@settings(max_examples=100, deadline=None)
@given(problems(states=(PRESENT, ABSENT), ties=False))
def test_average_precision_is_scikit_learns_where_scores_do_not_tie(problem):
    scores_NC, labels_NC = problem
    expected = [
        average_precision_score(labels_N == PRESENT, scores_N)
        for scores_N, labels_N in zip(scores_NC.T, labels_NC.T, strict=True)
        if (labels_N == PRESENT).any()
    ]
    assert evaluate(scores_NC, labels_NC)["average_precision"] == pytest.approx(np.mean(expected))


@settings(max_examples=100, deadline=None)
@given(problems(states=(PRESENT, ABSENT)))
def test_precision_and_recall_are_scikit_learns_micro_and_macro_averages(problem):
    scores_NC, labels_NC = problem
    result = evaluate(scores_NC, labels_NC)
    positive_C = (labels_NC == PRESENT).any(axis=0)
    for suffix, predicted_NC in (
        ("", scores_NC >= 0),
        ("_top3", (scores_NC >= 0) & (np.argsort(np.argsort(-scores_NC, kind="stable")) < 3)),
    ):
        for average, prefix, columns in (("micro", "O", slice(None)), ("macro", "C", positive_C)):
            precision, recall, f1, _ = precision_recall_fscore_support(
                _as_columns((labels_NC == PRESENT)[:, columns]),
                _as_columns(predicted_NC[:, columns]),
                average=average,
                labels=np.arange(labels_NC[:, columns].shape[1]),
                zero_division=0,
            )
            assert result[f"{prefix}P{suffix}"] == pytest.approx(precision)
            assert result[f"{prefix}R{suffix}"] == pytest.approx(recall)
            if average == "micro":  # scikit-learn's macro F1 is the mean of F1s; CF1 is the F1 of the means
                assert result[f"OF1{suffix}"] == pytest.approx(f1)


def _as_columns(matrix_NC):
    """With one image and two columns of zeros added, because scikit-learn takes a single column for plain classes."""
    return np.pad(matrix_NC.astype(int), ((0, 1), (0, 2)))


@settings(max_examples=100, deadline=None)
@given(problems())
def test_every_value_is_a_fraction_and_interpolation_never_lowers(problem):
    result = evaluate(*problem)
    assert all(0 <= result[name] <= 1 for name in SCALARS)
    assert result["mAP"] >= result["average_precision"] - 1e-12


@settings(max_examples=100, deadline=None)
@given(problems(), st.data())
def test_a_rising_transform_of_a_categorys_scores_leaves_its_average_precision_alone(problem, data):
    scores_NC, labels_NC = problem
    shifts_C = np.array(
        data.draw(st.lists(st.integers(-5, 5), min_size=scores_NC.shape[1], max_size=scores_NC.shape[1]))
    )
    transformed_NC = scores_NC**3 + scores_NC + 100 * shifts_C - 1000
    np.testing.assert_array_equal(evaluate(transformed_NC, labels_NC)["AP_C"], evaluate(scores_NC, labels_NC)["AP_C"])


@settings(max_examples=100, deadline=None)
@given(problems(ties=False), st.data())
def test_the_order_of_the_images_does_not_matter_where_scores_do_not_tie(problem, data):
    scores_NC, labels_NC = problem
    order_N = data.draw(st.permutations(range(len(scores_NC))))
    result, permuted = evaluate(scores_NC, labels_NC), evaluate(scores_NC[order_N], labels_NC[order_N])
    assert all(result[name] == permuted[name] for name in SCALARS)


def test_perfect_logits_give_one_everywhere():
    labels_NC = np.where(np.eye(5, 4) > 0, PRESENT, ABSENT)
    result = evaluate(labels_NC * 2.0, labels_NC)
    assert all(result[name] == 1 for name in SCALARS)


def test_the_arguments_stay_as_they_are():
    scores_NC, labels_NC = SCORES_NC.copy(), LABELS_NC.copy()
    evaluate(scores_NC, labels_NC)
    np.testing.assert_array_equal(scores_NC, SCORES_NC)
    np.testing.assert_array_equal(labels_NC, LABELS_NC)


def test_half_precision_scores_are_evaluated_in_double_precision():
    half_NC = SCORES_NC.astype(np.float16)
    assert evaluate(half_NC, LABELS_NC)["mAP"] == evaluate(half_NC.astype(np.float64), LABELS_NC)["mAP"]


def test_labels_of_zero_and_one_are_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"0 means unknown .* absent is -1.*2 \* labels - 1"):
        evaluate(SCORES_NC, (LABELS_NC == PRESENT).astype(np.int8))


def test_probabilities_are_refused():
    with pytest.raises(UserError, match="give logits"):
        evaluate(1 / (1 + np.exp(-SCORES_NC)), LABELS_NC)


def test_the_zeros_of_an_untrained_classifier_are_no_probabilities():
    assert evaluate(np.zeros_like(SCORES_NC), LABELS_NC)["OR"] == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(wrong):
    scores_NC = SCORES_NC.copy()
    scores_NC[1, 2] = wrong
    with pytest.raises(UserError, match="1 of 20 scores are NaN or infinite"):
        evaluate(scores_NC, LABELS_NC)


@pytest.mark.parametrize("scores_NC", [SCORES_NC[:4], SCORES_NC.T, SCORES_NC[0]])
def test_shapes_that_differ_are_refused(scores_NC):
    with pytest.raises(UserError, match="images x categories"):
        evaluate(scores_NC, LABELS_NC)


def test_one_flat_row_is_refused():
    with pytest.raises(UserError, match="images x categories"):
        evaluate(SCORES_NC[0], LABELS_NC[0])


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_nothing_to_evaluate_is_refused(shape):
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate(np.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize("wrong", [2, 0.5, np.nan])
def test_a_label_that_is_no_state_is_refused(wrong):
    labels_NC = LABELS_NC.astype(float)
    labels_NC[0, 0] = wrong
    with pytest.raises(UserError, match="labels must be"):
        evaluate(SCORES_NC, labels_NC)


def test_labels_without_a_present_entry_are_refused():
    with pytest.raises(UserError, match="no label is present"):
        evaluate(SCORES_NC, np.full_like(LABELS_NC, ABSENT))
