"""This module starts workers on this machine: one for each visible GPU, or some that share the cores of a CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlrpl_bench.launchers.driver import Ended, Launch, drive
from mlrpl_bench.launchers.order import command
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.processes import usable_cores

GRACE_SECONDS = 60.0
"""That workers get to write checkpoints before they are killed."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def start(launch: Launch) -> None:
    """Train with several processes of this machine until nothing is left.

    Raises:
        UserError: more workers are asked for than there are GPUs, or nobody said how many share a CPU.
    """
    pool = LocalPool(launch)
    launch.say(f"{pool.size} workers on this machine; what they say is in {pool.log_name('N')}")
    drive(pool, launch.folder, launch.say, launch.order.request.get("group"))


def number_of_workers(workers: int | None, device: str) -> tuple[int, list[str]]:
    """Return how many workers run on this machine, and the GPUs that they get, one each; none where they share the CPU.

    Raises:
        UserError: see `start`.
    """
    gpus = [] if device == "cpu" else visible_gpus()
    if not gpus:
        if workers is None:
            raise UserError("--launcher local needs --workers N where there is no GPU: so many share the CPU's cores")
        return workers, []
    if workers is not None and workers > len(gpus):
        raise UserError(f"--workers {workers} is more than the GPUs here, {len(gpus)}; a worker needs its own")
    return workers or len(gpus), gpus


def visible_gpus() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES is to be for each GPU that this process may use."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


@dataclass
class _Worker:
    name: str
    place: int
    process: subprocess.Popen[bytes]
    log: Path


class LocalPool:
    """A local pool holds processes of this machine; each has a file for what it says.

    Attributes:
        size: how many may run at once.
    """

    def __init__(self, launch: Launch) -> None:
        self.path = launch.path
        device = launch.order.request.get("options", {}).get("device", "auto")
        self.size, self.gpus = number_of_workers(launch.placement.workers, device)
        self._workers: list[_Worker] = []
        self._started = 0

    @property
    def running(self) -> int:
        """Return how many have not ended."""
        return len(self._workers)

    def room(self) -> int:
        """Return how many may run at once."""
        return self.size

    def log_name(self, number: int | str) -> Path:
        """Return the name of the file in which a worker's words go."""
        return self.path.with_name(f"{self.path.stem}-{number}.log")

    def start(self, most: int | None) -> str:
        """Start one in the first free place and return its name."""
        place = min(set(range(self.size)) - {worker.place for worker in self._workers})
        log, file = self._new_log()
        limit = [] if most is None else ["--group-most", str(most)]
        with file:
            process = self._popen([*command(self.path), *limit], self._environment(place), file)
        worker = _Worker(f"worker {self._started}", place, process, log)
        self._workers.append(worker)
        return worker.name

    def _new_log(self) -> tuple[Path, IO[bytes]]:
        """Make the file of the next worker; the same command given before, or twice at once, has files of its own."""
        while True:
            self._started += 1
            log = self.log_name(self._started)
            with contextlib.suppress(FileExistsError):
                return log, log.open("xb")

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return those that end within so many seconds; as soon as there is one."""
        until = time.monotonic() + seconds
        while True:
            ended = [worker for worker in self._workers if worker.process.poll() is not None]
            if ended or time.monotonic() >= until:
                break
            time.sleep(0.05)
        self._workers = [worker for worker in self._workers if worker not in ended]
        return [_end_of(worker) for worker in ended]

    def stop(self) -> None:
        """Ask all to end, and kill those that do not."""
        for worker in self._workers:
            worker.process.terminate()
        until = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers = []

    def _popen(self, arguments: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start in a session of its own: Ctrl-C reaches a worker once, from `stop`, and never twice."""
        return subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _environment(self, place: int) -> dict[str, str]:
        threads = str(max(1, len(usable_cores()) // self.size))
        chosen = {name: os.environ.get(name, threads) for name in _THREADS}
        if self.gpus:
            chosen["CUDA_VISIBLE_DEVICES"] = self.gpus[place]
        return {**os.environ, **chosen}


def _end_of(worker: _Worker) -> Ended:
    code = worker.process.returncode
    if code < 0:
        return Ended(worker.name, None, f"killed by {signal.Signals(-code).name}; see {worker.log}")
    lines = worker.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or lines or [""])[-1]
    return Ended(worker.name, code, last if code == 2 else f"exit code {code}: {last}; see {worker.log}")
