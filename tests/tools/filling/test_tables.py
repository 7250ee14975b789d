"""What a filling says of itself, in words and as plain data."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.tools.filling import tables
from mlrpl_bench.tools.filling.fill_in import fill_in
from tests.helpers.simulated_scores import simulate


def filled(precision=0.9, **how):
    given = simulate(**how)
    given.split.labels_NC[~given.mask_NC[:, -1], -1] = 0  # none of the last category's given labels is hidden
    return fill_in(given.split, given.mask_NC, given.logits_NC, precision)


@pytest.fixture(scope="module")
def filling():
    return filled(images=3000, slope=6.0, offsets=(0.0, -2.0, -2.0))


def rows_of(table):
    return [dict(zip(table.columns, (entry.text for entry in entries), strict=True)) for _, entries in table.rows]


def test_each_category_has_a_row_of_its_labels(filling):
    table = tables.calibration_table(filling)
    assert [label for label, _ in table.rows] == list(filling.split.categories)
    first = rows_of(table)[0]
    assert (int(first["hidden present"]), int(first["hidden absent"])) == filling.held_out[0]
    assert first["calibration"].startswith("logistic, ")
    assert rows_of(table)[2]["calibration"] == "no label"


def test_each_promise_has_a_row_with_its_numbers(filling):
    table = tables.promise_table(filling)
    for row, promise in zip(rows_of(table), filling.promises, strict=True):
        assert int(row["set"].replace(",", "")) == promise.choice.set
        if promise.choice.set:
            assert row["wrong when tried"] == f"{promise.choice.wrong:,} of {promise.choice.checked:,}"
            assert float(row["right, at least"].removesuffix(" %")) >= 90
            assert row["probability"].startswith("from " if promise.state == PRESENT else "up to ")
        else:
            assert row["probability"] == "-"


def test_the_limits_of_a_promise_are_said(filling):
    notes = " ".join(tables.notes_of(filling))
    assert "kept, or not made, in 95 of 100 cases" in notes
    assert "none of their given labels was hidden: thing 2" in notes
    assert "not alike" not in notes


def test_labels_that_count_as_fewer_are_said(filling):
    assert "count as one" not in " ".join(tables.notes_of(filling))
    promise = filling.promises[0]
    counted = replace(promise, choice=replace(promise.choice, effect=2.35))
    found = replace(filling, promises=[counted, *filling.promises[1:]])
    assert "up to 2.4 of the hidden labels count as one" in " ".join(tables.notes_of(found))
    assert tables.to_json(found)["promises"][0]["labels_that_count_as_one"] == 2.35


def test_categories_that_share_a_row_are_named_where_there_are_several_such_rows(filling):
    promise = filling.promises[0]
    pairs = [replace(promise, columns=columns) for columns in ((0, 1), (0, 1), (0, 2))]
    notes = tables.notes_of(replace(filling, promises=pairs))
    assert [note for note in notes if "together: " in note] == [
        "2 together: thing 0, thing 1",
        "2 together: thing 0, thing 2",
    ]
    assert not any("together: " in note for note in tables.notes_of(replace(filling, promises=pairs[:1])))


def test_what_is_not_set_says_how_many_labels_that_needs():
    found = filled(0.99, images=300)
    assert not any(promise.choice.set for promise in found.promises)
    assert "that needs 321 hidden labels" in " ".join(tables.notes_of(found))


def test_a_shared_promise_is_named_by_how_many_share_it(filling):
    names = {tables.group_name(filling, promise) for promise in filling.promises}
    assert names <= {"thing 0", "thing 1", "2 categories together"} and len(names) > 1


def test_plain_data_is_json_with_the_same_numbers(filling):
    content = json.loads(json.dumps(tables.to_json(filling), allow_nan=False))
    assert content["precision"] == 0.9
    assert sum(promise["set"] for promise in content["promises"]) == np.count_nonzero(filling.decisions_NC)
    assert content["calibrations"][2]["kind"] is None
