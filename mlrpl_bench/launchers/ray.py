"""This module runs workers as tasks of a Ray cluster, one a GPU. Nothing that counts passes through Ray.

A task pulls its cells by leases, so that it is never tied to any: Ray retries nothing, the driver's loop starts a new
task where one was lost. The loop needs no GPU; this module imports Ray where it is used, and never torch.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlrpl_bench.launchers.driver import Ended, Launch, drive
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import counted

PENDING = 2
"""Tasks beyond what there is room for now: an autoscaler sees that more nodes are wanted, and no long queue stands."""

GRACE_SECONDS = 60.0
"""This is the time that tasks get to write checkpoints."""

KNOCK_SECONDS = 10.0

PATIENCE_SECONDS = 600.0
"""This is the time that a cluster gets to bring the first node with room for a worker: an autoscaler needs some
minutes.
"""


def start(launch: Launch) -> None:
    """Train on a cluster until nothing is left.

    Raises:
        UserError: Ray is not installed, nobody answers at the address, or what `drive` raises.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--launcher ray needs Ray; install it with pip install 'mlrpl-bench[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, launch.placement.ray_address or "auto")
    try:
        pool = RayPool(ray, launch)
        launch.say(
            f"workers are tasks of the Ray cluster, each with {words_of(pool.needs)}; what they say is in Ray's logs "
            "on their nodes, as a rule /tmp/ray/session_latest/logs/worker-*.err"
        )
        drive(pool, launch.folder, launch.say, launch.order.request.get("group"))
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Join the cluster, or start one on this machine where the address is ``local``."""
    try:
        _knock(address)
        with _own_sigterm():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        words = " ".join(str(error).split()).split(". ")[0][:200]  # after it comes advice about Ray's own options
        raise UserError(
            f"no Ray cluster answers at --ray-address {address} ({words}); start one with: ray start --head, or write "
            "--ray-address local"
        ) from error


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the command's own way to stop: Ray's ends the process on SIGTERM, without a word to the tasks."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Ask quickly whether anybody answers at ``host:port``: Ray itself would ask for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()


class RayPool:
    """A Ray pool holds tasks of a Ray cluster.

    Args:
        ray: the module.
        clock: seconds from any start that never go back.

    Attributes:
        needs: what a task takes of its node, see `task_options`.

    Raises:
        UserError: a cluster that cannot grow has no room for the workers that are asked for.
    """

    def __init__(self, ray: Any, launch: Launch, clock: Callable[[], float] = time.monotonic) -> None:
        self.ray, self.workers, self._clock = ray, launch.placement.workers, clock
        options = launch.order.request.get("options", {})
        device = options.get("device", "auto")
        gpus = _gpus_of_a_task(device, ray.cluster_resources())
        self.needs = task_options(gpus, 1 + (options.get("workers") or 0), launch.placement.accelerator)
        self._task = ray.remote(**self.needs)(_task_of(launch.work))
        there = self._there()
        if launch.placement.ray_address == "local" and there < (self.workers or 1):
            raise UserError(
                f"Ray has room for {counted(there, 'worker')} on this machine, each with {words_of(self.needs)}; ask "
                "for fewer with --workers, or for less with --device, --accelerator or --loader-workers"
            )
        self._tell_of_room(there, device, launch.say)
        self._waits_until = None if there else self._clock() + PATIENCE_SECONDS
        self.order = {**launch.order.to_json(), "planned": self.workers or max(1, there)}
        self._names: dict[Any, str] = {}
        self._started = 0

    @property
    def running(self) -> int:
        """Return how many tasks are in flight, those included that wait for room."""
        return len(self._names)

    def room(self) -> int:
        """Return as many as the cluster has room for now and a few more, or as many as were asked for.

        Raises:
            UserError: for so long there was never room for even one.
        """
        there = self._there()
        if there:
            self._waits_until = None
        elif self._waits_until is not None and self._clock() >= self._waits_until:
            raise UserError(
                f"in {PATIENCE_SECONDS / 60:.0f} minutes the Ray cluster had no node with {words_of(self.needs)} for "
                "a worker; add one, or ask for less with --device, --accelerator or --loader-workers"
            )
        return self.workers or there + PENDING

    def _there(self) -> int:
        return sum(_fitting(node["Resources"], self.needs) for node in self.ray.nodes() if node["Alive"])

    def _tell_of_room(self, there: int, device: str, say: Callable[[str], None]) -> None:
        if device == "auto" and not self.needs["num_gpus"]:
            say("the Ray cluster has no GPU now, so that workers train on CPUs; --device cuda waits for GPUs")
        if there < (self.workers or 1):
            say(
                f"the Ray cluster has room for {there} of {counted(self.workers or 1, 'worker')} now, each with "
                f"{words_of(self.needs)}; more begin when it grows"
            )

    def start(self, most: int | None) -> str:
        """Start a task and return its name."""
        self._started += 1
        name = f"Ray task {self._started}"
        self._names[self._task.remote(self.order, most)] = name
        return name

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return the tasks that end within so many seconds; as soon as there is one."""
        done, _ = self.ray.wait(list(self._names), num_returns=1, timeout=seconds) if self._names else ([], [])
        return [_end_of(self.ray, reference, self._names.pop(reference)) for reference in done]

    def stop(self) -> None:
        """Interrupt all tasks, and wait for their checkpoints."""
        for reference in self._names:
            self.ray.cancel(reference)
        if self._names:
            self.ray.wait(list(self._names), num_returns=len(self._names), timeout=GRACE_SECONDS)
        self._names = {}


def task_options(gpus: int, cpus: int, accelerator: str | None) -> dict[str, Any]:
    """Return how Ray runs a task: it retries none, keeps no process for the next, and spreads them over the nodes."""
    kind = {} if accelerator is None else {"accelerator_type": accelerator}
    return {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "max_retries": 0,
        "max_calls": 1,
        "scheduling_strategy": "SPREAD",
        **kind,
    }


def words_of(needs: Mapping[str, Any]) -> str:
    """Return in words what a task with such `task_options` takes of a node, for people.

    >>> words_of(task_options(1, 5, "H100"))
    '1 GPU (H100) and 5 CPUs'
    """
    kind = f" ({needs['accelerator_type']})" if "accelerator_type" in needs else ""
    gpu = f"1 GPU{kind} and " if needs["num_gpus"] else ""
    return f"{gpu}{counted(needs['num_cpus'], 'CPU')}"


def _fitting(resources: Mapping[str, float], needs: Mapping[str, Any]) -> int:
    """Return how many tasks a node runs at once, if it runs nothing else."""
    if "accelerator_type" in needs and f"accelerator_type:{needs['accelerator_type']}" not in resources:
        return 0
    each = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"]}
    return min(int(resources.get(name, 0) // number) for name, number in each.items() if number)


def _gpus_of_a_task(device: str, resources: Mapping[str, float]) -> int:
    """Return a task's GPUs: one where GPUs are asked for, or where the cluster has any and nobody asked for a CPU."""
    return int(device.startswith("cuda") or (device == "auto" and resources.get("GPU", 0) >= 1))


def _task_of(work: Callable[..., Mapping[str, Any]]) -> Callable[..., dict[str, Any]]:
    def task(order: Mapping[str, Any], most: int | None) -> dict[str, Any]:
        return dict(work(order, most))

    return task


def _end_of(ray: Any, reference: Any, name: str) -> Ended:
    try:
        found = ray.get(reference)
    except ray.exceptions.OutOfMemoryError as error:
        return Ended(name, None, _first_line(error), out_of_memory=True)
    except (ray.exceptions.RayError, KeyboardInterrupt) as error:
        return Ended(name, None, f"{type(error).__name__}: {_first_line(error)}")
    return Ended(name, found["code"], found["line"], node=found["node"])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
