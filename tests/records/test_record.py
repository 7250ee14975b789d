"""What is damaged is said in one line and left as it is."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from mlrpl_bench.data import protocol
from mlrpl_bench.records.cell import OtherWeights
from mlrpl_bench.records.record import Unreadable, compose, digest, read_arrays
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import cell, contents, finished, refusal

ARRAYS = ("steps.npz", "scores.npz", "train_scores.npz", "examples.npz")


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def record(store):
    return store.write(finished(cell()), {"device": "a CPU", "deviations": []})


def edit_record(folder, change) -> None:
    """Rewrite record.json with one thing changed."""
    content = json.loads((folder / "record.json").read_text())
    change(content)
    (folder / "record.json").write_text(json.dumps(content))


def truncate(path, keep=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_version(content):
    content["cell"]["setting"]["protocol_version"] = protocol.VERSION + 1


DAMAGES = {
    "record cut short": (lambda f: truncate(f / "record.json"), r"record\.json is cut short or no JSON"),
    "record empty": (lambda f: truncate(f / "record.json", 0), r"record\.json is cut short or no JSON"),
    "record no text": (
        lambda f: (f / "record.json").write_bytes(b"\xff\xfe\x00"),
        r"record\.json is cut short or no JSON",
    ),
    "record a list": (lambda f: (f / "record.json").write_text("[]"), r"record\.json holds no JSON object"),
    "record nested too deeply": (
        lambda f: (f / "record.json").write_text("[" * 100_000),
        r"record\.json is cut short or no JSON",
    ),
    "cell missing": (lambda f: edit_record(f, lambda c: c.pop("cell")), "not a whole record .*'cell'"),
    "cell a list": (lambda f: edit_record(f, lambda c: c.update(cell=[])), "not a whole record"),
    "setting null": (lambda f: edit_record(f, lambda c: c["cell"].update(setting=None)), "not a whole record"),
    "recipe a number": (lambda f: edit_record(f, lambda c: c["cell"].update(recipe=1)), "not a whole record"),
    "cell changed": (lambda f: edit_record(f, lambda c: c["cell"].update(seed=5)), "its key is not that of its cell"),
    "key missing": (lambda f: edit_record(f, lambda c: c.pop("key")), "not a whole record .*'key'"),
    "metrics missing": (lambda f: edit_record(f, lambda c: c.pop("metrics")), "not a whole record .*'metrics'"),
    "mAP missing": (lambda f: edit_record(f, lambda c: c["metrics"].pop("mAP")), "not a whole record .*'mAP'"),
    "mAP a word": (lambda f: edit_record(f, lambda c: c["metrics"].update(mAP="0.5")), "its mAP is no share"),
    "OP missing": (lambda f: edit_record(f, lambda c: c["metrics"].update(OP=None)), "its OP is no share"),
    "best epoch gone": (lambda f: edit_record(f, lambda c: c.pop("best_metrics")), "'best_metrics'"),
    "AP a number": (lambda f: edit_record(f, lambda c: c["best_metrics"].update(AP_C=1)), "its AP_C are no shares"),
    "AP too large": (lambda f: edit_record(f, lambda c: c["metrics"].update(AP_C=[2.0])), "its AP_C are no shares"),
    "cost a word": (lambda f: edit_record(f, lambda c: c["cost"].update(seconds="x")), "its cost has no seconds"),
    "cost missing": (lambda f: edit_record(f, lambda c: c["cost"].pop("peak_memory_bytes")), "'peak_memory_bytes'"),
    "files a list": (lambda f: edit_record(f, lambda c: c.update(files=[])), "not a whole record"),
    "files without sizes": (lambda f: edit_record(f, lambda c: c["files"].update({"a": {}})), "not a whole record"),
    "a file missing": (lambda f: (f / "scores.npz").unlink(), r"scores\.npz is missing though its record names it"),
    "arrays cut short": (lambda f: truncate(f / "scores.npz"), r"scores\.npz has \d+ bytes where its record says \d+"),
    "history grown": (
        lambda f: (f / "history.csv").write_bytes((f / "history.csv").read_bytes() + b"\n"),
        r"history\.csv has \d+ bytes where its record says \d+",
    ),
    "another protocol version": (
        lambda f: edit_record(f, other_version),
        f"of protocol version {protocol.VERSION + 1} and this is version {protocol.VERSION}",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_in_one_line_and_nothing_is_touched(store, record, damage):
    do, reason = DAMAGES[damage]
    do(record.folder)
    before = contents(store.root)
    line = refusal(lambda: store.find(cell()))
    found = store.survey("tiny")
    assert found.records == []
    assert found.problems == ([] if damage == "another protocol version" else [line])
    assert bool(found.excluded_folders) == (damage == "another protocol version")
    assert re.search(reason, line), line
    assert str(record.folder) in line
    assert "move" in line
    assert contents(store.root) == before


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "damage", [truncate, lambda path: truncate(path, 0), flip_a_bit], ids=["half", "empty", "a bit"]
)
def test_arrays_that_are_damaged_are_named_and_left(record, name, damage):
    damage(record.folder / name)
    before = contents(record.folder)
    line = refusal(lambda: read_arrays(record.folder / name))
    assert line.startswith(f"{record.folder / name} is damaged (")
    assert "move" in line
    assert contents(record.folder) == before


def test_arrays_that_the_system_cannot_read_are_not_called_damaged(record, monkeypatch):
    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(Unreadable, match=r"scores\.npz cannot be read \(Permission denied\)"):
        read_arrays(record.folder / "scores.npz")


def test_what_is_composed_is_what_is_read_and_its_digest_covers_all_of_it(record):
    content = json.loads((record.folder / "record.json").read_text())
    assert content == record.content and content["sha256"] == digest(content)
    assert compose(finished(cell()), {"device": "a CPU", "deviations": []}, content["files"]) == content
    assert digest({**content, "best_epoch": 1}) != content["sha256"]


def test_arrays_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "scores.npz", scores=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"scores\.npz is damaged"):
        read_arrays(tmp_path / "scores.npz")


def test_a_record_with_averaged_weights_has_the_scores_of_both(store):
    averaged = cell(recipe=replace(cell().recipe, ema=2.0))
    left = finished(averaged)
    other = OtherWeights("raw", left.metrics, left.scores_NC + 1)
    record = store.write(replace(left, other_weights=other), {})
    assert record.content["other_weights"]["weights"] == "raw"
    assert record.content["other_weights"]["metrics"]["mAP"] == left.metrics["mAP"]
    arrays = read_arrays(record.folder / "scores.npz")
    assert np.array_equal(arrays["raw"], arrays["scores"] + 1)
    edit_record(record.folder, lambda content: content.pop("other_weights"))
    assert "is not a whole record" in refusal(lambda: store.find(averaged))


def test_a_record_without_has_nothing_of_the_kind(record):
    assert "other_weights" not in record.content and set(read_arrays(record.folder / "scores.npz")) == {"scores"}
