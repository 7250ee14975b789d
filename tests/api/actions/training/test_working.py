"""A worker does an order as plain data; what is wrong with its machine comes back in a line that names it."""

import json
import pickle
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from mlrpl_bench.api.actions.training import launching
from mlrpl_bench.api.actions.training.working import Lines, work
from mlrpl_bench.api.request import Request
from mlrpl_bench.launchers.placement import Placement
from mlrpl_bench.training.launchers.events import Began
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.trainer import EpochDone, Failed, StepDone
from tests.helpers.tiny_study import cell


@pytest.fixture
def order(resolved):
    order = launching.order_of(resolved, Placement("local", workers=2), [])
    return json.loads(json.dumps(order.to_json()))


def test_an_order_is_done_and_its_records_name_the_launcher(order, resolved):
    assert work(order, None) == {"code": 0, "line": "", "node": platform.node()}
    records = resolved.store.survey("tiny").records
    assert [record.content["launcher"] for record in records] == ["local"] * 3


@pytest.mark.parametrize(("planned", "group"), [(1, 3), (3, 1)])
def test_groups_are_sized_for_the_workers_that_are_planned(order, resolved, planned, group):
    assert work({**order, "planned": planned}, None)["code"] == 0
    records = resolved.store.survey("tiny").records
    assert [record.content["cost"]["cells_in_group"] for record in records] == [group] * 3


def test_groups_are_as_small_as_the_launcher_says(order, resolved):
    assert work({**order, "planned": 1}, 1)["code"] == 0
    records = resolved.store.survey("tiny").records
    assert [record.content["cost"]["cells_in_group"] for record in records] == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda order: {**order, "code": "0" * 64}, f"the code on {platform.node()} is not the code"),
        (lambda order: {**order, "versions": {"torch": "0.1"}}, f"{platform.node()} has torch "),
        (lambda order: {"request": {}}, "this is no work order of this version"),
        (lambda order: changed(order, options={"data_root": "/nowhere"}), "--data-root /nowhere is not there on "),
        (lambda order: changed(order, options={"mask_file": "/no.npz"}), "--mask-file /no.npz is not there on "),
        (lambda order: changed(order, results=["/nowhere"]), "--results-dir /nowhere is not there on "),
    ],
    ids=["other code", "other version", "no order", "no data", "no mask", "no shared folder"],
)
def test_what_no_worker_here_can_do_is_a_line_with_exit_code_2(order, change, line):
    found = work(change(order), None)
    assert found["code"] == 2 and found["line"].startswith(line), found
    assert "\n" not in found["line"]
    if "is not there on" in line:
        assert platform.node() in found["line"]


def test_an_address_of_records_is_the_same_on_every_node(order, resolved, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a file").touch()
    address = Path(f"file://{tmp_path}/there")
    assert launching.anywhere(replace(resolved.request, results=(address,))).results == (address,)
    found = work(changed(order, results=[str(tmp_path / "results"), str(address)]), None)
    assert found == {"code": 0, "line": "", "node": platform.node()}


def changed(order, options=None, **request):
    asked = {**order["request"], **request}
    asked["options"] = {**asked["options"], **(options or {})}
    return {**order, "request": asked}


def test_a_worker_travels_by_its_name():
    assert pickle.loads(pickle.dumps(work)) is work


def test_a_worker_ends_where_others_train_what_is_left(order, resolved, monkeypatch):
    from mlrpl_bench.api.actions.training import cells
    from mlrpl_bench.records.leases.lease import Owner
    from mlrpl_bench.training.launchers import sweep
    from mlrpl_bench.training.study import Study

    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.01)
    jobs, _ = cells.jobs_of(resolved, Study(resolved.dataset, resolved.request.options))
    with Owner() as other:
        for job in jobs:
            assert other.take(resolved.store.folder(job.cell))
        monkeypatch.setattr(sweep.time, "sleep", lambda seconds: other.beat())
        assert work(order, None)["code"] == 0
        assert all(other.holds(resolved.store.folder(job.cell)) for job in jobs)
    assert resolved.store.survey("tiny").records == []


def test_paths_of_an_order_hold_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_text("weights")
    options = Options(
        data_root=tmp_path.relative_to(tmp_path), weights="w.pth", mask_file=(tmp_path / "m").relative_to(tmp_path)
    )
    found = launching.anywhere(replace(Request(), options=options))
    assert found.options.data_root == tmp_path and found.options.mask_file == tmp_path / "m"
    assert found.options.weights == str(tmp_path / "w.pth")
    assert found.results == (tmp_path / "results",)
    assert launching.anywhere(replace(Request(), options=Options(weights="random"))).options.weights == "random"


def test_a_log_file_has_a_line_for_a_cells_end_and_at_most_one_a_minute_for_an_epoch(capsys):
    now = [0.0]
    lines = Lines(clock=lambda: now[0])
    lines.event("a", 5, Began(1, 10, 8, (0.1,)))
    lines.event("a", 5, StepDone(0, 1, 10))
    for epoch in range(5):
        now[0] += 25
        lines.event("a", 5, StepDone(epoch, 10, 10))
        lines.event("a", 5, EpochDone(cell(), {"epoch": epoch, "loss.bce": 0.25, "test.mAP": 0.5}))
    lines.cells(0, 1)
    lines.event("a", 5, Failed(cell(), "it broke", ""))
    lines.note("a word")
    lines.warn("odd")
    assert capsys.readouterr().err.splitlines() == [
        "1 cell, epoch 1/5: loss 0.2500, mAP 50.0, 3 images/s, 2 min left",
        "1 cell, epoch 4/5: loss 0.2500, mAP 50.0, 3 images/s, 25 s left",
        "1 cell, epoch 5/5: loss 0.2500, mAP 50.0, 3 images/s, 0 s left",
        "a: failed, it broke",
        "a word",
        "warning: odd",
    ]
