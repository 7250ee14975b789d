"""One difference: what is decided, what is left open and what it would take."""

import math

import pytest

from mlrpl_bench.leaderboard.verdicts import CANNOT_TELL, DOES_NOT_HOLD, EQUAL, HOLDS, LESS, MORE, Part, find
from tests.helpers import simulated_cells as simulated

RATIOS = simulated.RATIOS


@pytest.fixture(scope="module")
def cells():
    skills = {"top": 1.4, "high": 1.0, "twin": 1.0}
    return simulated.cells(skills, fluctuations={"top": 0.02, "high": 0.01, "twin": 0.01})


def only(cells, part, margin=1.0):
    (found,) = find(cells, [part], 0.95, margin)
    return found


@pytest.mark.parametrize(
    ("a", "b", "expects", "answer"),
    [
        ("top", "high", MORE, HOLDS),
        ("high", "top", MORE, DOES_NOT_HOLD),
        ("high", "top", LESS, HOLDS),
        ("top", "high", LESS, DOES_NOT_HOLD),
    ],
)
def test_a_true_difference_is_judged_by_its_direction(cells, a, b, expects, answer):
    for metric in ("mAP", "OF1", "CF1"):
        found = only(cells, Part(a, b, metric, RATIOS, expects))
        assert (found.answer, found.verdict) == (answer, answer)


def test_without_a_difference_it_can_mostly_not_be_told():
    answers = []
    for world in range(25):
        cells = simulated.cells({"one": 1.0, "two": 1.0}, count=3, world=world)
        answers.append(only(cells, Part("one", "two", "mAP", RATIOS)).answer)
    assert answers.count(CANNOT_TELL) >= 21


def test_about_equal_needs_the_interval_within_the_margin(cells):
    part = Part("high", "twin", "mAP", RATIOS, EQUAL)
    wide, narrow = only(cells, part, margin=5.0), only(cells, part, margin=0.001)
    assert wide.answer == HOLDS and wide.low > -5 and wide.high < 5 and wide.p_value < 0.05
    assert narrow.answer == CANNOT_TELL and narrow.p_value > 0.05
    assert wide.level == pytest.approx(0.9)


def test_a_small_difference_with_an_interval_beyond_the_margin_is_not_yet_equal(cells):
    part = Part("high", "twin", "mAP", RATIOS, EQUAL)
    found = only(cells, part, margin=5.0)
    nearer, further = sorted([abs(found.difference), max(-found.low, found.high)])
    assert only(cells, part, margin=(nearer + further) / 2).answer == CANNOT_TELL
    assert only(cells, part, margin=1.01 * further).answer == HOLDS


@pytest.mark.parametrize(("a", "b"), [("top", "high"), ("high", "top")])
def test_rows_further_apart_than_the_margin_are_not_equal(cells, a, b):
    found = only(cells, Part(a, b, "mAP", RATIOS, EQUAL), margin=0.5)
    assert found.answer == DOES_NOT_HOLD and found.p_value > 0.95


def test_a_decided_difference_below_the_margin_is_called_small(cells):
    found = only(cells, Part("top", "high", "mAP", RATIOS), margin=50.0)
    assert found.verdict == "holds (by under 50 points)"


def test_a_difference_of_differences_is_taken_seed_by_seed(cells):
    found = only(cells, Part("top", "high", "mAP", (0.1,), MORE, less_at=(0.9,)))
    at = {ratio: only(cells, Part("top", "high", "mAP", (ratio,))).difference for ratio in (0.1, 0.9)}
    assert found.difference == pytest.approx(at[0.1] - at[0.9])
    assert found.answer == HOLDS, "with more labels known, both are nearer to the top"
    assert found.part.what == "top - high, mAP, 10 % less 90 %"
    turned = only(cells, Part("top", "high", "mAP", (0.9,), MORE, less_at=(0.1,)))
    assert (turned.answer, turned.difference) == (DOES_NOT_HOLD, pytest.approx(-found.difference))


def test_a_difference_of_differences_needs_both_ratios(cells):
    part = Part("top", "high", "mAP", (0.1,), MORE, less_at=(0.9,))
    assert only(simulated.without(cells, "high", 0.9), part).verdict == "cannot tell: high has no records at 90 %"


def test_the_loss_is_compared_over_seeds_in_its_own_unit(cells):
    found = only(cells, Part("high", "top", "loss_fluctuation", RATIOS, LESS))
    assert found.answer == HOLDS and found.difference == pytest.approx(-0.01, abs=0.002)
    assert only(cells, Part("high", "twin", "loss_fluctuation", RATIOS, LESS)).answer == CANNOT_TELL


def test_one_seed_tells_nothing():
    cells = simulated.cells({"a": 3.0, "b": 0.2}, count=1)
    for metric in ("mAP", "loss_fluctuation"):
        found = only(cells, Part("a", "b", metric, RATIOS))
        assert found.verdict == "cannot tell yet (needs at least 2 more seeds)"
    assert only(cells, Part("a", "b", "mAP", RATIOS, EQUAL)).answer == CANNOT_TELL


def test_p_values_are_corrected_over_the_parts_that_count(cells):
    parts = [Part("high", "twin", "mAP", (ratio,)) for ratio in RATIOS]
    alone = [only(cells, part) for part in parts]
    together = find(cells, [*parts, Part("high", "twin", "mAP", RATIOS, counts=False)], 0.95, 1.0)
    smallest = min(range(3), key=lambda place: alone[place].p_value)
    assert together[smallest].p_adjusted == pytest.approx(min(1.0, 3 * alone[smallest].p_value))
    assert together[3].p_adjusted == together[3].p_value, "a control stands alone"


def test_the_correction_can_leave_open_what_was_decided_alone():
    for world in range(40):
        cells = simulated.cells({"one": 1.0, "two": 0.98}, count=3, world=world)
        parts = [Part("one", "two", "mAP", (ratio,)) for ratio in RATIOS]
        alone, together = [only(cells, part) for part in parts], find(cells, parts, 0.95, 1.0)
        if any(x.answer != CANNOT_TELL and y.answer == CANNOT_TELL for x, y in zip(alone, together, strict=True)):
            return
    pytest.fail("the correction never mattered")


def test_missing_cells_are_named_and_others_judged(cells):
    gone = simulated.without(cells, "high", 0.5)
    found = find(gone, [Part("top", "high", "mAP", (ratio,)) for ratio in RATIOS], 0.95, 1.0)
    assert [one.verdict for one in found] == ["holds", "cannot tell: high has no records at 50 %", "holds"]
    assert math.isnan(found[1].difference) and found[1].seeds == ()


def test_seeds_that_one_row_lacks_are_left_out(cells):
    found = only(simulated.without(cells, "high", 0.5, (1, 1)), Part("top", "high", "mAP", RATIOS))
    assert found.seeds == ((0, 0), (2, 2), (3, 3)) and found.unpaired_seeds == ("seed 1: high has none at 50 %",)


def test_what_it_takes_is_said_in_seeds_or_that_seeds_do_not_help():
    seen = set()
    for world in range(20):
        cells = simulated.cells({"one": 1.0, "two": 0.995}, count=3, world=world)
        found = only(cells, Part("one", "two", "mAP", RATIOS))
        if found.answer == CANNOT_TELL:
            assert math.isinf(found.more_seeds) == (not found.verdict.startswith("cannot tell yet (needs about"))
            seen.add(found.verdict.split(" (")[0].split(":")[0])
    assert seen == {"cannot tell yet", "cannot tell"}


def test_in_a_family_it_takes_more_seeds_than_alone():
    compared = 0
    for world in range(20):
        cells = simulated.cells({"one": 1.0, "two": 0.98}, count=2, world=world)
        parts = [Part("one", "two", "mAP", (ratio,)) for ratio in RATIOS]
        for part, together in zip(parts, find(cells, parts, 0.95, 1.0), strict=True):
            alone = only(cells, part)
            if alone.answer == together.answer == CANNOT_TELL and math.isfinite(together.more_seeds):
                assert together.more_seeds >= alone.more_seeds
                compared += together.more_seeds > alone.more_seeds
    assert compared
