"""Probabilities from scores: near the truth, of the kind that the number of labels is enough for."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from mlrpl_bench.data.protocol import UNKNOWN
from mlrpl_bench.tools.filling.calibration import FEW, MANY, SOME, calibrate, fit, kind_for
from tests.helpers.simulated_scores import simulate


@pytest.mark.parametrize(
    ("labels", "present", "kind"),
    [
        (2 * FEW, FEW, "logistic"),
        (2 * FEW, FEW - 1, ""),
        (2 * FEW, FEW + 1, ""),
        (0, 0, ""),
        (MANY, SOME, "isotonic"),
        (MANY - 1, SOME, "logistic"),
        (MANY, SOME - 1, "logistic"),
        (MANY, MANY - SOME + 1, "logistic"),
        (MANY, MANY - FEW + 1, ""),
    ],
)
def test_the_kind_is_chosen_by_the_number_of_labels(labels, present, kind):
    assert kind_for(labels, present) == kind


def platts(logits_S, is_present_S):
    """Slope and offset by his own criterion, minimised by another routine."""
    present, absent = is_present_S.sum(), (~is_present_S).sum()
    targets_S = np.where(is_present_S, (present + 1) / (present + 2), 1 / (absent + 2))

    def loss(parameters):
        values_S = parameters[0] * logits_S + parameters[1]
        return -(targets_S * log_expit(values_S) + (1 - targets_S) * log_expit(-values_S)).sum()

    return minimize(loss, np.array([1.0, 0.0]), method="BFGS").x


def test_the_logistic_curve_is_platts():
    random = np.random.default_rng(0)
    logits_S = random.normal(3, 5, size=80)
    is_present_S = random.random(80) < expit(0.5 * logits_S - 1)
    slope, offset = platts(logits_S, is_present_S)
    at = np.linspace(-10, 10, 21)
    expected = np.clip(expit(slope * at + offset), 1 / 82, 81 / 82)
    np.testing.assert_allclose(fit("logistic", logits_S, is_present_S)(at), expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_scores_that_part_the_labels_are_not_certain(kind):
    logits_S = np.concatenate([np.linspace(-3, -1, 30), np.linspace(1, 3, 30)])
    probabilities = fit(kind, logits_S, logits_S > 0)(np.array([-100.0, 0.0, 100.0]))
    np.testing.assert_allclose(probabilities[[0, 2]], [1 / 62, 61 / 62])


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_the_scores_does_not_matter(scale):
    given = simulate(images=400, offsets=(0.0,))
    logits_S, is_present_S = given.logits_NC[:, 0], given.truth_NC[:, 0] == 1
    usual = fit("logistic", logits_S, is_present_S)(logits_S)
    np.testing.assert_allclose(fit("logistic", scale * logits_S, is_present_S)(scale * logits_S), usual, atol=2e-3)


@pytest.mark.parametrize("logits_S", [np.linspace(1, 0, 40), np.zeros(40)], ids=["upside down", "all the same"])
def test_scores_that_tell_nothing_give_the_share_of_present_labels(logits_S):
    is_present_S = np.arange(40) >= 30
    np.testing.assert_allclose(fit("logistic", logits_S, is_present_S)(logits_S), 11 / 42)


@pytest.mark.parametrize(("images", "kind"), [(600, "logistic"), (8000, "isotonic")])
def test_probabilities_are_near_the_truth(images, kind):
    given = simulate(images=images, bent=kind == "isotonic")
    calibrating_NC = (given.split.labels_NC != UNKNOWN) & ~given.mask_NC
    probabilities_NC, found = calibrate(given.logits_NC, given.split.labels_NC, calibrating_NC)
    assert {one.kind for one in found} == {kind} and not any(one.shared for one in found)
    assert np.abs(probabilities_NC - given.chances_NC).mean() < 0.05
    assert np.abs(expit(given.logits_NC) - given.chances_NC).mean() > 0.1  # which no calibration at all would be


def test_categories_with_few_labels_share_one_calibration():
    given = simulate(images=300, offsets=(0.0, -4.0, -4.0, -4.5))
    calibrating_NC = (given.split.labels_NC != UNKNOWN) & ~given.mask_NC
    probabilities_NC, found = calibrate(given.logits_NC, given.split.labels_NC, calibrating_NC)
    assert [one.shared for one in found] == ["", "few", "few", "few"]
    assert found[1] == found[2] and found[1].labels == calibrating_NC[:, 1:].sum()
    order = np.argsort(given.logits_NC[:, 1:].ravel())
    assert (np.diff(probabilities_NC[:, 1:].ravel()[order]) >= -1e-6).all()  # one curve for the three
    assert "shared" in found[1].to_text and "shared" not in found[0].to_text


def test_a_category_with_too_few_labels_takes_the_curve_of_all():
    given = simulate(images=300, offsets=(0.0, -9.0))
    calibrating_NC = (given.split.labels_NC != UNKNOWN) & ~given.mask_NC
    probabilities_NC, found = calibrate(given.logits_NC, given.split.labels_NC, calibrating_NC)
    assert [one.shared for one in found] == ["", "all"] and found[1].labels == calibrating_NC.sum()
    assert not np.isnan(probabilities_NC).any() and "shared by all" in found[1].to_text
    assert (probabilities_NC[:, 1] < 0.9).all()  # the labels of the rare category count too


def test_a_category_without_a_label_has_no_probability():
    given = simulate(images=300, offsets=(0.0, 0.0))
    calibrating_NC = (given.split.labels_NC != UNKNOWN) & ~given.mask_NC
    calibrating_NC[:, 1] = False
    probabilities_NC, found = calibrate(given.logits_NC, given.split.labels_NC, calibrating_NC)
    assert np.isnan(probabilities_NC[:, 1]).all() and not np.isnan(probabilities_NC[:, 0]).any()
    assert found[1].to_text == "no label"


def test_without_enough_labels_of_all_there_is_no_probability():
    given = simulate(images=30, offsets=(-3.0, -3.0))
    probabilities_NC, found = calibrate(given.logits_NC, given.split.labels_NC, given.split.labels_NC != UNKNOWN)
    assert np.isnan(probabilities_NC).all() and not any(one.kind for one in found)


def drawn(random, labels, curve):
    """Scores of one category, and which entries are present."""
    logits_S = random.normal(0, 2, labels)
    return logits_S, random.random(labels) < curve(logits_S)


def a_curve(random, bent):
    """The truth of one category; they differ as those of trained methods do."""
    slope, offset = np.exp(random.normal(0, 0.3)), random.normal(0, 0.7)
    if bent:
        return lambda logits_S: 0.03 + 0.9 * expit(1.5 * slope * logits_S + offset)
    return lambda logits_S: expit(slope * logits_S + offset)


def mean_losses(labels, bent, repeats=40):
    """Mean Kullback-Leibler divergence from the truth: a category's own logistic curve, isotonic, shared logistic."""
    random, losses = np.random.default_rng(labels), []
    at = np.linspace(-4, 4, 200)
    for _ in range(repeats):
        curve = a_curve(random, bent)
        truth = curve(at)
        own = drawn(random, labels, curve)
        others = [drawn(random, labels, a_curve(random, bent)) for _ in range(20)]
        shared = [np.concatenate(parts) for parts in zip(*others, strict=True)]
        found = [fit("logistic", *own)(at), fit("isotonic", *own)(at), fit("logistic", *shared)(at)]
        losses.append([np.mean(truth * np.log(truth / p) + (1 - truth) * np.log((1 - truth) / (1 - p))) for p in found])
    return np.mean(losses, axis=0)


@pytest.mark.slow
def test_the_numbers_are_where_one_kind_overtakes_the_other():
    few_own, _, few_shared = mean_losses(2 * FEW, bent=False)
    assert few_own < 1.5 * few_shared
    more_own, _, more_shared = mean_losses(4 * FEW, bent=False)
    assert more_own < more_shared
    half_logistic, half_isotonic, _ = mean_losses(MANY // 4, bent=True)
    assert half_logistic < half_isotonic
    twice_logistic, twice_isotonic, _ = mean_losses(2 * MANY, bent=True)
    assert twice_isotonic < twice_logistic
