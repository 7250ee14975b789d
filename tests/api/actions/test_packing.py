"""Records are packed and brought in from Python; the table says which of its rows rest on submitted records."""

import pytest

import mlrpl_bench as mb
from mlrpl_bench.records.record import read_record
from mlrpl_bench.records.store import ResultStore
from tests.helpers.packs import stored
from tests.helpers.tiny_study import refusal


def test_records_are_chosen_packed_and_brought_in(trained, tmp_path):
    told = []
    done = mb.export_records(
        tmp_path / "a.zip",
        trained["results"],
        methods=["plain"],
        ratios=[0.5],
        progress=lambda *each: told.append(each),
    )
    assert done.records == 2 and done.path == tmp_path / "a.zip" and ("packing", 2, 2) in told
    found = mb.import_records(tmp_path / "a.zip", tmp_path / "in")
    assert found.sha256 == done.sha256 and len(found.imported) == 2 and not found.conflicts
    frame = mb.records(tmp_path / "in")
    assert set(frame["method"]) == {"plain"} and set(frame["status"]) == {"submitted"}
    full = mb.records(trained["results"])
    assert set(full["status"]) == {"own"}
    same = full[full["key"].isin(frame["key"])].sort_values("key")
    assert same["mAP"].tolist() == frame.sort_values("key")["mAP"].tolist()


def test_a_table_of_submitted_records_has_the_same_numbers_and_says_so(trained, tmp_path):
    options = {"ratios": [0.5, 0.9], "seeds": 2, "epochs": 1, "device": "cpu", "plugins": trained["plugins"]}
    mb.export_records(tmp_path / "a.zip", trained["results"])
    mb.import_records(tmp_path / "a.zip", tmp_path / "in")
    own, other = (
        mb.leaderboard("tiny", train=False, results=results, out=tmp_path / results.name, **options)
        for results in (trained["results"], tmp_path / "in")
    )
    assert other.problems == []
    notes = [note for note in other.leaderboard.notes if "submitted" in note]
    assert len(notes) == 1 and notes[0].startswith("measured elsewhere and submitted: ")
    assert ", in rows " in notes[0] and not any("submitted" in note for note in own.leaderboard.notes)
    columns = ["method", "known_ratio", "metric", "mean", "n", "status"]
    assert own.measurements[columns].equals(other.measurements[columns])
    page = (tmp_path / "in" / "index-epochs=1.html").read_text(encoding="utf-8")
    assert ">submitted<" in page and ">own<" not in page


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("made") / "results").root


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["plane"]}, "no record is of the method 'plane'; there are: plain"),
        ({"methods": "plain"}, "methods='plain' must be a list of names"),
        ({"datasets": ["tine"]}, "no record is of the data set 'tine'; there are: tiny"),
        ({"ratios": [0.7]}, "no record is of the known ratio 0.7; there are: 0.5"),
        ({"cells": ["zz"]}, "no record has a key that begins with 'zz'"),
        ({"cells": [""]}, "no record has a key that begins with ''"),
        ({"scores": "int8"}, "--scores int8 is not valid; it is float16 or float32"),
        ({}, "has no evidence.npz of its scores"),
    ],
)
def test_what_cannot_be_packed_is_said(made, tmp_path, options, said):
    assert said in refusal(lambda: mb.export_records(tmp_path / "a.zip", made, **options))
    assert not (tmp_path / "a.zip").exists()


def test_seeds_and_keys_choose_records(made, tmp_path):
    assert mb.export_records(tmp_path / "a.zip", made, seeds=1, train_scores=True).records == 1
    key = ResultStore(made).survey("tiny").records[1].cell.key
    mb.export_records(tmp_path / "b", made, cells=[key[:6]], train_scores=True)
    (path,) = (tmp_path / "b").rglob("record.json")
    assert read_record(path).cell.key == key
