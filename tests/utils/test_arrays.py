"""Arrays are read as NumPy reads them; what claims more than the file holds is refused (see test_hostile.py, too)."""

import json
import zipfile

import numpy as np
import pytest

from mlrpl_bench.utils import arrays

EXAMPLES = {
    "numbers": np.arange(6.0).reshape(2, 3),
    "columns first": np.asfortranarray(np.ones((3, 2), dtype=np.int8)),
    "words": np.array(["a", "bcd"]),
    "a word": np.array("x"),
    "none": np.zeros((0, 3), dtype=np.float32),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_as_numpy_reads_it(tmp_path, save):
    save(tmp_path / "a.npz", **EXAMPLES)
    found = arrays.read(tmp_path / "a.npz")
    assert found.keys() == EXAMPLES.keys()
    for name, array in EXAMPLES.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_npy_is_read_as_numpy_reads_it(tmp_path, name):
    np.save(tmp_path / "a.npy", EXAMPLES[name])
    np.testing.assert_array_equal(arrays.read(tmp_path / "a.npy")["array"], EXAMPLES[name])


@pytest.mark.parametrize("content", [b"", b"text", b"PK", b"\x93NUMPY"])
def test_what_is_no_file_of_arrays_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(arrays.Damaged):
        arrays.read(tmp_path / "a")


def test_a_large_archive_may_hold_more_than_a_small_one(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "EXPANDS_FREELY_TO", 100)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1000))
        arrays.refuse_bomb(archive, size=100)
        with pytest.raises(arrays.Damaged, match=r"its 99 bytes would expand to 1,000"):
            arrays.refuse_bomb(archive, size=99)


def test_plain_data_has_lists_for_arrays_and_none_for_nan_at_any_depth():
    value = {"a": np.array([[1.0, np.nan]]), "b": (np.float32(0.5), [{"c": float("nan")}]), "d": None, "e": "text"}
    assert arrays.plain(value) == {"a": [[1.0, None]], "b": [0.5, [{"c": None}]], "d": None, "e": "text"}
    assert arrays.plain(np.float64("nan")) is None and arrays.plain(True) is True
    assert json.loads(json.dumps(arrays.plain(value), allow_nan=False)) == arrays.plain(value)


def test_an_infinity_is_left_for_json_to_refuse():
    with pytest.raises(ValueError, match="JSON"):
        json.dumps(arrays.plain(np.array([np.inf])), allow_nan=False)
