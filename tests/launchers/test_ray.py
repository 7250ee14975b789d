"""The Ray launcher apart from Ray: what a task is given, and what its end means. A cluster has tests of its own."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mlrpl_bench.launchers import ray as launcher
from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import Placement
from tests.helpers.tiny_study import refusal


class RayError(Exception):
    pass


class OutOfMemoryError(RayError):
    pass


class PretendedRay:
    """Tasks are done as soon as they are waited for; their ends are given beforehand."""

    exceptions = SimpleNamespace(RayError=RayError, OutOfMemoryError=OutOfMemoryError)

    def __init__(self, resources, *ends):
        self.resources, self.ends, self.started, self.cancelled = resources, list(ends), [], []

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.options = options
        return lambda task: SimpleNamespace(remote=self._started)

    def _started(self, order, most):
        self.started.append((order, most))
        return len(self.started) - 1

    def wait(self, references, num_returns, timeout):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        if isinstance(self.ends[reference], BaseException):
            raise self.ends[reference]
        return self.ends[reference]

    def cancel(self, reference):
        self.cancelled.append(reference)


def pool(ray, device="auto", **placement):
    order = WorkOrder({"options": {"device": device, "workers": 3}}, "ray", 1, "", {}, {})
    return launcher.RayPool(ray, Launch(order, None, Placement("ray", **placement), None, dict, print))


def test_a_task_is_given_a_gpu_and_neither_repeated_nor_its_process_kept():
    ray = PretendedRay({"GPU": 4.0, "CPU": 64.0})
    pool(ray, accelerator="H100")
    assert ray.options == {
        "num_cpus": 4,
        "num_gpus": 1,
        "max_retries": 0,
        "max_calls": 1,
        "scheduling_strategy": "SPREAD",
        "accelerator_type": "H100",
    }


@pytest.mark.parametrize(
    ("device", "resources", "gpus", "room"),
    [
        ("auto", {"GPU": 4.0, "CPU": 64.0}, 1, 4),
        ("auto", {"CPU": 2.0}, 0, 2),
        ("cpu", {"GPU": 4.0, "CPU": 2.0}, 0, 2),
        ("cuda", {"CPU": 2.0}, 1, 0),  # an autoscaler may bring nodes with GPUs
    ],
)
def test_gpus_are_asked_for_where_there_are_any_or_the_user_does(device, resources, gpus, room):
    ray = PretendedRay(resources)
    found = pool(ray, device)
    assert ray.options["num_gpus"] == gpus
    assert found.room() == room + launcher.PENDING


def test_groups_are_sized_for_the_gpus_of_the_cluster():
    ray = PretendedRay({"GPU": 4.0})
    pool(ray).start(None)
    pool(ray, workers=9).start(None)
    assert [order["planned"] for order, _ in ray.started] == [4, 9]


@pytest.mark.parametrize(
    ("end", "code", "line", "out_of_memory"),
    [
        ({"code": 0, "line": "", "node": "n"}, 0, "", False),
        ({"code": 2, "line": "no data", "node": "n"}, 2, "no data", False),
        (RayError("The node died.\nmore"), None, "RayError: The node died.", False),
        (OutOfMemoryError("Task was killed"), None, "Task was killed", True),
    ],
)
def test_an_end_is_told_as_what_it_is(end, code, line, out_of_memory):
    found = pool(PretendedRay({"GPU": 1.0}, end))
    found.start(5)
    assert found.running == 1
    (ended,) = found.wait(1)
    assert (ended.code, ended.line, ended.out_of_memory) == (code, line, out_of_memory)
    assert found.running == 0 and found.wait(0) == []


def test_stopping_interrupts_every_task():
    ray = PretendedRay({"GPU": 2.0}, {}, {})
    found = pool(ray)
    found.start(None)
    found.start(None)
    found.stop()
    assert ray.cancelled == [0, 1] and found.running == 0


def test_without_ray_a_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refusal(lambda: launcher.start(None))
    assert line == "--launcher ray needs Ray; install it with pip install 'mlrpl-bench[ray]'"


def test_an_address_that_nobody_answers_on_is_a_line_at_once():
    ray = SimpleNamespace(init=lambda **options: pytest.fail("Ray would ask for minutes"))
    line = refusal(lambda: launcher._connect(ray, "127.0.0.1:1"))
    assert line.startswith("no Ray cluster answers at --ray-address 127.0.0.1:1 (")


def test_no_cluster_on_this_machine_is_a_line():
    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.\nPlease specify the one")

    line = refusal(lambda: launcher._connect(SimpleNamespace(init=init), "auto"))
    assert "(Could not find any running Ray instance. Please specify the one); start one with: ray start --head" in line


def test_ray_does_not_take_the_signal_away_by_which_the_command_is_stopped():
    def init(**options):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.getsignal(signal.SIGTERM)
    launcher._connect(SimpleNamespace(init=init), "local")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["driver", "ray", "submitit", "local", "printed", "starting", "placement", "order"])
def test_a_launcher_imports_neither_torch_nor_its_library_before_it_is_used(name):
    code = f"import sys, mlrpl_bench.launchers.{name}; print({{'torch', 'ray', 'submitit'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
