"""The parts of a grid are disjoint and make the whole; a worker trains what is left and makes no table."""

import csv
import os
import time
from dataclasses import replace

import pytest

from mlrpl_bench.api.actions import execute
from mlrpl_bench.api.actions.training import cells
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.launchers.placement import Placement
from mlrpl_bench.records.leases import lease
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.leases.presence import at_work
from mlrpl_bench.training.launchers.sweep import Worker
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import StepDone
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import DATASET, EXPLODING, METHOD, write_plugin


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    """Twelve cells of two seeds, of a method that works and one that does not."""
    folder = tmp_path_factory.mktemp("cells")
    plugins = [write_plugin(folder / "tiny_set.py", DATASET), write_plugin(folder / "plain.py", METHOD)]
    plugins.append(write_plugin(folder / "explodes.py", EXPLODING))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        yield Request(
            "tiny",
            ("plain", "explodes"),
            ratios=(0.2, 0.5, 0.9),
            seeds=2,
            options=Options(epochs=2, device="cpu"),
            plugins=tuple(plugins),
            only_these_rows=True,
        )


@pytest.fixture
def jobs(request_):
    resolved = resolve(request_, Quiet())
    return cells.jobs_of(resolved, Study(resolved.dataset, request_.options))[0]


@pytest.mark.parametrize("of", [1, 2, 3, 5, 12, 20])
def test_parts_are_even_disjoint_and_make_the_whole(request_, jobs, of):
    parts = [cells.part(jobs, replace(request_, shard=(number, of))) for number in range(1, of + 1)]
    assert sorted(jobs.index(job) for part in parts for job in part) == list(range(12))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_cells_that_can_be_trained_together_stay_together(request_, jobs):
    parts = [cells.part(jobs, replace(request_, shard=(number, 2))) for number in (1, 2)]
    assert [{job.cell.seed for job in part} for part in parts] == [{0}, {1}]


@pytest.mark.parametrize("launcher", [None, "print"])
def test_a_folder_that_cannot_hold_leases_is_refused_before_anything_is_written(
    request_, tmp_path, monkeypatch, launcher
):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    asked = resolve(replace(request_, results=(tmp_path / "mounted",)), Quiet())
    with pytest.raises(UserError, match="is refused, as no hard link can be made there"):
        execute.execute(asked, Quiet(), placement=Placement(launcher))
    assert list((tmp_path / "mounted" / "tiny").iterdir()) == []


def test_a_plan_of_a_part_and_for_several_workers_shows_the_groups(request_, tmp_path):
    asked = replace(request_, shard=(1, 2), results=(tmp_path / "r",), group=4)
    found = execute.plan(resolve(asked, Quiet()), Quiet(), workers=3)
    assert len(found.todo) == 6
    assert sorted(map(len, found.groups())) == [2, 2, 2]
    assert found.to_json()["workers"] == 3 and len(found.to_json()["groups"]) == 3
    assert "3 workers, 3 groups of at most 2 cells side by side" in found.to_text()
    assert "group 3: " in found.to_text()
    assert "6 groups of at most 1 cell side by side" in replace(found, workers=6).to_text()
    assert "groups" not in execute.plan(resolve(asked, Quiet()), Quiet()).to_json()


def test_tables_of_parts_that_were_brought_together_are_those_of_the_whole(request_, tmp_path):
    plain = replace(request_, methods=("plain",), ratios=(0.2, 0.9))
    whole = execute.execute(resolve(replace(plain, results=(tmp_path / "whole",)), Quiet()), Quiet())
    for number in (1, 2):
        part = replace(plain, results=(tmp_path / f"part-{number}",), shard=(number, 2))
        result = execute.execute(resolve(part, Quiet()), Quiet())
        assert result.leaderboard is None and result.remark.startswith(f"part {number} of 2 is trained; when all")
    folders = (tmp_path / "part-1", tmp_path / "part-2")
    merged = execute.execute(resolve(replace(plain, results=folders, train=False), Quiet()), Quiet())
    for of in (lambda table: table.to_csv(), lambda table: table.main.markdown(1), lambda table: table.main.latex()):
        assert of(merged.leaderboard).encode() == of(whole.leaderboard).encode()


def test_a_worker_tries_again_only_what_had_failed_before_its_order(request_, tmp_path):
    asked = replace(request_, methods=("explodes",), ratios=(0.5,), seeds=1, results=(tmp_path / "r",))
    resolved = resolve(asked, Quiet())
    assert cells.train_as_worker(resolved, Quiet(), Worker("local"), {}) == 1
    ((job,), _) = cells.jobs_of(resolved, Study(resolved.dataset, asked.options))
    first = resolved.store.failed_try(job.cell)
    assert cells.train_as_worker(resolved, Quiet(), Worker("local"), {}) == 0
    assert resolved.store.failed_try(job.cell) == first
    assert cells.train_as_worker(resolved, Quiet(), Worker("local"), {job.cell.key: first}) == 1
    assert resolved.store.failed_try(job.cell) != first


class Looking(Quiet):
    """A watcher that looks into the folder, after a step, until the process there says how far it is."""

    def __init__(self, among):
        super().__init__()
        self.among, self.seen = among, []

    def event(self, title, epochs, event):
        """Look."""
        until = time.monotonic() + 20
        while isinstance(event, StepDone) and not self.seen and time.monotonic() < until:
            self.seen = at_work(self.among, Owner())
            time.sleep(0.01)


def test_a_worker_scores_test_images_as_often_as_its_order_says(request_, tmp_path):
    asked = replace(request_, methods=("plain",), ratios=(0.2,), seeds=1, evaluate_every=2, results=(tmp_path,))
    assert cells.train_as_worker(resolve(asked, Quiet()), Quiet(), Worker("local"), {}) == 0
    (path,) = tmp_path.glob("tiny/plain/*/history.csv")
    with path.open(newline="") as file:
        assert [bool(row["test.mAP"]) for row in csv.DictReader(file)] == [False, True]


def test_a_process_that_trains_says_in_the_folder_how_far_it_is(request_, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    asked = replace(request_, methods=("plain",), ratios=(0.5,), results=(tmp_path / "results",))
    watcher = Looking(tmp_path / "results" / "tiny")
    execute.execute(resolve(asked, watcher), watcher)
    (each,) = watcher.seen
    assert (each.process, each.epoch, each.epochs, each.step) == (os.getpid(), 0, 2, 1)
    assert each.cells >= 1 and each.device.endswith(" CPU") and each.images_per_second > 0
    assert at_work(watcher.among, Owner()) == []


@pytest.mark.parametrize(
    ("precision", "slowdown", "warned"), [("bf16-mixed", 22.0, 1), ("bf16-mixed", 0.6, 0), ("32-true", 22.0, 0)]
)
def test_a_processor_that_is_slow_in_bf16_is_warned_of(request_, tmp_path, monkeypatch, precision, slowdown, warned):
    monkeypatch.setattr(cells, "bf16_slowdown", lambda: slowdown)
    options = replace(request_.options, precision=precision)
    asked = replace(request_, methods=("plain",), ratios=(0.5,), seeds=1, options=options, results=(tmp_path,))
    watcher = Warned()
    assert cells.train_as_worker(resolve(asked, watcher), watcher, Worker("local"), {}) == 0
    assert [line for line in watcher.lines if "bf16-mixed is slow on this processor" in line] == warned * [
        "--precision bf16-mixed is slow on this processor, which takes 22 times as long for a product of matrices as "
        "in 32 bits; without --precision cells of their own are trained faster"
    ]


class Warned(Quiet):
    """A watcher that keeps the warnings."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def warn(self, text):
        """Keep it."""
        self.lines.append(text)
