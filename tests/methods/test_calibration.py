"""Calibration as a finishing step, beside scikit-learn's logistic regression, and what it does after a training."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from mlrpl_bench.models.finishing import KnownEntries
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.tools.conformance.sample import Sample, Size
from mlrpl_bench.training.trainer import Failed, train

METHODS = load_methods()
STEP = METHODS["partial_bce+calibrated"].step.cls
CODE = sys.modules[STEP.__module__]


def step(**changes):
    return STEP(STEP.Hyperparameters(**changes))


def entries_of(category=0, rows=400, seed=0, present=0.3):
    """Features that tell present from absent, under weights that are five times too large and shifted."""
    random = torch.Generator().manual_seed(seed)
    present_K = torch.rand(rows, generator=random) < present
    features_KD = torch.randn(rows, 4, generator=random) + present_K[:, None]
    return KnownEntries(
        category, features_KD, present_K, torch.rand(rows, generator=random) < 0.5, torch.ones(4) * 5, torch.tensor(3.0)
    )


def logits_of(entries, weight_D=None, bias=None):
    return entries.features_KD @ (entries.weight_D if weight_D is None else weight_D) + (
        entries.bias if bias is None else bias
    )


def slow_platt(logits_K, present_K):
    """Each label stands twice, as present and as absent, with the weights of Platt's targets."""
    p, a = int(present_K.sum()), int((~present_K).sum())
    target_K = np.where(present_K, (p + 1) / (p + 2), 1 / (a + 2))
    scores = np.concatenate([logits_K, logits_K])[:, None].astype(np.float64)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        scores, np.repeat([1, 0], len(logits_K)), sample_weight=np.concatenate([target_K, 1 - target_K])
    )
    return fitted.coef_.item(), fitted.intercept_.item()


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_that_of_a_logistic_regression_on_platts_targets(seed):
    entries = entries_of(seed=seed)
    found = CODE.platt(logits_of(entries), entries.present_K)
    assert found == pytest.approx(slow_platt(logits_of(entries).numpy(), entries.present_K.numpy()), rel=1e-4)


def test_scores_that_separate_the_labels_have_a_finite_curve():
    slope, shift = CODE.platt(torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([False, False, True, True]))
    assert 0 < slope < 10 and abs(shift) < 1e-6


def refitted(one, *all_entries):
    assert [one.refit(entries, 0) for entries in all_entries] == [None] * len(all_entries)
    return [one.refit(entries, 1) for entries in all_entries]


def test_held_out_rows_alone_decide_and_their_loss_falls():
    entries = entries_of()
    ((weight_D, bias),) = refitted(step(), entries)
    held_K = entries.held_K
    loss = lambda logits_K: F.binary_cross_entropy_with_logits(logits_K[held_K], entries.present_K[held_K].float())  # noqa: E731
    assert loss(logits_of(entries, weight_D, bias)) < loss(logits_of(entries)) - 0.5
    others = replace(
        entries,
        present_K=torch.where(held_K, entries.present_K, ~entries.present_K),
        features_KD=torch.where(held_K[:, None], entries.features_KD, 0),
    )
    ((other_D, other_bias),) = refitted(step(), others)
    assert torch.equal(weight_D, other_D) and torch.equal(bias, other_bias)


def test_the_order_of_the_images_stays():
    entries = entries_of()
    ((weight_D, bias),) = refitted(step(), entries)
    torch.testing.assert_close(weight_D / weight_D[0], entries.weight_D / entries.weight_D[0])
    assert torch.equal(logits_of(entries).argsort(), logits_of(entries, weight_D, bias).argsort())


def test_a_category_with_few_held_out_labels_shares_the_curve_of_all():
    many, few = entries_of(), entries_of(category=1, rows=20, seed=1)
    one = step()
    _, (weight_D, bias) = refitted(one, many, few)
    held = [(logits_of(each)[each.held_K], each.present_K[each.held_K]) for each in (many, few)]
    slope, shift = CODE.platt(*(torch.cat(parts) for parts in zip(*held, strict=True)))
    torch.testing.assert_close(weight_D, slope * few.weight_D)
    torch.testing.assert_close(bias, slope * few.bias + shift)
    assert one.scalars()["calibrated_categories"] == 2 and one.scalars()["with_shared_curve"] == 1


def test_the_shared_curve_is_fitted_once(monkeypatch):
    fits, fitted = [], CODE.fitted
    monkeypatch.setattr(CODE, "fitted", lambda *given: fits.append(given) or fitted(*given))
    refitted(step(fewest=100), *(entries_of(category, rows=200, seed=category) for category in range(6)))
    assert len(fits) == 1


@pytest.mark.parametrize("present", [0.0, 1.0])
def test_nothing_changes_where_only_one_state_is_known(present):
    one = step()
    assert refitted(one, entries_of(present=present)) == [None]
    assert one.scalars() == {"calibrated_categories": 0, "with_shared_curve": 0, "mean_slope": 0}


def test_scores_that_fall_with_the_labels_are_left():
    assert refitted(step(), replace(entries_of(), weight_D=-torch.ones(4))) == [None]


def test_a_category_whose_scores_fall_with_its_labels_does_not_share_a_curve_that_rises():
    good = [entries_of(category, seed=category) for category in range(3)]
    one = step()
    *curves, left = refitted(one, *good, replace(entries_of(3), weight_D=-torch.ones(4)))
    assert None not in curves and left is None
    assert one.scalars()["calibrated_categories"] == 3 and one.scalars()["with_shared_curve"] == 0


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_scores_that_are_one_number_are_left(spread):
    entries = entries_of()
    flat = replace(entries, weight_D=spread * entries.weight_D, bias=torch.tensor(0.1))
    assert refitted(step(), flat) == [None]


def test_the_rows_held_out_are_those_of_the_control():
    assert torch.equal(step().held_out(200, seed=1), METHODS["ssgrl+held"].step.cls.held_out(None, 200, seed=1))


@pytest.mark.parametrize("name", ["partial_bce", "ssgrl", "ml_decoder"])
def test_after_a_training_only_the_last_layer_differs_from_the_control_and_mAP_stays(name, tmp_path):
    sample = Sample(METHODS["partial_bce"], tmp_path, size=Size(200, 7, 3, 10))

    def job(row):
        entry = METHODS[row]
        changes = {"fewest": "2"} if row.endswith("calibrated") else {}
        recipe = replace(entry.cls.recipe.resolve(sample.preset), epochs=4)
        return Job(replace(sample.job(0.9).cell, method=row, recipe=recipe), entry.cls, entry.hyperparameters(changes))

    ends = list(train([job(f"{name}+held"), job(f"{name}+calibrated")], sample.workbench(), None))
    assert not [end for end in ends if isinstance(end, Failed)], ends
    base, calibrated = [end for end in ends if isinstance(end, Finished)]
    assert not np.array_equal(base.scores_NC, calibrated.scores_NC)
    assert calibrated.metrics["mAP"] == pytest.approx(base.metrics["mAP"], abs=1e-6)
    assert calibrated.history[-1]["scalar.calibrated_categories"] > 0
    differing = {each for each in base.weights if not torch.equal(base.weights[each], calibrated.weights[each])}
    assert 1 <= len(differing) <= 2
