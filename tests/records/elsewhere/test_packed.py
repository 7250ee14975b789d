"""What a pack changes of a record's files: scores in 16 bits, and what is left out."""

import numpy as np
import pytest

from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.records.elsewhere import packed
from mlrpl_bench.records.elsewhere.packed import Packed


def drawn(images, categories, centre, spread, seed=0):
    """Scores and labels of a method that tells positives apart by two spreads."""
    random = np.random.default_rng(seed)
    positive_NC = random.random((images, categories)) < 0.1
    noise_NC = random.normal(size=(images, categories))
    scores_NC = (centre + spread * (noise_NC + 2 * positive_NC)).astype(np.float32)
    return scores_NC, np.where(positive_NC, PRESENT, ABSENT).astype(np.int8)


@pytest.mark.parametrize(("centre", "spread"), [(-4.0, 0.005), (0.0, 0.005), (-4.0, 2.0), (300.0, 2.0)])
def test_rounding_keeps_order_sides_and_metrics_of_a_thousand_images(centre, spread):
    scores_NC, labels_NC = drawn(1000, 6, centre, spread)
    less_NC = packed.expanded(packed.rounded(scores_NC))
    assert less_NC.dtype == np.float32 and not np.array_equal(less_NC, scores_NC)
    assert np.array_equal(less_NC >= 0, scores_NC >= 0)
    assert np.abs(less_NC - scores_NC).max() < 0.02 * spread
    full, less = (metrics.evaluate(each, labels_NC, surely_logits=True) for each in (scores_NC, less_NC))
    for name in metrics.REPORTED:
        assert abs(full[name] - less[name]) < packed.tolerance_of(name)
    assert np.abs(full["AP_C"] - less["AP_C"]).max() < 1e-6


def test_half_precision_alone_would_move_the_map_of_a_method_that_separates_little():
    # so this is what the distances from the median, and the order, are for
    scores_NC, labels_NC = drawn(1000, 6, -4.0, 0.005)
    full = metrics.evaluate(scores_NC, labels_NC, surely_logits=True)["mAP"]
    half = metrics.evaluate(scores_NC.astype(np.float16).astype(np.float32), labels_NC, surely_logits=True)["mAP"]
    assert abs(full - half) > packed.tolerance_of("mAP")


def test_equal_scores_stay_equal_and_scores_beside_zero_keep_their_side():
    tiny = np.float32(1e-30)
    scores_NC = np.array([[5.0], [5.0], [tiny], [-tiny], [0.0], [9.0], [7.0]], dtype=np.float32)
    less_N = packed.expanded(packed.rounded(scores_NC))[:, 0]
    assert less_N[0] == less_N[1] < less_N[6] < less_N[5]
    assert (less_N >= 0).tolist() == [True, True, True, False, True, True, True]


def test_scores_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="further apart than float16"):
        packed.rounded(np.array([[0.0], [1.0], [1e6]], dtype=np.float32))


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("high"),
        lambda arrays: arrays.update(high=arrays["high"][1:]),
        lambda arrays: arrays.update(low=arrays["low"].astype(np.int32)),
        lambda arrays: arrays.update(centre=arrays["centre"][1:]),
    ],
)
def test_arrays_of_another_form_are_refused(change):
    arrays = packed.rounded(drawn(10, 3, 0, 1)[0])
    change(arrays)
    with pytest.raises(ValueError, match="rounded scores"):
        packed.expanded(arrays)


FACTS = {"bytes": 3, "sha256": "a" * 64}
FITTING = {"scores": "float16", "files": {"train_evidence.npz": FACTS}, "left_out": ["train_scores.npz"]}


def test_what_was_changed_is_read_back():
    found = Packed.from_json(FITTING)
    assert found.to_json() == FITTING and found.is_rounded()
    stated = {"train_scores.npz": FACTS, "scores.npz": FACTS}
    assert set(found.files_here(stated)) == {"scores.npz", "train_evidence.npz"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "it has"),
        ({"scores": "float8"}, "its scores are"),
        ({"left_out": "train_scores.npz"}, "leaves out"),
        ({"left_out": ["record.json"]}, "leaves out"),
        ({"left_out": []}, "must have one"),
        ({"files": []}, "no pack changes"),
        ({"files": {"steps.npz": FACTS}}, "no pack changes"),
        ({"files": {"train_evidence.npz": {**FACTS, "bytes": -1}}}, "the bytes of"),
        ({"files": {"train_evidence.npz": {**FACTS, "bytes": True}}}, "the bytes of"),
        ({"files": {"train_evidence.npz": {**FACTS, "sha256": "x"}}}, "the sha256 of"),
        ({"files": {"train_evidence.npz": 3}}, "does not state"),
    ],
)
def test_what_no_pack_says_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Packed.from_json({**FITTING, **change})
