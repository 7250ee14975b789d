"""The tables beside the main one, from cells whose numbers are known."""

import dataclasses
import math

import numpy as np
import pytest

from mlrpl_bench.leaderboard.measurements import Lookup
from mlrpl_bench.leaderboard.tables.main import Context, build
from tests.helpers.tiny_study import cell, cells_of, record

RATIOS = (0.1, 0.5)
MEANS = {"a": (50, 60), "b": (40, 70), "c": (30, 20)}


def board(holed=(), **context):
    records = [
        record(cell(method=name, ratio=ratio), mAP=percent / 100, OP=0.25, OP_top3=0.125)
        for name, percents in MEANS.items()
        for ratio, percent in zip(RATIOS, percents, strict=True)
        if (name, ratio) not in holed
    ]
    return build(cells_of(records, recovery=0.8), [], RATIOS, Context(categories=("cat", "dog"), **context), {})


def table(name, **options):
    (found,) = [table for table in board(**options).others if table.name == name]
    return found


def texts(found):
    return {label: [entry.text for entry in entries] for label, entries in found.rows}


def test_ranks_are_averaged_over_ratios_best_first():
    found = table("rank")
    assert texts(found) == {"a": ["1.50"], "b": ["1.50"], "c": ["3.00"]}
    # q of three methods at 5 % is 2.343 (Demsar 2006, table 5 a): 2.343 * sqrt(3 * 4 / (6 * 2))
    assert "less than 2.34 are not told apart" in found.notes[1]


def test_a_row_with_a_hole_is_not_ranked_and_named():
    found = table("rank", holed=[("c", 0.5)])
    assert list(texts(found)) == ["a", "b"]
    assert found.notes[-1] == "without every ratio, so not ranked: c"


def test_precision_recall_and_f1_are_there_with_top_3():
    found = table("thresholded")
    assert found.columns[:2] == ("OP", "OR") and "OP top-3" in found.columns
    assert texts(found)["a"][0] == "25.0"
    assert texts(found)["a"][found.columns.index("OP top-3")] == "12.5"


def test_the_best_epoch_stands_beside_the_last_and_is_called_what_it_is():
    found = table("best-epoch")
    assert found.columns[:2] == ("mAP", "mAP best epoch")
    assert "reference protocol" in found.notes[0]


def test_recovery_fluctuation_and_cost():
    assert texts(table("recovery"))["a"] == ["80.0"] * 3
    assert texts(table("fluctuation"))["a"] == ["0.0100"] * 3
    cost = table("cost")
    assert dict(zip(cost.columns, texts(cost)["a"], strict=True)) == {
        "seconds": "1.5", "images per second": "16.0", "peak memory": "0.1", "cells in group": "1.0",
    }  # fmt: skip


def test_categories_are_rows_and_methods_columns():
    found = table("categories")
    assert (found.corner, found.columns) == ("category", ("c", "a", "b"))
    assert texts(found) == {"cat": ["50.0"] * 3, "dog": ["50.0"] * 3}


def test_lines_are_not_ranked_and_recover_nothing():
    names = {found.name: list(texts(found)) for found in board(reference_rows={"c": "an upper line"}).others}
    assert "c" not in names["rank"] + names["recovery"] + names["cost"]
    assert "c" in names["thresholded"]


def test_what_is_not_there_is_nan_with_a_reason():
    found = Lookup(board().measurements)
    assert math.isnan(found.row("x", "0.1", "mAP").mean)
    assert found.entry("x", "0.1", "mAP").text == "not run"


def with_facts(evaluate_on="test", **facts):
    """The tables of one row, at one ratio, with these facts in its evidence."""
    setting = dataclasses.replace(cell().setting, evaluate_on=evaluate_on)
    one = cells_of([record(cell(method="a", ratio=0.5, setting=setting), mAP=0.5, OF1=0.2, CF1=0.1)])
    one["a", 0.5] = {seeds: dataclasses.replace(each, **facts) for seeds, each in one["a", 0.5].items()}
    return {found.name: found for found in build(one, [], [0.5], Context(), {}).others}


CHOSEN = {"OP": 0.31, "OR": 0.32, "OF1": 0.33, "CP": 0.34, "CR": 0.35, "CF1": 0.36}


def test_f1_at_chosen_thresholds_stands_beside_f1_at_one_half():
    found = with_facts(chosen=CHOSEN, oracle={"OF1": 0.5, "CF1": 0.6})["chosen-thresholds"]
    assert dict(zip(found.columns, texts(found)["a"], strict=True)) == {
        "OF1 at 0.5": "20.0", "OF1 chosen": "33.0", "OF1 oracle": "50.0",
        "CF1 at 0.5": "10.0", "CF1 chosen": "36.0", "CF1 oracle": "60.0",
        "OP chosen": "31.0", "OR chosen": "32.0", "CP chosen": "34.0", "CR chosen": "35.0",
    }  # fmt: skip
    assert "oracle: thresholds chosen on the evaluated labels themselves" in found.notes[2]
    assert "chosen-thresholds" not in with_facts()


def test_thresholds_of_validation_images_stand_beside_them_where_a_run_has_them():
    found = with_facts(chosen=CHOSEN, oracle={"OF1": 0.5, "CF1": 0.6}, validated={"OF1": 0.4, "CF1": 0.45})
    shown = found["chosen-thresholds"]
    entries = dict(zip(shown.columns, texts(shown)["a"], strict=True))
    assert (entries["OF1 on validation"], entries["CF1 on validation"]) == ("40.0", "45.0")
    assert list(entries)[:4] == ["OF1 at 0.5", "OF1 chosen", "OF1 on validation", "OF1 oracle"]
    assert any(note.startswith("on validation: ") for note in shown.notes)
    without = with_facts(chosen=CHOSEN, oracle={"OF1": 0.5, "CF1": 0.6})["chosen-thresholds"]
    assert without.notes[-1].endswith("after leaderboard --evaluate-on val")
    of_validation = with_facts("val", chosen=CHOSEN, oracle={"OF1": 0.5, "CF1": 0.6})["chosen-thresholds"]
    assert not any("--evaluate-on val" in note for note in of_validation.notes)


def test_three_ways_to_choose_an_epoch_stand_side_by_side():
    found = with_facts(course_E=np.array([0.4, 0.7, 0.5]), validated_epoch=0)["model-selection"]
    assert found.columns == ("last epoch", "best on validation", "best on test")
    assert texts(found)["a"] == ["50.0", "40.0", "50.0"]
    assert "the literature's habit" in found.notes[2] and len(found.notes) == 3


def test_rows_that_were_evaluated_after_some_epochs_are_named_where_the_best_one_stands():
    found = with_facts(course_E=np.array([np.nan, 0.7, np.nan, 0.5]), validated_epoch=0)
    assert texts(found["model-selection"])["a"] == ["50.0", "-", "50.0"]
    note = "the best of those epochs that were evaluated (--evaluate-every): a"
    assert found["model-selection"].notes[-1] == found["best-epoch"].notes[-1] == note


@pytest.mark.parametrize("facts", [{}, {"validated_epoch": 3, "course_E": np.array([0.4])}])
def test_where_no_epoch_was_chosen_on_validation_images_that_is_said(facts):
    found = with_facts(**facts)["model-selection"]
    assert texts(found)["a"] == ["50.0", "-", "50.0"]
    assert found.notes[-1] == "without records on validation images, so without a best epoch there: a"


def test_a_table_of_validation_images_knows_no_best_epoch_on_test_images():
    found = with_facts("val")
    assert found["model-selection"].columns == ("last epoch", "best on validation")
    assert "not known here" in found["model-selection"].notes[2]
    assert "validation images" in found["best-epoch"].notes[0] and "test" not in found["best-epoch"].notes[0]


def test_raw_and_averaged_weights_stand_side_by_side_where_a_row_has_both():
    def one(name, scored, own, other):
        of = cell(method=name, recipe=dataclasses.replace(cell().recipe, ema=2.0, scored=scored))
        made = record(of, mAP=own)
        return dataclasses.replace(made, content={**made.content, "other_weights": {"metrics": {"mAP": other}}})

    records = [one("a", "averaged", 0.5, 0.4), one("b", "raw", 0.6, 0.7), record(cell(method="c"), mAP=0.3)]
    built = build(cells_of(records), [], (0.5,), Context(categories=("cat", "dog")), {})
    (found,) = [table for table in built.others if table.name == "weights"]
    assert found.columns == ("row", "raw", "averaged")
    assert texts(found) == {"a": ["50.0", "40.0", "50.0"], "b": ["60.0", "60.0", "70.0"]}


def test_there_is_no_table_of_weights_where_no_row_averages_any():
    assert "weights" not in [table.name for table in board().others]
