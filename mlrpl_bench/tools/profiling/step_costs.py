"""This module measures what a training step costs: its parts, floating-point operations, memory, images a second.

The step that is measured is the one that trains a cell (`CellRun.step`), untouched. A clock knows at any moment to
which part the time belongs, and is switched at the seams: around every call of the backbone's frozen and of its
trained part by hooks on these two modules, after the losses by wrapping the method's `losses`, and by the optimiser's
own hook. So the parts add up to the step, whatever a method does in between; "head" is what a method's `losses` does
outside the two modules. On CUDA the marks are events in the stream and nothing waits for them until the end, as in
training; on a CPU they are readings of the clock.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mlrpl_bench.models.method import Batch, Progress
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.tools.profiling import whole_cell
from mlrpl_bench.tools.profiling.clock import Clock
from mlrpl_bench.tools.profiling.settings import ProfilingSetting
from mlrpl_bench.tools.profiling.whole_cell import CellCost, Counts, Own
from mlrpl_bench.training.parts.device import forget_peak_memory, peak_memory
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.workbench import SharedBatch
from mlrpl_bench.utils.errors import UserError, one_line
from mlrpl_bench.utils.progress import Report
from mlrpl_bench.utils.tables import Entry, Table

PARTS = {
    "reading": "reading",
    "frozen": "frozen",
    "trained": "trained",
    "head": "head + losses",
    "backward": "backward",
    "optimiser": "optimiser",
}
"""These are the parts of a step in their order, and how a table calls them."""

FILE = "profile.json"
"""The profile of a data set is saved under this name, beside the data set's tables."""

MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
MATMUL_ROUNDS = 6
"""The machine's peak is the fastest of this many products of two square matrices with that side."""


@dataclass(frozen=True)
class Cost:
    """A cost says what a step of a method takes; times are medians.

    Attributes:
        seconds: by part, see `PARTS`; without ``reading`` where nothing is read.
        step_seconds: of the whole step.
        flops: floating-point operations of a step's matrix products and convolutions, forward and backward.
        share_of_peak: of the operations that the machine's fastest matrix product would make in that time.
        peak_memory_bytes: see `CellRun`: of the device, or of the process on a CPU.
        pass_seconds: of one pass over the training set, reading and the frozen part aside; None without passes.
    """

    method: str
    seconds: dict[str, float]
    step_seconds: float
    images_per_second: float
    peak_memory_bytes: int
    flops: int
    share_of_peak: float
    pass_seconds: float | None


@dataclass(frozen=True)
class Profile:
    """A profile holds the costs of some methods, and where they were measured.

    Attributes:
        costs: of a step.
        cells: of a whole cell; none in files that were written before there were any.
        counts: how much a whole cell does; None likewise.
    """

    title: str
    facts: dict[str, Any]
    costs: list[Cost]
    failures: list[tuple[str, str]]
    cells: list[CellCost] = field(default_factory=list)
    counts: Counts | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "title": self.title,
            **self.facts,
            "methods": [asdict(cost) for cost in self.costs],
            "failures": dict(self.failures),
            "cells": [asdict(cell) for cell in self.cells],
            "counts": None if self.counts is None else asdict(self.counts),
        }

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read what `to_json` gave from a file.

        Raises:
            UserError: the file is damaged.
        """
        try:
            facts = json.loads(path.read_bytes())
            title, costs = facts.pop("title"), [Cost(**cost) for cost in facts.pop("methods")]
            failures, cells = list(facts.pop("failures").items()), [CellCost(**c) for c in facts.pop("cells", [])]
            counts = facts.pop("counts", None)
            found = cls(title, facts, costs, failures, cells, None if counts is None else Counts(**counts))
            found.table(), found.tables()  # every number that they show is there
        except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError) as error:
            message = f"{path} is no profile ({type(error).__name__}); make it again with profile --save, or delete it"
            raise UserError(message) from error
        return found

    def table(self) -> Table:
        """Return a table with a row for each method."""
        columns = (*PARTS.values(), "total", "images/s", "GB", "GFLOP", "of peak", "pass")
        rows = [(cost.method, [_entry(value) for value in _values(cost)]) for cost in self.costs]
        return Table("profile", self.title, columns, rows, tuple(self._notes()))

    def tables(self) -> list[Table]:
        """Return what a step costs, and where the time of a whole cell goes."""
        if not self.costs:
            return []
        cells = [] if self.counts is None else [whole_cell.table(self.cells, self.counts, self._cell_title())]
        return [self.table(), *cells]

    def _cell_title(self) -> str:
        return f"Where a cell's time goes, {self.facts['setting']}"

    def _notes(self) -> list[str]:
        facts = self.facts
        notes = [
            f"{facts['device']}, {facts['threads']} thread(s), {facts['precision']}; its fastest matrix product: "
            f"{facts['peak_flops_per_second'] / 1e9:,.0f} GFLOP/s in {facts['peak_format']}",
            f"{facts['backbone']} backbone (random weights), {facts['image_size']} px, batch {facts['batch']}, "
            f"{facts['categories']} categories, {100 * facts['ratio']:g} % known",
            f"milliseconds, medians of {facts['steps']} steps of the last epoch, when all that starts late has started",
            "frozen: the backbone's frozen part, also where a method calls it for images of its own; trained: the "
            "forward of its trained part; head + losses: all else of the forward; backward: of everything; "
            "optimiser: with what a method does after a step",
            "GFLOP: matrix products and convolutions of a step, forward and backward; of peak: as a share of what the "
            "fastest product would do in the total",
            f"pass: seconds of one look at the training set ({facts['training_images']:,} images), reading and frozen "
            "part aside",
        ]
        if facts["reads"]:
            notes.append("reading: waiting for images (decoded once before, kept in memory as far as training does)")
        else:
            notes.append("reading: nothing is read, the images are random numbers in memory, so are the labels")
        if facts["device_type"] == "cpu":
            notes.append("GB: the peak of the whole process, Python and libraries included, during the row")
        else:
            notes.append("GB: the most that was allocated on the device during the row")
        return notes


def profile(
    bench: ProfilingSetting, entries: Sequence[MethodEntry], steps: int, report: Report, cells: bool = True
) -> Profile:
    """Measure methods one after the other; one that fails is named and the others go on.

    Args:
        cells: whether to measure what whole cells cost, too.
    """
    import sklearn.cluster  # noqa: F401 - else the first pass that clusters would pay for importing it

    dtype = torch.bfloat16 if bench.study.setting.precision.startswith("bf16") else torch.float32
    peak = matmul_peak(bench.device, dtype)
    costs, owns, failures = [], [], []
    for entry in entries:
        try:
            with torch.random.fork_rng(devices=[bench.device] if bench.device.type == "cuda" else []):
                cost, own = _cost(bench, entry, steps, report)
            costs.append(cost)
            owns.append(own)
        except Exception as error:  # a method may raise anything, and may need more memory than there is
            reason = one_line(error) or "no message"
            failures.append((entry.name, f"{type(error).__name__}: {reason[:300]}"))
    # Again, and the larger one: other work on the machine makes both too small.
    peak = max(peak, matmul_peak(bench.device, dtype))
    facts = bench.facts() | {"steps": steps, "peak_flops_per_second": peak, "peak_format": _peak_format(bench, dtype)}
    costs = [replace(cost, share_of_peak=cost.flops / cost.step_seconds / peak) for cost in costs]
    title = f"Cost of a training step, {bench.name}"
    if not cells:
        return Profile(title, facts, costs, failures)
    return Profile(title, facts, costs, failures, _cells(bench, costs, owns), bench.counts())


def _cells(bench: ProfilingSetting, costs: Sequence[Cost], owns: Sequence[Own]) -> list[CellCost]:
    """Compute what whole cells cost from what was measured of their methods."""
    if not costs:
        return []
    counts, split = bench.counts(), bench.study.train
    batch = next(bench.study.workbench.training_batches(0, 0, bench.batch))
    shared = whole_cell.measure_shared(bench.study.workbench, batch, counts, len(split.categories))
    return [
        whole_cell.cell_cost(cost.method, cost.seconds, (cost.pass_seconds or 0.0) / len(split), own, shared, counts)
        for cost, own in zip(costs, owns, strict=True)
    ]


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations a second in the machine's fastest large matrix product."""
    side = MATMUL_SIDE[device.type]
    clock = Clock(device)
    left, right = torch.rand(2, side, side, device=device, dtype=dtype)
    with _tensor_cores_as_in_convolutions():
        for number in range(MATMUL_ROUNDS):
            clock.start(number, "product")
            left @ right
        fastest = min(parts["product"] for parts in clock.stop())
    return 2 * side**3 / fastest


@contextmanager
def _tensor_cores_as_in_convolutions() -> Iterator[None]:
    """Let matrix products use TF32 where convolutions do.

    On CUDA convolutions in 32 bits may use TF32 where matrix products do not: no step would stay below that peak.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _peak_format(bench: ProfilingSetting, dtype: torch.dtype) -> str:
    if bench.device.type == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
        return "TF32, which convolutions use"
    return str(dtype).removeprefix("torch.")


def _cost(bench: ProfilingSetting, entry: MethodEntry, steps: int, report: Report) -> tuple[Cost, Own]:
    forget_peak_memory(bench.device)
    run = CellRun(bench.study.job(entry, bench.ratio, 0, 0, {}), bench.study.workbench)
    clock = Clock(bench.device)
    with _watched(run, clock):
        pass_seconds = _pass_seconds(bench, run, clock)
        laps, flops, last = _laps(bench, run, clock, steps, report)
    peak = peak_memory(bench.device)
    own = whole_cell.measure_own(run, last, steps)
    totals = [sum(lap.values()) for lap in laps]
    middle = statistics.median(totals)
    cost = Cost(
        method=entry.name,
        seconds={part: statistics.median(lap[part] for lap in laps) for part in PARTS if part in laps[0]},
        step_seconds=middle,
        images_per_second=bench.batch / middle,
        peak_memory_bytes=peak,
        flops=flops,
        share_of_peak=math.nan,
        pass_seconds=pass_seconds,
    )
    return cost, own


def _laps(
    bench: ProfilingSetting, run: CellRun, clock: Clock, steps: int, report: Report
) -> tuple[list[dict[str, float]], int, SharedBatch]:
    """Return the parts' seconds in some steps after the warm-up, the first step's operations, and the last batch."""
    epochs, per_epoch = _length(run)
    warm_up = bench.warm_up()
    batches = _endless(run, bench.batch)
    run.start_epoch(Progress(epochs - 1, epochs, 0, per_epoch))
    counter = FlopCounterMode(display=False)
    for step in range(warm_up + steps):
        clock.start(step, "reading" if bench.reads else "frozen")
        with counter if step == 0 else nullcontext():
            shared = next(batches)
            clock.switch("head")
            run.step(shared, Progress(epochs - 1, epochs, step % per_epoch, per_epoch))
        report(f"profiling {run.cell.method}", step + 1, warm_up + steps)
    return clock.stop()[warm_up:], counter.get_total_flops(), shared


def _endless(run: CellRun, batch: int) -> Iterator[SharedBatch]:
    for epoch in itertools.count():
        yield from run.workbench.training_batches(0, epoch, batch, strong=[run.strong_view])


def _pass_seconds(bench: ProfilingSetting, run: CellRun, clock: Clock) -> float | None:
    """Run the last pass that the method wants, so that what depends on it exists, and return its seconds."""
    epochs, per_epoch = _length(run)
    starts = [Progress(epoch, epochs, 0, per_epoch) for epoch in range(epochs)]
    wanted = [start for start in starts if run.method.passes(start)]
    if not wanted:
        return None
    clock.start(0, "pass")
    run.look_at_training_set(wanted[-1])
    (parts,) = clock.stop()
    return sum(seconds for part, seconds in parts.items() if part != "frozen")


def _length(run: CellRun) -> tuple[int, int]:
    """Return the number of epochs, and of steps in each."""
    epochs, batch = run.cell.recipe.epochs, run.cell.recipe.batch
    assert epochs and batch, "the recipe is not resolved"
    return epochs, run.workbench.steps_per_epoch(batch)


@contextmanager
def _watched(run: CellRun, clock: Clock) -> Iterator[None]:
    """Switch the clock wherever a step goes from one part to another."""
    method, losses = run.method, run.method.losses

    def losses_then_backward(batch: Batch, progress: Progress) -> dict[str, Tensor]:
        terms = losses(batch, progress)
        clock.switch("backward")
        return terms

    hooks = [run.optimizer.register_step_pre_hook(lambda *_: clock.switch("optimiser"))]
    for part, module in (("frozen", run.workbench.backbone.frozen), ("trained", method.trained)):
        hooks.append(module.register_forward_pre_hook(lambda *_, part=part: clock.enter(part)))
        hooks.append(module.register_forward_hook(lambda *_: clock.leave()))
    method.losses = losses_then_backward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del method.losses
        for hook in hooks:
            hook.remove()


def _values(cost: Cost) -> list[tuple[float | None, int]]:
    """Return the numbers of a row in the table's units, and how many decimals they are worth."""
    times = [*(cost.seconds.get(part) for part in PARTS), cost.step_seconds]
    shown: list[tuple[float | None, int]] = [
        (None if seconds is None else 1000 * seconds, 1 if cost.step_seconds < 1 else 0) for seconds in times
    ]
    gflop = cost.flops / 1e9
    shown += [(cost.images_per_second, 1), (cost.peak_memory_bytes / 1e9, 2), (gflop, 1), (cost.share_of_peak, 2)]
    return [*shown, (cost.pass_seconds, 2)]


def _entry(value: tuple[float | None, int]) -> Entry:
    number, decimals = value
    return Entry("-") if number is None else Entry(f"{number:,.{decimals}f}", value=number)
