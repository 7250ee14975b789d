"""Several processes on one results folder: no cell is trained twice, and what one leaves another goes on with."""

import json
import multiprocessing
import os
import re
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.leases import lease
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from tests.helpers import processes
from tests.helpers.processes import PRELOADED
from tests.helpers.tiny_study import DATASET, METHOD, contents, write_plugin

RATIOS = ("0.1", "0.3", "0.5", "0.7", "0.9", "1.0")

HOLDING = METHOD.replace("from torch import nn", "import os\nimport time\n\nfrom torch import nn").replace(
    """        return {"bce\"""",
    """        if (hold := os.environ.get("HOLD_AT")) and (progress.epoch, progress.step) == (1, 1):
            open(hold, "w").close()
            while os.path.exists(hold):
                time.sleep(0.01)
        return {"bce\"""",
)
"""Stands still at the second step of the second epoch, if HOLD_AT says so, while a file is there that it makes."""


def impatient() -> None:
    """To be called in a process: it beats often and soon takes another one's lease for given up."""
    lease.BEAT_SECONDS, lease.LEASE_SECONDS = 0.2, 5.0


def quick() -> None:
    """To be called in a process: it looks again at once whether there is something to train."""
    sweep.LOOK_SECONDS = 0.05


class Started:
    """A process that runs, and what it has said so far."""

    def __init__(self, arguments, environment: dict[str, str], folder: Path, prepare) -> None:
        number = len(list(folder.glob("said-*")))
        self.said, self.table = folder / f"said-{number}", folder / f"table-{number}"
        self.said.touch()
        self.process = processes.begin(arguments, environment, folder, self.table, self.said, prepare)

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill the process, and wait until it is gone."""
        self.process.kill()
        self.process.join()

    def until(self, words: str) -> None:
        """Wait for words on standard error."""
        _until(lambda: words in self.said.read_text(), self.process)

    def answer(self) -> tuple[int, str, str]:
        """Exit code, table, and what was said."""
        self.process.join(300)
        return self.process.exitcode, self.table.read_text(), self.said.read_text()


def _until(happened, process: BaseProcess) -> None:
    until = time.monotonic() + 300
    while not happened():
        assert process.is_alive() and time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    """Starts a leaderboard over six cells on a results folder; what still runs at the end is killed."""
    world, started = tmp_path_factory.mktemp("world"), []
    plugins = [
        f"--plugin={write_plugin(world / 'tiny_set.py', DATASET)}",
        f"--plugin={write_plugin(world / 'plain.py', HOLDING)}",
    ]
    asked = (
        "run", "plain", "--dataset=tiny", f"--ratios={','.join(RATIOS)}", "--device=cpu", "--checkpoint-every=0",
        "--json", *plugins,
    )  # fmt: skip
    environment = {"MLRPL_CACHE": str(world / "cache"), "OMP_NUM_THREADS": "1"}

    def begin(results: Path, *options: str, group="1", hold: Path | None = None, prepare=None) -> Started:
        held = {} if hold is None else {"HOLD_AT": str(hold)}
        arguments = [*asked, f"--group={group}", f"--results-dir={results}", *options]
        started.append(Started(arguments, environment | held, results.parent, prepare))
        return started[-1]

    yield begin
    for each in started:
        each.kill()


@pytest.fixture(scope="module")
def alone(begin, tmp_path_factory):
    """What one process makes: its folder of results and its table."""
    results = tmp_path_factory.mktemp("alone") / "results"
    code, table, said = begin(results).answer()
    assert code == 0, said
    return results, table


def trained(said: str) -> list[str]:
    """The known percentages of the cells that a process trained to the end."""
    return re.findall(r"plain (\d+) % .*: mAP .* in \d+ s$", said, re.MULTILINE)  # others' name their node behind it


def without_costs(table: str) -> dict:
    """A table, as far as it does not say how long things took."""
    return {name: content for name, content in json.loads(table).items() if name in ("rows", "ratios", "left_out")}


def assert_equal_records(results: Path, expected: Path) -> None:
    """The same cells with the same numbers, and nothing left over."""
    cells = {path.name: path for path in (results / "tiny" / "plain").iterdir()}
    assert len(cells) == len(RATIOS) and cells.keys() == {path.name for path in (expected / "tiny" / "plain").iterdir()}
    for name, folder in cells.items():
        assert [path.name for path in folder.iterdir() if re.match(r"\.?claim|checkpoint|failed", path.name)] == []
        other = expected / "tiny" / "plain" / name
        metrics = [json.loads((each / "record.json").read_text())["metrics"] for each in (folder, other)]
        assert metrics[0] == metrics[1]
        for file in ("scores.npz", "train_scores.npz", "steps.npz"):
            with np.load(folder / file) as found, np.load(other / file) as wanted:
                assert all(np.array_equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("rounds", "number"),
    [(1, 3), pytest.param(5, 6, marks=pytest.mark.slow), pytest.param(1, 20, marks=pytest.mark.slow)],
)
def test_processes_share_the_cells_and_none_is_trained_twice(begin, alone, tmp_path, rounds, number):
    for round_ in range(rounds):
        results = tmp_path / str(round_) / "results"
        results.mkdir(parents=True)
        together = [begin(results) for _ in range(number)]
        answers = [each.answer() for each in together]
        assert [code for code, _, _ in answers] == [0] * number, [said for _, _, said in answers]
        everything = sorted(ratio for _, _, said in answers for ratio in trained(said))
        assert len(everything) == len(set(everything)) == len(RATIOS), [said for _, _, said in answers]
        assert all(without_costs(table) == without_costs(alone[1]) for _, table, _ in answers)
        assert_equal_records(results, alone[0])


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_what_a_killed_process_trained_is_taken_over_by_one_that_waits(begin, alone, tmp_path, rounds):
    for round_ in range(rounds):
        results, hold = tmp_path / str(round_) / "results", tmp_path / f"hold-{round_}"
        results.mkdir(parents=True)
        killed = begin(results, hold=hold)
        _until(hold.exists, killed.process)
        other = begin(results, prepare=quick)
        other.until("waiting for 1 cell that other processes train, on ")
        killed.kill()
        code, table, said = other.answer()
        assert code == 0, said
        assert f"taken over from process {killed.process.pid} on " in said
        assert "goes on at epoch 2, step 1" in said
        assert len(trained(said)) == len(set(trained(said))) == len(RATIOS)
        assert without_costs(table) == without_costs(alone[1])
        assert_equal_records(results, alone[0])


@pytest.mark.slow
def test_a_group_that_was_killed_is_halved_at_the_second_time(begin, alone, tmp_path):
    results = tmp_path / "results"
    for number in range(2):
        hold = tmp_path / f"hold-{number}"
        killed = begin(results, group="auto", hold=hold)
        _until(hold.exists, killed.process)
        assert "from now on" not in killed.said.read_text()
        killed.kill()
        for path in results.glob("tiny/plain/*/checkpoint.pt"):
            path.unlink()  # else the second one does not come to where it is held
    code, _, said = begin(results, group="auto").answer()
    assert code == 0, said
    assert said.count("the process that trained it with 5 others was killed, and so was one before it") == 1
    assert "from now on groups have at most 3" in said
    records = [json.loads(path.read_text()) for path in results.glob("tiny/plain/*/record.json")]
    assert [record["cost"]["cells_in_group"] for record in records] == [3] * 6
    assert_equal_records(results, alone[0])


@pytest.mark.slow
def test_a_process_that_is_suspended_for_long_loses_its_cell_and_writes_nothing_of_it(begin, alone, tmp_path):
    results, hold = tmp_path / "results", tmp_path / "hold"
    suspended = begin(results, hold=hold, prepare=impatient)
    _until(hold.exists, suspended.process)
    suspended.send(signal.SIGSTOP)
    code, table, said = begin(results, prepare=impatient).answer()
    assert code == 0 and f"taken over from process {suspended.process.pid} on " in said
    before = contents(results / "tiny" / "plain")
    hold.unlink()
    suspended.send(signal.SIGCONT)
    code, late_table, said = suspended.answer()
    assert code == 0, said
    assert trained(said) == [] and said.count("another process took it over while this one stood still") == 1
    assert without_costs(late_table) == without_costs(table) == without_costs(alone[1])
    assert contents(results / "tiny" / "plain") == before


@pytest.mark.slow
def test_ctrl_c_ends_the_waiting_and_leaves_the_other_alone(begin, alone, tmp_path):
    results, hold = tmp_path / "results", tmp_path / "hold"
    working = begin(results, hold=hold)
    _until(hold.exists, working.process)
    waiting = begin(results)
    waiting.until("waiting for 1 cell ")
    waiting.send(signal.SIGINT)
    assert waiting.answer()[0] == 130
    hold.unlink()
    code, table, said = working.answer()
    assert code == 0 and len(trained(said)) == 1
    assert without_costs(table) == without_costs(alone[1])
    assert_equal_records(results, alone[0])


def test_a_process_that_comes_later_gets_its_share_of_a_group(begin, alone, tmp_path):
    """The first one has all six cells in one group; what is left then takes longer than the second one's next look."""
    results, hold = tmp_path / "results", tmp_path / "hold"
    first = begin(results, "--epochs=12", group="auto", hold=hold)
    _until(hold.exists, first.process)
    second = begin(results, "--epochs=12", group="auto", prepare=quick)
    second.until("waiting for 6 cells that other processes train, on ")
    while first.process.is_alive():  # each cell of the group stops there
        hold.unlink(missing_ok=True)
        time.sleep(0.05)
    answers = [each.answer() for each in (first, second)]
    assert [code for code, _, _ in answers] == [0, 0], [said for _, _, said in answers]
    assert [len(trained(said)) for _, _, said in answers] == [3, 3], [said for _, _, said in answers]
    assert answers[1][2].count("goes on at epoch 2, step 3") == 3
    whole = tmp_path / "whole"
    assert begin(whole, "--epochs=12", group="auto").answer()[0] == 0
    assert_equal_records(results, whole)
    assert sorted(path.name for path in (results / "tiny").iterdir()) == ["plain"]


def _train_together(world: Path, results: Path, barrier, moment: str, group: int | None, trained) -> None:
    """In a process of its own: sweep over six cells, beginning in the same moment as the other process."""
    os.environ["MLRPL_CACHE"] = str(world / "cache")
    torch.set_num_threads(1)
    of = Study(load_datasets([world / "tiny_set.py"])["tiny"], Options(device="cpu", epochs=8))
    plain = load_methods([world / "plain.py"])["plain"]
    jobs, announce = [of.job(plain, float(ratio), 0, 0, {}) for ratio in RATIOS], Owner.announce
    _ = of.workbench

    def together(self, among, wanted):
        if moment == "before":
            barrier.wait(120)
        announce(self, among, wanted)
        if moment == "after":
            barrier.wait(120)

    Owner.announce, sweep.LOOK_SECONDS = together, 0.05
    events = sweep.run(jobs, of, ResultStore(results), group=group)
    trained.put([job.cell.key for job, event in events if isinstance(event, sweep.Stored)])


@pytest.mark.parametrize(
    ("moment", "group"),
    [
        ("before", None),
        ("after", 1),
        pytest.param("before", 1, marks=pytest.mark.slow),
        pytest.param("after", None, marks=pytest.mark.slow),
    ],
)
def test_two_processes_that_begin_in_the_same_moment_each_train_a_share(tmp_path, monkeypatch, moment, group):
    """They meet right before, or right after, they announce themselves to each other; then both want all six cells."""
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    write_plugin(tmp_path / "tiny_set.py", DATASET)
    write_plugin(tmp_path / "plain.py", METHOD)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    barrier, trained = context.Barrier(2), context.Queue()
    given = (tmp_path, tmp_path / "results", barrier, moment, group, trained)
    both = [context.Process(target=_train_together, args=given) for _ in range(2)]
    for process in both:
        process.start()
    shares = [trained.get(timeout=150) for _ in both]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    everything = [key for share in shares for key in share]
    assert len(everything) == len(set(everything)) == len(RATIOS)
    assert all(shares)
    if group is None:
        assert [len(share) for share in shares] == [3, 3]
    survey = ResultStore(tmp_path / "results").survey("tiny")
    assert sorted(record.cell.key for record in survey.records) == sorted(everything)
    assert survey.problems == [] and not list((tmp_path / "results").rglob("claim*"))
