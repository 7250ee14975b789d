"""Whoever starts the workers and whatever dies, a grid ends in the bytes of one process."""

import json
import os
import shlex
import signal
import subprocess

import pytest

from mlrpl_bench.launchers.order import FOLDER
from tests.helpers import grid
from tests.helpers.tiny_study import contents

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launchers")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in grid.write_files(folder).items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def alone(folder):
    return grid.trained_alone(folder)


def test_local_workers_leave_the_bytes_of_one_process_though_one_is_killed(folder, alone):
    with grid.slowly(folder):
        process = grid.started(folder, "local", "--device=cpu", "--launcher=local", "--workers=2")
        grid.wait_for_a_checkpoint(folder, "local")
        os.kill(grid.owners(folder, "local")[0]["pid"], signal.SIGKILL)
    said = grid.ended(process)
    assert "ended before its work was done (killed by SIGKILL; see " in said
    assert grid.arrays(folder, "local") == alone
    assert grid.launchers_of(folder, "local") == {"local"}


def test_the_printed_command_runs_in_a_shell_and_beside_a_process_started_by_hand(folder, alone):
    command = grid.ended(grid.started(folder, "printed", "--device=cpu", "--launcher=print", "--workers=2"))
    (line,) = (line for line in command.splitlines() if " worker " in line)
    assert "no table is made now" in command
    assert not list((folder / "printed").glob("tiny/*/*/record.json"))
    workers = [subprocess.Popen(["sh", "-c", line], cwd="/", stderr=subprocess.DEVNULL)]
    by_hand = grid.started(folder, "printed", "--device=cpu")
    assert [worker.wait(grid.PATIENCE_SECONDS) for worker in workers] == [0]
    grid.ended(by_hand)
    assert grid.arrays(folder, "printed") == alone


def test_parts_trained_in_two_folders_are_the_bytes_of_one_process(folder, alone):
    for number in (1, 2):
        said = grid.ended(grid.started(folder, f"part-{number}", "--device=cpu", f"--shard={number}/2"))
        assert f"part {number} of 2 is trained; when all are trained, bring their folders to one machine" in said
    assert grid.arrays(folder, "part-1") | grid.arrays(folder, "part-2") == alone
    assert set(grid.arrays(folder, "part-1")) & set(grid.arrays(folder, "part-2")) == set()


def test_slurm_jobs_and_a_process_started_by_hand_divide_the_cells(folder, alone):
    pytest.importorskip("submitit")
    grid.ended(grid.started(folder, "jobs", "--device=cpu", "--launcher=print", "--workers=2"))
    (path,) = (folder / "jobs" / "tiny" / FOLDER).glob("*.json")
    jobs = grid.submitted(path, workers=2)
    by_hand = grid.started(folder, "jobs", "--device=cpu")
    assert [job.result()["code"] for job in jobs] == [0, 0]
    grid.ended(by_hand)
    assert grid.arrays(folder, "jobs") == alone


def test_a_stopped_driver_stops_its_workers_which_keep_what_is_trained(folder, alone):
    with grid.slowly(folder, seconds=3):
        process = grid.started(folder, "stopped", "--device=cpu", "--launcher=local", "--workers=2")
        grid.wait_for_a_checkpoint(folder, "stopped")
        process.send_signal(signal.SIGTERM)
        said = grid.ended(process, 143)
    assert said.splitlines()[-1].startswith("error: stopped; finished cells and checkpoints of the others are kept")
    assert not list((folder / "stopped").glob("tiny/*/*/claim-*.jsonl"))
    left = [path.parent for path in (folder / "stopped").glob("tiny/*/*/cell.json")]
    assert all("record.json" in contents(path) for path in left)
    grid.ended(grid.started(folder, "stopped", "--device=cpu", "--launcher=local", "--workers=2"))
    assert grid.arrays(folder, "stopped") == alone


def test_a_log_for_machines_has_a_line_for_each_epoch_of_the_group(folder):
    said = grid.ended(grid.started(folder, "logged", "--device=cpu", "--epochs=2", "--log-json", "--json"))
    lines = [json.loads(line) for line in said.splitlines() if line.startswith('{"event"')]
    assert [(line["epoch"], line["cells"]) for line in lines if line["event"] == "epoch"] == [(1, 4), (2, 4)]
    assert [line["event"] for line in lines].count("finished") == 4
    assert shlex.split(said)  # nothing but text
