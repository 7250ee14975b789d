"""What a filling leaves on disk."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.label_tables import reading
from mlrpl_bench.data.label_tables.files import open_table
from mlrpl_bench.data.label_tables.reading import ColumnNames
from mlrpl_bench.data.label_tables.rewriting import SourceTable
from mlrpl_bench.data.label_tables.values import LabelValues
from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.tools.filling import write
from mlrpl_bench.tools.filling.fill_in import fill_in
from tests.helpers.made_up_labels import labels
from tests.helpers.simulated_scores import simulate


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A filling of all training images but every tenth, and the files."""
    root = tmp_path_factory.mktemp("data")
    given = simulate(images=1500, slope=6.0)
    Image.new("RGB", (40, 20), "red").save(root / "0.jpg")
    names = [f"pictures/{row}, of many.jpg" for row in range(1500)]
    (root / "pictures").mkdir()
    for name in names:
        (root / name).symlink_to(root / "0.jpg")
    whole = replace(given.split, ids=names, image_paths=[root / name for name in names])
    rows = np.flatnonzero(np.arange(1500) % 10)
    filling = fill_in(whole.rows(rows), given.mask_NC[rows], given.logits_NC[rows], 0.9)
    test = Split(["x", "y"], [root / "a" / "x.jpg", Path("/elsewhere/y.jpg")], labels(2, 3), whole.categories)
    sources = write.Sources({"train": whole, "test": test}, rows, root)
    files = write.write(filling, sources, root / "out", "a title")
    return SimpleNamespace(root=root, whole=whole, rows=rows, filling=filling, test=test, files=files, sources=sources)


@pytest.fixture(scope="module")
def table(written):
    return pd.read_csv(written.root / "out" / "filled.csv")


def states_of(frame, categories):
    """Label states of the rows of a table."""
    values_NC = frame[list(categories)].to_numpy(dtype=float)
    return np.where(np.isnan(values_NC), 0, np.where(values_NC == 1, 1, -1))


def test_all_files_are_there(written):
    assert [path.name for path in written.files] == [
        *("filled.csv", "probabilities.csv", "decisions.csv", "report.json", "contact-sheet.png")
    ]
    assert all(path.stat().st_size for path in written.files)
    assert {path.name for path in (written.root / "out").iterdir()} == {path.name for path in written.files}


def test_the_table_keeps_every_given_label_and_every_image(written, table):
    assert table.split.value_counts().to_dict() == {"train": 1500, "test": 2}
    states_NC = states_of(table[table.split == "train"], written.whole.categories)
    given_NC = written.whole.labels_NC != UNKNOWN
    np.testing.assert_array_equal(states_NC[given_NC], written.whole.labels_NC[given_NC])
    test_NC = states_of(table[table.split == "test"], written.whole.categories)
    np.testing.assert_array_equal(test_NC, written.test.labels_NC)


def test_the_table_has_the_decisions_in_place_and_nothing_else_is_filled(written, table):
    states_NC = states_of(table[table.split == "train"], written.whole.categories)
    decided_NC = written.filling.decisions_NC != UNKNOWN
    np.testing.assert_array_equal(states_NC[written.rows][decided_NC], written.filling.decisions_NC[decided_NC])
    filled_NC = (states_NC != UNKNOWN) & (written.whole.labels_NC == UNKNOWN)
    assert filled_NC.sum() == decided_NC.sum() > 100
    assert not filled_NC[::10].any()  # those images were not trained on


def test_probabilities_stand_where_labels_were_unknown(written):
    frame = pd.read_csv(written.root / "out" / "probabilities.csv")
    assert frame.image.tolist() == [written.whole.ids[row] for row in written.rows]
    found_NC = frame[list(written.whole.categories)].to_numpy(dtype=float)
    np.testing.assert_allclose(found_NC, written.filling.probabilities_NC, rtol=1e-5)


def test_each_decision_is_listed(written, table):
    frame = pd.read_csv(written.root / "out" / "decisions.csv")
    assert len(frame) == np.count_nonzero(written.filling.decisions_NC)
    for row in (frame.iloc[0], frame.iloc[-1]):
        assert table.set_index("image").loc[row.image, row.category] == row.value
        assert (row.probability > 0.5) == (row.value == 1)


def test_the_report_has_the_promises(written):
    report = json.loads((written.root / "out" / "report.json").read_text())
    assert report["title"] == "a title"
    decided = np.count_nonzero(written.filling.decisions_NC == PRESENT)
    assert sum(one["set"] for one in report["promises"] if one["state"] == "present") == decided


def test_images_are_named_so_that_they_are_found_again(written):
    split = Split(
        [7, "b.jpg"], [written.root / "a" / "7.jpg", written.root / "in" / "b.jpg"], labels(2, 3), ("x", "y", "z")
    )
    assert write.image_name(split, 0, written.root) == "a/7.jpg"
    assert write.image_name(split, 1, written.root) == "b.jpg"
    assert write.image_name(written.test, 1, written.root) == "/elsewhere/y.jpg"


def test_names_with_commas_and_quotes_survive(tmp_path):
    rows = [["image", 'a, "b"'], ["c\nd", "1"]]
    (tmp_path / "t.csv").write_text("".join(write._lines(rows)), newline="")
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == rows


def test_images_held_out_of_the_training_set_stay_in_train(written):
    inputs = SimpleNamespace(sources={"train": (written.whole, written.rows), "test": (written.whole, np.arange(5))})
    assert set(write.Sources.from_inputs(inputs, "val", written.root).splits) == {"train"}
    inputs.sources["test"] = (written.test, np.arange(2))
    assert set(write.Sources.from_inputs(inputs, "val", written.root).splits) == {"train", "val"}


def test_labels_that_came_in_a_table_are_written_back_in_its_format_with_all_its_columns(written, tmp_path):
    names, columns = written.whole.ids, list(written.whole.categories)
    frame = pd.DataFrame(np.where(written.whole.labels_NC == UNKNOWN, np.nan, written.whole.labels_NC == PRESENT))
    frame = frame.set_axis(columns, axis=1).assign(image=names, note=[f"note {row}" for row in range(len(names))])
    frame.to_csv(tmp_path / "labels.tsv", sep="\t", index=False)
    source = SourceTable(open_table(tmp_path / "labels.tsv"), ColumnNames(ignored=("note",)), LabelValues())
    path, *_ = write.write(written.filling, replace(written.sources, table=source), tmp_path / "out", "t")
    assert path == tmp_path / "out" / "filled.tsv" and not (tmp_path / "out" / "filled.csv").exists()
    table = pd.read_csv(path, sep="\t")
    assert list(table) == [*frame, *(f"probability of {name}" for name in columns)]
    assert table.note.tolist() == frame.note.tolist()
    found = reading.read(open_table(path), source.names, source.values)
    expected_NC = written.whole.labels_NC.copy()
    expected_NC[written.rows] += written.filling.decisions_NC
    np.testing.assert_array_equal(found.labels_NC, expected_NC)
    probabilities_NC = table[[f"probability of {name}" for name in columns]].to_numpy()[written.rows]
    np.testing.assert_allclose(probabilities_NC, written.filling.probabilities_NC, rtol=1e-5)


def test_an_earlier_filling_is_replaced(written, tmp_path):
    for precision in (0.6, 0.9):
        given = simulate(images=1500, slope=6.0)
        filling = fill_in(written.whole, given.mask_NC, given.logits_NC, precision)
        write.write(filling, replace(written.sources, trained_rows=np.arange(1500)), tmp_path / "out", "t")
    assert len(pd.read_csv(tmp_path / "out" / "decisions.csv")) == np.count_nonzero(filling.decisions_NC)
