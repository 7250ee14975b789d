"""``run`` and ``leaderboard`` turn options into a request; what it does is tested with the API."""

from types import SimpleNamespace

import pytest

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli import app
from mlrpl_bench.cli.commands import train
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.utils.errors import UserError


@pytest.fixture
def asked(monkeypatch):
    """Call the command line; the request that it makes is returned and not carried out."""
    found = []
    monkeypatch.setattr(
        train, "_carry_out", lambda request, manner, _: found.append((request, manner.as_json, manner.dry_run))
    )

    def asked(*arguments):
        found.clear()
        app.app(list(arguments), standalone_mode=False)
        return found[0]

    return asked


def test_a_run_without_options_asks_for_what_is_usual(asked):
    assert asked("run", "sarb") == (Request(methods=("sarb",)), False, False)


def test_options_of_a_run_are_in_the_request(asked):
    request, as_json, dry_run = asked(
        *("run", "sarb", "--dataset", "coco", "--ratios", "0.5,0.1", "--seeds", "3", "--mask-seed", "7"),
        *("--set", "alpha=0.3", "--group", "4", "--checkpoint-every", "2", "--keep-weights", "none"),
        *("--evaluate-every", "5"),
        *("--epochs", "5", "--results-dir", "a", "--results-dir", "b", "--json", "--dry-run"),
    )
    assert (as_json, dry_run) == (True, True)
    assert (request.dataset, request.ratios, request.seeds, request.mask_seed) == ("coco", (0.1, 0.5), 3, 7)
    assert (request.overrides, request.group, request.checkpoint_seconds) == ({"alpha": "0.3"}, 4, 120.0)
    assert (request.keep_weights, request.options.epochs, request.evaluate_every) == (False, 5, 5)
    assert [str(path) for path in request.results] == ["a", "b"]
    assert (request.leaderboard, request.train) == (False, True)


def test_options_of_a_leaderboard_are_in_the_request(asked):
    request, *_ = asked("leaderboard", "--methods", "sarb, ssgrl", "--no-train", "--published", "--out", "tables")
    assert request.methods == ("sarb", "ssgrl")
    assert (request.leaderboard, request.only_these_rows, request.train, request.published) == (True, True, False, True)
    assert str(request.out) == "tables"
    usual, *_ = asked("leaderboard")
    assert (usual.methods, usual.only_these_rows, usual.train, usual.out) == (None, False, True, None)


def test_the_number_of_planned_workers_and_the_launcher_are_asked_for(monkeypatch):
    found = []
    monkeypatch.setattr(train, "_carry_out", lambda *given: found.append(given))
    app.app(["leaderboard", "--dry-run", "--workers-planned=8", "--shard=2/3", "--log-json"], standalone_mode=False)
    app.app(["run", "sarb", "--launcher=local", "--workers=2"], standalone_mode=False)
    (request, manner, placement), (_, _, other) = found
    assert request.shard == (2, 3) and (manner.workers_planned, manner.log_json, placement.launcher) == (8, True, None)
    assert (other.launcher, other.workers) == ("local", 2)


def test_the_plan_of_a_launcher_is_for_the_workers_that_it_would_start(monkeypatch, capsys):
    planned = []

    def plan(resolved, watcher, workers, placement):
        planned.append(workers)
        return SimpleNamespace(to_text=lambda: "")

    monkeypatch.setattr("mlrpl_bench.api.actions.execute.plan", plan)
    monkeypatch.setattr("mlrpl_bench.launchers.local.visible_gpus", lambda: ["0", "1", "2"])
    for options in (["--launcher=local"], ["--launcher=local", "--workers-planned=2"], []):
        app.app(["run", "sarb", "--dry-run", *options], standalone_mode=False)
    assert planned == [3, 2, 1]


def test_a_worker_does_the_order_in_a_file_and_fails_if_a_cell_did(monkeypatch, tmp_path):
    order = WorkOrder({}, "print", 2, "", {}, {})
    path, done = order.write(tmp_path), []

    def carry_out(order, most, watcher, *, waits):
        done.append((order, most, waits))
        return len(done) - 1

    monkeypatch.setattr("mlrpl_bench.api.actions.training.working.carry_out", carry_out)
    app.app(["worker", str(path)], standalone_mode=False)
    assert app.app(["worker", str(path), "--group-most=3", "--wait"], standalone_mode=False) == 1
    assert done == [(order, None, False), (order, 3, True)]


def test_a_worker_without_an_order_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none.json cannot be read .*; name a file that --launcher wrote"):
        app.app(["worker", str(tmp_path / "none.json")], standalone_mode=False)
