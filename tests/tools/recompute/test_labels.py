"""Labels are those that a record was made with, or it is said why they are not to be had."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.tools.recompute import labels as labels_module
from mlrpl_bench.tools.recompute.check import recompute_numbers
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from tests.helpers.edited_records import edited
from tests.helpers.tiny_study import DATASET, refusal, write_plugin


def test_a_data_set_with_other_labels_here_is_said_and_not_compared(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path))
    other = load_datasets([write_plugin(tmp_path / "tiny_set.py", DATASET.replace("number >> bit", "~number >> bit"))])
    found = recompute_numbers([trained.records["usual"]], Labels(other.entries, Options()))
    (line,) = found.lines()
    assert line.endswith("tiny has other images or labels here than when they were trained")
    assert found.holds() and found.cells == 0


def test_a_mask_file_that_is_not_named_is_asked_for_and_the_rest_is_computed(trained):
    record = trained.records["mask file"]
    found = recompute_numbers([record], Labels(trained.datasets, Options()))
    (line,) = found.lines()
    assert line.startswith("not held against their mask: 1 of the cells, the first is ")
    assert line.endswith(": name their mask with --mask-file") and found.cells == 1
    wrong = edited(record, "metrics", "OP", value=0.123)
    assert not recompute_numbers([wrong], Labels(trained.datasets, Options())).holds()


def test_a_data_set_is_built_once_for_all_its_records(trained, monkeypatch):
    built = []
    monkeypatch.setattr(labels_module, "Study", lambda *given: built.append(given) or Study(*given))
    labels = Labels(trained.datasets, Options())
    recompute_numbers([trained.records["usual"], trained.records["one epoch"], trained.records["usual"]], labels)
    assert len(built) == 1


@pytest.mark.parametrize(
    ("fingerprint", "options"),
    [
        ("0f-1e", {}),
        ("0f-1e-side=48", {"side": "48"}),
        ("0f-1e-root=/a-b/c-side=4", {"root": "/a-b/c", "side": "4"}),
        ("made up", {}),
    ],
)
def test_a_fingerprint_names_the_data_sets_options(fingerprint, options):
    assert labels_module._data_options(fingerprint) == options


def test_paths_are_the_users_and_other_options_are_the_records(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "labels.csv").write_text("picture,split,cat\na.jpg,train,1\nb.jpg,test,1\n")
    (tmp_path / "notes.csv").write_text("nothing\n")
    entry, data = load_datasets()["table"], {"image_column": "picture"}
    options = Options(data_root=tmp_path, data={"file": "labels.csv"})
    then = Study(entry, replace(options, data={**options.data, **data}, weights="random"))
    record = SimpleNamespace(cell=SimpleNamespace(setting=then.setting))
    found = Labels({"table": entry}, options)._build(record)
    assert found.setting.fingerprint == then.setting.fingerprint and "image_column" in then.setting.fingerprint
    line = refusal(lambda: Labels({"table": entry}, Options(data_root=tmp_path))._build(record))
    assert "name the one to read with --set-data file=NAME" in line
