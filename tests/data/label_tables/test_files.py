"""Rows come as text, whatever file they are in; what is wrong with a file is said in a line."""

import csv
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.label_tables import files
from mlrpl_bench.data.label_tables.files import open_table
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import refusal


def rows_of(path):
    """All rows with their numbers."""
    return [(number, tuple(row)) for chunk in open_table(path).chunks() for number, row in zip(*chunk, strict=True)]


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def refused(path):
    return refusal(lambda: rows_of(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "image,cat\nx.jpg,1\n"),
        ("a.tsv", "image\tcat\nx.jpg\t1\n"),
        ("a.csv", "image;cat\r\nx.jpg;1\r\n"),
        ("a.CSV", "\ufeffimage , cat\nx.jpg,1"),
    ],
)
def test_commas_tabs_semicolons_and_a_byte_order_mark_are_read(tmp_path, name, text):
    path = written(tmp_path / name, text)
    assert open_table(path).columns == ("image", "cat")
    assert rows_of(path) == [(2, ("x.jpg", "1"))]


def test_blank_lines_are_no_rows_but_are_counted(tmp_path):
    assert rows_of(written(tmp_path / "a.csv", "image,cat\n\nx,1\n\n\ny,0\n\n")) == [(3, ("x", "1")), (6, ("y", "0"))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text("ab,;\"' \tü", max_size=5), st.sampled_from("10"))), st.integers(1, 4))
def test_chunks_of_any_size_give_what_the_whole_file_holds(tmp_path_factory, rows, size):
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "cat"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_ROWS", size)
        assert [row for _, row in rows_of(path)] == rows
        assert all(len(chunk.rows) <= size for chunk in open_table(path).chunks())


def test_a_row_that_was_cut_off_is_not_one_with_unknown_labels(tmp_path):
    message = refused(written(tmp_path / "a.csv", "image,cat,dog\nx,1,0\ny,1"))
    assert "row 3 has 2 columns where the header has 3" in message


def test_another_encoding_is_named(tmp_path):
    for encoding in ("latin-1", "utf-16"):
        message = refused(written(tmp_path / "a.csv", "image,cat\nhäuser.jpg,1\n", encoding))
        assert "is not UTF-8" in message and "save it again as UTF-8" in message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "names of its columns"),
        ("a.csv", "\n", "names of its columns"),
        ("a.csv", "image,cat,cat\n", "two columns called 'cat'"),
        ("a.csv", "image,cat, cat\n", "two columns called 'cat'"),
        ("a.csv", 'image,cat\n"x,1\n', "quotes"),
        ("a.xlsx", "image,cat\n", ".csv, .tsv, .parquet"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, text, said):
    assert said in refused(written(tmp_path / name, text))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no table .*nowhere"):
        open_table(tmp_path / "nowhere.csv")


def test_without_pyarrow_parquet_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refused(written(tmp_path / "a.parquet", "anything"))
    assert "needs pyarrow" in message and "pip install 'mlrpl-bench[parquet]'" in message


def test_a_damaged_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    assert "no Parquet file or damaged" in refused(written(tmp_path / "a.parquet", "anything"))


@pytest.mark.parametrize("index", ["image", None])
def test_the_index_of_pandas_in_a_parquet_file_is_a_column(tmp_path, index):
    pytest.importorskip("pyarrow")
    import pandas as pd

    frame = pd.DataFrame({"image": ["x", "y", "z", "w"], "cat": pd.array([1, None, 0, 1], "Int8")})
    frame = frame.set_index(index) if index else frame[frame.image != "y"]  # what pandas cannot write as a range
    frame.to_parquet(tmp_path / "a.parquet")
    names = files.open_table(tmp_path / "a.parquet").columns
    rows = [dict(zip(names, row, strict=True)) for _, row in rows_of(tmp_path / "a.parquet")]
    if index:
        assert [(row["image"], row["cat"]) for row in rows] == [("x", "1"), ("y", ""), ("z", "0"), ("w", "1")]
    else:
        assert [tuple(row[name] for name in ("image", "cat", "__index_level_0__")) for row in rows] == [
            ("x", "1", "0"),
            ("z", "0", "2"),
            ("w", "1", "3"),
        ]


def test_parquet_gives_the_texts_that_a_csv_file_would_hold(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    import pandas as pd

    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    frame = pd.DataFrame(
        {
            "image": ["x", "y", "z"],
            "cat": [1.0, None, 0.0],
            "dog": [True, False, True],
            "owl": pd.array([1, None, -1], "Int8"),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [
        (1, ("x", "1.0", "1", "1")),
        (2, ("y", "", "0", "")),
        (3, ("z", "0.0", "1", "-1")),
    ]
