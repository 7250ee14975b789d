"""A checkpoint gives back what was kept, or says in one line why it does not."""

import io
import pickle

import pytest
import torch

from mlrpl_bench.training import checkpoint
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import cell, contents

STATE = {
    "epoch": 3,
    "step": 7,
    "method": {"weight": torch.arange(6.0).reshape(2, 3).to(memory_format=torch.preserve_format)},
    "history": [{"loss.bce": 0.1, "epoch": 0}],
    "best": (2, {"AP_C": torch.tensor([0.5, float("nan")], dtype=torch.float64)}),
}


def test_what_is_read_is_what_was_written(tmp_path):
    checkpoint.write(tmp_path, cell(), STATE)
    found = checkpoint.read(tmp_path, cell())
    assert (found["epoch"], found["step"], found["history"]) == (3, 7, STATE["history"])
    assert torch.equal(found["method"]["weight"], STATE["method"]["weight"])
    assert torch.equal(found["best"][1]["AP_C"], STATE["best"][1]["AP_C"]) is False  # NaN is not equal to itself
    assert torch.allclose(found["best"][1]["AP_C"], STATE["best"][1]["AP_C"], equal_nan=True)


def test_where_none_was_kept_there_is_none(tmp_path):
    assert checkpoint.read(tmp_path, cell()) is None
    checkpoint.write(tmp_path, cell(), STATE)
    checkpoint.remove(tmp_path)
    assert checkpoint.read(tmp_path, cell()) is None
    checkpoint.remove(tmp_path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def with_digest(content: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(content).digest() + content


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:-1],
        flip,
        lambda content: content + b"x",
        lambda content: with_digest(b"no checkpoint"),
        lambda content: with_digest(pickle.dumps(Bomb())),
    ],
    ids=["empty", "cut", "flipped bit", "longer", "something else", "pickle bomb"],
)
def test_damage_is_found_and_nothing_is_unpickled(tmp_path, spoil):
    checkpoint.write(tmp_path, cell(), STATE)
    path = tmp_path / checkpoint.FILE
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.read(tmp_path, cell())


def test_that_of_another_cell_version_or_code_is_refused(tmp_path, monkeypatch):
    checkpoint.write(tmp_path, cell(), STATE)
    with pytest.raises(UserError, match="is of another cell"):
        checkpoint.read(tmp_path, cell(seed=1))
    with monkeypatch.context() as patch, pytest.raises(UserError, match="is of another version"):
        patch.setattr(checkpoint, "VERSION", 99)
        checkpoint.read(tmp_path, cell())
    monkeypatch.setattr(checkpoint, "code_digest", lambda: "other")
    with pytest.raises(UserError, match="was written by other code"):
        checkpoint.read(tmp_path, cell())


@pytest.mark.parametrize("place", ["epoch", "step"])
@pytest.mark.parametrize("value", ["3", None, 1.5, True])
def test_a_place_that_is_no_number_is_damage(tmp_path, place, value):
    checkpoint.write(tmp_path, cell(), STATE)
    path = tmp_path / checkpoint.FILE
    whole = torch.load(io.BytesIO(path.read_bytes()[checkpoint.HEAD_BYTES :]), weights_only=True)
    whole["state"][place] = value
    buffer = io.BytesIO()
    torch.save(whole, buffer)
    path.write_bytes(with_digest(checkpoint.POSITION.pack(3, 7) + buffer.getvalue()))
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.read(tmp_path, cell())


def test_other_code_is_code_with_other_files_names_or_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PACKAGE", tmp_path)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "a.py").write_text("1")
    digests = [checkpoint.code_digest.__wrapped__()]
    for change in (
        lambda: (tmp_path / "layers" / "a.py").write_text("2"),
        lambda: (tmp_path / "layers" / "a.py").rename(tmp_path / "layers" / "b.py"),
        lambda: (tmp_path / "c.py").write_text(""),
    ):
        change()
        digests.append(checkpoint.code_digest.__wrapped__())
    assert len(set(digests)) == len(digests)


def test_what_is_of_no_use_is_moved_aside_and_not_deleted(tmp_path):
    for _ in range(2):
        checkpoint.write(tmp_path, cell(), STATE)
        checkpoint.set_aside(tmp_path)
    assert set(contents(tmp_path)) == {"checkpoint.pt.unused-1", "checkpoint.pt.unused-2"}


def test_when_the_disk_is_full_the_one_before_stays(tmp_path, monkeypatch):
    checkpoint.write(tmp_path, cell(), STATE)
    before = contents(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(tmp_path, cell(), {**STATE, "epoch": 4})
    assert contents(tmp_path) == before


def test_the_position_is_told_without_reading_the_rest(tmp_path):
    assert checkpoint.position(tmp_path) is None
    checkpoint.write(tmp_path, cell(), STATE)
    assert checkpoint.position(tmp_path) == (3, 7)
    path = tmp_path / checkpoint.FILE
    path.write_bytes(path.read_bytes()[: checkpoint.HEAD_BYTES])
    assert checkpoint.position(tmp_path) == (3, 7)
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.position(tmp_path) is None
