"""Workers of this machine: a GPU each, or the cores of a CPU divided; what they said last is told."""

import os
import signal
import sys

import pytest

from mlrpl_bench.launchers import local
from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.local import LocalPool, number_of_workers
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import Placement
from tests.helpers.tiny_study import refusal


@pytest.fixture
def gpus(monkeypatch):
    def gpus(*names):
        monkeypatch.setattr(local, "visible_gpus", lambda: list(names))

    return gpus


def test_a_worker_is_started_for_each_gpu(gpus):
    gpus("0", "1", "5")
    assert number_of_workers(None, "auto") == (3, ["0", "1", "5"])
    assert number_of_workers(2, "cuda")[0] == 2


def test_more_workers_than_gpus_are_refused(gpus):
    gpus("0", "1")
    line = refusal(lambda: number_of_workers(3, "auto"))
    assert line == "--workers 3 is more than the GPUs here, 2; a worker needs its own"


def test_on_a_cpu_the_number_must_be_said(gpus):
    gpus()
    assert number_of_workers(4, "auto") == (4, [])
    assert refusal(lambda: number_of_workers(None, "auto")).startswith("--launcher local needs --workers N where")
    gpus("0")
    assert number_of_workers(4, "cpu") == (4, [])


def test_gpus_that_the_user_hid_stay_hidden(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    assert local.visible_gpus() == ["3", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert local.visible_gpus() == ["0", "1"]


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A pool whose workers are this Python code."""

    def pool(code, workers=2, device="cpu"):
        monkeypatch.setattr(local, "command", lambda path: [sys.executable, "-c", code])
        order = WorkOrder({"options": {"device": device}}, "local", workers, "", {}, {})
        placement = Placement("local", workers=workers)
        return LocalPool(Launch(order, tmp_path / "order.json", placement, None, dict, print))

    return pool


def all_ends(found, number):
    ends = []
    while len(ends) < number:
        ends += found.wait(10)
    return ends


def test_threads_are_divided_and_a_choice_of_the_user_holds(pool, monkeypatch):
    monkeypatch.setattr(local, "usable_cores", lambda: range(8))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    found = pool("import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])")
    found.start(None)
    (ended,) = all_ends(found, 1)
    assert ended.code == 0 and "4 3" in found.log_name(1).read_text()


def test_each_worker_sees_one_gpu_and_a_new_one_that_of_the_one_that_ended(pool, gpus):
    gpus("4", "6")
    found = pool("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", device="auto")
    found.start(None)
    found.start(None)
    all_ends(found, 2)
    found.start(None)
    all_ends(found, 1)
    assert [found.log_name(n).read_text().strip() for n in (1, 2, 3)] == ["4", "6", "4"]


def test_an_order_that_cannot_be_done_ends_with_its_line(pool):
    found = pool("import sys; print('error: no data', file=sys.stderr); print('more'); sys.exit(2)")
    name = found.start(None)
    (ended,) = all_ends(found, 1)
    assert (ended.name, ended.code, ended.line) == (name, 2, "error: no data") and name == "worker 1"


def test_what_the_workers_of_another_command_say_is_kept(pool):
    first = pool("import sys; print('error: no data', file=sys.stderr); sys.exit(2)")
    assert first.start(None) == "worker 1"
    all_ends(first, 1)
    second = pool("pass")
    assert second.start(None) == "worker 2"
    (ended,) = all_ends(second, 1)
    assert (ended.name, ended.code) == ("worker 2", 0)
    assert [first.log_name(number).read_text() for number in (1, 2)] == ["error: no data\n", ""]


def test_a_worker_that_was_killed_has_no_exit_code(pool):
    found = pool("import os; os.kill(os.getpid(), 9)")
    found.start(None)
    (ended,) = all_ends(found, 1)
    assert ended.code is None and ended.line.startswith("killed by SIGKILL; see ")
    assert not ended.out_of_memory  # the kernel's counter says that, to whoever takes over


def test_a_limit_on_groups_is_handed_on(pool, monkeypatch):
    found = pool("import sys; print(sys.argv[1:])")
    found.start(6)
    all_ends(found, 1)
    assert found.log_name(1).read_text().strip() == "['--group-most', '6']"


def test_stopping_asks_first_and_kills_who_does_not_listen(pool, monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    found = pool(deaf)
    found.start(None)
    while "on" not in found.log_name(1).read_text():
        assert found.wait(0.05) == []
    process = found._workers[0].process
    assert os.getpgid(process.pid) == process.pid  # Ctrl-C in the terminal does not reach it
    found.stop()
    assert process.returncode == -signal.SIGKILL and found.running == 0
