"""The Ray launcher apart from Ray: what a task is given, and what its end means. A cluster has tests of its own."""

import signal
import subprocess
import sys
from collections import Counter
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
    """Tasks are done as soon as they are waited for; their ends are given beforehand.

    Args:
        nodes: what each node has, such as ``{"GPU": 4.0, "CPU": 64.0}``.
    """

    exceptions = SimpleNamespace(RayError=RayError, OutOfMemoryError=OutOfMemoryError)

    def __init__(self, nodes, *ends):
        self.there, self.ends, self.started, self.cancelled = nodes, list(ends), [], []

    def cluster_resources(self):
        return sum(map(Counter, self.there), Counter())

    def nodes(self):
        return [*({"Alive": True, "Resources": node} for node in self.there), {"Alive": False, "Resources": NODE}]

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


NODE = {"GPU": 4.0, "CPU": 64.0, "accelerator_type:H100": 1.0}


def pool(ray, device="auto", said=None, clock=lambda: 0.0, loaders=3, **placement):
    order = WorkOrder({"options": {"device": device, "workers": loaders}}, "ray", 1, "", {}, {})
    say = ([] if said is None else said).append
    return launcher.RayPool(ray, Launch(order, None, Placement("ray", **placement), None, dict, say), clock)


def test_a_task_is_given_a_gpu_and_neither_repeated_nor_its_process_kept():
    ray = PretendedRay([NODE])
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
    ("device", "nodes", "gpus", "room"),
    [
        ("auto", [NODE], 1, 4),
        ("auto", [{"CPU": 9.0}, {"CPU": 3.0}], 0, 2),  # a worker takes 4
        ("cpu", [{"GPU": 4.0, "CPU": 8.0}], 0, 2),
        ("cuda", [{"CPU": 8.0}], 1, 0),  # an autoscaler may bring nodes with GPUs
        ("auto", [{"CPU": 8.0}, {"GPU": 4.0, "CPU": 8.0}, NODE], 1, 6),
    ],
)
def test_gpus_are_asked_for_where_there_are_any_or_the_user_does(device, nodes, gpus, room):
    ray = PretendedRay(nodes)
    found = pool(ray, device)
    assert ray.options["num_gpus"] == gpus
    assert found.room() == room + launcher.PENDING


def test_of_gpus_of_several_kinds_those_count_that_are_asked_for():
    other = {"GPU": 8.0, "CPU": 64.0, "accelerator_type:L4": 1.0}
    assert pool(PretendedRay([NODE, other]), accelerator="H100").room() == 4 + launcher.PENDING


def test_groups_are_sized_for_the_gpus_of_the_cluster():
    ray = PretendedRay([NODE])
    pool(ray).start(None)
    pool(ray, workers=9).start(None)
    assert [order["planned"] for order, _ in ray.started] == [4, 9]


@pytest.mark.parametrize(
    ("nodes", "options", "line"),
    [
        ([NODE], {"workers": 9}, "the Ray cluster has room for 4 of 9 workers now, each with 1 GPU and 4 CPUs; more "),
        ([{"CPU": 8.0}], {"device": "cuda"}, "the Ray cluster has room for 0 of 1 worker now, each with 1 GPU and "),
        ([NODE], {"loaders": 64}, "the Ray cluster has room for 0 of 1 worker now, each with 1 GPU and 65 CPUs; more "),
        ([{"CPU": 8.0}], {}, "the Ray cluster has no GPU now, so that workers train on CPUs; --device cuda waits for "),
    ],
)
def test_who_asks_for_more_than_there_is_now_is_told(nodes, options, line):
    said = []
    pool(PretendedRay(nodes), said=said, **options)
    assert len(said) == 1 and said[0].startswith(line)


def test_enough_room_is_no_news():
    said = []
    pool(PretendedRay([NODE]), said=said, workers=4)
    assert said == []


@pytest.mark.parametrize("options", [{"workers": 5}, {"loaders": 64}])
def test_more_than_there_is_on_a_machine_that_is_no_cluster_is_refused(options):
    line = refusal(lambda: pool(PretendedRay([NODE]), ray_address="local", **options))
    assert line.startswith(f"Ray has room for {4 if 'workers' in options else 0} workers on this machine, each with 1 ")
    pool(PretendedRay([NODE]), ray_address="local", workers=4)


def test_a_cluster_that_never_has_room_is_given_up_and_one_that_had_is_waited_for():
    ray, now = PretendedRay([{"CPU": 8.0}]), [0.0]
    found = pool(ray, "cuda", clock=lambda: now[0], accelerator="H100")
    now[0] = launcher.PATIENCE_SECONDS - 1
    found.room()
    now[0] += 1
    line = refusal(found.room)
    assert line.startswith("in 10 minutes the Ray cluster had no node with 1 GPU (H100) and 4 CPUs for a worker; add")
    ray.there.append(NODE)
    found.room()
    ray.there.pop()
    assert found.room() == launcher.PENDING


@pytest.mark.parametrize(
    ("end", "code", "line", "out_of_memory"),
    [
        ({"code": 0, "line": "", "node": "n"}, 0, "", False),
        ({"code": 2, "line": "no data", "node": "n"}, 2, "no data", False),
        (RayError("The node died.\nmore"), None, "RayError: The node died.", False),
        (OutOfMemoryError("Task was killed"), None, "Task was killed", True),
        (KeyboardInterrupt(), None, "KeyboardInterrupt: ", False),
    ],
)
def test_an_end_is_told_as_what_it_is(end, code, line, out_of_memory):
    found = pool(PretendedRay([NODE], end))
    name = found.start(5)
    assert found.running == 1
    (ended,) = found.wait(1)
    assert ended.who == (f"{name} on n" if isinstance(end, dict) else name)
    assert (ended.code, ended.line, ended.out_of_memory) == (code, line, out_of_memory)
    assert found.running == 0 and found.wait(0) == []


def test_stopping_interrupts_every_task():
    ray = PretendedRay([NODE], {}, {})
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
    assert "(Could not find any running Ray instance); start one with: ray start --head" in line


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
