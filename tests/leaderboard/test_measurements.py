"""Measurements against numbers computed by hand and against the statistics that they rest on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.evaluation import intervals
from mlrpl_bench.evaluation.intervals import Measured
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.measurements import (
    BEST,
    COLUMNS,
    NO_INFLUENCES,
    NOT_COMPARED,
    TIED,
    Lookup,
    average_name,
    measure,
)
from mlrpl_bench.leaderboard.numbers import METRICS
from tests.helpers.tiny_study import cell, cells_of, evidence, record

RATIOS = (0.1, 0.5)


def row(method, *percents, seed=0, ratios=RATIOS):
    """Records with these mAPs, one for each ratio."""
    return [
        record(cell(method=method, ratio=ratio, seed=seed, mask_seed=seed), mAP=percent / 100)
        for ratio, percent in zip(ratios, percents, strict=False)
    ]


def of(frame: pd.DataFrame, method: str, known_ratio: str, metric: str = "mAP"):
    found = frame[(frame.method == method) & (frame.known_ratio == known_ratio) & (frame.metric == metric)]
    assert len(found) == 1
    return found.iloc[0]


THREE = [*row("a", 50, 60), *row("a", 53, 64, seed=1), *row("a", 59, 65, seed=2)]


def test_there_is_one_row_for_each_row_ratio_and_metric():
    frame = measure(cells_of(THREE), ["a", "b"], RATIOS, ["cat", "dog"])
    assert tuple(frame.columns) == COLUMNS
    keys = frame[["method", "known_ratio", "metric"]]
    assert len(keys.drop_duplicates()) == len(frame) == 2 * 3 * (len(METRICS) + 2)


def test_mean_deviation_and_number_of_seeds():
    found = of(measure(cells_of(THREE), ["a"], RATIOS), "a", "0.1")
    assert (found["mean"], found["n"], found["unit"], found["status"]) == (pytest.approx(54), 3, "%", "measured")
    assert found["std"] == pytest.approx(np.std([50, 53, 59], ddof=1))


def test_an_average_is_taken_seed_by_seed_over_the_seeds_that_have_every_ratio():
    frame = measure(cells_of([*THREE, *row("a", 90, seed=3)]), ["a"], RATIOS)
    found = of(frame, "a", "avg of 2")
    assert (found["mean"], found["std"], found["n"]) == (pytest.approx(58.5), pytest.approx(3.5), 3)
    assert of(frame, "a", "0.1")["n"] == 4


def test_an_average_is_nameless_only_over_the_nine_ratios():
    assert [average_name(r) for r in (NINE_RATIOS, NINE_RATIOS[::-1], RATIOS, (1.0,))] == [
        "avg", "avg", "avg of 2", "at 100 %",
    ]  # fmt: skip


def test_intervals_are_those_of_statistics_and_no_share_lies_beyond_0_and_100():
    cells = cells_of(THREE, noise=0.3)
    found = of(measure(cells, ["a"], RATIOS), "a", "0.1")
    influences_SN = 100 * np.stack([e.influences["mAP"] for e in cells["a", 0.1].values()])
    expected = intervals.interval(influences_SN, np.array([50.0, 53.0, 59.0]))
    assert (found["low"], found["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    wide = of(measure(cells_of([*row("a", 1, 1), *row("a", 99, 99, seed=1)]), ["a"], RATIOS), "a", "0.1")
    assert (wide["low"], wide["high"]) == (0.0, 100.0)
    assert "two seeds" in wide["caution"]


def test_the_influence_of_an_average_is_the_average_of_influences():
    cells = cells_of(THREE, noise=0.3)
    both = {pair: [cells["a", 0.1][pair], cells["a", 0.5][pair]] for pair in cells["a", 0.1]}
    found = pairing.measured(both, "mAP")
    expected = 50 * np.stack(
        [cells["a", 0.1][p].influences["mAP"] + cells["a", 0.5][p].influences["mAP"] for p in both]
    )
    np.testing.assert_allclose(found.influences_SN, expected, rtol=1e-5)
    np.testing.assert_allclose(found.estimates_S, [55, 58.5, 62])


def test_the_best_is_marked_and_what_is_surely_worse_is_not():
    # five points apart with a common spread of seeds: told apart; a tenth of a point: not
    rows = [r for seed, up in enumerate((0.0, 0.5, 1.0)) for r in row("a", 50 + up, 60 + up, seed=seed)]
    rows += [r for seed, up in enumerate((0.1, 0.4, 1.2)) for r in row("b", 50 + up, 60 + up, seed=seed)]
    rows += [r for seed, up in enumerate((0.2, 0.4, 1.1)) for r in row("c", 45 + up, 55 + up, seed=seed)]
    frame = measure(cells_of(rows), ["a", "b", "c"], RATIOS)
    assert [of(frame, name, "0.1")["mark"] for name in "abc"] == [TIED, BEST, ""]
    assert of(frame, "c", "0.1")["p_best"] < 0.05 < of(frame, "a", "0.1")["p_best"]
    assert [of(frame, name, "0.1", "OP")["mark"] for name in "abc"] == ["", "", ""]


def test_p_values_are_corrected_over_the_whole_table():
    rows = [r for seed, up in enumerate((0.0, 0.5, 1.3)) for r in row("a", 50 + up, 60 + up, seed=seed)]
    rows += [r for seed, up in enumerate((0.1, 0.4, 1.2)) for r in row("b", 48 + up, 58 + up, seed=seed)]
    frame = measure(cells_of(rows), ["a", "b"], RATIOS)
    pair = [Measured(np.zeros((3, 100)), np.array(values)) for values in ((50, 50.5, 51.3), (48.1, 48.4, 49.2))]
    alone = intervals.paired(*pair).p_value
    # mAP at two ratios and on average; OF1 and CF1 on average: five comparisons, of which three are equally sure
    assert of(frame, "b", "0.1")["p_best"] == pytest.approx(5 * alone, rel=1e-3)


def test_rows_are_compared_on_the_seeds_that_both_have():
    rows = [r for seed in range(3) for r in row("a", 50 + seed, 60 + seed, seed=seed)]
    rows += [r for seed in (1, 2) for r in row("b", 40 + 1.1 * seed, 59 + seed, seed=seed)]
    found = of(measure(cells_of(rows), ["a", "b"], RATIOS), "b", "0.1")
    both = [Measured(np.zeros((2, 100)), np.array(values)) for values in ((51.0, 52.0), (41.1, 42.2))]
    # one of five comparisons; the one at the other ratio has no spread at all and comes first, with p = 0
    assert found["p_best"] == pytest.approx(4 * intervals.paired(*both).p_value, rel=0.3)


@pytest.mark.parametrize("seeds", [[3], [2]])
def test_a_row_with_too_few_common_seeds_is_not_compared_and_says_so(seeds):
    rows = [r for seed in range(3) for r in row("a", 50 + seed, 60 + seed, seed=seed)]
    rows += [r for seed in seeds for r in row("b", 10, 10, seed=seed)]
    found = of(measure(cells_of(rows), ["a", "b"], RATIOS), "b", "0.1")
    assert (found["mark"], np.isnan(found["p_best"])) == (NOT_COMPARED, True)


def test_one_lucky_seed_is_not_the_best():
    rows = [r for seed in range(2) for r in row("a", 50 + seed, 60 + seed, seed=seed)]
    frame = measure(cells_of([*rows, *row("b", 99, 99)]), ["a", "b"], RATIOS)
    assert [of(frame, name, "0.1")["mark"] for name in "ab"] == [BEST, NOT_COMPARED]


def test_with_one_seed_far_apart_rows_are_told_apart_however_many_they_are():
    rows = [record for number in range(40) for record in row(f"m{number:02}", 20 + number, 20 + number)]
    frame = measure(cells_of(rows, noise=3), [f"m{number:02}" for number in range(40)], RATIOS)
    assert of(frame, "m00", "0.1")["mark"] == ""
    assert of(frame, "m39", "0.1")["mark"] == BEST


def test_a_row_that_is_not_compared_has_no_mark():
    frame = measure(cells_of([*row("a", 50, 60), *row("up", 90, 90)]), ["a", "up"], RATIOS, unmarked=["up"])
    assert set(frame["mark"]) == {""}  # and a row alone is the best of nothing


def test_a_hole_says_why_and_has_no_number():
    missing = {("a", 0.5): "failed: out of memory (seed 0)"}
    frame = measure(cells_of(row("a", 50)), ["a"], RATIOS, missing=missing)
    assert of(frame, "a", "0.5")["status"] == "failed: out of memory (seed 0)"
    assert np.isnan(of(frame, "a", "0.5")["mean"]) and of(frame, "a", "0.5")["n"] == 0
    assert of(frame, "a", "avg of 2")["status"].startswith("incomplete")
    assert of(measure(cells_of([]), ["a"], RATIOS), "a", "0.1")["status"] == "not run"


def test_a_seed_that_is_missing_is_said_beside_the_number():
    frame = measure(cells_of(row("a", 50, 60)), ["a"], RATIOS, missing={("a", 0.5): "not run (seed 1)"})
    assert of(frame, "a", "0.5")["status"] == "measured; not run (seed 1)"


def test_a_number_that_a_cell_lacks_is_a_hole_and_no_other_mean():
    cells = {("a", 0.1): {(0, 0): evidence(row("a", 50)[0], recovery=float("nan"))}}
    frame = measure(cells, ["a"], (0.1,))
    assert np.isnan(of(frame, "a", "0.1", "recovery")["mean"])
    assert of(frame, "a", "0.1")["mean"] == pytest.approx(50)


def test_categories_and_costs_are_there():
    frame = measure(cells_of(row("a", 50, 60)), ["a"], RATIOS, ["cat", "dog"])
    assert of(frame, "a", "0.1", "AP: dog")["mean"] == pytest.approx(50)
    assert of(frame, "a", "0.1", "peak_memory")["mean"] == pytest.approx(0.1)
    assert of(frame, "a", "0.1", "seconds")["unit"] == "s"


def test_means_are_found_by_label_in_the_order_of_the_measurements():
    cells = cells_of([*row("b", 50, 60), *row("a", 40)])
    found = Lookup(measure(cells, ["b", "a"], RATIOS))
    assert found.labels == ["b", "a"]
    assert found.means("mAP", "0.1") == pytest.approx({"b": 50, "a": 40})
    assert found.means("mAP", "0.5") == pytest.approx({"b": 60}), "a has no cell there"
    assert found.means("mAP", "0.9") == found.means("no such metric", "0.1") == {}


def test_a_row_without_influences_has_means_no_interval_and_no_comparison():
    whole = cells_of([*THREE, *row("b", 90, 95), *row("c", 40, 45)])
    without = {key: {s: replace(e, influences={}) for s, e in by.items()} for key, by in whole.items() if key[0] == "b"}
    frame = measure({**whole, **without}, ["a", "b", "c"], RATIOS)
    assert of(frame, "b", "0.1")["mean"] == pytest.approx(90) and np.isnan(of(frame, "b", "0.1")["low"])
    assert of(frame, "b", "0.1")["caution"] == NO_INFLUENCES
    assert [of(frame, label, "0.1")["mark"] for label in "ab"] == [BEST, NOT_COMPARED]


def test_where_no_row_has_influences_nothing_is_marked():
    cells = {key: {s: replace(e, influences={}) for s, e in by.items()} for key, by in cells_of(THREE).items()}
    frame = measure(cells, ["a"], RATIOS)
    assert set(frame["mark"]) == {""} and frame["low"].isna().all()
