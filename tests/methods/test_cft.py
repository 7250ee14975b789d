"""Category-wise fine-tuning against recorded numbers, and what it does after a training."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.finishing import KnownEntries
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.tools.conformance import checks
from mlrpl_bench.tools.conformance.sample import Sample, Size
from mlrpl_bench.training.trainer import Failed, train
from tests.helpers.golden import assert_recorded, golden

METHODS = load_methods()
STEP = METHODS["partial_bce+cft"].step.cls
CODE = sys.modules[STEP.__module__]
RECORDED = golden("cft_bp")


def step(**changes):
    return STEP(STEP.Hyperparameters(**changes))


def recorded_entries(category):
    features_KD = torch.cat([RECORDED["train/features_ND"], RECORDED["validation/features_MD"]])
    labels_K = torch.cat([RECORDED["train/labels_NC"], RECORDED["validation/labels_MC"]])[:, category]
    held_K = torch.arange(len(labels_K)) >= len(RECORDED["train/labels_NC"])
    known_K = labels_K != UNKNOWN
    weights = RECORDED["weight_CD"][category], RECORDED["bias_C"][category]
    return KnownEntries(category, features_KD[known_K], labels_K[known_K] == PRESENT, held_K[known_K], *weights)


def recorded_step(**changes):
    recorded = {name: RECORDED[name].item() for name in ("epochs", "patience", "learning_rate", "margin")}
    usual = {"refit_steps": recorded["epochs"], "patience": recorded["patience"], "fewest": 1}
    return step(**usual | {"refit_rate": recorded["learning_rate"], "refit_margin": recorded["margin"]} | changes)


def test_the_first_step_is_the_recorded_one():
    weight_D, bias = recorded_step(choice="none", refit_steps=1).refit(recorded_entries(0), 0)
    assert_recorded(weight_D, RECORDED["first_step/weight_1D"][0])
    assert_recorded(bias, RECORDED["first_step/bias_1"][0])


@pytest.mark.parametrize("category", range(3))
def test_the_weights_of_the_best_step_are_the_recorded_ones(category):
    weight_D, bias = recorded_step().refit(recorded_entries(category), 0)
    assert_recorded(weight_D, RECORDED["out/weight_CD"][category])
    assert_recorded(bias, RECORDED["out/bias_C"][category])


@pytest.mark.parametrize("category", range(3))
def test_as_many_steps_are_taken_as_are_recorded(category, monkeypatch):
    scores, score = [], CODE._score
    monkeypatch.setattr(CODE, "_score", lambda *given: scores.append(score(*given)) or scores[-1])
    recorded_step().refit(recorded_entries(category), 0)
    assert len(scores) == 1 + (~RECORDED["validation_score_KE"][category].isnan()).sum()


@pytest.mark.parametrize("category", range(3))
def test_the_average_precisions_of_the_steps_are_the_recorded_ones(category):
    curve = RECORDED["validation_score_KE"][category]
    one = recorded_step(choice="shared", refit_steps=int((~curve.isnan()).sum()))
    assert one.refit(recorded_entries(category), 0) is None
    torch.testing.assert_close(torch.tensor(one._curves[category][1:]), curve[~curve.isnan()], rtol=0, atol=1e-5)


def test_a_category_without_positives_or_with_too_few_held_out_is_left():
    assert recorded_step().refit(recorded_entries(3), 0) is None
    entries = recorded_entries(0)
    for kind_K in (entries.present_K, ~entries.present_K):
        held_out = int((kind_K & entries.held_K).sum())
        lacking = KnownEntries(
            0, *(each[~kind_K | entries.held_K] for each in (entries.features_KD, entries.present_K, entries.held_K)),
            entries.weight_D, entries.bias,
        )  # fmt: skip
        assert recorded_step().refit(lacking, 0) is None
        assert recorded_step(fewest=held_out + 1).refit(entries, 0) is None
    few = min(int((kind_K & entries.held_K).sum()) for kind_K in (entries.present_K, ~entries.present_K))
    assert recorded_step(fewest=few).refit(entries, 0) is not None


def slow_average_precision(scores, present):
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    precisions, hits = [], 0
    for rank, row in enumerate(order, start=1):
        hits += present[row]
        if present[row]:
            precisions.append(hits / rank)
    return sum(precisions) / hits


def held_score(entries, weight_D, bias):
    rows = entries.held_K.nonzero().flatten().tolist()
    scores = [float(entries.features_KD[row] @ weight_D + bias) for row in rows]
    return slow_average_precision(scores, [bool(entries.present_K[row]) for row in rows])


@pytest.mark.parametrize("category", range(3))
def test_a_refit_by_category_never_lowers_what_it_is_chosen_by(category):
    entries = recorded_entries(category)
    fitted = recorded_step(refit_rate=1.0).refit(entries, 0)  # steps far too long
    assert held_score(entries, *fitted) >= held_score(entries, entries.weight_D, entries.bias)


def test_a_shared_number_of_steps_is_the_best_of_the_mean_over_categories():
    each, one = [recorded_entries(category) for category in range(3)], recorded_step(choice="shared", refit_steps=6)
    assert [one.refit(entries, 0) for entries in each] == [None] * 3
    after = lambda entries, steps: (  # noqa: E731
        (entries.weight_D, entries.bias)
        if steps == 0
        else recorded_step(choice="none", refit_steps=steps).refit(entries, 0)
    )
    means = [sum(held_score(entries, *after(entries, steps)) for entries in each) / 3 for steps in range(7)]
    best = max(range(7), key=lambda steps: (means[steps], -steps))
    assert best > 0
    for entries in each:
        found, expected = one.refit(entries, 1), after(entries, best)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert one.scalars() == {"refitted_categories": 3, "changed_categories": 3, "refit_steps": best}


def test_a_tenth_of_the_rows_is_held_out_by_seed_alike_for_the_control():
    held_N = step().held_out(200, seed=1)
    assert held_N.sum() == 20
    assert torch.equal(held_N, step(refit_steps=0).held_out(200, seed=1))
    assert not torch.equal(held_N, step().held_out(200, seed=2))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(METHODS["partial_bce"], tmp_path_factory.mktemp("images"), size=Size(60, 7, 3, 10))


SHORT = {"refit_steps": "30", "refit_rate": "0.03", "fewest": "1"}


@pytest.fixture(scope="module")
def job(sample):
    def job(name, seed=0, **changes):
        entry = METHODS[name]
        options = entry.hyperparameters({**(SHORT if "+cft" in name else {}), **changes})
        usual = sample.job(0.9).cell
        recipe = replace(entry.cls.recipe.resolve(sample.preset), epochs=2)
        return Job(replace(usual, method=name, recipe=recipe, seed=seed), entry.cls, options)

    return job


@pytest.fixture(scope="module")
def finish(sample):
    def finish(*jobs, workbench=None, states=None):
        ends = list(train(jobs, workbench or sample.workbench(), states))
        assert not [end for end in ends if isinstance(end, Failed)], ends
        return [end for end in ends if isinstance(end, Finished)]

    return finish


def equal(one, other):
    return np.array_equal(one.scores_NC, other.scores_NC) and all(
        torch.equal(one.weights[name], other.weights[name]) for name in {*one.weights, *other.weights}
    )


HEADS = {"partial_bce": ("classifier.weight", "classifier.bias")}
HEADS["ssgrl"] = ("network.head.classifiers_CD", "network.head.bias_C")


@pytest.mark.parametrize("name", HEADS)
def test_only_the_last_layer_differs_from_the_control(name, job, finish):
    base, refitted = finish(job(f"{name}+held"), job(f"{name}+cft"))
    differing = {each for each in base.weights if not torch.equal(base.weights[each], refitted.weights[each])}
    assert differing == set(HEADS[name])
    assert not np.array_equal(base.scores_NC, refitted.scores_NC)
    last = refitted.history[-1]
    assert last["scalar.refitted_categories"] == 3 and last["scalar.changed_categories"] > 0
    assert base.history[-1]["scalar.refitted_categories"] == 0
    assert "scalar.refitted_categories" not in refitted.history[0]
    assert last["test.mAP"] == refitted.metrics["mAP"]


def test_the_control_is_the_method_with_those_rows_hidden(job, finish, sample):
    workbench = sample.workbench()
    usual, held_N = workbench.masks, step().held_out(60, seed=0).numpy()
    workbench.masks = lambda ratio, seed: usual(ratio, seed) & ~held_N[:, None]
    assert equal(finish(job("partial_bce+held"))[0], finish(job("partial_bce"), workbench=workbench)[0])


def test_no_step_leaves_the_scores_to_the_bit(job, finish):
    assert equal(*finish(job("partial_bce+held"), job("partial_bce+cft", refit_steps="0")))


def test_ema_and_step_go_together(job, finish):
    base, refitted = finish(job("partial_bce_ema+held"), job("partial_bce_ema+cft"))
    assert np.array_equal(base.other_weights.scores_NC, refitted.other_weights.scores_NC)  # raw: not refitted
    assert not np.array_equal(base.scores_NC, refitted.scores_NC)


def test_the_method_sees_no_label_of_a_held_out_row_and_the_step_sees_them(sample, job, finish, monkeypatch):
    held_N, given, seen = step().held_out(60, seed=0), [], []
    cls = METHODS["partial_bce"].cls
    losses, refit = cls.losses, STEP.refit
    monkeypatch.setattr(
        cls, "losses", lambda self, batch, progress: (given.append(batch), losses(self, batch, progress))[1]
    )
    monkeypatch.setattr(
        STEP, "refit", lambda self, entries, round_: (seen.append(entries), refit(self, entries, round_))[1]
    )
    finish(job("partial_bce+cft"))
    labels_NC = torch.full((60, 3), UNKNOWN, dtype=torch.int8)
    for batch in given:
        labels_NC[batch.index_B] = batch.labels_BC
    assert not labels_NC[held_N].any() and (labels_NC[~held_N] != UNKNOWN).float().mean() > 0.8
    truth_NC = torch.from_numpy(sample.splits["train"].labels_NC)
    assert [entries.category for entries in seen] == [0, 1, 2]
    known_NC = torch.from_numpy(sample.workbench().masks(0.9, 0)) & (truth_NC != UNKNOWN)
    for category, entries in enumerate(seen):
        rows_K = known_NC[:, category].nonzero().flatten()
        assert torch.equal(entries.held_K, held_N[rows_K])
        assert torch.equal(torch.where(entries.present_K, PRESENT, ABSENT), truth_NC[rows_K, category].long())


def test_a_decoder_with_places_for_more_classifiers_than_categories_is_refitted(job, finish, monkeypatch):
    monkeypatch.setattr(STEP, "refit", lambda _, entries, __: (torch.zeros_like(entries.weight_D), torch.tensor(2.0)))
    (refitted,) = finish(job("ml_decoder+cft", queries="2"))
    assert refitted.scores_NC.shape[1] == 3 and np.all(refitted.scores_NC == 2)


@pytest.mark.parametrize("name", ["sarb+cft", "ml_decoder+cft", "q2l+cft"])
def test_a_row_with_a_step_passes_every_check(name):
    assert {check: problem for check, problem in checks.run(METHODS[name]) if problem is not None} == {}


@pytest.mark.parametrize(
    ("name", "said"), [("sr+cft", "no last linear layer"), ("kggr+cft", "are not those of one last")]
)
def test_a_method_without_a_last_linear_layer_is_refused_before_training(name, said, sample, job):
    (failed,) = train([job(name)], sample.workbench())
    assert isinstance(failed, Failed) and said in failed.reason and "\n" not in failed.reason
