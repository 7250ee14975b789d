"""What the figures are drawn from is the measurements, and the choice of rows knows no names."""

import json

import pytest

from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.leaderboard.report import page_data as module
from mlrpl_bench.leaderboard.report.page_data import by_category, chosen, curves, methods, page_data, unique
from tests.helpers.made_up_table import METHODS, leaderboard


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return leaderboard(tmp_path_factory.mktemp("records"))


def test_rows_go_from_strong_to_weak_without_lines(table):
    average = table.lookup.means("mAP", average_name(table.ratios))
    ranked = methods(table)
    assert ranked[-1] == "absent" and set(ranked) == {*METHODS, "absent"}
    assert [average[label] for label in ranked[:-1]] == sorted((average[m] for m in METHODS), reverse=True)


def test_strong_weak_and_default_rows_are_chosen(tmp_path):
    names = [f"m{number}" for number in range(12)]
    table = leaderboard(tmp_path, names, seeds=1)
    ranked = [label for label in methods(table) if label != "absent"]
    assert chosen(table) == [*ranked[:5], ranked[-1]]
    assert chosen(table, [ranked[7]]) == [*ranked[:5], ranked[7], ranked[-1]]
    assert len(chosen(table, names)) == 8


def test_curves_have_the_interval_of_the_measurements(table):
    (first, _) = curves(table, "mAP")["plain"]
    frame = table.measurements
    at = (frame["method"] == "plain") & (frame["metric"] == "mAP") & (frame["known_ratio"] == "0.1")
    (row,) = frame[at].itertuples()
    assert first == pytest.approx([0.1, row.mean, row.low, row.high], rel=1e-4)


def test_a_category_without_positives_is_a_hole(table):
    values = by_category(table)["plain"]["0.1"]
    assert values[-1] is None and all(value is not None for value in values[:-1])


def test_the_data_is_json_without_nan(table):
    text = json.dumps(page_data(table), allow_nan=False)
    assert json.loads(text)["training"]["plain"]["0.5"]["loss"]["late"] == [None] * 3 + [1, 2, 3]
    assert json.loads(text)["lines"] == ["top"]


def test_of_many_rows_the_strongest_and_the_chosen_are_drawn(table, monkeypatch):
    every = page_data(table)
    monkeypatch.setattr(module, "MOST_ROWS", 1)
    monkeypatch.setattr(module, "chosen", lambda *_: every["rows"][:1])
    found = page_data(table)
    first = every["rows"][0]
    assert found["rows"] == every["rows"] and len(every["training"]) > 1
    assert found["training"] == {first: every["training"][first]}
    assert set(found["precision"]) == {first, "top"} < set(every["precision"])
    assert found["metrics"] == every["metrics"]


def test_a_cell_shown_in_two_places_counts_once(table):
    assert len(unique([table.cells["top", 0.1], table.cells["top", 0.5]])) == 2
