"""``verify`` as a user meets it: what holds is 0, what does not is 1, and one line for bad input."""

import json
import shutil

import numpy as np
import pytest

from mlrpl_bench.records.record import digest, read_record
from tests.helpers.command import call, in_folder
from tests.helpers.spoilt_records import flip_a_bit, rewrite
from tests.helpers.tiny_study import contents, make_of_another_version

SETTING = ("--epochs=1", "--device=cpu")


@pytest.fixture
def results(world, tmp_path):
    """A copy of the records of the two methods, without the line on top of the table."""
    shutil.copytree(world.results, tmp_path / "results")
    for folder in (tmp_path / "results" / "tiny").iterdir():
        if folder.is_dir() and folder.name not in ("plain", "partial_bce"):
            shutil.rmtree(folder)
    return tmp_path / "results"


@pytest.fixture
def bench(world, results, monkeypatch):
    return in_folder(monkeypatch, world.folder, *world.plugins, f"--results-dir={results}")


@pytest.fixture
def record(results):
    return read_record(next((results / "tiny" / "plain").iterdir()) / "record.json")


def with_other_scores(record):
    with np.load(record.folder / "scores.npz") as file:
        return rewrite(record, "scores.npz", {"scores": file["scores"] + np.float32(0.5)})


def test_whole_files_are_counted(bench, results):
    before = contents(results)
    code, out, _ = bench("verify", "--files")
    assert code == 0
    computed, checked = out.splitlines()
    assert computed == "computed the numbers of 2 cells from scores and labels: none disagree"
    assert checked.startswith("checked 2 cells, ") and checked.endswith(" bytes: none damaged")
    assert contents(results) == before


@pytest.mark.parametrize("dataset", [[], ["--dataset=tiny"]])
def test_a_changed_bit_is_found_and_the_next_run_trains_the_cell_anew(bench, results, record, dataset):
    expected = contents(record.folder)["scores.npz"]
    flip_a_bit(record.folder / "scores.npz")
    code, out, _ = bench("verify", "--files", *dataset)
    assert code == 1
    line, computed, last = out.splitlines()
    moved = f"{record.folder}.damaged-1"
    assert line == (
        f"damaged: {record.folder / 'scores.npz'} is not what its record says (SHA-256 differs); moved to {moved}"
    )
    assert computed.startswith("computed the numbers of 1 cell ")
    assert last.startswith("checked 2 cells, ") and last.endswith(": 1 damaged")
    assert bench("verify", "--files").code == 0

    answer = bench("run", "plain", "--dataset=tiny", "--ratios=0.5", *SETTING)
    assert answer.code == 0 and answer.err.count(": mAP ") == 1
    assert contents(record.folder)["scores.npz"] == expected


def test_files_for_programs(bench, results, record):
    flip_a_bit(record.folder / "scores.npz")
    code, out, _ = bench("verify", "--files", "--json")
    found = json.loads(out)
    assert code == 1 and found["cells"] == 2 and found["left_out"] == {}
    (damage,) = found["damaged"]
    assert damage["folder"] == str(record.folder) and damage["moved_to"] == f"{record.folder}.damaged-1"


def edit_record(folder, change) -> None:
    """Change something in record.json, its digest mended."""
    content = json.loads((folder / "record.json").read_text())
    change(content)
    (folder / "record.json").write_text(json.dumps({**content, "sha256": digest(content)}))


def test_a_number_that_was_edited_with_the_digest_mended_is_named_and_nothing_is_moved(bench, results, record):
    edit_record(record.folder, lambda content: content["metrics"].update(OP=0.5))
    before = contents(results)
    code, out, _ = bench("verify", "--files")
    line, computed, checked = out.splitlines()
    assert code == 1
    assert line.startswith(f"disagrees: {record.folder}: OP is 0.5, from scores.npz it is ")
    assert computed.endswith("from scores and labels: 1 disagree") and checked.endswith("none damaged")
    assert contents(results) == before

    code, out, _ = bench("verify", "--files", "--json")
    (found,) = json.loads(out)["disagreeing"]
    assert code == 1 and found["folder"] == str(record.folder)
    assert ("OP", 0.5) in {(number["what"], number["stated"]) for number in found["numbers"]}


def test_records_whose_data_set_is_not_there_are_held_against_their_files_and_that_is_said(results):
    code, out, _ = call("verify", "--files", f"--results-dir={results}")
    line, computed, _ = out.splitlines()
    assert code == 0
    assert line.startswith("not held against labels: 2 of the cells, the first is ")
    assert line.endswith(": tiny is not registered; name its file with --plugin")
    assert computed == "computed the numbers of 0 cells from scores and labels: none disagree"


def test_records_of_another_protocol_version_are_named_and_no_failure(bench, results, record):
    other = make_of_another_version(record.folder)
    code, out, _ = bench("verify", "--files")
    assert code == 0 and f"plain/{other.name}" in out and "checked 1 cell," in out


@pytest.mark.parametrize("by", ["key", "folder"])
def test_a_cell_trained_again_is_identical(bench, results, record, by):
    before = contents(results)
    code, out, _ = bench("verify", record.cell.key[:10] if by == "key" else record.folder, *SETTING)
    assert code == 0
    assert "bit-identical" in out and out.endswith("1 of 1 cell holds\n")
    assert contents(results) == before


def test_a_cell_with_other_scores_is_told_with_its_difference_and_what_is_known(bench, record):
    with_other_scores(record)
    code, out, err = bench("verify", record.cell.key, *SETTING)
    assert code == 1
    assert "not identical: test scores; logits differ by up to 0.5, mAP by +0.000 points" in " ".join(out.split())
    assert "nothing that is known is different here" in err
    assert bench("verify", record.cell.key, "--tolerance=0.1", *SETTING).code == 0


def test_a_cell_for_programs(bench, record):
    with_other_scores(record)
    code, out, _ = bench("verify", record.cell.key, *SETTING, "--json")
    (verdict,) = json.loads(out)
    assert code == 1 and verdict["key"] == record.cell.key
    assert (verdict["holds"], verdict["identical"], verdict["differing"]) == (False, False, ["test scores"])
    assert verdict["largest_difference_of_logits"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(("share", "cells"), [(1, 1), (100, 2)])
def test_a_share_of_the_cells_is_trained_again(bench, share, cells):
    held = "1 cell holds" if cells == 1 else "2 cells hold"
    code, out, _ = bench("verify", f"--share={share}", "--dataset=tiny", *SETTING)
    assert code == 0 and out.count("bit-identical") == cells and out.endswith(f"{cells} of {held}\n")


def test_a_share_with_a_damaged_record_among_it_fails_and_names_it(bench, record):
    flip_a_bit(record.folder / "steps.npz")
    code, out, _ = bench("verify", "--share=100", "--dataset=tiny", *SETTING)
    assert code == 1 and "damaged: " in out and "bit-identical" in out and out.endswith("1 of 2 cells hold\n")


BAD = {
    "nothing asked": ([], "say what to verify: a CELL, or --files, or --share 10"),
    "two things": (["--files", "--share=10"], "say what to verify"),
    "share of 0": (["--share=0"], "--share 0 must be above 0"),
    "share above all": (["--share=101"], "at most 100 percent"),
    "a tolerance below 0": (["--files", "--tolerance=-1"], "tolerance"),
    "no such cell": (["feedbeef"], "no record has a key that begins with 'feedbeef'"),
    "no such dataset": (["--files", "--dataset=tinny"], "no records of 'tinny' in "),
    "another setting": (["KEY", "--device=cpu"], "was trained with --epochs 1; give the same"),
    "nothing of the setting": (["--share=10", "--dataset=tiny", "--epochs=3"], "epochs 1 instead of 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(bench, results, record, case):
    arguments, reason = BAD[case]
    before = contents(results)
    arguments = [record.cell.key if argument == "KEY" else argument for argument in arguments]
    code, out, err = bench("verify", *arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and reason in err
    assert contents(results) == before


def test_a_cell_whose_method_is_not_named_is_refused(world, results, record, monkeypatch):
    (dataset, _) = world.plugins
    bench = in_folder(monkeypatch, world.folder, dataset, f"--results-dir={results}")
    answer = bench("verify", record.cell.key, *SETTING)
    assert answer.code == 2 and "is of a method that is not registered" in answer.err
