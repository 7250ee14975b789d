"""Held-out entries of several categories are made a sample of all their entries, and count as what they tell."""

import numpy as np
import pytest

from mlrpl_bench.tools.filling.shared_rows import alike_shares, design_effect, evened, groups, is_uneven


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_equal_shares_are_taken_for_uneven_as_rarely_as_said(random):
    lots_C = random.integers(20, 400, 30)
    found = [is_uneven(held_out_C, lots_C - held_out_C) for held_out_C in random.binomial(lots_C, 0.3, (500, 30))]
    assert np.mean(found) < 0.03
    assert is_uneven(np.array([300, 200]), np.array([700, 800]))
    assert not is_uneven(np.array([0, 0]), np.array([7, 8])) and not is_uneven(np.array([7]), np.array([0]))


def test_each_category_is_left_with_the_share_of_the_poorest(random):
    unknown_NC = random.random((20_000, 4)) < np.array([0.5, 0.5, 0.25, 0])
    held_out_NC = ~unknown_NC & (random.random((20_000, 4)) < np.array([0.9, 0.45, 0.3, 0.5]))
    kept_NC = evened(held_out_NC, unknown_NC, random)
    assert not (kept_NC & ~held_out_NC).any() and not kept_NC[:, 3].any()
    np.testing.assert_allclose(kept_NC.sum(0)[:3] / unknown_NC.sum(0)[:3], 0.45, atol=0.02)
    assert kept_NC[:, 1].sum() == held_out_NC[:, 1].sum()


def test_where_shares_may_be_equal_nothing_is_left_out(random):
    unknown_NC = random.random((500, 6)) < 0.5
    held_out_NC = ~unknown_NC & (random.random((500, 6)) < 0.4)
    assert evened(held_out_NC, unknown_NC, random) is held_out_NC


def test_categories_that_would_cost_too_many_are_apart():
    held_out_C, unknown_C = np.array([300, 0, 400, 100, 280]), np.array([1000, 500, 1000, 1000, 1000])
    assert list(alike_shares(held_out_C, unknown_C)) == [[1], [3], [0, 2, 4]]
    assert list(alike_shares(np.array([30, 31, 29]), np.array([100, 99, 101]))) == [[0, 1, 2]]
    is_calibrated_C = np.array([True, True, True, False, True])
    found = list(groups(np.array([9, 0, 9, 0, 50]), is_calibrated_C, 40, held_out_C, unknown_C))
    assert found == [[4], [1], [0, 2]]


def drawn(random, whole_images, wrong_together, images=20_000, categories=10):
    """Half of the images calibrate; entries of the other half are held out or not, each by itself or by images."""
    shape = images, categories
    calibrates_N1 = np.arange(images)[:, None] % 2 == 0
    by_N1 = (images, 1) if whole_images else shape
    sample_NC = ~calibrates_N1 & np.broadcast_to(random.random(by_N1) < 0.5, shape)
    unknown_NC = ~calibrates_N1 & ~sample_NC
    is_wrong_NC = np.broadcast_to(random.random((images, 1) if wrong_together else shape) < 0.1, shape)
    return sample_NC, unknown_NC, is_wrong_NC, np.broadcast_to(calibrates_N1, shape)


@pytest.mark.parametrize(
    ("whole_images", "wrong_together", "expected"), [(False, True, 1), (True, False, 1), (True, True, 10)]
)
def test_entries_that_come_and_err_together_count_once(random, whole_images, wrong_together, expected):
    assert design_effect(*drawn(random, whole_images, wrong_together)) == pytest.approx(expected, rel=0.1)


def test_the_effect_is_by_how_much_more_the_sample_errs_than_one_of_single_entries(random):
    """Twin: the variance of the share of wrong ones over many samples of whole images, in that of single entries."""
    is_wrong_NC = random.random((200, 6)) < np.where(random.random((200, 1)) < 0.2, 0.5, 0.05)
    shares = {True: [], False: []}
    for whole_images in shares:
        for _ in range(3000):
            sample_NC = np.broadcast_to(random.random((200, 1) if whole_images else (200, 6)) < 0.5, (200, 6))
            shares[whole_images].append(is_wrong_NC[sample_NC].mean())
    sample_NC = np.broadcast_to(random.random((200, 1)) < 0.5, (200, 6))
    found = design_effect(sample_NC, ~sample_NC, is_wrong_NC, by_NC=np.ones((200, 6), dtype=bool))
    assert found == pytest.approx(np.var(shares[True]) / np.var(shares[False]), rel=0.1)


def test_without_any_entry_there_is_no_effect():
    none_NC = np.zeros((3, 2), dtype=bool)
    assert design_effect(none_NC, none_NC, none_NC, none_NC) == 1
