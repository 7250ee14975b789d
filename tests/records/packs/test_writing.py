"""Records are packed whole, the same ones to the same bytes."""

import json
import subprocess
import sys

import numpy as np

from mlrpl_bench.records.record import read_arrays_of
from mlrpl_bench.records.store import ResultStore
from tests.helpers.packs import members_of, packed, stored
from tests.helpers.places import ROOT
from tests.helpers.spoilt_records import flip_a_bit, rewrite
from tests.helpers.tiny_study import contents, refusal


def test_the_same_records_give_the_same_bytes_in_another_process_too(tmp_path):
    first = packed(stored(tmp_path / "results"), tmp_path / "a.zip")
    code = (
        "import sys; from pathlib import Path; from tests.helpers.packs import *\n"
        "packed(ResultStore(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    second = tmp_path / "b.zip"
    subprocess.run([sys.executable, "-c", code, tmp_path / "results", second], check=True, cwd=ROOT)
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_holds_what_the_file_holds(tmp_path):
    store = stored(tmp_path / "results")
    file, folder = packed(store, tmp_path / "a.zip"), packed(store, tmp_path / "a")
    assert contents(folder) == dict(sorted(members_of(file).items()))


def test_scores_are_rounded_training_scores_and_weights_left_out_unless_asked_for(tmp_path):
    store = stored(tmp_path / "results", 0)
    (record,) = store.survey("tiny").records

    def names(**options):
        found = members_of(packed(store, tmp_path / f"{len(list(tmp_path.iterdir()))}.zip", **options))
        return {name.rpartition("/")[2]: content for name, content in found.items()}

    few = names()
    assert set(few) == {
        *("manifest.json", "record.json", "packed.json", "history.csv", "steps.npz", "scores.npz", "examples.npz"),
        "train_evidence.npz",
    }
    assert json.loads(few["packed.json"])["left_out"] == ["train_scores.npz", "weights.safetensors"]
    every = names(scores="float32", train_scores=True, weights=True)
    assert {name: (record.folder / name).read_bytes() for name in every if name != "manifest.json"} == {
        name: content for name, content in every.items() if name != "manifest.json"
    }
    assert every["record.json"] == few["record.json"] and "packed.json" not in every


def test_a_damaged_record_is_refused_and_nothing_is_left(tmp_path):
    store = stored(tmp_path / "results")
    flip_a_bit(store.survey("tiny").records[1].folder / "steps.npz")
    for out in ("a.zip", "a"):
        assert "SHA-256 differs" in refusal(lambda out=out: packed(store, tmp_path / out))
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_pack_is_never_written_over(tmp_path):
    store = stored(tmp_path / "results", 0)
    (tmp_path / "a.zip").write_text("kept")
    assert "is there already" in refusal(lambda: packed(store, tmp_path / "a.zip"))
    assert (tmp_path / "a.zip").read_text() == "kept"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    store = stored(tmp_path / "results", 0)
    (tmp_path / "file").write_text("")
    for out in ("file/a.zip", "file/a"):
        assert "cannot be written" in refusal(lambda out=out: packed(store, tmp_path / out))


def test_scores_that_16_bits_cannot_hold_are_refused_with_what_to_do(tmp_path):
    store = stored(tmp_path / "results", 0)
    (record,) = store.survey("tiny").records
    scores_NC = read_arrays_of(record, "scores")["scores"].copy()
    scores_NC[0, 0] = 1e9
    rewrite(record, "scores.npz", {"scores": scores_NC})
    assert "give --scores float32" in refusal(lambda: packed(store, tmp_path / "a.zip"))
    rewrite(record, "scores.npz", {"scores": scores_NC.astype(np.float64)})
    assert "32 bits" in refusal(lambda: packed(ResultStore(tmp_path / "results"), tmp_path / "a.zip"))
