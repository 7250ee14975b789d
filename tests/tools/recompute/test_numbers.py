"""Every number of a record that can be computed again is, and one that was edited is named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.records.record import Record, digest, read_record
from mlrpl_bench.tools.recompute.check import recompute_numbers
from mlrpl_bench.tools.recompute.numbers import IN_HISTORY
from mlrpl_bench.utils.files import sha256_of_file
from tests.helpers.edited_records import EDITS, edited


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_number_is_named_with_what_it_should_be(trained, labels, name):
    path, value, what = EDITS[name]
    record = trained.records["one epoch" if name.startswith("best ") else "usual"]  # of one epoch the last is the best
    found = recompute_numbers([edited(record, *path, value=value)], labels)
    (disagreements,) = found.disagreeing.values()
    assert what in [each.what for each in disagreements], list(found.lines())
    assert not found.holds()
    json.dumps(found.to_json(), allow_nan=False)


def test_a_best_epoch_that_is_not_the_last_agrees_too(trained, labels):
    records = [trained.train(seed, epochs=4) for seed in range(1, 6)]
    early = [record for record in records if record.content["best_epoch"] < 3]
    assert early, "choose other seeds"
    assert list(recompute_numbers(records, labels).lines()) == []
    content = {**early[0].content, "best_metrics": {**early[0].content["best_metrics"], "CR": 0.123}}
    (line,) = recompute_numbers([replace(early[0], content=content)], labels).lines()
    assert "CF1 of the best epoch is " in line and "from its other metrics it is " in line


def test_the_best_of_the_epochs_that_were_evaluated_agrees(trained, labels):
    record = trained.train(6, epochs=4, evaluate_every=3)
    assert record.content["best_epoch"] in (2, 3)
    assert list(recompute_numbers([record], labels).lines()) == []
    (line,) = recompute_numbers([edited(record, "best_epoch", value=0)], labels).lines()
    assert "best_epoch is 0" in line


def copied(record: Record, folder) -> Record:
    """The record in a folder of its own."""
    return read_record(shutil.copytree(record.folder, folder / record.folder.name) / "record.json")


def rewrite(record: Record, name: str, arrays: dict[str, np.ndarray]) -> Record:
    """Other arrays in a record's file; size, hash and digest mended."""
    path = record.folder / name
    np.savez(path, **arrays)
    content = json.loads((record.folder / "record.json").read_text())
    content["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    (record.folder / "record.json").write_text(json.dumps({**content, "sha256": digest(content)}))
    return read_record(record.folder / "record.json")


def test_scores_that_were_changed_disagree_with_the_metrics(trained, labels, tmp_path):
    record = copied(trained.records["usual"], tmp_path)
    scores_NC = np.load(record.folder / "scores.npz")["scores"]
    (line,) = recompute_numbers([rewrite(record, "scores.npz", {"scores": -scores_NC})], labels).lines()
    assert "mAP is " in line and "from scores.npz it is " in line


def test_losses_that_were_changed_disagree_with_the_history(trained, labels, tmp_path):
    record = copied(trained.records["usual"], tmp_path)
    losses_S = np.load(record.folder / "steps.npz")["bce"]
    losses_S[4] += 1
    (line,) = recompute_numbers([rewrite(record, "steps.npz", {"bce": losses_S})], labels).lines()
    assert "loss.bce of epoch 1 in history.csv is " in line and "epoch 0" not in line


@pytest.mark.parametrize(
    ("name", "arrays", "what"),
    [
        ("scores.npz", {"scores": np.zeros((3, 4), np.float32)}, "the shape of scores.npz is (3, 4)"),
        ("train_scores.npz", {"scores": np.zeros((3, 4), np.float32)}, "the shape of train_scores.npz is (3, 4)"),
        ("scores.npz", {"other": np.zeros(3)}, "holds no scores"),
        ("scores.npz", {"scores": np.full((8, 4), np.nan, np.float32)}, "holds no scores"),
        ("steps.npz", {"bce": np.zeros(5, np.float32)}, "the number of steps in bce is 5"),
        ("steps.npz", {"bce": np.zeros((2, 3), np.float32)}, "holds no losses of steps"),
        ("steps.npz", {"bce": np.array(["a"] * 6)}, "holds no losses of steps"),
        ("steps.npz", {}, "holds no losses of steps"),
        ("examples.npz", {"rows": np.arange(8), "scores": np.zeros((8, 4))}, "examples.npz is something else"),
        ("examples.npz", {"rows": np.arange(8) + 8, "scores": np.zeros((8, 4))}, "examples.npz is something else"),
        ("examples.npz", {"rows": np.arange(8)}, "examples.npz is something else"),
    ],
)
def test_arrays_that_are_of_no_such_record_are_named_in_one_line(trained, labels, tmp_path, name, arrays, what):
    record = rewrite(copied(trained.records["usual"], tmp_path), name, arrays)
    found = recompute_numbers([record], labels)
    lines = list(found.lines())
    assert any(what in line for line in lines), lines
    assert not found.holds() and not any("\n" in line for line in lines)


@pytest.mark.parametrize(
    "text", ["", "epoch\n", "epoch,seconds\n0,1\n", "\x00", "epoch,test.mAP\nx,y\n", "a,b\n1,2,3\n", "a,b\n1\n"]
)
def test_a_history_that_is_none_is_named(trained, labels, tmp_path, text):
    record = copied(trained.records["usual"], tmp_path)
    (record.folder / "history.csv").write_text(text)
    (line,) = recompute_numbers([record], labels).lines()
    assert line.startswith("damaged: ") and "history.csv" in line


def test_what_every_history_has_are_metrics():
    assert set(IN_HISTORY) <= metrics.evaluate([[1.0], [-1.0]], [[1], [-1]]).keys()


def test_scores_of_the_weights_that_are_not_the_rows_are_checked_too(trained, labels, tmp_path):
    record = trained.train(changed={"ema": "2"}, epochs=1)
    assert list(recompute_numbers([record], labels).lines()) == []
    record = copied(record, tmp_path)
    with np.load(record.folder / "scores.npz") as file:
        arrays = {name: file[name] for name in file.files}
    (line,) = recompute_numbers([rewrite(record, "scores.npz", arrays | {"raw": -arrays["raw"]})], labels).lines()
    assert "of the raw weights is " in line and "from scores.npz it is " in line
