"""What a table may be made from: reasons against records, holes, and lines about what is left out."""

import dataclasses

import numpy as np
import pytest

from mlrpl_bench.data import protocol
from mlrpl_bench.evaluation import metrics, thresholds
from mlrpl_bench.leaderboard.selection import _on_validation, _training, _with_validation, select
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.matching import reason_against
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training import checkpoint, steps
from mlrpl_bench.training.study import Options, Study
from tests.helpers.tiny_study import DATASET, METHOD, finished, make_of_another_version, method, study, write_plugin


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    of = study(tmp_path / "set.py")
    entry = method(tmp_path / "plain.py")
    return of, entry, ResultStore(tmp_path / "results")


def put(of, entry, store, ratio=0.5, seed=0, **changes):
    cell = dataclasses.replace(of.job(entry, ratio, seed, seed, {}).cell, **changes)
    return store.write(finished(cell), {})


def test_cells_are_found_by_row_ratio_and_seeds(world):
    of, entry, store = world
    put(*world), put(*world, seed=1), put(*world, ratio=0.9)
    found = select(of, {"plain": entry}, store, lambda cell: cell.ratio == 0.5)
    assert {place: set(by_seed) for place, by_seed in found.cells.items()} == {("plain", 0.5): {(0, 0), (1, 1)}}
    assert (found.missing, found.excluded_records, found.problems) == ({}, [], [])


def test_what_is_asked_for_and_missing_is_a_hole_with_its_reason(world):
    of, entry, store = world
    jobs = [of.job(entry, 0.5, seed, seed, {}) for seed in range(4)]
    store.write(finished(jobs[0].cell), {})
    store.write_failure(jobs[1].cell, "out of memory", "")
    Owner().take(store.folder(jobs[2].cell))
    found = select(of, {"plain": entry}, store, lambda _: True, asked=[job.cell for job in jobs])
    reason = found.missing["plain", 0.5]
    assert "failed: out of memory (seed 1)" in reason
    assert "still running" in reason
    assert reason.endswith("not run (seed 3)")


def test_a_stopped_cell_with_a_checkpoint_says_where_it_stands(world):
    of, entry, store = world
    cells = [of.job(entry, ratio, seed, seed, {}).cell for ratio, seed in ((0.5, 0), (0.5, 1), (0.9, 0), (0.1, 0))]
    checkpoint.write(store.folder(cells[0]), cells[0], {"epoch": 0, "step": 2})
    checkpoint.write(store.folder(cells[2]), cells[2], {"epoch": 1, "step": 0})
    checkpoint.write(store.folder(cells[3]), cells[3], {"epoch": 7, "step": 0})  # no run of two epochs leaves that
    found = select(of, {"plain": entry}, store, lambda _: True, asked=cells)
    assert found.missing == {
        ("plain", 0.5): "stopped at epoch 1 of 2 (seed 0); not run (seed 1)",
        ("plain", 0.9): "stopped at epoch 2 of 2 (seed 0)",
        ("plain", 0.1): "not run (seed 0)",
    }


def test_a_damaged_record_is_a_problem_and_a_hole(world):
    of, entry, store = world
    torn, without_scores = put(*world), put(*world, seed=1)
    (torn.folder / "record.json").write_text("{")
    path = without_scores.folder / "scores.npz"
    path.write_bytes(bytes(path.stat().st_size))
    found = select(of, {"plain": entry}, store, lambda _: True, asked=[torn.cell, without_scores.cell])
    assert found.cells == {} and found.missing == {("plain", 0.5): "record damaged (seed 0, 1)"}
    assert [str(record.folder) in line for record, line in zip((torn, without_scores), found.problems, strict=True)]


def test_a_damaged_record_in_another_folder_is_a_hole_that_says_so(world, tmp_path):
    of, entry, store = world
    record = put(*world)
    path = record.folder / "scores.npz"
    path.write_bytes(bytes(path.stat().st_size))
    here = ResultStore(tmp_path / "mine", [store.root])
    found = select(of, {"plain": entry}, here, lambda _: True, asked=[record.cell])
    assert found.missing == {("plain", 0.5): "record damaged (seed 0)"}


@pytest.mark.parametrize(
    ("width", "changed", "reason"),
    [
        (3, (), None),
        (4, (), "trained with other default hyper-parameters"),
        (4, ("width",), None),
    ],
)
def test_only_values_that_were_left_alone_are_compared_with_the_defaults(world, tmp_path, width, changed, reason):
    of, _, store = world
    text = METHOD.replace("from torch import nn", "from dataclasses import dataclass\n\nfrom torch import nn")
    text = text.replace("@register", "@dataclass(frozen=True)\nclass Options:\n    width: int = 3\n\n\n@register")
    wide = method(tmp_path / "wide.py", text.replace("(Method):\n", "(Method):\n    Hyperparameters = Options\n\n"))
    record = put(of, wide, store, hyperparameters={"width": width}, changed=changed)
    assert reason_against(record.cell, of, {"plain": wide}) == reason


def test_a_record_of_another_protocol_version_is_left_out_and_named(world):
    of, entry, store = world
    other = make_of_another_version(put(*world).folder)
    found = select(of, {"plain": entry}, store, lambda _: True)
    assert (found.cells, found.problems) == ({}, [])
    (line,) = found.excluded_records
    assert line == f"left out: 1 record of protocol version {protocol.VERSION + 1}: plain/{other.name}"


def test_what_was_asked_for_and_is_there_is_no_hole(world):
    of, entry, store = world
    found = select(of, {"plain": entry}, store, lambda _: True, asked=[put(*world).cell])
    assert set(found.cells) == {("plain", 0.5)} and found.missing == {}


def test_a_line_without_records_has_no_cells(world):
    of, entry, store = world
    missing = of.job(entry, 1.0, 0, 0, {}).cell
    rows = {"upper": [missing]}
    assert select(of, {"plain": entry}, store, lambda _: True, reference_rows=rows, ratios=(0.1,)).cells == {}


def test_a_line_has_its_cells_at_every_ratio(world):
    of, entry, store = world
    upper = put(*world, ratio=1.0)
    found = select(
        of,
        {"plain": entry},
        store,
        lambda cell: cell.ratio < 1,
        reference_rows={"upper": [upper.cell]},
        ratios=(0.1, 0.5),
    )
    assert set(found.cells) == {("upper", 0.1), ("upper", 0.5)}
    assert found.cells["upper", 0.1][0, 0].record.cell.key == upper.cell.key


def test_what_is_left_out_is_counted_by_reason_with_the_first_names(world, tmp_path):
    of, entry, store = world
    for number in range(6):
        other = method(tmp_path / f"m{number}.py", METHOD.replace('"plain"', f'"m{number}"'))
        put(of, other, store)
    put(*world)
    found = select(of, {"plain": entry}, store, lambda _: True)
    (line,) = found.excluded_records
    start = "left out: 6 records of a method that is not registered (a plug-in that is not named with --plugin?): m0/"
    assert line.startswith(start) and line.endswith(" and 2 more") and line.count("/0.5-s0-") == 4


def test_trainings_that_went_nowhere_are_one_line_with_rows_ratios_rate_and_steps(world, monkeypatch):
    of, entry, store = world
    monkeypatch.setattr(steps, "is_at_chance", lambda precision, _: precision < 0.9)
    flat = {"bce": np.full(6, 0.7, dtype=np.float32)}
    for ratio, terms in ((0.5, flat), (0.9, flat), (0.1, {"bce": np.linspace(1, 0, 6, dtype=np.float32)})):
        store.write(finished(of.job(entry, ratio, 0, 0, {}).cell, steps=terms), {})
    (line,) = select(of, {"plain": entry}, store, lambda _: True).stalled
    assert line.startswith("training went nowhere, plain at 50 and 90 %: ")
    for part in ("learning rate 0.001", "3 steps an epoch, 6 in all", "102,600", "--epochs"):
        assert part in line


def test_the_best_epoch_on_validation_is_that_of_the_same_training(world, tmp_path):
    of, entry, store = world
    validation, scores_NC = study(tmp_path / "set.py", evaluate_on="val"), np.ones((1, 4), np.float32)
    for seed, changed, best_epoch in ((0, {}, 1), (0, {"lr": 3}, 0)):
        cell = validation.job(entry, 0.5, seed, seed, changed).cell
        store.write(finished(cell, best_epoch=best_epoch, scores_NC=scores_NC), {})
    other = study(tmp_path / "set.py", evaluate_on="val", image_size=48)
    store.write(finished(other.job(entry, 0.5, 1, 1, {}).cell), {})
    put(*world), put(*world, seed=1)
    store.write(finished(of.job(entry, 0.5, 0, 0, {"lr": 3}).cell), {})
    found = select(of, {"plain": entry}, store, lambda _: True).cells
    assert found["plain", 0.5][0, 0].validated_epoch == 1
    assert found["plain[lr=3]", 0.5][0, 0].validated_epoch == 0
    assert found["plain", 0.5][1, 1].validated_epoch is None  # of another setting
    records = store.survey("tiny").records
    assert len(_on_validation(records, of)) == 2
    assert _on_validation(records, validation) == {}  # it is about these images


def test_another_file_of_the_method_other_values_or_another_seed_is_another_training(world):
    of, entry, _ = world
    one = of.job(entry, 0.5, 0, 0, {}).cell
    changes = [{"source_digest": "edited"}, {"ratio": 0.9}, {"seed": 1}, {"mask_seed": 1}, {"method": "other"}]
    changes += [{"hyperparameters": {"alpha": 9}}, {"recipe": dataclasses.replace(one.recipe, lr=1.0)}]
    others = [_training(dataclasses.replace(one, **change)) for change in changes]
    assert len({_training(one), *others}) == 1 + len(changes)
    on_validation = dataclasses.replace(one.setting, evaluate_on="val")
    assert _training(dataclasses.replace(one, setting=on_validation)) == _training(one)


def test_thresholds_are_those_of_the_same_training_on_validation_images(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    text = DATASET.replace("range(12)", "range(60)").replace("12 if", "60 if")
    entry, store, dataset = method(tmp_path / "plain.py"), ResultStore(tmp_path / "results"), tmp_path / "set.py"
    dataset = load_datasets([write_plugin(dataset, text)])["tiny"]
    of, validation = (Study(dataset, Options(device="cpu", evaluate_on=split)) for split in ("test", "val"))
    labels_NC = validation.test.labels_NC
    assert (labels_NC == protocol.PRESENT).any() and len(labels_NC) == 6
    scores_NC = (labels_NC - 7 + np.random.default_rng(1).random(labels_NC.shape)).astype(np.float32)
    twin = store.write(finished(validation.job(entry, 0.5, 0, 0, {}).cell, scores_NC=scores_NC), {})
    train_scores_NC = np.random.default_rng(2).normal(size=(60, 4)).astype(np.float32)
    test_scores_NC = (of.test.labels_NC - 7 + np.random.default_rng(3).random((8, 4))).astype(np.float32)
    measured = metrics.evaluate(test_scores_NC, of.test.labels_NC)
    parts = {"scores_NC": test_scores_NC, "metrics": measured, "train_scores_NC": train_scores_NC}
    store.write(finished(of.job(entry, 0.5, 0, 0, {}).cell, **parts), {})
    found = select(of, {"plain": entry}, store, lambda _: True)
    assert found.problems == []
    evidence = found.cells["plain", 0.5][0, 0]
    chosen_C = thresholds.chosen(scores_NC, labels_NC)
    assert evidence.validated == thresholds.evaluate(test_scores_NC, of.test.labels_NC, chosen_C)
    assert measured["OF1"] == 0 < evidence.validated["OF1"] <= evidence.oracle["OF1"]
    missed = dataclasses.replace(evidence, oracle=dict.fromkeys(thresholds.ORACLE, 0.0))
    raised = {name: evidence.validated[name] for name in thresholds.ORACLE}
    assert _with_validation(missed, twin, of).oracle == raised, "what finds a better one raises the oracle's"
    (twin.folder / "scores.npz").write_bytes(bytes(10))
    found = select(of, {"plain": entry}, store, lambda _: True)
    assert str(twin.folder) in found.problems[0] and found.cells["plain", 0.5][0, 0].validated == {}


def test_a_cell_that_was_asked_for_has_the_row_that_it_was_asked_for_as(world):
    of, entry, store = world
    store.write(finished(of.job(entry, 0.5, 0, 0, {"lr": 3}).cell), {})
    put(*world)
    tuned = of.job(entry, 0.5, 0, 0, {"lr": 3}, "plain (tuned)").cell
    rows = select(of, {"plain": entry}, store, lambda _: True, asked=[tuned]).cells
    assert set(rows) == {("plain", 0.5), ("plain (tuned)", 0.5)}
    assert set(select(of, {"plain": entry}, store, lambda _: True).cells) == {("plain", 0.5), ("plain[lr=3]", 0.5)}
