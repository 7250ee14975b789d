"""Ratings over data sets, from records that are made up."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mlrpl_bench.leaderboard.tables.analyses import contests
from mlrpl_bench.records.store import ResultStore
from tests.helpers.tiny_study import cell, finished, refusal

METHODS = {name: SimpleNamespace(source_digest=lambda: "d") for name in "abcd"}


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path)


def put(store, percents, dataset="one", ratio=0.1, seed=0, **changes):
    """A record of each row; its mAP in percent."""
    for method, percent in percents.items():
        of = cell(method=method, ratio=ratio, seed=seed, mask_seed=seed, source_digest="d")
        of = replace(of, **{"setting": replace(of.setting, dataset=dataset), **changes})
        done = finished(of)
        store.write(replace(done, metrics={**done.metrics, "mAP": percent / 100}), {})


def rows(found):
    return found.frame[found.frame.kind == "row"].set_index("method")


def test_every_two_rows_meet_in_every_block(store):
    put(store, {"a": 60, "b": 50, "c": 50})
    put(store, {"a": 60, "b": 70, "c": 10}, ratio=0.5)
    put(store, {"a": 9, "b": 8, "c": 7}, dataset="two", seed=3)
    found = contests.analyse(store, METHODS)
    assert rows(found).wins.to_dict() == {"a": 5, "b": 3.5, "c": 0.5}
    assert rows(found).win_rate.to_dict() == pytest.approx({"a": 500 / 6, "b": 350 / 6, "c": 50 / 6})
    assert rows(found).average_rank.to_dict() == pytest.approx({"a": 4 / 3, "b": 5.5 / 3, "c": 8.5 / 3})
    pairs = found.frame[found.frame.kind == "pair"].set_index(["method", "against"])
    assert pairs.win_rate["a", "b"] == pytest.approx(200 / 3) and pairs.games["b", "c"] == 3
    assert [label for label, _ in found.tables[0].rows] == ["a", "b", "c"]
    assert [entry.text for entry in found.tables[1].rows[0][1]] == ["", "67", "100"]
    assert "one at 10 and 50 %, 1 seed; two at 10 %, 1 seed" in found.tables[0].notes[0]
    assert "a bootstrap over data sets, and over seeds within each" in "\n".join(found.tables[0].notes)


def test_a_row_without_some_blocks_is_rated_and_ranked_over_the_complete_ones(store):
    for seed in range(3):
        put(store, {"a": 60, "b": 50}, seed=seed)
    put(store, {"c": 55}, seed=0)
    found = contests.analyse(store, METHODS)
    assert rows(found).games.to_dict() == {"a": 4, "b": 4, "c": 2}
    assert np.isnan(rows(found).average_rank).all() and "average over the 1 block in" in "\n".join(
        found.tables[0].notes
    )


def test_a_row_that_met_no_other_is_left_out(store):
    put(store, {"a": 60, "b": 50})
    put(store, {"c": 55}, seed=1)
    found = contests.analyse(store, METHODS)
    assert list(rows(found).index) == ["a", "b"]
    assert "without a block in common with the others, so not rated: c" in found.tables[0].notes


def test_only_the_rows_data_sets_and_ratios_that_are_named_count(store):
    put(store, {"a": 60, "b": 50, "c": 40})
    put(store, {"a": 50, "b": 60, "c": 40}, ratio=0.5)
    put(store, {"a": 50, "b": 60, "c": 40}, dataset="two")
    found = contests.analyse(store, METHODS, ["a", "b"], ["one"], [0.1])
    assert rows(found).wins.to_dict() == {"a": 1, "b": 0}


def test_records_of_methods_that_have_changed_do_not_count(store):
    put(store, {"a": 60, "b": 50})
    put(store, {"a": 10, "b": 20}, ratio=0.5, source_digest="old")
    put(store, {"a": 10, "b": 20}, dataset="two", source_digest="old")
    found = contests.analyse(store, METHODS)
    assert rows(found).games.to_dict() == {"a": 1, "b": 1}
    assert any("no record of two counts" in note for note in found.tables[0].notes)


@pytest.mark.parametrize(
    ("seeds", "datasets", "said"),
    [
        (1, 1, "no intervals"),
        (3, 1, "over seeds alone"),
        (3, 2, "2 data sets are few"),
        (2, 1, "fewer than three seeds"),
    ],
)
def test_how_little_the_intervals_rest_on_is_said(store, seeds, datasets, said):
    for name in ("one", "two")[:datasets]:
        for seed in range(seeds):
            put(store, {"a": 60, "b": 50 + 20 * (seed % 2)}, dataset=name, seed=seed)
    found = contests.analyse(store, METHODS)
    assert any(said in note for note in found.tables[0].notes)
    assert np.isnan(rows(found).elo_low).all() == (seeds == 1)


def test_many_rows_have_no_table_of_every_two_but_their_numbers(store, monkeypatch):
    monkeypatch.setattr(contests, "MOST_COLUMNS", 1)
    put(store, {"a": 60, "b": 50})
    found = contests.analyse(store, METHODS)
    assert len(found.tables) == 1 and "lines of kind pair" in found.tables[0].notes[-1]
    assert (found.frame.kind == "pair").sum() == 2


def test_a_row_that_always_won_has_a_remark(store):
    for seed in range(3):
        put(store, {"a": 60, "b": 50}, seed=seed)
    notes = contests.analyse(store, METHODS).tables[0].notes
    assert any(note.startswith("an interval of no width") for note in notes)


def test_a_row_of_one_seed_has_no_interval_and_is_named(store):
    for seed in range(3):
        put(store, {"a": 60, "b": 50 + 20 * (seed == 1)}, seed=seed)
    put(store, {"c": 55}, seed=0)  # it wins one contest of two in every resample, which is no certainty
    found = contests.analyse(store, METHODS)
    assert np.isnan(rows(found).elo_low).to_dict() == {"a": False, "b": False, "c": True}
    assert np.isnan(rows(found).win_rate_high).to_dict() == {"a": False, "b": False, "c": True}
    notes = found.tables[0].notes
    assert "no interval, as one seed of one data set says nothing about others: c" in notes
    assert not any(note.startswith("an interval of no width") for note in notes)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"labels": ["x"]}, "no records of 'x'; there are: a, b"),
        ({"labels": ["a"]}, "two or more meet each other"),
        ({"datasets": ["nowhere"]}, "no records of data set 'nowhere'; there are: one"),
        ({"ratios": [0.7]}, "no row has records that count"),
    ],
)
def test_bad_input_is_one_line(store, asked, line):
    put(store, {"a": 60, "b": 50})
    assert line in refusal(lambda: contests.analyse(store, METHODS, **asked))
