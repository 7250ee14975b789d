"""Two rows compared: what is found, what is corrected, what is left out."""

import json

import numpy as np
import pytest

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.evaluation import intervals
from mlrpl_bench.leaderboard import verdicts
from mlrpl_bench.leaderboard.comparison import NO_DIFFERENCE, compare
from mlrpl_bench.utils.errors import UserError
from tests.helpers import simulated_cells as simulated

RATIOS = simulated.RATIOS


@pytest.fixture(scope="module")
def cells():
    return simulated.cells({"better": 1.3, "worse": 0.9, "same": 0.9})


def by_place(comparison):
    return {(line.metric, line.known_ratio): line for line in comparison.lines}


def findings(comparison):
    return [line.finding for line in comparison.lines]


def test_a_true_difference_is_found_whichever_way_round(cells):
    found, turned = compare(cells, "better", "worse", RATIOS), compare(cells, "worse", "better", RATIOS)
    assert {line.verdict for line in found.lines} == {line.verdict for line in turned.lines} == {"better is better"}
    for line, other in zip(found.lines, turned.lines, strict=True):
        assert line.finding.low < line.finding.difference < line.finding.high and line.finding.low > 0
        assert (line.finding.difference, line.finding.mean_a) == pytest.approx(
            (-other.finding.difference, other.finding.mean_b)
        )


def test_each_metric_has_each_ratio_and_the_average(cells):
    found = by_place(compare(cells, "better", "worse", RATIOS))
    assert list(found) == [(m, r) for m in ("mAP", "OF1", "CF1") for r in ("0.1", "0.5", "0.9", "avg of 3")]
    assert list(by_place(compare(cells, "better", "worse", [0.5], metrics=["mAP"]))) == [("mAP", "0.5")]
    turned = compare(cells, "better", "worse", RATIOS[::-1])
    assert list(by_place(turned)) == list(found)


def test_the_average_over_the_nine_ratios_is_called_avg(cells):
    of_one = {label: cells[label, 0.5] for label in ("better", "worse")}
    nine = {(label, ratio): by_seeds for label, by_seeds in of_one.items() for ratio in NINE_RATIOS}
    assert ("mAP", "avg") in by_place(compare(nine, "better", "worse", NINE_RATIOS, metrics=["mAP"]))


def test_numbers_are_percent_over_the_common_seeds(cells):
    found = by_place(compare(cells, "better", "worse", RATIOS))["mAP", "0.5"].finding
    means = [
        100 * np.mean([e.record.metrics["mAP"] for e in cells[label, 0.5].values()]) for label in ("better", "worse")
    ]
    assert (found.mean_a, found.mean_b, found.difference) == pytest.approx((*means, means[0] - means[1]))
    assert len(found.seeds) == 4


def test_the_average_is_the_mean_over_ratios(cells):
    found = by_place(compare(cells, "better", "worse", RATIOS))
    of_ratios = np.mean([found["OF1", f"{ratio:g}"].finding.difference for ratio in RATIOS])
    assert found["OF1", "avg of 3"].finding.difference == pytest.approx(of_ratios)


def test_without_a_difference_rows_are_hardly_ever_told_apart():
    decided = 0
    for world in range(25):
        cells = simulated.cells({"one": 1.0, "two": 1.0}, count=3, world=world)
        comparison = compare(cells, "one", "two", RATIOS, metrics=["mAP"])
        decided += any(line.verdict != NO_DIFFERENCE for line in comparison.lines)
    assert decided <= 4  # 25 families at 5 %: more than 4 has a chance of under one percent


def test_p_values_are_corrected_over_the_rows(cells):
    lines = compare(cells, "worse", "same", RATIOS).lines
    assert [line.finding.p_adjusted for line in lines] == pytest.approx(
        list(intervals.holm([line.finding.p_value for line in lines]))
    )
    assert any(line.finding.p_adjusted > line.finding.p_value for line in lines)


def test_the_verdict_follows_the_corrected_p_value():
    cells = simulated.cells({"one": 1.0, "two": 0.975}, count=3)
    torn = [
        line
        for line in compare(cells, "one", "two", RATIOS).lines
        if line.finding.p_value < 0.05 < line.finding.p_adjusted
    ]
    assert torn and all(line.verdict == NO_DIFFERENCE for line in torn)


def test_one_seed_speaks_only_of_the_trained_models():
    found = compare(simulated.cells({"a": 1.5, "b": 0.9}, count=1), "a", "b", RATIOS)
    assert {line.verdict for line in found.lines} == {"a is better (these trained models)"}
    assert all("one seed" in line.caution for line in found.lines)
    assert any("one seed" in note for note in found.notes())


def test_two_seeds_speak_of_the_methods():
    found = compare(simulated.cells({"a": 1.5, "b": 0.5}, count=2), "a", "b", [0.5], level=0.5)
    assert {line.verdict for line in found.lines} == {"a is better"}


def test_one_mask_for_all_seeds_is_said(cells):
    one = simulated.cells({"better": 1.3, "worse": 0.9}, count=1)
    assert not any("one mask" in line.caution for line in compare(one, "better", "worse", RATIOS).lines)
    fixed = {key: {(seed, 0): one for (seed, _), one in by_seeds.items()} for key, by_seeds in cells.items()}
    assert all("one mask" in line.caution for line in compare(fixed, "better", "worse", RATIOS).lines)
    assert not any("one mask" in line.caution for line in compare(cells, "better", "worse", RATIOS).lines)


def test_seeds_that_one_side_has_alone_are_left_out_and_named(cells):
    fewer = simulated.without(cells, "worse", 0.1, (3, 3))
    found = compare(fewer, "better", "worse", RATIOS)
    seeds = {ratio: len(line.finding.seeds) for (_, ratio), line in by_place(found).items()}
    assert seeds == {"0.1": 3, "0.5": 4, "0.9": 4, "avg of 3": 3}
    assert by_place(found)["mAP", "0.1"].finding.unpaired_seeds == ("seed 3: worse has none at 10 %",)
    told = [f"left out, {ratio} mAP: seed 3: worse has none at 10 %" for ratio in ("0.1", "avg of 3")]
    assert [note for note in found.notes() if note.startswith("left out")] == told
    without_it = simulated.without(fewer, "better", 0.1, (3, 3))
    assert (
        compare(without_it, "better", "worse", [0.1]).lines[0].finding.difference == found.lines[0].finding.difference
    )


def test_a_ratio_without_records_has_a_row_that_says_so(cells):
    found = compare(simulated.without(cells, "worse", 0.5), "better", "worse", RATIOS, metrics=["mAP"])
    verdicts = {line.known_ratio: line.verdict for line in found.lines}
    assert verdicts["0.5"] == verdicts["avg of 3"] == "cannot be compared: worse has no records at 50 %"
    assert verdicts["0.1"] == "better is better"
    assert found.rows()[1][4:7] == ["-", "-", "-"]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["rows"][1]["difference"] is None


def test_rows_have_a_text_for_each_column(cells):
    found = compare(cells, "better", "worse", RATIOS)
    assert all(len(row) == len(found.header()) for row in found.rows())
    assert found.header()[2:5] == ["better", "worse", "difference [95 %]"]


def test_the_level_is_that_of_intervals_and_verdicts(cells):
    narrow, wide = (compare(cells, "better", "worse", [0.5], level=level).lines[0] for level in (0.5, 0.99))
    assert wide.finding.low < narrow.finding.low and narrow.finding.high < wide.finding.high
    close = simulated.cells({"one": 1.0, "two": 0.975}, count=3)
    strict, lenient = (compare(close, "one", "two", RATIOS, level=level).lines for level in (0.95, 0.5))
    torn = [place for place, line in enumerate(strict) if 0.05 < line.finding.p_adjusted < 0.5]
    assert torn and {strict[place].verdict for place in torn} == {NO_DIFFERENCE}
    assert NO_DIFFERENCE not in {lenient[place].verdict for place in torn}


def test_an_unknown_row_says_what_is_close(cells):
    with pytest.raises(UserError, match="did you mean 'better'"):
        compare(cells, "beter", "worse", RATIOS)


def test_a_row_is_not_compared_with_itself(cells):
    with pytest.raises(UserError, match="with itself"):
        compare(cells, "same", "same", RATIOS)


def test_a_comparison_is_a_table_and_plain_data(cells):
    found = compare(cells, "better", "worse", RATIOS, metrics=["mAP"])
    table = found.table("better and worse on made-up data")
    assert (table.name, table.title, table.corner) == ("compare", "better and worse on made-up data", "metric")
    assert [label for label, _ in table.rows] == ["mAP"] * 4 and table.notes == tuple(found.notes())
    assert [entry.text for entry in table.rows[0][1]] == found.rows()[0][1:]
    assert found.table().title == "better and worse"
    names = ["metric", "known_ratio", "mean_a", "mean_b", "difference", "low", "high", "p_value", "p_adjusted"]
    assert list(found.to_json()["rows"][0]) == [*names, "seeds", "left_out", "verdict", "caution"]


def test_a_comparison_and_a_claim_of_the_same_two_rows_measure_the_same(cells):
    row = compare(cells, "better", "worse", [0.5], metrics=["mAP"]).lines[0]
    (claimed,) = verdicts.find(cells, [verdicts.Part("better", "worse", "mAP", (0.5,))], 0.95, 1.0)
    assert (row.finding.difference, row.finding.low, row.finding.p_value, row.finding.seeds) == (
        claimed.difference, claimed.low, claimed.p_value, claimed.seeds,
    )  # fmt: skip
