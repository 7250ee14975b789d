"""A table is written back as it came, with what was filled in, and is read again as it is."""

import numpy as np
import pandas as pd
import pytest

from mlrpl_bench.data.label_tables import reading, rewriting
from mlrpl_bench.data.label_tables.files import open_table
from mlrpl_bench.data.label_tables.reading import ColumnNames
from mlrpl_bench.data.label_tables.rewriting import Entries, SourceTable, rewrite
from mlrpl_bench.data.label_tables.values import LabelValues
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN

WIDE = """\
who,image,cat,dog,split,never
Ann,./a.jpg,1,,train,7
Bob,b.jpg,,-1,train,
"Eve, too",c.jpg,,1,train,8
Ann,t.jpg,,1,test,9
"""
LONG = """\
image,category,value,split,who
a.jpg,cat,1,train,Ann
b.jpg,dog,-1,train,Bob
b.jpg,cat,,train,Bob
b.jpg,bird,0,train,Bob
c.jpg,dog,1,train,Eve
t.jpg,dog,1,test,Eve
"""
VALUES = {"absent": "-1", "unknown": "0"}
NAN = float("nan")
FOUND = Entries(
    images=["a.jpg", "b.jpg", "c.jpg"],
    categories=["cat", "dog"],
    probabilities_NC=np.array([[NAN, 0.5], [0.96875, NAN], [0.125, NAN]], dtype=np.float32),
    decisions_NC=np.array([[UNKNOWN, UNKNOWN], [PRESENT, UNKNOWN], [ABSENT, UNKNOWN]], dtype=np.int8),
    is_unknown_NC=np.array([[False, True], [True, False], [True, False]]),
)
FILLED = [[PRESENT, UNKNOWN], [PRESENT, ABSENT], [ABSENT, PRESENT], [UNKNOWN, PRESENT]]


def source(path, ignored=()):
    return SourceTable(open_table(path), ColumnNames(ignored=ignored), LabelValues(**VALUES))


def put(path, text):
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        lines = path.with_suffix(".text")
        lines.write_text(text)
        pd.read_csv(lines).to_parquet(path, index=False)
    else:
        path.write_text(text.replace(",", "\t").replace("Eve\t too", "Eve, too") if path.suffix == ".tsv" else text)
    return path


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_wide_table_keeps_its_columns_and_is_read_again(tmp_path, suffix):
    path, target = put(tmp_path / f"labels{suffix}", WIDE), tmp_path / f"filled{suffix}"
    rewrite(source(path, ("who", "never")), FOUND, target)
    before, after = read(path), read(target)
    assert list(after) == [*before, "probability of cat", "probability of dog"]
    kept = ["who", "image", "dog", "split", "never"]
    pd.testing.assert_frame_equal(after[kept], before[kept])
    np.testing.assert_array_equal(after["cat"], [1, 1, -1, NAN])
    np.testing.assert_allclose(after["probability of cat"], [NAN, 0.96875, 0.125, NAN])
    np.testing.assert_allclose(after["probability of dog"], [0.5, NAN, NAN, NAN])
    again = source(target, ("who", "never"))
    found = reading.read(again.file, again.names, again.values)
    assert found.categories == ("cat", "dog") and found.labels_NC.tolist() == FILLED


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_long_table_keeps_its_rows_and_has_one_for_each_unknown_label(tmp_path, suffix):
    path, target = put(tmp_path / f"labels{suffix}", LONG), tmp_path / f"filled{suffix}"
    rewrite(source(path, ("who",)), FOUND, target)
    before, after = read(path), read(target)
    assert list(after) == [*before, "probability"]
    same = [name for name in before if name != "value"]
    pd.testing.assert_frame_equal(after.loc[: len(before) - 1, same], before[same])
    np.testing.assert_array_equal(after["value"], [1, -1, 1, 0, 1, 1, NAN, -1])
    assert after["image"].tolist()[6:] == ["a.jpg", "c.jpg"] and after["category"].tolist()[6:] == ["dog", "cat"]
    assert after["split"].tolist()[6:] == ["train", "train"] and after["who"].isna().sum() == 2
    np.testing.assert_allclose(after["probability"], [NAN, NAN, 0.96875, NAN, NAN, NAN, 0.5, 0.125])
    again = source(target, ("who",))
    found = reading.read(again.file, again.names, again.values)
    assert found.without(["bird"]).labels_NC.tolist() == FILLED


def test_a_filled_table_that_is_filled_again_has_its_columns_once(tmp_path):
    path, once, twice = put(tmp_path / "labels.csv", WIDE), tmp_path / "once.csv", tmp_path / "twice.csv"
    rewrite(source(path, ("who", "never")), FOUND, once)
    nothing = np.full((3, 2), NAN)
    probabilities_NC = np.array([[NAN, 0.75], [NAN, NAN], [NAN, NAN]])
    for entries in (
        Entries(FOUND.images, FOUND.categories, nothing, np.zeros((3, 2), np.int8), np.zeros((3, 2), bool)),
        Entries(FOUND.images, FOUND.categories, probabilities_NC, np.zeros((3, 2), np.int8), np.zeros((3, 2), bool)),
    ):
        rewrite(source(once, ("who", "never")), entries, twice)
        assert list(read(twice)) == list(read(once))
    np.testing.assert_allclose(read(twice)["probability of dog"], [0.75, NAN, NAN, NAN])
    np.testing.assert_allclose(read(twice)["probability of cat"], [NAN, 0.96875, 0.125, NAN])


@pytest.mark.parametrize(("text", "ignored"), [(WIDE, ("who", "never")), (LONG, ("who",))], ids=["wide", "long"])
def test_spaces_around_names_change_nothing_of_what_is_filled_in(tmp_path, text, ignored):
    spaced = text.replace("b.jpg,cat", "b.jpg, cat ").replace("b.jpg", " b.jpg ").replace("./a.jpg", " ./a.jpg")
    path, target = put(tmp_path / "labels.csv", spaced), tmp_path / "filled.csv"
    rewrite(source(path, ignored), FOUND, target)
    again = source(target, ignored)
    found = reading.read(again.file, again.names, again.values)
    assert found.without(set(found.categories) - {"cat", "dog"}).labels_NC.tolist() == FILLED


def test_new_rows_are_all_there_however_few_are_written_at_a_time(tmp_path, monkeypatch):
    path, whole, parts = put(tmp_path / "labels.csv", LONG), tmp_path / "whole.csv", tmp_path / "parts.csv"
    rewrite(source(path, ("who",)), FOUND, whole)
    monkeypatch.setattr(rewriting, "CHUNK_ROWS", 1)
    rewrite(source(path, ("who",)), FOUND, parts)
    assert parts.read_bytes() == whole.read_bytes()
