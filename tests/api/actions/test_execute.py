"""What a request means: which cells, which records stand in its table, and what is refused."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlrpl_bench.api.actions import execute
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.launchers.placement import HERE, Placement
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training import checkpoint
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError
from tests.helpers import simulated_cells
from tests.helpers.tiny_study import DATASET, METHOD, contents, finished, write_plugin


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Three methods, and none besides."""
    folder = tmp_path_factory.mktemp("methods")
    head, body = METHOD.split('@register_method("plain", paper="https://example.org/plain", differs="shorter")\n')
    names = {"basic": "default=True", "shown": 'published="ROW"', "both": 'default=True, published="B"'}
    lines = "".join(f'@register_method("{name}", {facts})\n' for name, facts in names.items())
    write_plugin(folder / "family.py", head + lines + body)
    return load_methods(folder=folder)


OPTIONS = Options(device="cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        yield load_datasets([write_plugin(folder / "tiny_set.py", DATASET)])["tiny"]


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def put(dataset, methods, store):
    """Store a made-up record of a method."""

    def put(name, ratio=0.5, seed=0, mask_seed=None, changed=None, **options):
        study = Study(dataset, Options(**{"device": "cpu", **options}))
        job = study.job(methods[name], ratio, seed, seed if mask_seed is None else mask_seed, changed or {})
        return store.write(finished(job.cell), {})

    return put


@pytest.fixture
def ask(dataset, methods, store, monkeypatch):
    """Compare without training (which would be a mistake), and give the result."""
    monkeypatch.setattr(
        "mlrpl_bench.training.launchers.sweep._train_together", lambda *_: pytest.fail("something is trained")
    )

    def ask(
        *names, ratios=(0.5,), seeds=((0, 0),), on_trained=lambda: None, stores=store, dry_run=False, placement=HERE,
        **details,
    ):  # fmt: skip
        request = Request(dataset="tiny", **{"options": OPTIONS, "train": False, **details})
        rows = [(methods[name], {}) for name in names]
        resolved = Resolved(request, methods, dataset, stores, rows, ratios, seeds)
        if dry_run:
            return execute.plan(resolved, Quiet())
        return execute.execute(resolved, Quiet(), on_trained, placement=placement)

    return ask


def labels(result) -> set[str]:
    """The rows that have a number; one that was asked for and has none is shown too."""
    rows = result.leaderboard.to_json()["rows"]
    return {label for label, facts in rows.items() if any(entry["seeds"] for entry in facts.values())}


def test_other_methods_of_the_same_setting_stand_beside(put, ask):
    put("basic"), put("shown"), put("both")
    assert labels(ask("basic")) == {"basic", "shown", "both"}


def test_other_methods_stay_out_if_only_the_asked_ones_are_wanted(put, ask):
    put("basic"), put("shown"), put("both")
    assert labels(ask("basic", "both", only_these_rows=True)) == {"basic", "both"}


@pytest.mark.parametrize(
    "other", [{"epochs": 5}, {"precision": "bf16-mixed"}, {"backbone": "resnet18", "weights": "random"}]
)
def test_records_of_another_setting_never_appear(put, ask, other):
    put("basic"), put("basic", **other), put("shown", **other)
    result = ask("basic", "shown")
    assert labels(result) == {"basic"}
    assert result.leaderboard.to_json()["rows"]["basic"]["50 %"]["seeds"] == 1


def test_only_the_ratios_and_seeds_that_are_asked_for_are_shown(put, ask):
    put("basic"), put("basic", ratio=0.9), put("basic", seed=1), put("shown", seed=1), put("both", mask_seed=4)
    result = ask("basic")
    assert labels(result) == {"basic"}
    assert result.leaderboard.main.columns[0] == "50 %"
    assert result.leaderboard.to_json()["rows"]["basic"]["50 %"]["seeds"] == 1


def test_a_mask_that_is_held_fixed_is_another_table(put, ask):
    put("basic", seed=1), put("shown", seed=1, mask_seed=0)
    assert labels(ask("basic", "shown", seeds=[(1, 0)])) == {"shown"}


def test_when_everything_is_there_nothing_is_trained(put, ask):
    put("basic")
    assert labels(ask("basic", train=True)) == {"basic"}


def test_records_are_read_after_training_is_said_to_be_over(put, ask):
    put("basic")
    assert labels(ask("basic", on_trained=lambda: put("shown"))) == {"basic", "shown"}


@pytest.mark.parametrize("other", [{"epochs": 5}, {"ratio": 0.9}, {"seed": 1}])
def test_without_records_of_what_is_asked_and_without_training_there_is_no_table(put, ask, store, other):
    put("basic", **other)
    before = contents(store.root)
    with pytest.raises(
        UserError, match=r"no records of this setting in .*tiny.*; train some first, without --no-train"
    ):
        ask("basic", leaderboard=True)
    assert contents(store.root) == before


def test_a_stopped_cell_is_named_where_there_is_nothing_to_show(put, ask, store, dataset, methods):
    job = Study(dataset, OPTIONS).job(methods["basic"], 0.5, 0, 0, {})
    checkpoint.write(store.folder(job.cell), job.cell, {"epoch": 0, "step": 2})
    with pytest.raises(UserError, match=r"basic at 50 %: stopped at epoch 1 of 2 \(seed 0\); train some first"):
        ask("basic")


def test_workers_that_train_later_leave_a_part_to_be_trained():
    later = Placement(launcher="print")
    for number in (1, 2):
        request = Request(dataset="tiny", shard=(number, 2))
        words = f"part {number} of 2 is left to the workers; when all"
        assert execute._why_no_table(request, later, True).startswith(words)
        assert execute._why_no_table(request, Placement(), False).startswith(f"part {number} of 2 is trained; when all")
    assert execute._why_no_table(Request(dataset="tiny"), later, True) == "no table is made now, as workers train later"
    assert execute._why_no_table(Request(dataset="tiny"), Placement(), False) == ""


@pytest.mark.parametrize(("launcher", "has_table"), [("print", False), ("submitit", True), ("local", True)])
def test_where_nothing_is_left_to_train_no_table_stands_where_a_command_would(put, ask, launcher, has_table):
    put("basic")
    result = ask("basic", train=True, placement=Placement(launcher))
    assert (result.leaderboard is not None) == has_table
    assert result.remark.startswith("" if has_table else "no cell is left to train, so no command is printed")


def test_heads_stand_beside_trainings_where_two_heads_were_trained():
    skills = {"ssgrl": 0.6, "sarb": 1.0, "ml_decoder": 0.8}
    both = SimpleNamespace(cells=simulated_cells.cells(skills, count=1), ratios=simulated_cells.RATIOS)
    one = SimpleNamespace(
        cells={key: of for key, of in both.cells.items() if key[0] != "ml_decoder"}, ratios=both.ratios
    )
    assert [table.name for table in execute._claims(both, "tiny")] == ["head-and-training"]
    assert execute._claims(one, "tiny") == []


def test_the_files_are_what_is_shown(put, ask, store):
    put("basic"), put("shown", ratio=0.9)
    result = ask("basic", ratios=(0.5, 0.9), leaderboard=True)
    files = {path.name: path.read_text(encoding="utf-8") for path in result.written if path.suffix != ".png"}
    folder = store.root / "tiny"
    assert {path.parent for path in result.written} == {folder, folder / "figures"}
    assert "<!doctype html>" in files["index.html"].lower() and files["map-by-ratio.svg"].startswith("<?xml")
    assert files["leaderboard.csv"] == result.leaderboard.to_csv()
    assert files["leaderboard.md"] == result.leaderboard.to_markdown()
    assert files["leaderboard.tex"] == result.leaderboard.to_latex()
    assert files["measurements.csv"] == result.leaderboard.tidy_csv()


def test_the_files_that_were_deleted_come_back_byte_for_byte(put, ask, store):
    put("basic"), put("shown")
    ask("basic", leaderboard=True)
    before = contents(store.root)
    for path in [*(store.root / "tiny").glob("*.*"), *store.root.glob("tiny/*/*/evidence.npz")]:
        path.unlink()
    ask("basic", leaderboard=True)
    assert contents(store.root) == before


def test_nothing_is_written_unless_it_is_asked_for(put, ask, store):
    put("basic")
    before = set(contents(store.root))
    assert not ask("basic").written
    assert {Path(name).name for name in set(contents(store.root)) - before} == {"evidence.npz"}


def test_a_dry_run_says_what_is_missing_and_how_much_disk_its_scores_take(put, ask, store):
    put("basic")
    before = contents(store.root)
    plan = ask("basic", "shown", ratios=(0.5, 0.9), dry_run=True)
    missing = ["basic 90 % seed 0", "shown 50 % seed 0", "shown 90 % seed 0"]
    # 12 training and 8 test images, 4 categories, 4 bytes each
    trainings = [{"methods": ["basic", "shown"], "learning_rate": 0.001, "steps_per_epoch": 3, "steps": 6}]
    expected = {"cells": 4, "to_train": missing, "score_bytes": 3 * 20 * 4 * 4, "trainings": trainings}
    assert plan.to_json() == expected
    assert "a cell: learning rate 0.001, 3 steps an epoch, 6 in all (papers' on COCO: 102,600)" in plan.to_text()
    assert plan.to_text().split("\n")[:2] == ["4 cells, 3 of them without a record:", "  basic 90 % seed 0"]
    assert json.loads(json.dumps(plan.to_json())) == plan.to_json()
    assert contents(store.root) == before


@pytest.mark.parametrize("damage", ["cut short", "NaN", "scores of other images", "unlike its scores"])
def test_a_damaged_record_is_named_and_the_rest_of_the_table_is_made(put, ask, damage):
    put("basic")
    folder = put("shown").folder
    record = json.loads((folder / "record.json").read_text())
    if damage == "NaN":
        record["metrics"]["mAP"] = None
    elif damage == "unlike its scores":
        record["metrics"]["mAP"] = 0.123
    elif damage == "scores of other images":
        np.savez(folder / "scores.npz", scores=np.zeros((7, 4), dtype=np.float32))
        record["files"]["scores.npz"]["bytes"] = (folder / "scores.npz").stat().st_size
    text = json.dumps(record)
    (folder / "record.json").write_text(text[: len(text) // 2] if damage == "cut short" else text)
    result = ask("basic", "shown", leaderboard=True)
    (problem,) = result.problems
    assert str(folder) in problem
    assert labels(result) == {"basic"}
    assert result.leaderboard.to_json()["rows"]["shown"]["50 %"]["mean"] is None
    assert "damaged" in result.leaderboard.to_json()["rows"]["shown"]["50 %"]["status"]


def test_a_damaged_record_that_is_asked_for_is_moved_aside_and_its_cell_is_trained_anew(put, ask, monkeypatch):
    folder = put("shown").folder
    (folder / "record.json").write_text("{")
    damaged = contents(folder)
    trained = []
    monkeypatch.setattr("mlrpl_bench.training.launchers.sweep.run", lambda todo, *_: trained.extend(todo) or iter(()))
    with pytest.raises(UserError, match="no records"):
        ask("shown", train=True)
    assert [job.cell.method for job in trained] == ["shown"]
    assert contents(folder.with_name(folder.name + ".damaged-1")) == damaged
    assert not folder.exists()


def test_records_that_do_not_belong_into_the_table_are_counted_by_reason(put, ask, store, methods):
    put("basic"), put("basic", epochs=5), put("shown", epochs=5)
    gone = put("both").folder
    content = json.loads((gone / "record.json").read_text())
    del methods.entries["both"]
    try:
        notes = ask("basic").leaderboard.notes
    finally:
        content = load_methods(folder=next(iter(methods.entries.values())).path.parent)
        methods.entries["both"] = content["both"]
    assert any(
        note.startswith("left out: 2 records of another setting (epochs 5 instead of 2): basic/0.5-s0-")
        for note in notes
    )
    assert any(note.startswith("left out: 1 record of a method that is not registered") for note in notes)


def test_folders_of_two_machines_make_one_table(put, ask, store, tmp_path):
    put("basic"), put("shown")
    other = tmp_path / "other"
    store.root.rename(other)
    put("both"), put("basic")
    both = ResultStore(store.root, [other])
    result = ask("basic", stores=both)
    assert (labels(result), result.problems) == ({"basic", "shown", "both"}, [])


def test_cells_of_two_folders_that_disagree_are_named_and_neither_is_used(put, ask, store, tmp_path):
    put("shown")
    path = put("basic").folder / "record.json"
    other = tmp_path / "other"
    store.root.rename(other)
    copied = other / path.relative_to(store.root)
    content = json.loads(copied.read_text())
    content["metrics"]["OF1"] = 0.123
    copied.write_text(json.dumps(content))
    put("basic")
    both = ResultStore(store.root, [other])
    result = ask("basic", stores=both)
    assert "are of one cell and disagree" in result.problems[0]
    assert labels(result) == {"shown"}
    assert result.leaderboard.to_json()["rows"]["basic"]["50 %"]["mean"] is None


def test_the_notes_tell_how_the_shown_methods_and_the_setting_differ(put, ask, methods):
    put("basic")
    text = "\n".join(ask("basic").leaderboard.notes)
    assert "this setting is not the papers': backbone small (papers: resnet101)" in text


def test_tables_can_be_written_to_another_folder(put, ask, store, tmp_path):
    put("basic")
    ask("basic", leaderboard=True)
    beside = {path.name: path.read_bytes() for path in (store.root / "tiny").glob("*.*")}
    result = ask("basic", leaderboard=True, out=tmp_path / "tables")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").glob("*.*")} == beside
    assert all(path.is_relative_to(tmp_path / "tables") for path in result.written)


def test_a_folder_that_is_read_only_is_no_obstacle_to_the_table(put, ask, store, monkeypatch):
    put("basic")
    ask("basic")
    before = contents(store.root)

    def is_allowed(path, mode):
        return mode != os.W_OK or not Path(path).is_relative_to(store.root)

    monkeypatch.setattr(os, "access", is_allowed)
    result = ask("basic", leaderboard=True)
    assert labels(result) == {"basic"}
    assert (result.written, contents(store.root)) == ([], before)
    assert f"{store.root / 'tiny'} is read-only" in result.unwritten and "--out" in result.unwritten
