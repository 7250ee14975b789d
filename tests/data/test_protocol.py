"""The mask is the reference's stream, bit for bit, and hides what it says."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.data.protocol import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    check_ratio,
    check_ratios,
    hide,
    known_mask,
    known_share,
    mask_hash,
)
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import seed_of

SHAPE = (200, 20)


@pytest.mark.parametrize("ratio", NINE_RATIOS)
@pytest.mark.parametrize("seed", [0, 1, 20])
def test_the_mask_is_numpys_legacy_stream_below_the_ratio(ratio, seed):
    np.testing.assert_array_equal(
        known_mask(SHAPE, ratio, seed), np.random.RandomState(seed).random_sample(SHAPE) < ratio
    )


def test_the_first_draws_of_seed_0_are_the_ones_every_numpy_makes():
    # 0.5488 0.7152 0.6028 / 0.5449 0.4237 0.6459: a frozen part of NumPy's interface.
    np.testing.assert_array_equal(known_mask((2, 3), 0.6), [[True, False, False], [True, True, False]])


def test_a_draw_equal_to_the_ratio_is_not_known():
    first = np.random.RandomState(0).random_sample()
    assert not known_mask((1, 1), first)[0, 0]
    assert known_mask((1, 1), np.nextafter(first, 1))[0, 0]


def test_rows_are_drawn_one_after_the_other():
    np.testing.assert_array_equal(known_mask((5, 4), 0.5).ravel(), known_mask((1, 20), 0.5).ravel())


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 2**32 - 1))
def test_what_a_lower_ratio_knows_a_higher_one_knows_too(one, other, seed):
    low, high = sorted((one, other))
    assert (known_mask((30, 5), low, seed) <= known_mask((30, 5), high, seed)).all()


def test_numpys_global_state_stays_as_it_was():
    np.random.seed(5)
    expected = np.random.random_sample(3)
    np.random.seed(5)
    known_mask(SHAPE, 0.5)
    np.testing.assert_array_equal(np.random.random_sample(3), expected)


def test_numpys_global_state_does_not_reach_the_mask():
    np.random.seed(1)
    one = known_mask(SHAPE, 0.5)
    np.random.seed(2)
    np.testing.assert_array_equal(known_mask(SHAPE, 0.5), one)


def test_everything_is_known_at_ratio_1():
    assert known_mask(SHAPE, 1).all()


@pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, 10, math.nan, math.inf])
def test_a_ratio_outside_its_bounds_is_refused(ratio):
    with pytest.raises(UserError, match=r"outside \(0, 1\]"):
        known_mask(SHAPE, ratio)
    with pytest.raises(UserError, match=r"outside \(0, 1\]"):
        check_ratio(ratio)


def test_an_unknown_scheme_is_refused_with_the_choices():
    with pytest.raises(UserError, match="no mask scheme 'hpc'; there are: hcp"):
        known_mask(SHAPE, 0.5, scheme="hpc")


def test_hide_makes_unknown_what_the_mask_leaves_out():
    labels_NC = np.array([[PRESENT, ABSENT], [PRESENT, ABSENT]], dtype=np.int8)
    hidden_NC = hide(labels_NC, np.array([[True, True], [False, False]]))
    np.testing.assert_array_equal(hidden_NC, [[PRESENT, ABSENT], [UNKNOWN, UNKNOWN]])
    assert hidden_NC.dtype == np.int8


def test_hide_leaves_the_complete_labels_as_they_are():
    labels_NC = np.full((3, 2), PRESENT, dtype=np.int8)
    hidden_NC = hide(labels_NC, np.ones((3, 2), dtype=bool))
    hidden_NC[:] = ABSENT
    assert (labels_NC == PRESENT).all()


def test_the_mask_hash_is_sha256_of_shape_and_bits():
    mask_NC = np.array([[True, False, True]])
    assert mask_hash(mask_NC) == hashlib.sha256(b"(1, 3)" + bytes([0b10100000])).hexdigest()


def test_the_mask_hash_tells_bits_and_shapes_apart():
    mask_NC = known_mask((4, 6), 0.5)
    other_bit_NC = mask_NC.copy()
    other_bit_NC[3, 5] ^= True
    masks = [mask_NC, other_bit_NC, mask_NC.reshape(6, 4), mask_NC.reshape(3, 8)]
    assert len({mask_hash(mask) for mask in masks}) == 4


def test_the_mask_hash_does_not_depend_on_the_memory_layout():
    mask_NC = known_mask((4, 6), 0.5)
    assert mask_hash(np.asfortranarray(mask_NC)) == mask_hash(mask_NC)


def test_the_known_share_is_counted_for_each_state_apart():
    labels_NC = np.array([[PRESENT, ABSENT, ABSENT], [UNKNOWN, ABSENT, ABSENT]], dtype=np.int8)
    mask_NC = np.array([[False, True, True], [True, True, False]])
    assert known_share(labels_NC, mask_NC) == {"present": 0.0, "absent": 0.75}


def test_the_known_share_of_a_state_that_does_not_occur_is_nan():
    assert math.isnan(known_share(np.full((1, 2), ABSENT, dtype=np.int8), np.ones((1, 2), dtype=bool))["present"])


# Other schemes


def test_by_id_an_image_keeps_its_mask_wherever_it_stands():
    ids = [10, 11, 12, 13]
    mask_NC = known_mask((4, 50), 0.5, 2, "by_id", ids=ids)
    np.testing.assert_array_equal(known_mask((2, 50), 0.5, 2, "by_id", ids=[13, 10]), mask_NC[[3, 0]])
    assert (mask_NC != known_mask((4, 50), 0.5, 3, "by_id", ids=ids)).any()
    assert (known_mask((4, 50), 0.2, 2, "by_id", ids=ids) <= mask_NC).all()
    many_NC = known_mask((2000, 50), 0.3, 0, "by_id", ids=range(2000))
    assert many_NC.mean() == pytest.approx(0.3, abs=0.01) and known_mask((4, 50), 1, 0, "by_id", ids=ids).all()


def test_positives_only_knows_a_share_of_the_present_labels_and_no_absent_one():
    labels_NC = np.where(np.random.default_rng(0).random((2000, 10)) < 0.3, PRESENT, ABSENT).astype(np.int8)
    mask_NC = known_mask(labels_NC.shape, 0.4, 0, "positives_only", labels_NC=labels_NC)
    assert not mask_NC[labels_NC == ABSENT].any()
    np.testing.assert_array_equal(mask_NC, known_mask(labels_NC.shape, 0.4) & (labels_NC == PRESENT))
    everything_NC = known_mask(labels_NC.shape, 1, 0, "positives_only", labels_NC=labels_NC)
    np.testing.assert_array_equal(everything_NC, labels_NC == PRESENT)


def test_single_positive_knows_one_present_label_of_each_image_that_has_any():
    labels_NC = np.where(np.random.default_rng(0).random((2000, 4)) < 0.5, PRESENT, ABSENT).astype(np.int8)
    mask_NC = known_mask(labels_NC.shape, 1, 0, "single_positive", labels_NC=labels_NC)
    np.testing.assert_array_equal(mask_NC.sum(axis=1), (labels_NC == PRESENT).any(axis=1))
    assert (labels_NC[mask_NC] == PRESENT).all()
    full_N = (labels_NC == PRESENT).all(axis=1)  # here each of the four is as likely
    assert (mask_NC[full_N].mean(axis=0) > 0.1).all()
    with pytest.raises(UserError, match="no known ratio"):
        known_mask(labels_NC.shape, 0.5, 0, "single_positive", labels_NC=labels_NC)


def test_ratios_that_a_table_would_head_alike_are_refused():
    check_ratios([0.5, 0.500001, 1, 1e-9])
    check_ratios([0.5, 0.5])  # one ratio named twice
    line = r"the known ratios 0\.5 and 0\.5000000001 are both 50 % in a table; leave one out"
    with pytest.raises(UserError, match=line):
        check_ratios([0.1, 0.5, 0.5000000001])
    with pytest.raises(UserError, match=r"known ratio 1\.5 is outside"):
        check_ratios([0.1, 1.5])


SCHEMES_AND_RATIOS = [("hcp", 0.4), ("hcp", 1.0), ("by_id", 0.4), ("by_id", 1.0), ("positives_only", 0.4)]
SCHEMES_AND_RATIOS += [("positives_only", 1.0), ("single_positive", 1.0)]


def before_labels_could_be_unknown(labels_NC, ratio, seed, scheme, ids):
    """The masks as they were drawn for complete labels, from the same streams, an entry at a time."""
    draws_NC = np.random.RandomState(seed).random_sample(labels_NC.shape)
    if scheme == "by_id":
        draws_NC = np.stack([np.random.default_rng(seed_of("mask", seed, i)).random(labels_NC.shape[1]) for i in ids])
    known_NC = np.zeros(labels_NC.shape, dtype=bool)
    for row, column in np.ndindex(labels_NC.shape):
        drawn = draws_NC[row, column] < ratio or ratio == 1
        present = labels_NC[row, column] == PRESENT
        if scheme == "single_positive":
            others = draws_NC[row][labels_NC[row] == PRESENT]
            known_NC[row, column] = present and draws_NC[row, column] == others.min()
        else:
            known_NC[row, column] = drawn and (present or scheme != "positives_only")
    return known_NC


label_matrices = st.tuples(st.integers(1, 9), st.integers(1, 6)).flatmap(
    lambda shape: st.lists(
        st.sampled_from([PRESENT, ABSENT]), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]
    ).map(lambda labels: np.array(labels, dtype=np.int8).reshape(shape))
)


@pytest.mark.parametrize(("scheme", "ratio"), SCHEMES_AND_RATIOS)
@settings(max_examples=25, deadline=None)
@given(label_matrices, st.integers(0, 2**32 - 1))
def test_masks_of_complete_labels_are_what_they_were_to_the_bit(scheme, ratio, labels_NC, seed):
    ids = [f"image {row}" for row in range(len(labels_NC))]
    mask_NC = known_mask(labels_NC.shape, ratio, seed, scheme, ids=ids, labels_NC=labels_NC)
    expected_NC = before_labels_could_be_unknown(labels_NC, ratio, seed, scheme, ids)
    np.testing.assert_array_equal(mask_NC, expected_NC)
    assert mask_hash(mask_NC) == mask_hash(expected_NC)


@pytest.mark.parametrize(("scheme", "ratio"), SCHEMES_AND_RATIOS)
@settings(max_examples=25, deadline=None)
@given(label_matrices, st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_a_label_that_nobody_gave_is_known_in_no_mask_and_changes_no_other_entry(scheme, ratio, labels_NC, seed, which):
    ids = [f"image {row}" for row in range(len(labels_NC))]
    given_NC = np.random.default_rng(which).random(labels_NC.shape) < 0.6
    some_NC = hide(labels_NC, given_NC)
    mask_NC = known_mask(labels_NC.shape, ratio, seed, scheme, ids=ids, labels_NC=some_NC)
    assert not mask_NC[~given_NC].any()
    if scheme == "single_positive":  # one of the labels that are left
        assert (mask_NC.sum(axis=1) == (some_NC == PRESENT).any(axis=1)).all()
    else:
        complete_NC = known_mask(labels_NC.shape, ratio, seed, scheme, ids=ids, labels_NC=labels_NC)
        np.testing.assert_array_equal(mask_NC, complete_NC & given_NC)
    if ratio == 1 and scheme in ("hcp", "by_id"):
        np.testing.assert_array_equal(mask_NC, given_NC)


def test_the_ratio_is_the_share_of_the_given_labels():
    labels_NC = np.where(np.random.default_rng(0).random((500, 20)) < 0.3, PRESENT, ABSENT).astype(np.int8)
    labels_NC[np.random.default_rng(1).random((500, 20)) < 0.7] = UNKNOWN
    mask_NC = known_mask(labels_NC.shape, 0.2, labels_NC=labels_NC)
    assert mask_NC.sum() / (labels_NC != UNKNOWN).sum() == pytest.approx(0.2, abs=0.02)
    assert known_share(labels_NC, mask_NC)["absent"] == pytest.approx(0.2, abs=0.03)
