"""Weights come back as they were, with what a method keeps beside its tensors; nothing foreign is unpickled."""

import io
import zipfile

import pytest
import torch
from safetensors.torch import load, save

from mlrpl_bench.records import weights
from mlrpl_bench.records.record import DamagedRecord

PLAIN_STATES = [{"seen": 3, "means": [0.5, None], 7: (1, "two")}, "text", 2.5, [], {"inner": torch.arange(3)}]


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("beside", PLAIN_STATES, ids=str)
def test_tensors_and_plain_data_come_back(tmp_path, beside):
    state = {"layer.plain": torch.ones(2), "bank._extra_state": beside}
    (tmp_path / "weights.safetensors").write_bytes(weights.to_bytes(state))
    found = weights.read(tmp_path / "weights.safetensors")
    assert found.keys() == state.keys()
    assert all(same(found[name], state[name]) for name in state)


def test_tensors_alone_are_the_file_that_safetensors_writes():
    state = {"classifier.bias": torch.zeros(4), "_extra_state": torch.ones(1)}
    assert weights.to_bytes(state) == save(state)
    assert load(weights.to_bytes(state)).keys() == state.keys()


class Foreign:
    pass


def pickled(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**30 + 1))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [lambda: pickled(Foreign()), lambda: b"nothing", bomb], ids=["foreign", "no zip", "bomb"]
)
def test_what_is_no_plain_data_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    stored = torch.frombuffer(bytearray(content()), dtype=torch.uint8)
    path.write_bytes(save({f"_extra_state{weights.PLAIN}": stored}))
    with pytest.raises(DamagedRecord, match=r"weights\.safetensors is damaged") as refusal:
        weights.read(path)
    assert "\n" not in str(refusal.value)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(DamagedRecord, match=r"weights\.safetensors is damaged"):
        weights.read(tmp_path / "weights.safetensors")
