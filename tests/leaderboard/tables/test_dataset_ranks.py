"""Ranks over data sets, from records that are made up."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from mlrpl_bench.leaderboard.tables import dataset_ranks, main
from mlrpl_bench.records.store import ResultStore
from tests.helpers.tiny_study import cell, cells_of, finished, record

PERCENTS = {"a": 50.0, "b": 40.0, "c": 30.0}
TOP = record(cell(method="top", ratio=0.1), mAP=0.99)
HERE = main.build(
    cells_of([TOP, *(record(cell(method=name, ratio=0.1), mAP=percent / 100) for name, percent in PERCENTS.items())]),
    ["top", *PERCENTS],
    (0.1,),
    main.Context(reference_rows={"top": "a reference row, which takes no part"}),
    {},
)
METHODS = {name: SimpleNamespace(source_digest=lambda: "d") for name in "abc"}


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path)


def put(store, percents, dataset="other", ratio=0.1, **changes):
    """A record of each method; its mAP in percent."""
    for number, (method, percent) in enumerate(percents.items()):
        of = cell(method=method, ratio=ratio, source_digest="d")
        of = replace(of, **{"setting": replace(of.setting, dataset=dataset), **changes})
        done = finished(of, seed=number)
        store.write(replace(done, metrics={**done.metrics, "mAP": percent / 100}), {})


def rows(table):
    return {label: entries[0].value for label, entries in table.rows}


def test_ranks_are_over_pairs_of_data_set_and_ratio(store):
    put(store, {"a": 10, "b": 20, "c": 30})
    put(store, {"a": 90, "b": 80, "c": 70}, ratio=0.5)
    table = dataset_ranks.rank("here", HERE, store, METHODS)
    assert rows(table) == pytest.approx({"a": 5 / 3, "b": 2, "c": 7 / 3})
    assert "3 pairs of data set and known ratio: here at 10 %; other at 10 and 50 %" in table.notes[0]


def test_own_records_are_not_counted_twice(store):
    put(store, {"a": 10, "b": 20, "c": 30}, dataset="here")
    assert dataset_ranks.rank("here", HERE, store, METHODS) is None


def test_seeds_are_averaged(store):
    put(store, {"a": 10, "b": 20})
    put(store, {"a": 40, "b": 20}, seed=1)
    assert rows(dataset_ranks.rank("here", HERE, store, METHODS)) == {"a": 1, "b": 2}


def test_a_row_that_another_data_set_lacks_is_named(store):
    put(store, {"a": 10, "b": 20})
    table = dataset_ranks.rank("here", HERE, store, METHODS)
    assert rows(table) == {"a": 1.5, "b": 1.5}
    assert "not trained on every data set, so not ranked: c" in table.notes


def test_a_ratio_that_lacks_a_row_is_no_block(store):
    put(store, {"a": 10, "b": 20, "c": 30})
    put(store, {"a": 10, "b": 20}, ratio=0.5)
    assert "2 pairs" in dataset_ranks.rank("here", HERE, store, METHODS).notes[0]


@pytest.mark.parametrize("why", ["edited", "validation images", "other masks", "complete labels", "not registered"])
def test_records_that_do_not_belong_do_not_count(store, why):
    changes = {"ratio": 1.0} if why == "complete labels" else {}
    setting = {"validation images": {"evaluate_on": "val"}, "other masks": {"mask_scheme": "file"}}.get(why, {})
    base = cell().setting
    changes["setting"] = replace(base, dataset="other", **setting)
    put(store, {"a": 10, "b": 20, "c": 30}, **{**changes, "source_digest": "e" if why == "edited" else "d"})
    assert dataset_ranks.rank("here", HERE, store, {} if why == "not registered" else METHODS) is None


def test_of_several_settings_the_one_with_the_most_records_counts(store):
    other = replace(cell().setting, dataset="other", image_size=999)
    put(store, {"a": 10, "b": 20, "c": 30})
    put(store, {"a": 90, "b": 20}, setting=other)
    assert rows(dataset_ranks.rank("here", HERE, store, METHODS)) == {"a": 2, "b": 2, "c": 2}
