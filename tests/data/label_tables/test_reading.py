"""Label tables, wide and long: what a reader with a dictionary and one value at a time would read."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.label_tables import files, reading
from mlrpl_bench.data.label_tables.files import open_table
from mlrpl_bench.data.label_tables.reading import ColumnNames, read
from mlrpl_bench.data.label_tables.values import LabelValues
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from tests.helpers.tiny_study import refusal

STATE = {"1": PRESENT, "0": ABSENT, "": UNKNOWN}
IMAGES = ("b/1.jpg", "a.jpg", "c d.jpg", "ü.jpg")
CATEGORIES = ("dog", "cat", "traffic light")


def written(folder, text):
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def table(folder, text, names=None, **meanings):
    return read(open_table(written(folder, text)), names or ColumnNames(), LabelValues(**meanings))


def refused(folder, text, **options):
    return refusal(lambda: table(folder, text, **options))


def slow_twin(rows):
    """Images, categories and labels of a long table's rows, one after the other."""
    images, categories = [], []
    labels = {}
    for image, category, value in rows:
        if image not in images:
            images.append(image)
        if category not in categories:
            categories.append(category)
        if value:
            labels[image, category] = STATE[value]
    return images, tuple(categories), [[labels.get((i, c), UNKNOWN) for c in categories] for i in images]


truth = st.fixed_dictionaries({(i, c): st.sampled_from("10") for i in IMAGES for c in CATEGORIES})


@settings(max_examples=60, deadline=None)
@given(
    truth,
    st.lists(st.tuples(st.sampled_from(IMAGES), st.sampled_from(CATEGORIES), st.booleans()), min_size=1),
    st.integers(1, 5),
)
def test_a_long_table_is_what_its_rows_say_in_any_order(tmp_path_factory, values, picked, size):
    rows = [(i, c, values[i, c] if given_ else "") for i, c, given_ in picked]
    path = tmp_path_factory.mktemp("tables") / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "category", "value"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_ROWS", size)
        found = read(open_table(path), ColumnNames(), LabelValues())
    images, categories, labels = slow_twin(rows)
    assert (found.images, found.categories, found.labels_NC.tolist()) == (images, categories, labels)
    assert found.labels_NC.dtype == np.int8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(list(STATE))] * 3), min_size=1, max_size=9), st.integers(1, 5))
def test_a_wide_table_is_what_its_cells_say(tmp_path_factory, cells, size):
    path = tmp_path_factory.mktemp("tables") / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", *CATEGORIES), *((f"{n}.jpg", *row) for n, row in enumerate(cells))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_ROWS", size)
        patch.setattr(reading, "CHUNK_ROWS", size)
        found = read(open_table(path), ColumnNames(), LabelValues())
        never = found.never_labelled()
    assert found.labels_NC.tolist() == [[STATE[value] for value in row] for row in cells]
    assert never == [name for name, values in zip(CATEGORIES, zip(*cells, strict=True), strict=True) if not any(values)]


def test_a_wide_and_a_long_table_of_the_same_labels_are_equal(tmp_path):
    wide = table(tmp_path, "image,split,dog,cat\nx,train,1,0\ny,test,,1\n")
    long = table(tmp_path, "category,image,value,split\ndog,x,1,train\ncat,x,0,train\ndog,y,,test\ncat,y,1,test\n")
    for found in (wide, long):
        assert (found.images, found.splits, found.categories) == (["x", "y"], ["train", "test"], ("dog", "cat"))
        assert found.labels_NC.tolist() == [[PRESENT, ABSENT], [UNKNOWN, PRESENT]]
        assert found.rows_of("test").tolist() == [1] and found.rows_of("val").tolist() == []


def test_columns_may_have_other_names_and_may_be_left_out(tmp_path):
    names = ColumnNames(image="Path", split="fold", ignored=("Sex",))
    found = table(tmp_path, "Path,Sex,fold,dog\nx,F,val,1\ny,M,train,0\n", names)
    assert found.categories == ("dog",) and found.splits == ["val", "train"]
    assert "no column 'image'" in refused(tmp_path, "Path,dog\nx,1\n")
    message = refused(tmp_path, "image,dog\nx,1\n", names=ColumnNames(ignored=("Sex",)))
    assert "no column 'Sex'" in message and "ignore=" in message


def test_without_a_column_split_all_images_are_to_train_on(tmp_path):
    assert table(tmp_path, "image,dog\nx,1\ny,0\n").splits == ["train", "train"]


def test_categories_can_be_left_out(tmp_path):
    found = table(tmp_path, "image,split,dog,cat,owl\nx,train,1,,0\ny,test,,1,\n")
    assert found.never_labelled() == ["cat"]  # known of a test image alone
    assert found.without(["cat"]).categories == ("dog", "owl")
    assert found.without(["cat"]).labels_NC.tolist() == [[PRESENT, ABSENT], [UNKNOWN, UNKNOWN]]


LONG = "image,category,value\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,dog,cat\nx,1,0\ny,0,2\nz,3,3\n", "row 3, column 'cat': '2' is no label"),
        ("image,dog\nx,1\ny,-1\n", "row 3, column 'dog': '-1' is no label; -1 means absent to some"),
        ("image,dog\nx,1\ny,1\nx,1\n", "names the image 'x' in row 2 and in row 4"),
        ("image,dog\na/x,1\n./a//x,1\n", "names the image 'a/x' in row 2 and in row 3"),
        ("image,split,dog\nx,train,1\ny,train,1\nx,test,1\n", "'x' is in train (row 2) and in test (row 4)"),
        ("image,split,dog\nx,train,1\ny,valid,1\n", "row 3: 'valid' is no split"),
        ("image,split,dog\nx,train,1\ny,,1\n", "row 3: '' is no split"),
        ("image,split,dog\nx,test,1\n", "no image in train"),
        ("image,dog\n,1\n", "row 2 names no image"),
        ("image,dog\n", "no rows below its header"),
        ("image,split\nx,train\n", "no column of a category"),
        ("image,dog,__index_level_0__\nx,1,1\n", "column 3 of the header is called __index_level_0__, as the index"),
        ("image,,dog\nx,1,1\n", "column 2 of the header has no name, as the index has that pandas adds"),
        ("image,Image,dog\nx,1,1\n", "a category called 'Image', like a column"),
        ("image,Split,dog\nx,1,1\n", "a category called 'Split', like a column"),
        (LONG + "x,split,1\n", "a category called 'split', like a column"),
        (LONG + "x,dog,1\ny,dog,7\n", "row 3, column 'value': '7' is no label"),
        (LONG + "x,dog,1\nx,cat,0\nx,dog,0\n", "'dog' is present in 'x' in row 2 and absent in row 4"),
        (LONG + "x,dog,0\nx,dog,\nx,dog,1\n", "'dog' is absent in 'x' in row 2 and present in row 4"),
        ("image,category,value,split\nx,dog,1,train\nx,cat,1,val\n", "'x' is in train (row 2) and in val (row 3)"),
        ("image,category,value,note\nx,dog,1,ok\n", "column 'note' beside them"),
    ],
)
def test_bad_tables_are_refused_with_row_and_column(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_a_pair_that_is_repeated_with_the_same_value_is_no_contradiction(tmp_path):
    assert table(tmp_path, LONG + "x,dog,1\nx,dog,1\nx,dog,\n").labels_NC.tolist() == [[PRESENT]]
