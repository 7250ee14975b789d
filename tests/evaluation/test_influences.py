"""Influences against the metrics themselves: derivatives, leaving images out, the full bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.evaluation import influences as influences_module
from mlrpl_bench.evaluation.influences import category_influences, influences
from mlrpl_bench.evaluation.metrics import evaluate
from mlrpl_bench.utils.errors import UserError

METRICS = ("mAP", "OF1", "CF1")


def simulated(images, categories=4, seed=0, unknown=0.0):
    """Scores that know something about the labels; categories from frequent to rare."""
    random = np.random.default_rng(seed)
    present_NC = random.random((images, categories)) < np.linspace(0.5, 0.15, categories)
    scores_NC = 1.5 * present_NC - 1.0 + random.normal(size=(images, categories))
    labels_NC = np.where(present_NC, PRESENT, ABSENT)
    labels_NC[random.random((images, categories)) < unknown] = UNKNOWN
    return scores_NC, labels_NC


def evaluated(scores_NC, labels_NC):
    result = evaluate(scores_NC, labels_NC)
    return np.array([result[name] for name in METRICS])


def average_precision_with_weights(scores_N, present_N, weights_N):
    """Interpolated average precision with weighted images, by loops; the definition that is differentiated."""
    rows = sorted(range(len(scores_N)), key=lambda n: -scores_N[n])
    found, seen, curve = 0.0, 0.0, []
    for n in rows:
        seen += weights_N[n]
        found += weights_N[n] * present_N[n]
        curve.append((weights_N[n] * present_N[n], found / seen))
    return sum(weight * max(p for _, p in curve[k:]) for k, (weight, _) in enumerate(curve)) / found


@pytest.mark.parametrize("seed", range(3))
def test_the_influence_on_average_precision_is_its_derivative_by_the_images_weight(seed):
    scores_NC, labels_NC = simulated(40, categories=1, seed=seed)
    scores_N, present_N = scores_NC[:, 0], labels_NC[:, 0] == PRESENT
    step, derivatives_N = 1e-6, []
    for n in range(40):
        up, down = (
            average_precision_with_weights(scores_N, present_N, 1 + sign * step * (np.arange(40) == n))
            for sign in (1, -1)
        )
        derivatives_N.append((up - down) / (2 * step))
    np.testing.assert_allclose(influences(scores_NC, labels_NC)["mAP"], 40 * np.array(derivatives_N), atol=1e-6)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_influences_agree_with_leaving_each_image_out(unknown):
    images = 400
    scores_NC, labels_NC = simulated(images, unknown=unknown)
    whole = evaluated(scores_NC, labels_NC)
    found = influences(scores_NC, labels_NC)
    without = np.array(
        [evaluated(np.delete(scores_NC, n, axis=0), np.delete(labels_NC, n, axis=0)) for n in range(images)]
    )
    for column, name in enumerate(METRICS):
        jackknife_N = (images - 1) * (whole[column] - without[:, column])
        assert np.corrcoef(jackknife_N, found[name])[0, 1] > 0.99, name
        assert found[name].std() == pytest.approx(jackknife_N.std(), rel=0.05), name


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_the_standard_error_is_that_of_the_full_bootstrap(unknown):
    images, resamples = 400, 500
    scores_NC, labels_NC = simulated(images, seed=1, unknown=unknown)
    random = np.random.default_rng(0)
    rows = random.integers(images, size=(resamples, images))
    full = np.array([evaluated(scores_NC[of_one], labels_NC[of_one]) for of_one in rows])
    found = influences(scores_NC, labels_NC)
    for column, name in enumerate(METRICS):
        linear_R = found[name][rows].mean(axis=1)
        # 500 resamples know a standard error to 3 %; the rest is curvature.
        assert found[name].std() / np.sqrt(images) == pytest.approx(full[:, column].std(), rel=0.12), name
        assert np.corrcoef(linear_R, full[:, column])[0, 1] > 0.97, name


@st.composite
def problems(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    draws = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores_NC = draws.integers(-2, 3, size=shape).astype(float)  # many ties
    labels_NC = draws.choice([PRESENT, ABSENT, UNKNOWN], size=shape)
    labels_NC[0, 0] = PRESENT
    return scores_NC, labels_NC


@settings(max_examples=100, deadline=None)
@given(problems())
def test_influences_are_finite_and_have_mean_zero(problem):
    for name, influences_N in influences(*problem).items():
        assert influences_N.dtype == np.float64
        assert influences_N.shape == (len(problem[0]),)
        assert influences_N.mean() == pytest.approx(0, abs=1e-12), name


@settings(max_examples=100, deadline=None)
@given(problems())
def test_the_best_rank_at_or_after_is_where_the_maximum_is(problem):
    values_P = problem[0][:, 0]
    best_P = influences_module._best_at_or_after(values_P)
    assert (best_P >= np.arange(len(values_P))).all()
    assert values_P[best_P].tolist() == [max(values_P[k:]) for k in range(len(values_P))]


def test_unknown_entries_have_no_influence():
    scores_NC, labels_NC = simulated(60, unknown=0.3)
    other_NC = np.where(labels_NC == UNKNOWN, 9.0, scores_NC)
    for name in METRICS:
        np.testing.assert_array_equal(influences(scores_NC, labels_NC)[name], influences(other_NC, labels_NC)[name])


def test_a_category_without_positives_counts_only_in_the_overall_f1():
    scores_NC, labels_NC = simulated(60)
    more = np.hstack([scores_NC, scores_NC[:, :1]]), np.hstack([labels_NC, np.full((60, 1), ABSENT)])
    before, after = influences(scores_NC, labels_NC), influences(*more)
    np.testing.assert_allclose(before["mAP"], after["mAP"])
    np.testing.assert_allclose(before["CF1"], after["CF1"])
    assert not np.allclose(before["OF1"], after["OF1"])


def test_perfect_scores_and_scores_that_predict_nothing_have_no_influence():
    _, labels_NC = simulated(60)
    assert all(np.allclose(found_N, 0) for found_N in influences(labels_NC * 3.0, labels_NC).values())
    assert np.all(influences(labels_NC - 5.0, labels_NC)["CF1"] == 0)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((3, 2)), np.ones((2, 2)), "of one shape"),
        (np.zeros(3), np.ones(3), "of one shape"),
        (np.zeros((0, 2)), np.ones((0, 2)), "of one shape"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "NaN or infinite"),
        (np.zeros((2, 2)), np.full((2, 2), ABSENT), "no label is present"),
    ],
)
def test_what_has_no_influences_is_refused(scores, labels, message):
    with pytest.raises(UserError, match=message):
        influences(scores, labels)


def test_influences_on_categories_are_the_derivatives_of_their_precisions():
    random = np.random.default_rng(3)
    scores_NC = random.normal(size=(40, 4))
    labels_NC = random.choice([PRESENT, ABSENT, UNKNOWN], size=(40, 4), p=[0.3, 0.5, 0.2])
    labels_NC[labels_NC[:, 3] == PRESENT, 3] = ABSENT  # nothing has the last category
    found_NC = category_influences(scores_NC, labels_NC)
    assert np.isnan(found_NC[:, 3]).all() and not found_NC[:, :3][labels_NC[:, :3] == UNKNOWN].any()
    assert found_NC[:, :3].mean(axis=1) == pytest.approx(influences(scores_NC, labels_NC)["mAP"], abs=1e-12)
    for place in range(3):  # a category alone is its own mAP
        alone = influences(scores_NC[:, [place]], labels_NC[:, [place]])["mAP"]
        assert found_NC[:, place] == pytest.approx(alone, abs=1e-12)
