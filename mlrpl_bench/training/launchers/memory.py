"""This module finds how many cells fit in memory side by side, and recognises failures for lack of memory.

The estimate, for a group on one device:

- what each cell keeps: its trained parameters four times (weight, gradient, Adam's two moments), once more if its
  recipe averages them, its other state once, its labels, and twice the scores of every image, which are gathered and
  joined when it is evaluated; and, if its method looks at the training set in passes, a feature of every known
  positive (see `_gathered`) and, on a CPU, its state once more;
- once for the group, as cells step one after another: what the dearest cell's step holds for a moment. It is measured,
  not guessed: the bytes that autograd keeps of a forward on two and on three images, continued to the batch, times
  `PASSES`, as a method may classify several times in a step and gradients come on top; and two copies of its state,
  for a checkpoint;
- once: the features that the workbench keeps of each split, and the mixed images that it keeps during a step.

Of the memory that is free now, a share stays unused. On a CPU as on a GPU a group has an upper limit: the shared part
costs each of n cells 1/n of itself, so that little is gained beyond, while all cells of a group end together, and late.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.method import Method
from mlrpl_bench.records.cell import Job
from mlrpl_bench.training.parts import host_memory
from mlrpl_bench.training.parts.finishing import MOST_BYTES
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.workbench import KEEP_FEATURES_BYTES, KEEP_PASSES, Workbench

MOST_CELLS = {"cpu": 9, "cuda": 18}
"""A group has at most so many cells, by kind of device; it is larger on a GPU, where image reading dominates."""

PASSES = 4
"""A step may hold this many times what one forward keeps: SARB classifies three times, and gradients pass through."""

USED_SHARE = 0.8
"""Cells may use this share of the free memory; the rest is for fragments, the libraries and other programs."""

_WORDS = ("can't allocate memory", "cannot allocate memory", "out of memory", "_alloc_failed")


class Need(NamedTuple):
    """A need says how many bytes a cell keeps while it trains, and those that its step holds for a moment."""

    kept: int
    passing: int


def fitting(jobs: Sequence[Job], workbench: Workbench) -> int:
    """Return how many of these cells, which may be trained together, fit in memory side by side; at least 1."""
    if len(jobs) < 2:
        return 1
    # Of a method one cell is tried, that with the most known labels; masks change little else.
    by_ratio = sorted(jobs, key=lambda job: job.cell.ratio)
    kinds = {(job.method_class, repr(job.hyperparameters), job.cell.recipe.ema is None): job for job in by_ratio}
    needs = []
    for job in kinds.values():
        try:
            needs.append(need(job, workbench))
        except Exception as error:  # whatever a method raises: its cell will say so itself when it is trained
            if ran_out(f"{type(error).__name__}: {error}"):
                return 1
    device = workbench.fabric.device
    most = min(len(jobs), MOST_CELLS[device.type])
    if not needs:
        return most
    image_size = jobs[0].cell.setting.image_size
    once = _kept_features(workbench, image_size, jobs[0].cell.recipe.batch or 0) + max(each.passing for each in needs)
    room = free_bytes(device) * USED_SHARE - once
    return int(max(1, min(most, room // max(each.kept for each in needs))))


def need(job: Job, workbench: Workbench) -> Need:
    """Measure what a cell needs, in a trial of it: built as for training, one forward, and left again.

    Raises:
        Exception: whatever its method raises.
    """
    device = workbench.fabric.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = CellRun(job, workbench)
        parameters = list(run.method.parameters())
        trained = sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
        still = sum(parameter.nbytes for parameter in parameters if not parameter.requires_grad)
        still += sum(buffer.nbytes for buffer in run.method.buffers())
        images = sum(len(split) for split in workbench.splits.values())
        scores = 4 * images * run.labels_NC.shape[1]
        of_two, of_three = (_kept_by_forward(run, images) for images in (2, 3))
        activations = of_two + (of_three - of_two) * max(0, (job.cell.recipe.batch or 0) - 2)
        gathered = _gathered(run)
        looks = type(run.method).observe is not Method.observe
        held = trained + still if looks and device.type == "cpu" else 0  # see `trainer.Group.hold`
        averaged = trained if job.cell.recipe.ema is not None else 0
    return Need(
        kept=4 * trained + averaged + still + run.labels_NC.nbytes + 2 * scores + gathered + held,
        passing=PASSES * activations + 2 * (3 * trained + averaged + still) + gathered,
    )


def free_bytes(device: torch.device) -> float:
    """Return the memory that can be had now, in bytes: of the GPU with what torch holds unused, or of the machine."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(_free_of_machine(), _left_to_container())


def ran_out(reason: str) -> bool:
    """Tell whether a failure, given as ``Type: message``, says that memory could not be had.

    >>> ran_out("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"), ran_out("ValueError: no terms")
    (True, False)
    """
    kind, _, message = reason.partition(":")
    # numpy raises a kind of its own, _ArrayMemoryError; the CPU allocator of torch a RuntimeError
    return kind.endswith("MemoryError") or any(words in message.lower() for words in _WORDS)


def release() -> None:
    """Give back what nobody holds any more, so that the next group finds it in one piece."""
    gc.collect()
    host_memory.give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _gathered(run: CellRun) -> int:
    """Return the bytes that a method may gather in a pass, as those with prototypes do.

    They join it once, cell after cell. A step that follows training gathers features of known entries, up to its own
    bound.
    """
    backbone, refit = run.workbench.backbone, 0
    if run.refit is not None:
        width = max(backbone.channels, backbone.feature_width)
        refit = min(MOST_BYTES, 4 * width * int((run.refit.labels_NC != UNKNOWN).sum()))
    if type(run.method).observe is Method.observe:
        return refit
    return refit + int((run.labels_NC == PRESENT).sum()) * backbone.channels * 4


def _kept_by_forward(run: CellRun, images: int) -> int:
    """Return the bytes that autograd keeps of a forward in training mode, parameters aside."""
    workbench, size = run.workbench, run.cell.setting.image_size
    device = workbench.fabric.device
    own = {tensor.untyped_storage().data_ptr() for tensor in (*run.method.parameters(), *run.method.buffers())}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with workbench.fabric.autocast():
        with torch.no_grad():
            frozen_BDHW = workbench.backbone.frozen(torch.zeros(images, 3, size, size, device=device))
        run.method.train()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            run.method(frozen_BDHW)
    return sum(kept.values())


def _kept_features(workbench: Workbench, image_size: int, batch: int) -> int:
    """Return the bytes that the workbench holds of both splits, and of a step's mixed images, at most.

    An image's features are taken as three times its pixels.
    """
    bytes_of_image = 4 * (4 * 3 * image_size**2)
    of_splits = sum(min(KEEP_FEATURES_BYTES, len(split) * bytes_of_image) for split in workbench.splits.values())
    return of_splits + KEEP_PASSES * batch * bytes_of_image


def _free_of_machine() -> int:
    """Return the bytes that Linux says are available; elsewhere half of all memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(kilobytes)
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**32


def _left_to_container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """Return what a container's own limit leaves, in bytes; files that are only cached count as free."""
    try:
        limit, used = (int((folder / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        facts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + int(facts["inactive_file"])
    except (OSError, ValueError, KeyError):  # no container, or one without a limit: "max"
        return math.inf
