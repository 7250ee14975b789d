"""The machine runs short of something: the run stops with one line, nothing is damaged, the same command goes on.

Room on the disk ends at every single write in turn; loader processes are killed; processes get few file handles.
"""

import contextlib
import errno
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from mlrpl_bench.leaderboard import evidence
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools.verify import check_files
from mlrpl_bench.training import checkpoint
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.trainer import Failed, Note, StepDone
from mlrpl_bench.utils import files
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.shortages import shortage
from tests.helpers import tiny_study
from tests.helpers.places import BENCH
from tests.helpers.tiny_study import DATASET, METHOD, contents, method, refusal, write_plugin


class Disk:
    """Counts what needs room on the disk; from the `full_at`-th on there is none, until it is mended.

    Making a file or a folder, giving it another name, writing into it (half of it still fits) and making it durable.
    """

    def __init__(self, patch: pytest.MonkeyPatch, full_at: int | None = None) -> None:
        self.patch, self.full_at, self.number = patch, full_at, 0
        for place, name in ((os, "fsync"), (os, "replace"), (os, "link"), (os, "write"), (tempfile, "mkstemp")):
            self._limit(place, name)
        open_descriptor = os.fdopen

        def fdopen(*arguments, **options):
            file = open_descriptor(*arguments, **options)
            return Limited(file, self) if "w" in arguments[1:2] or "wb" in arguments[1:2] else file

        patch.setattr(os, "fdopen", fdopen)

    def take(self) -> None:
        self.number += 1
        if self.full_at is not None and self.number >= self.full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _limit(self, place, name) -> None:
        real = getattr(place, name)

        def limited(*arguments, **options):
            self.take()
            return real(*arguments, **options)

        self.patch.setattr(place, name, limited)


class Limited:
    """A file on such a disk."""

    def __init__(self, file, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content) -> int:
        try:
            self.disk.take()
        except OSError:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise
        return self.file.write(content)


@pytest.fixture(scope="module")
def jobs(study, folder):
    """Two cells that are trained one after the other."""
    plain = method(folder / "plain.py")
    return [study.job(plain, ratio, 0, 0, {}) for ratio in (0.5, 0.9)]


@pytest.fixture(scope="module")
def whole(study, jobs, folder):
    """Their records of a run without a break, and how often that run needed room on the disk."""
    store = ResultStore(folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        train(jobs, study, store)
    return store, disk.number


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def train(jobs, study, store) -> list:
    return [event for _, event in sweep.run(sweep.missing(jobs, store), study, store, checkpoint_seconds=0)]


def unfinished(folder: Path) -> list[Path]:
    """Temporary files and claims that nobody needs any more."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.startswith("claim-")]


def assert_same_scores(jobs, store, expected) -> None:
    for job in jobs:
        found, of_whole = contents(store.folder(job.cell)), contents(expected.folder(job.cell))
        assert found.keys() == of_whole.keys()
        for name in ("scores.npz", "train_scores.npz", "steps.npz", "weights.safetensors"):
            assert found[name] == of_whole[name], name


def assert_nothing_is_damaged(jobs, store) -> None:
    """Every record that is there is whole to the byte, and every checkpoint can be read."""
    found = check_files(store, store.datasets())
    assert found.damages == []
    for job in jobs:
        checkpoint.read(store.folder(job.cell), job.cell)  # damage would be refused
    assert unfinished(store.root) == []


# The disk is full


def fill_the_disk(number, jobs, study, store, expected) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, full_at=number)
        line = refusal(lambda: train(jobs, study, store))
    assert str(store.root) in line and "No space left on device" in line and "make room" in line
    assert not any("failed.json" in name for name in contents(store.root))
    assert_nothing_is_damaged(jobs, store)
    notes = [event.text for event in train(jobs, study, store) if hasattr(event, "text")]
    assert all(text.startswith("goes on at epoch") for text in notes), notes
    assert_same_scores(jobs, store, expected)


@pytest.mark.parametrize("first", [1, *(pytest.param(first, marks=pytest.mark.slow) for first in range(2, 12))])
def test_wherever_the_disk_gets_full_nothing_is_lost_and_the_next_run_goes_on(study, jobs, whole, tmp_path, first):
    expected, writes = whole
    assert writes > 100
    for number in range(first, writes + 1, 11):
        fill_the_disk(number, jobs, study, ResultStore(tmp_path / str(number)), expected)


@pytest.fixture
def command(tmp_path):
    """The command that trains a cell with a checkpoint at every step, for a results folder."""
    plugins = {"tiny_set.py": DATASET, "plain.py": METHOD}
    options = [f"--plugin={write_plugin(tmp_path / name, text)}" for name, text in plugins.items()]
    asked = ("run", "plain", "--dataset=tiny", "--ratios=0.5", "--device=cpu", "--checkpoint-every=0", *options)

    def command(results: Path, *more: str) -> list[str]:
        return [sys.executable, str(BENCH), *asked, *more, f"--results-dir={results}"]

    return command


@pytest.fixture
def environment(tmp_path):
    return {
        **os.environ,
        "MLRPL_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def limited(
    command: list[str], limit: str, value: int, environment, when: str = "start"
) -> subprocess.CompletedProcess:
    """Run a command under one of the limits of `resource`: from its start, or once its imports are done."""
    setup = f"""
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv = {command[1:]!r}
sys.path.insert(0, {str(BENCH.parent)!r})
if {when!r} == "imported":
    import lightning_fabric, pandas, PIL.Image, safetensors.torch, torch, mlrpl_bench.api
resource.setrlimit(resource.{limit}, ({value}, resource.getrlimit(resource.{limit})[1]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", setup], env=environment, capture_output=True, text=True, timeout=300)


def assert_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    """What a user reads at the end is one line that begins with ``error``, without a traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.stderr.rstrip().endswith(line)
    for word in words:
        assert word in line


def scores_of(results: Path) -> dict[str, bytes]:
    found = contents(results / "tiny" / "plain")
    return {name.rpartition("/")[2]: content for name, content in found.items() if name.endswith("scores.npz")}


@contextlib.contextmanager
def limit(what: int, value: int):
    """One of the system's limits on this process, while this lasts."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def test_a_checkpoint_that_the_system_refuses_stops_the_run_and_the_one_before_stays(study, jobs, whole, store):
    events = sweep.run([jobs[0]], study, store, checkpoint_seconds=0)
    while not isinstance(next(events)[1], StepDone):
        pass
    next(events)
    before = contents(store.folder(jobs[0].cell))["checkpoint.pt"]
    with limit(resource.RLIMIT_FSIZE, len(before) // 2):
        line = refusal(lambda: list(events))
    assert f"{store.folder(jobs[0].cell)}/checkpoint.pt: File too large; make room there; " in line
    assert "the same command goes on" in line
    assert contents(store.root).keys() == {f"{store.folder(jobs[0].cell).relative_to(store.root)}/checkpoint.pt"}
    assert contents(store.folder(jobs[0].cell))["checkpoint.pt"] == before
    train(jobs, study, store)
    assert_same_scores(jobs, store, whole[0])


@pytest.mark.slow
def test_the_systems_own_refusal_of_a_larger_file_is_one_line_too(tmp_path, command, environment):
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    done = limited(command(tmp_path / "results"), "RLIMIT_FSIZE", 4096, environment)  # a checkpoint is larger
    assert_one_line(done, "checkpoint.pt: File too large; make room there", "the same command goes on")
    assert unfinished(tmp_path / "results") == []
    subprocess.run(command(tmp_path / "results"), env=environment, check=True, capture_output=True)
    assert scores_of(tmp_path / "results") == scores_of(tmp_path / "whole") != {}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_caches_that_find_no_room_are_named_and_nothing_of_them_is_left(tmp_path, monkeypatch, number):
    def draw(temporary):
        (temporary / "0.png").write_bytes(b"whole")

    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(OSError) as error:
        Disk(patch, full_at=number)
        files.write_atomically(tmp_path / "words" / "vectors.npy", "vectors")
    assert str(shortage(error.value)).startswith(f"{tmp_path}/words/vectors.npy: No space left on device; make room")
    assert {name for name in contents(tmp_path)} <= {"words/vectors.npy"}
    with monkeypatch.context() as patch, pytest.raises(OSError) as error:
        Disk(patch, full_at=1)  # the folder is made durable last
        files.build_folder_once(tmp_path / "pictures", draw)
    assert str(shortage(error.value)).startswith(f"{tmp_path}/pictures: No space left on device; make room")


def test_evidence_that_cannot_be_kept_is_computed_again_the_next_time(study, jobs, whole, monkeypatch):
    store, _ = whole
    record = store.find(jobs[0].cell)
    (record.folder / evidence.FILE).unlink(missing_ok=True)
    before = contents(record.folder)
    with monkeypatch.context() as patch:
        Disk(patch, full_at=3)
        without = evidence.Collector(study.train, study.test, study.masks).collect(record)
    assert contents(record.folder) == before
    kept = evidence.Collector(study.train, study.test, study.masks).collect(record)
    assert without.recovery == kept.recovery
    assert evidence.FILE in contents(record.folder)
    (record.folder / evidence.FILE).unlink()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_table_that_finds_no_room_leaves_the_one_before(store, monkeypatch, number):
    store.write_table("tiny", "leaderboard.md", "old")
    with monkeypatch.context() as patch:
        Disk(patch, full_at=number)
        line = refusal(lambda: store.write_table("tiny", "leaderboard.md", "new"))
    assert line == (
        f"{store.root}/tiny/leaderboard.md cannot be written (No space left on device); "
        "make room and give the same command again, or name another --results-dir"
    )
    assert contents(store.root) == {"tiny/leaderboard.md": b"new" if number == 5 else b"old"}  # 5: of the folder


# A loader process dies


@pytest.fixture
def with_workers(folder, monkeypatch):
    """A study that reads with two loader processes."""
    monkeypatch.setenv("MLRPL_CACHE", str(folder / "cache"))
    yield tiny_study.study(folder / "tiny_set.py", workers=2)


def children() -> set[int]:
    """Of this process."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes by /proc")
@pytest.mark.parametrize(  # or before one of the splits is gone through in order
    "moment", ["step", *(pytest.param(split, marks=pytest.mark.slow) for split in ("test", "train"))]
)
def test_a_loader_process_that_is_killed_stops_the_run_and_no_cell_fails(
    with_workers, study, jobs, whole, store, monkeypatch, moment
):
    before, in_order = children(), with_workers.workbench.in_order

    def kill_one() -> None:
        with contextlib.suppress(RuntimeError):  # torch's handler may raise here; reading fails in any case
            os.kill(min(children() - before), signal.SIGKILL)
            time.sleep(0.2)

    def killing(split, batch):
        if moment == split:
            kill_one()
        yield from in_order(split, batch)

    def go() -> None:
        for _, event in sweep.run(jobs, with_workers, store, checkpoint_seconds=0):
            assert not isinstance(event, Failed), event.reason
            if isinstance(event, StepDone) and (event.epoch, event.step, moment) == (1, 1, "step"):
                kill_one()

    with monkeypatch.context() as patch:
        patch.setattr(with_workers.workbench, "in_order", killing)
        line = refusal(go)
    assert line.startswith("a loader process was ended from outside")
    assert "the same command goes on" in line
    assert_nothing_is_damaged(jobs, store)
    assert not any("failed.json" in name for name in contents(store.root))
    train(jobs, study, store)
    assert_same_scores(jobs, store, whole[0])


# No file handles


def next_handle() -> int:
    """The number that the next file gets; at a limit of that many there is no next one."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("more", [0, 1, 2, 4])
def test_few_file_handles_stop_a_run_or_not_and_nothing_is_moved_aside(study, jobs, whole, tmp_path, more):
    store = ResultStore(shutil.copytree(whole[0].root, tmp_path / "results"))
    shutil.rmtree(store.folder(jobs[1].cell))
    before, stopped = contents(store.root), None
    gc.collect()  # handles that are given back in between would be more than we allow
    with limit(resource.RLIMIT_NOFILE, next_handle() + more):
        try:
            train(jobs, study, store)
        except (UserError, OSError) as error:
            stopped = shortage(error)
            assert stopped is not None, error
    assert stopped is not None or more > 0
    if stopped is not None:
        assert all(words in str(stopped) for words in ("Too many open files", "ulimit -n"))
    assert before.items() <= contents(store.root).items()
    assert unfinished(store.root) == []
    train(jobs, study, store)
    assert_same_scores(jobs, store, whole[0])


# What a checkpoint says cannot be


def left_in_the_middle(job, study, store) -> dict:
    """The checkpoint after the second step of the second epoch."""
    events = sweep.run([job], study, store, checkpoint_seconds=0)
    for _, event in events:
        if isinstance(event, StepDone) and (event.epoch, event.step) == (1, 2):
            break
    next(events)
    events.close()
    return checkpoint.read(store.folder(job.cell), job.cell)


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def other_shapes(state):
    return {**state, "method": {name: torch.zeros(7, 7) for name in state["method"]}}


def moments(change):
    """A spoiler of what the optimiser remembers: ``change(name, value)`` for each parameter."""

    def spoil(state):
        optimizer = state["optimizer"]
        remembered = {
            number: {name: change(name, value) for name, value in kept.items()}
            for number, kept in optimizer["state"].items()
        }
        return {**state, "optimizer": {**optimizer, "state": remembered}}

    return spoil


SPOILED = {
    "other shapes": other_shapes,
    "moments of other shapes": moments(lambda name, value: value if name == "step" else torch.zeros(3)),
    "NaN step": moments(lambda name, value: torch.tensor(float("nan")) if name == "step" else value),
    "huge epoch": lambda state: {**state, "epoch": 2**62},
    "huge step": lambda state: {**state, "step": 2**62},
    "negative epoch": lambda state: {**state, "epoch": -(10**9)},
    "NaN seconds": lambda state: {**state, "seconds": float("nan")},
    "too little history": lambda state: {**state, "history": []},
    "no weights": without("method"),
    "no optimiser": without("optimizer"),
    "no terms": without("terms"),
    "no seconds": without("seconds"),
    "no best": without("best"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_checkpoint_with_impossible_contents_is_moved_aside(study, jobs, whole, store, spoil):
    cell = jobs[0].cell
    checkpoint.write(store.folder(cell), cell, spoil(left_in_the_middle(jobs[0], study, store)))
    events = [event for _, event in sweep.run(jobs[:1], study, store)]
    assert not [event for event in events if isinstance(event, Failed)]
    (note,) = (event.text for event in events if isinstance(event, Note) and "goes on" not in event.text)
    assert "moved to checkpoint.pt.unused-1, the cell begins anew" in note and "\n" not in note
    found, expected = contents(store.folder(cell)), contents(whole[0].folder(cell))
    assert found.keys() - expected.keys() == {"checkpoint.pt.unused-1"}
    assert found["scores.npz"] == expected["scores.npz"]


# The clock jumps


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_a_clock_that_jumps_a_day_changes_no_score_and_no_cost(study, jobs, whole, store, monkeypatch, jump):
    true_time, steps = time.time, 0
    for _, event in sweep.run(jobs, study, store, checkpoint_seconds=0):
        if isinstance(event, StepDone):
            steps += 1
            monkeypatch.setattr(time, "time", lambda steps=steps: true_time() + jump * steps)
    assert_same_scores(jobs, store, whole[0])
    for job in jobs:
        record = json.loads((store.folder(job.cell) / "record.json").read_text())
        assert 0 <= record["cost"]["seconds"] < 3600


# Memory runs out


NO_MEMORY = [
    MemoryError("no room"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_runs_out_halves_the_group_and_never_the_batch(study, jobs, whole, store, monkeypatch, error):
    step, failed, batches = CellRun.step, [], set()

    def tight(run, shared, progress):
        batches.add(len(shared.index_B))
        if not failed:
            failed.append(run)
            raise error
        return step(run, shared, progress)

    monkeypatch.setattr(CellRun, "step", tight)
    events = [event for _, event in sweep.run(jobs, study, store, group=2)]
    assert failed and not [event for event in events if isinstance(event, Failed)]
    assert batches == {jobs[0].cell.recipe.batch}
    assert_same_scores(jobs, store, whole[0])
