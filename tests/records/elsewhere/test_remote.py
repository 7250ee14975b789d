"""Records at an address are copied as far as tables need them, once, and again where they have changed."""

import json
import sys
from pathlib import Path

import pytest

from mlrpl_bench.records.elsewhere import remote
from mlrpl_bench.records.elsewhere.remote import address_of, copied, where_left
from mlrpl_bench.records.record import DamagedRecord, read_record
from mlrpl_bench.records.store import ResultStore
from tests.helpers.tiny_study import cell, finished, refusal

fsspec = pytest.importorskip("fsspec")

MEMORY = "memory://bucket/results"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def record(tmp_path):
    """A record in a folder that stands for what somebody put into a bucket."""
    return ResultStore(tmp_path / "results").write(finished(cell()), {})


@pytest.fixture
def root(record):
    return record.folder.parents[2]


@pytest.fixture
def bucket(root):
    """The same in a storage that has neither folders nor times of change."""
    storage = fsspec.filesystem("memory")
    storage.put(str(root), "/bucket/results", recursive=True)
    yield storage
    storage.store.clear()
    storage.pseudo_dirs.clear()


@pytest.fixture
def fetched(monkeypatch):
    """The names of the files that were copied, in their order."""
    names, fetch = [], remote._fetch

    def counting(storage, files, address):
        names.extend(path.name for _, path in files)
        fetch(storage, files, address)

    monkeypatch.setattr(remote, "_fetch", counting)
    return names


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("s3://bucket", "s3://bucket"),
        ("memory://a/b", "memory://a/b"),
        ("local:///a/b", "local:///a/b"),
        ("results", None),
        ("C:/results", None),
        ("a:b", None),
    ],
)
def test_an_address_is_known_by_its_scheme_and_keeps_its_slashes(path, address):
    assert address_of(Path(path)) == address


def test_a_chain_of_addresses_is_refused():
    line = "--results-dir simplecache::s3:/bucket is a chain of addresses; name one, such as s3://bucket/folder"
    assert refusal(lambda: address_of(Path("simplecache::s3://bucket"))) == line


def test_a_record_is_copied_without_its_weights_and_is_whole(bucket, record, fetched):
    folder = copied(MEMORY)
    (path,) = folder.glob("*/*/*/record.json")
    assert read_record(path).content == record.content
    assert fetched == ["cell.json", *sorted(set(fetched) - {"cell.json", "record.json"}), "record.json"]
    assert set(fetched) == {*record.content["files"], "cell.json", "record.json"} - {"weights.safetensors"}
    weights = path.parent / "weights.safetensors"
    place = record.folder.relative_to(record.folder.parents[2]).as_posix()
    assert where_left(weights) == f"{MEMORY}/{place}/weights.safetensors"
    assert where_left(record.folder / "weights.safetensors") is None


def test_a_record_whose_weights_are_nowhere_is_not_whole(bucket, record):
    place = record.folder.relative_to(record.folder.parents[2]).as_posix()
    bucket.rm(f"/bucket/results/{place}/weights.safetensors")
    (path,) = copied(MEMORY).glob("*/*/*/record.json")
    with pytest.raises(DamagedRecord, match=r"weights\.safetensors is missing"):
        read_record(path)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_only_what_has_changed_is_copied_again(kind, bucket, root, record, fetched):
    address = MEMORY if kind == "memory" else f"file://{root}"
    folder = copied(address)
    fetched.clear()
    assert copied(address) == folder and fetched == []
    place = record.folder.relative_to(root).as_posix()
    changed = "[" + (record.folder / "cell.json").read_text()[1:]  # of the same size
    with fsspec.open(f"{address}/{place}/cell.json", "w") as file:
        file.write(changed)
    copied(address)
    assert fetched == ["cell.json"] and (folder / place / "cell.json").read_text() == changed


def test_a_copy_that_was_damaged_here_is_mended(root, record, fetched):
    folder = copied(f"file://{root}")
    place = record.folder.relative_to(root)
    (folder / place / "scores.npz").write_bytes(b"")
    fetched.clear()
    copied(f"file://{root}")
    assert fetched == ["scores.npz"]
    (folder / remote.INDEX).write_text("{")
    (folder / place / remote.ELSEWHERE).write_text("{")
    copied(f"file://{root}")
    assert read_record(folder / place / "record.json").content == record.content


def test_a_cell_that_is_gone_there_is_gone_here(bucket, record):
    folder = copied(MEMORY)
    (path,) = folder.glob("*/*/*/record.json")
    (path.parent / "evidence.npz").write_bytes(b"")
    bucket.rm(f"/bucket/results/{path.parent.relative_to(folder).as_posix()}", recursive=True)
    bucket.pipe("/bucket/results/tiny/tuned.json", b"{}")
    copied(MEMORY)
    assert not path.parent.exists() and (folder / "tiny" / "tuned.json").read_bytes() == b"{}"


def test_claims_checkpoints_and_tables_are_not_copied(bucket, record, fetched):
    place = f"/bucket/results/{record.folder.relative_to(record.folder.parents[2]).as_posix()}"
    for name in (f"{place}/claim-1.jsonl", f"{place}/checkpoint.pt", "/bucket/results/tiny/leaderboard.csv"):
        bucket.pipe(name, b"x")
    copied(MEMORY)
    assert not {"claim-1.jsonl", "checkpoint.pt", "leaderboard.csv"} & set(fetched)


def test_no_name_leads_out_of_the_copy(bucket, record, tmp_path):
    bucket.store["/bucket/results/../../../record.json"] = bucket.store[next(iter(bucket.store))]
    before = sorted(path.name for path in tmp_path.iterdir())
    copied(MEMORY)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "cache"})
    assert not list((tmp_path / "cache").rglob("*/../record.json"))


def test_the_copying_is_told(bucket, record, monkeypatch):
    monkeypatch.setattr(remote, "AT_ONCE", 4)
    told = []
    copied(MEMORY, lambda *facts: told.append(facts))
    assert told == [(f"copying records from {MEMORY}", done, 7) for done in (4, 7)]


def test_what_changes_while_it_is_copied_is_refused(bucket, record, monkeypatch):
    listed = remote._listed

    def grown(address):
        storage, files = listed(address)
        bucket.pipe(next(file.name for path, file in files.items() if path.name == "cell.json"), b"longer" * 999)
        return storage, files

    monkeypatch.setattr(remote, "_listed", grown)
    assert refusal(lambda: copied(MEMORY)).endswith("changed while it was copied; give the same command again")


def test_a_library_that_is_not_installed_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    line = refusal(lambda: copied("s3://bucket/results"))
    assert line == "--results-dir s3://bucket/results needs s3fs; install it with pip install 'mlrpl-bench[remote]'"
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert refusal(lambda: copied("memory://a")).endswith(
        "needs fsspec; install it with pip install 'mlrpl-bench[remote]'"
    )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nostore://bucket", "cannot be read (Protocol not known: nostore"),
        ("memory://empty", "holds no file; name a folder of results"),
    ],
)
def test_an_address_that_cannot_be_read_is_named(address, words):
    assert refusal(lambda: copied(address)).startswith(f"--results-dir {address} {words}")


def test_an_error_of_a_storage_is_one_line(bucket, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no\ncredentials")

    monkeypatch.setattr(type(bucket), "find", fail)
    line = f"--results-dir {MEMORY} cannot be read (no credentials); check the address and your access to it"
    assert refusal(lambda: copied(MEMORY)) == line


def test_a_damaged_list_of_what_was_left_counts_as_none(tmp_path):
    for content in ("{", "[]", '{"bytes": 3}', json.dumps({"bytes": {"a": None}})):
        (tmp_path / remote.ELSEWHERE).write_text(content)
        assert remote.left_elsewhere(tmp_path) == {}
