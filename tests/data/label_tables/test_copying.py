"""A copy has the format of its table, and differs in the cells that were to change alone."""

import pandas as pd
import pytest

from mlrpl_bench.data.label_tables import files
from mlrpl_bench.data.label_tables.copying import Changes, copy_with
from mlrpl_bench.data.label_tables.files import open_table
from tests.helpers.tiny_study import refusal


def copied(path, edits, added=(), new=()):
    target = path.with_name(f"copy{path.suffix}")
    changes = Changes(added, lambda chunk: edits, lambda: iter([list(new)] if new else []))
    copy_with(open_table(path), changes, target)
    return target


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "image,cat\nx,1\ny,\n", 'image,cat,p\nx,1,\ny,0,0.25\n"n, m",,1\n'),
        ("a.tsv", "image\tcat\r\nx\t1\r\n y\t\r\n", "image\tcat\tp\r\nx\t1\t\r\n y\t0\t0.25\r\nn, m\t\t1\r\n"),
        ("a.csv", "\ufeffimage; cat\nx;1\ny;\n", "\ufeffimage; cat;p\nx;1;\ny;0;0.25\nn, m;;1\n"),
    ],
)
def test_a_text_file_keeps_delimiter_line_ends_and_what_did_not_change(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content.encode())
    found = copied(tmp_path / name, {1: {1: "0"}, 2: {1: "0.25"}}, ["p"], [{0: "n, m", 2: "1"}])
    assert found.read_bytes().decode() == expected


def test_a_parquet_file_keeps_the_types_of_its_columns(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({
        "image": ["x", "y", "z"],
        "whole": pd.array([1, None, 0], dtype="Int8"),
        "share": [1.0, None, 0.0],
        "truth": pd.array([True, None, False], dtype="boolean"),
        "word": pd.Categorical(["1", None, "0"]),
        "taken": pd.to_datetime(["2026-01-02", None, "2026-01-04"]),
    })  # fmt: skip
    frame.to_parquet(tmp_path / "a.parquet")
    edits = {**{column: {1: "1"} for column in (1, 2, 3, 4)}, 6: {1: "0.25"}}
    found = pd.read_parquet(copied(tmp_path / "a.parquet", edits, ["p"], [{0: "new", 1: "0"}]))
    expected = pd.concat([frame, pd.DataFrame({"image": ["new"], "whole": pd.array([0], dtype="Int8")})])
    expected.loc[expected.image == "y", ["whole", "share", "truth", "word"]] = [1, 1.0, True, "1"]
    pd.testing.assert_frame_equal(
        found[list(frame)], expected.reset_index(drop=True), check_dtype=False, check_categorical=False
    )
    assert [found[name].dtype for name in ("whole", "truth")] == ["Int8", "boolean"]
    assert found.word.dtype == "category" and found.p.tolist()[1] == 0.25 and found.p.notna().sum() == 1


def test_a_column_that_cannot_hold_a_label_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"image": ["x"], "cat": [1]}).to_parquet(tmp_path / "a.parquet")
    line = refusal(lambda: copied(tmp_path / "a.parquet", {1: {0: "yes"}}))
    assert "the column 'cat' of type int64 cannot hold what is filled in" in line and "save the table as CSV" in line
    assert not (tmp_path / "copy.parquet").exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_chunks_are_written_one_after_the_other(tmp_path, suffix, monkeypatch):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    frame, path = pd.DataFrame({"image": list("abcde"), "cat": ["1"] * 5}), tmp_path / f"a{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    found = copied(path, {1: {0: "0"}})
    read = pd.read_csv(found, dtype=str) if suffix == ".csv" else pd.read_parquet(found)
    assert read.cat.tolist() == ["0", "1", "0", "1", "0"] and read.image.tolist() == frame.image.tolist()
