"""Records of a pack come in whole, as submitted ones; what is here already stays, and conflicts are shown."""

import io
import json

import numpy as np
import pytest

from mlrpl_bench.data.protocol import VERSION
from mlrpl_bench.records.packs.importing import bring_in
from mlrpl_bench.records.record import read_arrays_of
from mlrpl_bench.records.store import ResultStore
from tests.helpers.packs import changed, facts, packed, stored, with_record
from tests.helpers.tiny_study import cell, contents, refusal


@pytest.fixture
def store(tmp_path):
    return stored(tmp_path / "results")


@pytest.fixture
def pack(store, tmp_path):
    return packed(store, tmp_path / "a.zip")


@pytest.fixture
def there(tmp_path):
    return ResultStore(tmp_path / "in")


def test_records_come_in_as_submitted_ones_with_their_bytes(pack, store, there):
    found = bring_in(pack, there)
    assert found.is_complete() and len(found.imported) == 2
    for record, own in zip(there.survey("tiny").records, store.survey("tiny").records, strict=True):
        assert record.origin.status == "submitted" and record.origin.pack == found.sha256
        assert (record.folder / "record.json").read_bytes() == (own.folder / "record.json").read_bytes()
        assert (record.folder / "cell.json").read_bytes() == (own.folder / "cell.json").read_bytes()
        assert record.is_rounded() and not own.is_rounded() and own.origin.status == "own"
        less, full = (read_arrays_of(each, "scores")["scores"] for each in (record, own))
        assert less.dtype == np.float32 and 0 < np.abs(less - full).max() < 1e-2
        shown = read_arrays_of(record, "examples")
        assert np.array_equal(shown["scores"], less[shown["rows"]])


def test_what_came_in_goes_out_with_the_same_bytes(pack, there, tmp_path):
    bring_in(pack, there)
    assert packed(there, tmp_path / "b.zip").read_bytes() == pack.read_bytes()
    assert "leave --scores float32 out" in refusal(lambda: packed(there, tmp_path / "c.zip", scores="float32"))
    assert "leave --train-scores out" in refusal(lambda: packed(there, tmp_path / "c.zip", train_scores=True))


def test_a_second_import_changes_nothing(pack, there):
    bring_in(pack, there)
    before = contents(there.root)
    found = bring_in(pack, there)
    assert found.is_complete() and not found.imported and len(found.already) == 2
    assert contents(there.root) == before


def test_a_record_of_ones_own_stays_own(pack, store):
    before = contents(store.root)
    assert len(bring_in(pack, store).already) == 2
    assert contents(store.root) == before


def test_other_numbers_of_a_cell_are_shown_and_nothing_is_replaced(pack, tmp_path):
    store = stored(tmp_path / "others", 1, noise=1)
    before = contents(store.root)
    found = bring_in(pack, store)
    assert not found.is_complete() and [record.cell.seed for record in found.imported] == [0]
    (conflict,) = found.conflicts
    here, there = conflict.facts, conflict.there
    assert here["mAP"] != there["mAP"] and here["scores"] != there["scores"]
    assert here["machine"] == there["machine"] == "here a CPU"
    for part in (here["mAP"], there["mAP"], here["scores"], there["scores"], cell(seed=1).title):
        assert part in conflict.to_text()
    assert before.items() <= contents(store.root).items()


def test_a_conflict_in_a_folder_that_is_only_read_counts_too(pack, tmp_path, there):
    other = stored(tmp_path / "others", 1, noise=1)
    found = bring_in(pack, ResultStore(there.root, [other.root]))
    assert [conflict.here.parents[2] for conflict in found.conflicts] == [other.root]


def test_a_damaged_record_here_stays_and_is_named(pack, store):
    (record, _) = store.survey("tiny").records
    (record.folder / "steps.npz").unlink()
    found = bring_in(pack, store)
    assert not found.is_complete() and len(found.already) == 1
    assert "steps.npz is missing" in found.unusable[0]


def test_files_of_a_record_that_was_taken_away_do_not_mix_with_another(pack, there, store):
    bring_in(pack, there)
    for record in there.survey("tiny").records:
        (record.folder / "record.json").unlink()
    full = packed(store, pack.with_name("full.zip"), scores="float32", train_scores=True, weights=True)
    bring_in(full, there)
    assert [record.packed for record in there.survey("tiny").records] == [None, None]


def test_training_anew_makes_the_record_ones_own(pack, there):
    bring_in(pack, there)
    record = there.survey("tiny").records[0]
    (record.folder / "record.json").unlink()
    stored(there.root, record.cell.seed)
    again = there.find(record.cell)
    assert again is not None and again.origin.status == "own" and again.packed is None


def as_npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def with_file(members, name, content):
    """Put another file into the first record, whose stated size and hash fit."""
    place = next(iter(members)).rpartition("/")[0]
    members[f"{place}/{name}"] = content
    stated = json.loads(members[f"{place}/packed.json"])
    if name in stated["files"]:
        stated["files"][name] = facts(content)
        members[f"{place}/packed.json"] = json.dumps(stated).encode()
    else:
        with_record(members, lambda content_: content_["files"].update({name: facts(content)}))


def first_record(members):
    return next(name for name in members if name.endswith("record.json"))


def flip(members, name):
    """Change a byte of a file of the first record, not its size."""
    name = first_record(members).replace("record.json", name)
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def with_other_costs(members):
    name = first_record(members)
    members[name] = members[name].replace(b'"seconds": 1.5', b'"seconds": 9.5')


SPOILT = {
    "a file of the same size": (lambda m, _: flip(m, "history.csv"), "history.csv is not what its record says"),
    "a record without its digest": (lambda m, _: with_other_costs(m), "record.json is not what was written"),
    "another protocol version": (
        lambda m, _: with_record(m, lambda c: c["cell"]["setting"].update(protocol_version=VERSION + 1)),
        f"protocol version {VERSION + 1}",
    ),
    "another key": (lambda m, _: with_record(m, lambda c: c.update(key="0" * 64)), "its key is not"),
    "a ratio as text": (lambda m, _: with_record(m, lambda c: c["cell"].update(ratio="0.5")), "ratio is '0.5'"),
    "metrics as a list": (lambda m, _: with_record(m, lambda c: c.update(metrics=[1])), "not a whole record"),
    "files as a number": (lambda m, _: with_record(m, lambda c: c.update(files=3)), "not a whole record"),
    "no digest": (lambda m, _: m.update({first_record(m): b"{}"}), "not a whole record"),
    "no record": (lambda m, _: m.pop(first_record(m)), "has no record.json"),
    "a record that is no JSON": (lambda m, _: m.update({first_record(m): b"\x80"}), "no JSON"),
    "a method that is a path": (
        lambda m, _: with_record(m, lambda c: c["cell"].update(method="../../up")),
        "its key is not",
    ),
    "a file too few": (lambda m, _: m.pop(first_record(m).replace("record.json", "steps.npz")), "steps.npz"),
    "weights that nobody states": (
        lambda m, _: m.update({first_record(m).replace("record.json", "weights.safetensors"): b"x"}),
        "weights.safetensors is not a file of this record",
    ),
    "a packed.json of lists": (
        lambda m, _: m.update({first_record(m).replace("record.json", "packed.json"): b"[]"}),
        "holds no JSON object",
    ),
    "scores of other categories": (
        lambda m, _: with_file(m, "scores.npz", as_npz(**HALF)),
        "scores of shape (8, 3) and the record has 4",
    ),
    "scores as they were": (
        lambda m, _: with_file(m, "scores.npz", as_npz(scores=np.zeros((8, 4), np.float32))),
        "rounded scores are",
    ),
    "scores that are pickled": (
        lambda m, _: with_file(m, "scores.npz", as_npz(high=np.array([{}], dtype=object))),
        "pickled objects",
    ),
    "steps that are no arrays": (lambda m, _: with_file(m, "steps.npz", b"PK no"), "steps.npz is damaged"),
    "scores that are infinite": (lambda m, _: with_file(m, "scores.npz", as_npz(**INFINITE)), "no finite numbers"),
    "evidence of other numbers": (
        lambda m, _: with_file(m, "train_evidence.npz", as_npz(recovery=np.zeros(2, np.uint8))),
        "numbers of 64 bits",
    ),
}
HALF = {"high": np.zeros((8, 3), np.uint8), "low": np.zeros((8, 3), np.uint8), "centre": np.zeros(3, np.float32)}
INFINITE = {"high": np.full((8, 4), 0x7C, np.uint8), "low": np.zeros((8, 4), np.uint8)}
INFINITE["centre"] = np.zeros(4, np.float32)


@pytest.mark.parametrize("name", SPOILT)
def test_a_record_that_is_not_one_is_refused_and_nothing_is_written(pack, there, name):
    change, said = SPOILT[name]
    line = refusal(lambda: bring_in(changed(pack, change), there))
    assert said in line and line.endswith("; nothing was imported")
    assert ".import-" not in line and not there.root.exists()


def test_a_record_whose_method_is_no_name_is_refused(tmp_path, there):
    pack = packed(stored(tmp_path / "results", 0, method="no-name"), tmp_path / "a.zip")
    assert "cannot be called 'no-name'" in refusal(lambda: bring_in(pack, there))


@pytest.mark.parametrize("name", ["plain+", "+cft", "plain+cft+cft", "plain+../x"])
def test_a_step_that_is_no_name_is_refused(tmp_path, there, name):
    pack = packed(stored(tmp_path / "results", 0, method=name.replace("/", "-")), tmp_path / "a.zip")
    assert "cannot be called" in refusal(lambda: bring_in(pack, there))


def test_a_record_of_a_method_with_a_step_comes_in(tmp_path, there):
    pack = packed(stored(tmp_path / "results", 0, method="plain+cft"), tmp_path / "a.zip")
    assert len(bring_in(pack, there).imported) == 1


def test_nothing_is_left_where_the_folder_was_there_before(pack, there):
    there.root.mkdir()
    refusal(lambda: bring_in(changed(pack, SPOILT["no record"][0]), there))
    assert list(there.root.iterdir()) == []
