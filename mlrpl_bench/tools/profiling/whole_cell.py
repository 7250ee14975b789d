"""This module says where the time of a whole cell goes, computed from measured parts and from counts.

No cell is trained: each part is measured once or a few times, and multiplied by how often a cell does it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN, hide, known_mask
from mlrpl_bench.evaluation import influences, metrics, thresholds
from mlrpl_bench.models.method import Progress
from mlrpl_bench.tools.profiling.clock import Clock
from mlrpl_bench.training import workbench
from mlrpl_bench.training.parts.examples import NUM_EXAMPLES
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.workbench import SharedBatch, Workbench
from mlrpl_bench.utils.tables import Entry, Table

STEPS = "steps"
PARTS = {
    STEPS: "steps",
    "passes": "passes",
    "evaluation": "evaluation",
    "training scores": "training scores",
    "examples": "examples",
    "evidence": "evidence",
}
"""These are the parts of a cell in their order, and how a table calls them."""

GROUP = len(NINE_RATIOS)
"""A method at the papers' nine known ratios is a group of this many cells."""

SELDOM = 10
"""A column says what ``--evaluate-every`` with this number would save."""


@dataclass(frozen=True)
class Counts:
    """This counts how much a cell does.

    Attributes:
        training_images: the images of the training split.
        test_images: the images that are scored after every epoch.
        epochs: the epochs that it trains.
        batch: the images of a batch.
    """

    training_images: int
    test_images: int
    epochs: int
    batch: int

    def steps(self) -> int:
        """Return the steps of the whole training; an epoch's last short batch is left out."""
        return self.epochs * (self.training_images // self.batch)

    def batches(self, images: int) -> int:
        """Return the batches in which so many images are scored."""
        return math.ceil(images / self.batch)


@dataclass(frozen=True)
class Shared:
    """This holds what the cells of a group share, and what each of them does outside its network.

    Attributes:
        frozen_seconds: of a batch's forward through the frozen part.
        kept: of the splits, ``train`` and ``test``, those whose frozen output stays in memory.
        metrics_seconds: of the metrics of all test images.
        evidence_seconds: of what is computed once from a finished cell's scores.
    """

    frozen_seconds: float
    kept: tuple[str, ...]
    metrics_seconds: float
    evidence_seconds: float


@dataclass(frozen=True)
class Own:
    """This holds what a method does beyond its steps.

    Attributes:
        scoring_seconds: of a batch's logits, from the frozen output on.
        looking_seconds: of one image's attention maps; 0 for a method that does not tell where it looks.
        passes: how often it looks at the training set.
    """

    scoring_seconds: float
    looking_seconds: float
    passes: int


@dataclass(frozen=True)
class CellCost:
    """These are the seconds of a whole cell by part, see `PARTS`.

    Attributes:
        method: the method's name.
        own: what a cell needs for itself.
        shared: reading images and the frozen part, which happen once for all cells of a group.
        evaluations: after how many epochs the test images are scored.
        keeps_test: whether these are read and go through the frozen part in the first of them alone.
    """

    method: str
    own: dict[str, float]
    shared: dict[str, float]
    evaluations: int
    keeps_test: bool

    def evaluated_every(self, epochs: int) -> CellCost:
        """Return what the cell takes where the test images are scored after every so many epochs, and the last."""
        times = math.ceil(self.evaluations / epochs)
        share = times / self.evaluations
        own = {**self.own, "evaluation": self.own["evaluation"] * share}
        shared = {**self.shared, "evaluation": self.shared["evaluation"] * (1 if self.keeps_test else share)}
        return CellCost(self.method, own, shared, times, self.keeps_test)

    def seconds(self, cells: int = 1) -> dict[str, float]:
        """Return a cell's seconds by part where so many cells are trained together, its part of the shared included."""
        return {part: self.own[part] + self.shared.get(part, 0.0) / cells for part in PARTS}

    def shares(self, cells: int = 1) -> dict[str, float]:
        """Return `seconds` as shares of their sum."""
        seconds = self.seconds(cells)
        return {part: value / sum(seconds.values()) for part, value in seconds.items()}

    def beyond_steps(self, cells: int = 1) -> float:
        """Return the share of a cell's time that is no training step."""
        return 1 - self.shares(cells)[STEPS]


def measure_shared(bench: Workbench, batch: SharedBatch, counts: Counts, categories: int) -> Shared:
    """Measure what does not depend on the method; scores and labels are made up, as many as the counts say."""
    with torch.no_grad(), bench.fabric.autocast():
        seconds = _seconds(bench.fabric.device, lambda: bench.backbone.frozen(batch.images_B3HW), times=1)
    bytes_per_image = (batch.images_B3HW.nbytes + batch.frozen_BDHW.nbytes) / len(batch.index_B)
    images = {"train": counts.training_images, "test": counts.test_images}
    kept = tuple(name for name, n in images.items() if n * bytes_per_image <= workbench.KEEP_FEATURES_BYTES)
    return Shared(seconds, kept, *_seconds_of_arithmetic(counts, categories))


def measure_own(run: CellRun, batch: SharedBatch, times: int) -> Own:
    """Measure what a method does beyond its steps; leaves it in eval mode."""
    run.method.eval()
    device = run.workbench.fabric.device
    epochs = run.cell.recipe.epochs
    assert epochs
    scoring = _seconds(device, lambda: run.logits_BC(batch), times)
    with torch.no_grad(), run.workbench.fabric.autocast():
        looks = run.method.attention(batch.frozen_BDHW[:1]) is not None
        looking = _seconds(device, lambda: run.method.attention(batch.frozen_BDHW[:1]), times) if looks else 0.0
    steps = run.workbench.steps_per_epoch(len(batch.index_B))
    passes = sum(bool(run.method.passes(Progress(epoch, epochs, 0, steps))) for epoch in range(epochs))
    return Own(scoring, looking, passes)


def cell_cost(
    method: str, step: dict[str, float], pass_seconds_per_image: float, own: Own, shared: Shared, counts: Counts
) -> CellCost:
    """Compute a cell's seconds.

    Args:
        step: a step's seconds by part, see `step_costs.PARTS`.
        pass_seconds_per_image: of a pass over the training set, reading and the frozen part aside.
    """
    once = shared.frozen_seconds + step.get("reading", 0.0)
    train, test = counts.batches(counts.training_images), counts.batches(counts.test_images)
    test_rounds = 1 if "test" in shared.kept else counts.epochs
    # The training set's frozen output stays in memory from the first pass on, or is made anew in each.
    pass_rounds = min(own.passes, 1) if "train" in shared.kept else own.passes
    score_rounds = 0 if "train" in shared.kept and own.passes else 1
    return CellCost(
        method,
        own={
            STEPS: counts.steps() * max(sum(step.values()) - once, 0.0),
            "passes": own.passes * pass_seconds_per_image * counts.training_images,
            "evaluation": counts.epochs * (test * own.scoring_seconds + shared.metrics_seconds),
            "training scores": train * own.scoring_seconds,
            "examples": NUM_EXAMPLES * own.looking_seconds,
            "evidence": shared.evidence_seconds,
        },
        shared={
            STEPS: counts.steps() * once,
            "passes": pass_rounds * train * once,
            "evaluation": test_rounds * test * once,
            "training scores": score_rounds * train * once,
        },
        evaluations=counts.epochs,
        keeps_test="test" in shared.kept,
    )


def table(costs: Sequence[CellCost], counts: Counts, title: str) -> Table:
    """Make a row for each method: hours, and the shares of a cell's parts in percent."""
    columns = ("hours", *PARTS.values(), "beyond steps", f"in a group of {GROUP}", f"every {SELDOM}th epoch")
    rows = []
    for cost in costs:
        hours = sum(cost.seconds().values()) / 3600
        seldom = cost.evaluated_every(SELDOM).beyond_steps()
        shares = [*cost.shares().values(), cost.beyond_steps(), cost.beyond_steps(GROUP), seldom]
        entries = [Entry(f"{100 * share:.1f}", value=100 * share) for share in shares]
        rows.append((cost.method, [Entry(f"{hours:,.2f}", value=hours), *entries]))
    notes = (
        f"computed from measured parts for {counts.training_images:,} training images, {counts.test_images:,} test "
        f"images and {counts.epochs} epochs of batches of {counts.batch}; nothing was trained",
        "percent of a cell that is trained alone; the last two columns are of what is beyond steps: where cells share "
        f"reading and the frozen part, and alone with --evaluate-every {SELDOM}",
        "passes: the method's own looks at the training set; evaluation: all test images after every epoch, and their "
        f"metrics; training scores: all training images once; examples: attention maps of {NUM_EXAMPLES} test images; "
        "evidence: influences, thresholds and recovery, once; not counted: starting, and writing files",
    )
    return Table("cell", title, columns, rows, notes)


def _seconds(device: torch.device, job: Callable[[], object], times: int) -> float:
    """Return the median time over some calls, after one that does not count where a device warms up."""
    clock = Clock(device)
    warm_up = 0 if device.type == "cpu" else 1
    for number in range(warm_up + times):
        clock.start(number, "job")
        job()
    return statistics.median(sum(parts.values()) for parts in clock.stop()[warm_up:])


def _seconds_of_arithmetic(counts: Counts, categories: int) -> tuple[float, float]:
    """Return the seconds of the metrics, and of the evidence, for as many made-up scores as a cell leaves."""
    random = np.random.default_rng(0)

    def made_up(rows: int) -> tuple[np.ndarray, np.ndarray]:
        present_NC = random.random((rows, categories)) < min(0.5, 3 / categories)
        labels_NC = np.where(present_NC, PRESENT, ABSENT).astype(np.int8)
        labels_NC[0], labels_NC[-1] = PRESENT, ABSENT  # no category without either
        return (0.5 * labels_NC + random.normal(size=labels_NC.shape)).astype(np.float32), labels_NC

    scores_NC, labels_NC = made_up(counts.test_images)
    train_scores_NC, train_labels_NC = made_up(counts.training_images)
    mask_NC = known_mask(train_labels_NC.shape, 0.5)

    def evidence() -> None:
        influences.influences(scores_NC, labels_NC)
        metrics.average_precisions(train_scores_NC, np.where(mask_NC, UNKNOWN, train_labels_NC))
        thresholds_C = thresholds.chosen(train_scores_NC, hide(train_labels_NC, mask_NC))
        thresholds.evaluate(scores_NC, labels_NC, thresholds_C)
        thresholds.oracle(scores_NC, labels_NC, [thresholds_C])

    cpu = torch.device("cpu")
    evaluating = _seconds(cpu, lambda: metrics.evaluate(scores_NC, labels_NC), times=1)
    # Evidence looks whether the scores give the recorded metrics, so it evaluates once more.
    return evaluating, evaluating + _seconds(cpu, evidence, times=1)
