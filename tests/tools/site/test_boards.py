"""A leaderboard of a group has intervals where labels are here or evidence is kept, and says where it has none."""

import math
from dataclasses import replace

import pytest

from mlrpl_bench.evaluation import metrics, thresholds
from mlrpl_bench.leaderboard import evidence
from mlrpl_bench.models.registry import Alias, Registry
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.tools.site.boards import Board, build
from mlrpl_bench.tools.site.grouping import group
from mlrpl_bench.training.options import Options
from tests.helpers import tiny_study as tiny
from tests.helpers.made_up_site import edit
from tests.helpers.made_up_table import records

THRESHOLDS = {"chosen": metrics.THRESHOLDED, "oracle": thresholds.ORACLE}
NO_LABELS = Labels({}, Options(device="cpu"))


def built(found: list[Record], methods: Registry | None = None) -> Board:
    (of,) = group(found, {}, {})
    board = build(of, NO_LABELS, methods or Registry("method"))
    assert board is not None
    return board


def interval(board: Board, label: str, ratio: str = "0.5") -> tuple[float, float]:
    row = board.table.lookup.row(label, ratio, "mAP")
    return row.low, row.high


def test_without_labels_there_are_means_and_no_intervals(tmp_path):
    board = built(records(tmp_path))
    row = board.table.lookup.row("plain", "0.5", "mAP")
    assert row.n == 2 and not math.isnan(row.mean) and math.isnan(row.low)
    assert not any(entry.mark for _, entries in board.table.main.rows for entry in entries)
    assert "no interval, because the labels of the test images are not here" in board.table.notes
    assert any("tiny is not registered; name its file with --plugin" in note for note in board.table.notes)


def test_kept_evidence_gives_intervals_and_rows_without_are_not_compared(tmp_path):
    found = records(tmp_path)
    for record in found:
        if record.cell.method != "weak":
            of = tiny.evidence(record, noise=1.0)
            full = replace(of, chosen=dict.fromkeys(evidence.metrics.THRESHOLDED, 0.5))
            evidence._keep(
                replace(full, oracle=dict.fromkeys(evidence.thresholds.ORACLE, 0.5)), evidence._source(record)
            )
    board = built(found)
    assert not math.isnan(interval(board, "plain")[0]) and math.isnan(interval(board, "weak")[0])
    assert board.table.lookup.row("weak", "0.5", "mAP").mark == "not compared"
    assert "best" in set(board.table.measurements["mark"])


def test_a_ratio_that_few_rows_have_is_no_column_but_named(tmp_path):
    found = records(tmp_path)
    odd = next(each for each in found if (each.cell.method, each.cell.ratio, each.cell.seed) == ("plain", 0.5, 0))
    board = built([*found, replace(odd, cell=replace(odd.cell, ratio=0.3))])
    assert list(board.table.ratios) == [0.1, 0.5]
    assert "no column, because few rows have it: 30 % (plain)" in board.table.notes
    assert len(board.by_key) == len(found) + 1  # it has a page all the same


def test_another_name_of_a_method_at_a_ratio_is_a_row_on_top(tmp_path):
    found = records(tmp_path, ["plain", "weak"])
    full = [replace(each, cell=replace(each.cell, ratio=1.0)) for each in found if each.cell.method == "weak"][:2]
    methods: Registry = Registry("method")
    methods.aliases["most"] = Alias("most", "weak", 1.0)
    board = built([*found, *full], methods)
    assert board.table.labels[0] == "most" and list(board.table.ratios) == [0.1, 0.5]
    assert board.table.context.reference_rows == {"most": "weak with 100 % of the labels known"}


def test_a_record_whose_files_are_damaged_is_named_and_the_others_are_shown(tmp_path):
    found = records(tmp_path, ["plain"])
    (found[0].folder / "history.csv").write_text("epoch,test.mAP\n0,2.5\n")
    board = built(found)
    assert len(board.problems) == 1 and len(board.by_key) == len(found) - 1


def test_a_record_of_other_categories_is_named(tmp_path):
    found = records(tmp_path, ["plain"])
    odd = replace(found[0], metrics={**found[0].metrics, "AP_C": found[0].metrics["AP_C"][:2]})
    board = built([odd, *found[1:]])
    assert board.problems == [f"{odd.folder}: its record has not 4 AP_C like the others; move the folder away"]
    assert len(board.by_key) == len(found) - 1


def test_a_group_without_a_usable_record_is_none(tmp_path):
    (record, *_) = records(tmp_path, ["plain"], seeds=1)
    (record.folder / "history.csv").write_text("epoch,test.mAP\n0,2.5\n")
    (of,) = group([record], {}, {})
    assert build(of, NO_LABELS, Registry("method")) is None


def test_a_mask_that_is_not_here_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    of = tiny.study(tmp_path / "tiny.py", weights="random")
    setting = replace(of.setting, mask_scheme="file")
    cell = replace(of.job(tiny.method(tmp_path / "plain.py"), 0.5, 0, 0, {}).cell, setting=setting)
    record = ResultStore(tmp_path / "results").write(tiny.finished(cell), {})
    (grouped,) = group([record], {}, {})
    board = build(grouped, Labels({"tiny": of.entry}, Options(device="cpu")), Registry("method"))
    assert board is not None and board.problems == []
    assert any("name their mask with --mask-file" in note for note in board.table.notes)


@pytest.mark.parametrize("field", ["scores", "metrics"])
def test_numbers_that_are_not_those_of_the_scores_are_named_where_labels_are(tmp_path, monkeypatch, field):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    of = tiny.study(tmp_path / "tiny.py", weights="random")
    entry = tiny.method(tmp_path / "plain.py")
    store = ResultStore(tmp_path / "results")
    cells = [of.job(entry, 0.5, seed, seed, {}).cell for seed in (0, 1)]
    found = [store.write(tiny.finished(each, seed=each.seed), {}) for each in cells]
    if field == "metrics":
        edit(found[0].folder, lambda content: content["metrics"].update(mAP=0.125))
        found = store.survey("tiny").records
    (grouped,) = group(found, {}, {})
    board = build(grouped, Labels({"tiny": of.entry}, Options(device="cpu")), Registry("method"))
    assert board is not None and not math.isnan(interval(board, "plain")[0])
    assert [("its scores give mAP" in line) for line in board.problems] == [True] * (field == "metrics")
    assert board.table.context.categories == tiny.CATEGORIES
