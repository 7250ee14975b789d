"""Evidence is what the stored files say, computed once; every number here is computed another way."""

import json
import math

import numpy as np
import pytest

from mlrpl_bench.data import protocol
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.evaluation import metrics, thresholds
from mlrpl_bench.evaluation.influences import influences
from mlrpl_bench.leaderboard import evidence
from mlrpl_bench.leaderboard.evidence import Collector, loss_fluctuation, without_labels
from mlrpl_bench.models.method import Recipe
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import cell, contents, finished, method, study


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A study, a store and a function that puts a made-up record of a ratio there."""
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    of, store = study(tmp_path / "set.py"), ResultStore(tmp_path / "results")
    entry = method(tmp_path / "plain.py")

    def put(ratio=0.5, **changes):
        return store.write(finished(of.job(entry, ratio, 0, 0, {}).cell, **changes), {})

    return of, put


def collector(of) -> Collector:
    return Collector(of.train, of.test, of.masks)


def test_influences_are_those_of_the_stored_scores(world):
    of, put = world
    record = put()
    with np.load(record.folder / "scores.npz") as arrays:
        expected = influences(arrays["scores"], of.test.labels_NC)
    found = collector(of).collect(record).influences
    for name, influences_N in expected.items():
        np.testing.assert_allclose(found[name], influences_N, rtol=1e-6)


def test_recovery_ranks_the_hidden_entries_and_no_other(world):
    of, put = world
    record = put(ratio=0.3)
    with np.load(record.folder / "train_scores.npz") as arrays:
        scores_NC = arrays["scores"]
    hidden_NC = ~of.masks(0.3, 0)
    by_category = []
    for column in range(4):
        rows = np.flatnonzero(hidden_NC[:, column])
        labels_N = of.train.labels_NC[rows, column]
        if (labels_N == PRESENT).any():
            by_category.append(metrics.evaluate(scores_NC[rows, column, None], labels_N[:, None])["mAP"])
    found = collector(of).collect(record)
    assert found.recovery == pytest.approx(np.mean(by_category))
    assert np.nanmean(found.recovery_AP_C) == pytest.approx(np.mean(by_category))


def test_a_method_that_knows_the_hidden_labels_recovers_them_all(world):
    of, put = world
    knows_NC = np.where(of.train.labels_NC == PRESENT, 1, -1).astype(np.float32)
    assert collector(of).collect(put(ratio=0.3, train_scores_NC=knows_NC)).recovery == 1.0
    # and what it says of the known entries does not count
    lies_NC = np.where(of.masks(0.3, 0), -knows_NC, knows_NC)
    assert collector(of).collect(put(ratio=0.3, train_scores_NC=lies_NC)).recovery == 1.0


def test_where_nothing_is_hidden_nothing_is_recovered(world):
    of, put = world
    assert np.isnan(collector(of).collect(put(ratio=1.0)).recovery)


@pytest.mark.parametrize(
    ("term", "hyperparameters", "expected"),
    [
        (
            [9, 9, 0, 0, 1, 0, 1, 0],
            {},
            2.0,
        ),  # from step 2 on: differences 0, 1, -1, 1, -1; second ones 1, -2, 2, -2: 7/4
        ([5, 5, 8, 7, 6, 5, 4, 3], {}, 0.0),  # a steady fall
        ([0, 1, 0, 1, 0, 1, 0, 1], {"start": 0}, 2.0),
        ([9, 9, 9, 9, 4, 3, 2, 1], {"start": 10}, 0.0),
    ],
)
def test_fluctuation_is_the_mean_second_difference_from_the_start_on(world, term, hyperparameters, expected):
    _of, put = world
    record = put(steps={"partial_bce": np.array(term, dtype=np.float32)})
    changed = cell(hyperparameters=hyperparameters, recipe=Recipe(epochs=4, batch=4))
    record = type(record)(changed, record.folder, record.metrics, record.content)
    assert loss_fluctuation(record) == pytest.approx(7 / 4 if term[0] == 9 and not hyperparameters else expected)


def test_a_method_without_the_term_has_no_fluctuation(world):
    _, put = world
    assert np.isnan(loss_fluctuation(put()))


def test_evidence_is_made_once_and_then_read(world, monkeypatch):
    of, put = world
    record = put()
    first = collector(of).collect(record)
    monkeypatch.setattr(Collector, "_made", lambda *_: pytest.fail("made again"))
    again = collector(of).collect(record)
    for name in metrics.REPORTED:
        np.testing.assert_array_equal(again.influences[name], first.influences[name])
    np.testing.assert_array_equal(again.recovery_AP_C, first.recovery_AP_C)
    assert (again.recovery, np.isnan(again.loss_fluctuation)) == (first.recovery, True)


@pytest.mark.parametrize("damage", ["cut", "other scores", "another version"])
def test_evidence_that_is_not_of_these_files_is_made_again(world, monkeypatch, damage):
    of, put = world
    record = put()
    before = collector(of).collect(record).influences["mAP"]
    path = record.folder / "evidence.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "another version":
        monkeypatch.setattr(evidence, "VERSION", evidence.VERSION + 1)
    else:
        record.content["files"]["scores.npz"]["sha256"] = "0" * 64
    made, make = [], Collector._made
    monkeypatch.setattr(Collector, "_made", lambda *asked: made.append(asked) or make(*asked))
    np.testing.assert_array_equal(collector(of).collect(record).influences["mAP"], before)
    assert len(made) == 1


def test_a_folder_that_may_not_be_written_to_gives_evidence_all_the_same(world, monkeypatch):
    of, put = world
    record = put()
    before = contents(record.folder)

    def refuse(path, content):
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(evidence, "write_atomically", refuse)
    assert 0 <= collector(of).collect(record).recovery <= 1
    assert contents(record.folder) == before


def test_scores_that_do_not_give_the_metrics_of_their_record_are_refused(world):
    of, put = world
    record = put()
    record.metrics["OF1"] += 0.01
    with pytest.raises(UserError, match=r"its scores give OF1 .* and its record says"):
        collector(of).collect(record)


@pytest.mark.parametrize("name", ["scores.npz", "train_scores.npz"])
def test_scores_of_other_images_are_refused(world, name):
    of, put = world
    record = put()
    np.savez(record.folder / name, scores=np.zeros((5, 4), dtype=np.float32))
    with pytest.raises(UserError, match=rf"{name} holds scores of shape \(5, 4\)"):
        collector(of).collect(record)


def test_another_mask_than_that_of_the_training_is_refused(world):
    of, put = world
    record = put()
    other = Collector(of.train, of.test, lambda ratio, seed: np.ones(of.train.labels_NC.shape, dtype=bool))
    with pytest.raises(UserError, match="the mask that it was trained with is not the one drawn here"):
        other.collect(record)
    assert json.loads((record.folder / "record.json").read_text())["cell"]["mask_hash"]


def test_labels_and_scores_of_the_tiny_set_fit_together(world):
    of, _ = world
    assert set(np.unique(of.test.labels_NC)) == {PRESENT, ABSENT}


def test_metrics_that_were_changed_after_evidence_was_made_are_noticed(world):
    of, put = world
    record = put()
    collector(of).collect(record)
    record.metrics["mAP"] = 0.99
    with pytest.raises(UserError, match="its scores give mAP"):
        collector(of).collect(record)


def test_a_record_of_other_categories_is_refused(world):
    of, put = world
    record = put()
    record.metrics["AP_C"] = record.metrics["AP_C"][:-1]
    with pytest.raises(UserError, match="not one AP_C for each category"):
        collector(of).collect(record)


def test_thresholds_are_chosen_on_the_labels_that_the_method_was_given(world):
    of, put = world
    record = put(ratio=0.5)
    with np.load(record.folder / "scores.npz") as test, np.load(record.folder / "train_scores.npz") as train:
        scores_NC, train_scores_NC = test["scores"], train["scores"]
    known_NC = np.where(of.masks(0.5, 0), of.train.labels_NC, protocol.UNKNOWN)
    thresholds_C = thresholds.chosen(train_scores_NC, known_NC)
    found = collector(of).collect(record)
    assert found.chosen == thresholds.evaluate(scores_NC, of.test.labels_NC, thresholds_C)
    assert found.oracle == thresholds.oracle(scores_NC, of.test.labels_NC, [thresholds_C])
    assert found.oracle["OF1"] >= max(found.chosen["OF1"], record.metrics["OF1"])


def test_hidden_labels_do_not_move_the_thresholds(world):
    of, put = world
    random = np.random.default_rng(5).normal(size=(12, 4)).astype(np.float32)
    hidden_NC = ~of.masks(0.5, 0)
    other = np.where(hidden_NC, -random, random)
    first, second = (collector(of).collect(put(train_scores_NC=each)).chosen for each in (random, other))
    assert first == second


def test_the_course_of_the_metric_is_that_of_the_history(world):
    of, put = world
    history = [{"epoch": 0, "test.mAP": 0.5}, {"epoch": 1, "test.mAP": 0.25}]
    assert collector(of).collect(put(history=history)).course_E.tolist() == [0.5, 0.25]
    assert collector(of).collect(put(ratio=0.9, history=[{"epoch": 0}])).course_E.tolist() == []


def test_an_epoch_without_evaluation_has_no_number(world):
    of, put = world
    course_E = collector(of).collect(put(history=[{"test.mAP": math.nan}, {"test.mAP": 0.25}])).course_E
    assert np.isnan(course_E[0]) and course_E[1] == 0.25


@pytest.mark.parametrize("values", ["much", "7", "nan", "0.5,", ""])
def test_a_history_that_is_damaged_is_refused(world, values):
    of, put = world
    record = put()
    rows = [f"{epoch},{value}" for epoch, value in enumerate(values.split(","))]
    (record.folder / "history.csv").write_text("\n".join(["epoch,test.mAP", *rows, ""]))
    with pytest.raises(UserError, match=r"history.csv is damaged .* move its folder away"):
        collector(of).collect(record)


def test_what_is_kept_is_read_back_as_it_was(world, monkeypatch):
    of, put = world
    record = put()
    first = collector(of).collect(record)
    monkeypatch.setattr(Collector, "_made", lambda *_: pytest.fail("made again"))
    again = collector(of).collect(record)
    assert (again.chosen, again.oracle) == (first.chosen, first.oracle)
    np.testing.assert_array_equal(again.course_E, first.course_E)


def test_without_labels_what_is_kept_counts_and_else_there_are_no_influences(world):
    of, put = world
    record = put()
    bare = without_labels(record)
    assert bare.influences == {} and np.isnan(bare.recovery) and bare.course_E.tolist() == [0.25, 0.25]
    made = collector(of).collect(record)
    assert without_labels(record).recovery == made.recovery
    assert set(without_labels(record).influences) == set(made.influences)
