"""A cell's folder is complete once its record is there; what is damaged is said in one line and left as it is."""

import json
import os
from pathlib import Path

import numpy as np
import pandas
import pytest
from safetensors.torch import load

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.records import store as store_module
from mlrpl_bench.records.record import OtherVersion, Unreadable, read_arrays
from mlrpl_bench.records.store import Damaged, Found, Missing, ResultStore
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import sha256_of_file, write_atomically
from tests.helpers.tiny_study import cell, contents, finished, labels_NC, make_of_another_version, refusal

ARRAYS = ("steps.npz", "scores.npz", "train_scores.npz", "examples.npz")
NAMED_IN_RECORD = {"history.csv", *ARRAYS, "weights.safetensors"}
PROVENANCE = {"device": "a CPU", "deviations": []}


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def record(store):
    return store.write(finished(cell()), PROVENANCE)


def test_a_cells_folder_says_dataset_method_ratio_seed_and_the_keys_beginning(store):
    one = cell(ratio=0.1, seed=3)
    assert store.folder(one) == store.root / "tiny" / "plain" / f"0.1-s3-{one.key[:8]}"


def test_a_finished_cell_leaves_these_files(record):
    assert set(contents(record.folder)) == NAMED_IN_RECORD | {"cell.json", "record.json"}


def test_weights_are_left_out_when_they_are_not_to_be_kept(store):
    record = store.write(finished(cell()), PROVENANCE, keep_weights=False)
    assert not (record.folder / "weights.safetensors").exists()
    assert store.find(cell()) is not None


def test_the_record_names_every_other_file_with_its_size_and_hash(record):
    assert record.content["files"] == {
        name: {"bytes": (record.folder / name).stat().st_size, "sha256": sha256_of_file(record.folder / name)}
        for name in NAMED_IN_RECORD
    }


def test_the_record_holds_what_training_found(record):
    content = record.content
    assert (content["key"], content["best_epoch"], content["dropped_images"]) == (cell().key, 0, 0)
    assert content["known_share"] == {"present": 0.5, "absent": 0.45}
    assert content["cost"] == {
        "seconds": 1.5,
        "images_per_second": 16.0,
        "peak_memory_bytes": 10**8,
        "cells_in_group": 1,
    }
    assert content["best_metrics"].keys() == content["metrics"].keys()
    assert (content["device"], content["deviations"]) == ("a CPU", [])


def test_the_other_files_hold_what_was_given(store):
    given = finished(cell())
    folder = store.write(given, PROVENANCE).folder
    assert pandas.read_csv(folder / "history.csv").to_dict("records") == given.history
    assert np.array_equal(read_arrays(folder / "steps.npz")["bce"], given.steps["bce"])
    assert np.array_equal(read_arrays(folder / "train_scores.npz")["scores"], given.train_scores_NC)
    assert read_arrays(folder / "examples.npz").keys() == given.examples.keys()
    assert load((folder / "weights.safetensors").read_bytes())["classifier.bias"].shape == (4,)
    assert json.loads((folder / "cell.json").read_text()) == cell().to_json()


def test_a_cell_is_found_by_what_it_is(store, record):
    found = store.find(cell())
    assert found is not None
    assert (found.cell.to_json(), found.metrics["mAP"]) == (cell().to_json(), record.metrics["mAP"])


def test_a_cell_that_was_not_trained_is_not_found(store, record):
    assert store.find(cell(seed=1)) is None


def test_a_cells_status_is_missing_found_or_damaged(store, record):
    assert store.status(cell(seed=1)) == Missing()
    status = store.status(cell())
    assert isinstance(status, Found) and status.record.content == record.content
    (record.folder / "scores.npz").unlink()
    status = store.status(cell())
    assert isinstance(status, Damaged) and "scores.npz is missing though its record names it" in status.reason


def test_a_record_of_another_version_in_a_cells_place_is_neither_damaged_nor_missing(store, record):
    make_of_another_version(record.folder).rename(record.folder)
    with pytest.raises(OtherVersion):
        store.status(cell())


@pytest.mark.parametrize("method", ["read_bytes", "stat"])
def test_what_the_system_cannot_read_is_not_called_damaged(store, record, monkeypatch, method):
    act = getattr(Path, method)

    def denied(path, **options):
        if path.name == {"read_bytes": "record.json", "stat": "scores.npz"}[method]:
            raise PermissionError(13, "Permission denied", str(path))
        return act(path, **options)

    monkeypatch.setattr(Path, method, denied)
    with pytest.raises(Unreadable, match=r"cannot be read \(Permission denied\); allow it"):
        store.status(cell())


def test_another_folders_record_is_found_where_there_is_none_of_our_own_and_its_damage_is_not_ours(
    store, record, tmp_path
):
    here = ResultStore(tmp_path / "mine", [store.root])
    status = here.status(cell())
    assert isinstance(status, Found) and status.record.folder == record.folder
    (record.folder / "scores.npz").unlink()
    assert here.status(cell()) == Missing()


def test_metrics_come_back_bit_for_bit_with_nan_where_a_category_has_no_positives(store, record):
    given = finished(cell()).metrics
    assert np.isnan(given["AP_C"]).tolist() == [False, False, False, True]
    for read in (record.metrics, store.find(cell()).metrics):
        assert read.keys() == given.keys()
        np.testing.assert_array_equal(read.pop("AP_C"), given["AP_C"])
        assert read == {name: value for name, value in given.items() if name != "AP_C"}


def test_records_are_strict_json(record):
    def no_such_number(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads((record.folder / "record.json").read_text(), parse_constant=no_such_number)


def test_a_share_that_is_not_defined_can_be_stored(store):
    record = store.write(finished(cell(), known_share={"present": 0.5, "absent": float("nan")}), PROVENANCE)
    assert record.content["known_share"] == {"present": 0.5, "absent": None}


def test_every_metric_can_be_computed_again_from_the_scores(record):
    again = metrics.evaluate(read_arrays(record.folder / "scores.npz")["scores"], labels_NC())
    assert again.keys() == record.metrics.keys()
    for name, value in again.items():
        np.testing.assert_array_equal(value, record.metrics[name], err_msg=name)


def test_records_are_listed_in_one_order_whatever_order_they_came_in(tmp_path):
    cells = [cell(method=method, ratio=ratio) for method in ("b", "a") for ratio in (0.9, 0.1)]
    orders = []
    for name, order in (("one", cells), ("two", cells[::-1])):
        store = ResultStore(tmp_path / name)
        for one in order:
            store.write(finished(one), PROVENANCE)
        orders.append([(record.cell.method, record.cell.ratio) for record in store.survey("tiny").records])
    assert orders == [[("a", 0.1), ("a", 0.9), ("b", 0.1), ("b", 0.9)]] * 2


@pytest.mark.parametrize("there", [[], [""], ["tiny"], ["tiny/plain/0.5-s0-00000000"]])
def test_a_folder_without_records_has_none(store, there):
    for folder in there:
        (store.root / folder).mkdir(parents=True)
    assert store.survey("tiny").records == []
    assert store.find(cell()) is None


FILES_IN_ORDER = ("cell.json", "history.csv", *ARRAYS, "weights.safetensors", "record.json")


@pytest.mark.parametrize("number", range(len(FILES_IN_ORDER)))
def test_whichever_file_cannot_be_written_there_is_no_record(store, monkeypatch, number):
    written = []

    def full_disk(path, content):
        if len(written) == number:
            raise OSError(28, "No space left on device")
        written.append(path.name)
        write_atomically(path, content)

    monkeypatch.setattr(store_module, "write_atomically", full_disk)
    line = refusal(lambda: store.write(finished(cell()), PROVENANCE))
    assert f"{FILES_IN_ORDER[number]} cannot be written (No space left on device)" in line
    assert tuple(written) == FILES_IN_ORDER[:number]
    assert store.find(cell()) is None
    assert store.survey("tiny").records == []


def test_a_cell_that_could_not_be_stored_can_be_stored_later(store, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(store_module, "write_atomically", lambda path, content: os.stat("/no/such/file"))
        store.write(finished(cell()), PROVENANCE)
    store.write(finished(cell()), PROVENANCE)
    assert store.find(cell()) is not None


def test_a_file_cannot_be_the_results_folder(tmp_path):
    (tmp_path / "results").write_text("mine")
    for path in (tmp_path / "results", tmp_path / "results" / "below"):
        assert refusal(lambda path=path: ResultStore(path)).startswith(f"--results-dir {path} cannot be read (")
    assert (tmp_path / "results").read_text() == "mine"


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path):
    (tmp_path / "results").symlink_to(tmp_path / "results")
    assert "results cannot be read (" in refusal(lambda: ResultStore(tmp_path / "results"))


def test_a_folder_below_that_cannot_be_listed_is_refused_and_not_taken_for_empty(store, record, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    line = refusal(lambda: store.survey("tiny"))
    assert line.startswith(f"{store.root / 'tiny'} cannot be read (Permission denied);")


def test_why_a_cell_failed_is_remembered(store):
    path = store.write_failure(cell(), "RuntimeError: out of memory", "Traceback ...")
    assert path == store.folder(cell()) / "failed.json"
    assert store.failure(cell()) == "RuntimeError: out of memory"
    assert json.loads(path.read_text())["traceback"] == "Traceback ..."
    assert store.find(cell()) is None


def test_a_cell_that_did_not_fail_has_no_reason(store, record):
    assert store.failure(cell()) is None


def test_a_record_takes_the_place_of_a_failure(store):
    store.write_failure(cell(), "RuntimeError: out of memory", "")
    store.write(finished(cell()), PROVENANCE)
    assert store.failure(cell()) is None


def test_a_table_stands_beside_the_records(store, record):
    path = store.write_table("tiny", "leaderboard.csv", "method\n")
    assert (path, path.read_text()) == (store.root / "tiny" / "leaderboard.csv", "method\n")
    assert len(store.survey("tiny").records) == 1


@pytest.fixture
def remote_store(store, record, tmp_path, monkeypatch):
    """A store whose root is the address of a folder with one record."""
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    return ResultStore(Path(f"file://{store.root}"))


def test_records_at_an_address_are_read(remote_store, store, record):
    assert isinstance(remote_store.status(record.cell), Found)
    (found,) = remote_store.survey("tiny").records
    assert found.content == record.content
    assert remote_store.in_words(found.folder) == f"file://{record.folder}"


def test_nothing_is_written_at_an_address(remote_store, store, record):
    before = sorted(store.root.rglob("*"))
    line = f"--results-dir file://{store.root} is object storage, which is only read; name a folder of this machine"
    for write in (
        lambda: remote_store.write(finished(cell()), PROVENANCE),
        lambda: remote_store.write_failure(cell(), "it broke", ""),
        lambda: remote_store.write_table("tiny", "leaderboard.csv", ""),
        lambda: remote_store.set_aside(record.cell),
    ):
        assert refusal(write).startswith(line)
    assert sorted(store.root.rglob("*")) == before
    assert remote_store.why_not_written and not store.why_not_written


def test_a_problem_at_an_address_is_told_with_the_address(remote_store, store, record):
    (record.folder / "record.json").write_text("{")
    (problem,) = ResultStore(Path(f"file://{store.root}")).survey("tiny").problems
    assert problem.startswith(f"file://{record.folder}/record.json is cut short")


def test_a_folder_of_this_machine_may_stand_before_an_address(store, record, tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    both = ResultStore(tmp_path / "mine", [Path(f"file://{store.root}")])
    both.write_failure(cell(), "it broke", "")
    assert (tmp_path / "mine").is_dir() and len(both.survey("tiny").records) == 1
