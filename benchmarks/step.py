"""What a whole training step costs beside the papers' public code: ResNet-101, 448 px, 80 categories.

    python -m benchmarks.step [--side PX] [--batch N] [--rounds N] [--methods NAME ...] [--quick] [--json PATH]

Forward, losses, backward and optimiser of SSGRL and SARB (blending on), on one thread, at 10 % and at 90 % known
labels. The package's step is the one that trains a cell, in float32 and with ``--precision bf16-mixed``. The
reference's structure is a backbone as it comes, channels first and with its batch norms apart, the head as the public
code writes it down (`literal_head`), every version of the features classified whole, and Adam. Blending, contrastive
loss and the losses themselves are the package's in both.

Both have the same weights, images and labels; in the first step their `partial_bce` and ILRB's loss, in which nothing
is drawn, must agree before anything is timed. Seconds are the processor's own; ratios are taken within a round, and the
median over the rounds counts. GFLOP counts convolutions and matrix products, and their share is of the fastest matrix
product, in the same precision, that the same process measured. The package's step takes its images through the loader,
of which the memory of made-up images is left; the reference has them in a list.

Not measured: reading files, evaluation, passes for prototypes (whose centres are random numbers here).
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import in_turns, machine, peak_of, write
from benchmarks.literal_head import LiteralHead
from mlrpl_bench.models import backbones
from mlrpl_bench.models.layers import Version, unknown_choice
from mlrpl_bench.models.losses import contrastive, partial_bce
from mlrpl_bench.models.method import Method, Progress
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.tools.profiling.settings import ProfilingSetting, paper_setting
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.run import CellRun

RATIOS = (0.1, 0.9)
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
"""By name the format of the matrix products."""
REFERENCE = "reference"
TOLERANCE = {"32-true": 1e-3, "bf16-mixed": 5e-2}
"""Of the relative difference of a loss."""

COMPARED = ("partial_bce", "instance")
"""These losses of a first step draw nothing at random, and so must agree."""

Step = Callable[[], dict[str, float]]
"""Makes a training step and gives those of its losses that are compared."""


class ReferenceStep:
    """A training step as the papers' public code makes it, with the weights of one of the package's methods.

    Args:
        method: `ssgrl` or `sarb`, before its first step.
        labels_NC: of the images.
        images: (images (B, 3, H, W), rows (B,)) of each step, endlessly.
        rate: the learning rate.
    """

    def __init__(self, method: Method, labels_NC: Tensor, images: Callable[[], tuple[Tensor, Tensor]], rate: float):
        network = method.network
        self.images, self.labels_NC = images, labels_NC
        self.frozen = backbones.build(backbones.RESNET101, "random").frozen
        plain = torch.contiguous_format
        self.trained = copy.deepcopy(method.trained).to(memory_format=plain)
        self.trunk = copy.deepcopy(network.trunk).to(memory_format=plain)
        self.words_CE = network.words_CE
        decoupling = network.decoupling
        sizes = (decoupling.from_position.in_features, decoupling.from_word.in_features, decoupling.mix.in_features)
        self.head = LiteralHead(*sizes, network.head.adjacency_CC)
        short = nn.ModuleDict({"decoupling": decoupling, "head": network.head})
        self.head.load_short(short)
        self.blending = copy.deepcopy(getattr(method, "blending", None))
        self.prototypes = copy.deepcopy(getattr(method, "prototypes", None))
        parts = nn.ModuleList([self.trained, self.trunk, self.head, *([self.blending] if self.blending else [])])
        parts.train()
        self.optimizer = torch.optim.Adam(parts.parameters(), lr=rate, weight_decay=5e-4)
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> dict[str, float]:
        images_B3HW, index_B = self.images()
        labels_BC = self.labels_NC[index_B]
        with torch.no_grad():
            frozen_BDHW = self.frozen(images_B3HW.contiguous())
        features_BCD = self.head.features(self.trunk(self.trained(frozen_BDHW)), self.words_CE)
        versions = {"partial_bce": Version(features_BCD, labels_BC)}
        terms = {}
        if self.blending is not None:
            versions |= self.blending(features_BCD, labels_BC, 0, self._prototypes(labels_BC))
            terms["contrastive"] = 0.05 * contrastive(features_BCD, labels_BC, self.generator)
        terms |= {n: partial_bce(self.head.logits(v.features_BCD), v.targets_BC) for n, v in versions.items()}
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        self.optimizer.step()
        return _compared(terms)

    def _prototypes(self, labels_BC: Tensor) -> tuple[Tensor, Tensor]:
        mixed_BC = unknown_choice(labels_BC, self.prototypes.num_C > 0, self.generator)
        return mixed_BC, self.prototypes.centres_CKD[mixed_BC.int().argmax(dim=1), 0][:, None]


def _compared(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(terms[name].detach()) for name in COMPARED if name in terms}


def package_step(run: CellRun, batch: int) -> Step:
    """The step that trains a cell, in its last epoch, where all that starts late has started."""
    epochs, per_epoch = run.cell.recipe.epochs, run.workbench.steps_per_epoch(batch)
    run.start_epoch(Progress(epochs - 1, epochs, 0, per_epoch))
    batches = (
        (shared, step)
        for epoch in cycle([0])
        for step, shared in enumerate(run.workbench.training_batches(0, epoch, batch))
    )

    def step() -> dict[str, float]:
        shared, number = next(batches)
        run.step(shared, Progress(epochs - 1, epochs, number, per_epoch))
        return _compared(run.terms[-1])

    return step


def setting(side: int, batch: int, categories: int, ratio: float, precision: str) -> ProfilingSetting:
    options = Options(image_size=side, batch=batch, precision=precision, device="cpu", weights="random")
    return paper_setting(options, categories, ratio, lambda *_: None)


def steps(name: str, ratio: float, sizes: tuple[int, int, int]) -> dict[str, Step]:
    """By precision the package's step, and the reference's; all begin with the same weights."""
    found: dict[str, Step] = {}
    side, batch, categories = sizes
    for precision in PRECISIONS:
        bench = setting(side, batch, categories, ratio, precision)
        run = CellRun(bench.study.job(load_methods()[name], ratio, 0, 0, {}), bench.study.workbench)
        if hasattr(run.method, "prototypes"):
            run.method.prototypes.centres_CKD.normal_(generator=torch.Generator().manual_seed(0))
            run.method.prototypes.num_C.fill_(run.method.prototypes.centres_CKD.shape[1])
        if not found:
            shown = cycle(list(bench.study.workbench.training_batches(0, 0, batch)))

            def images(shown=shown) -> tuple[Tensor, Tensor]:
                shared = next(shown)
                return shared.images_B3HW, shared.index_B

            found[REFERENCE] = ReferenceStep(run.method, run.labels_NC, images, run.cell.recipe.lr)
        found[precision] = package_step(run, batch)
    return found


def measure(methods: Sequence[str], sizes: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Seconds and ratios.

    Raises:
        SystemExit: the first steps' losses differ.
    """
    say = Console(stderr=True).print
    facts: dict[str, Any] = {
        "seconds": {},
        "gflop": {},
        "matmul_peak_gflops": dict.fromkeys(PRECISIONS, 0.0),
        "ratios": {},
    }
    for name in methods:
        for ratio in RATIOS:
            what = f"{name}, {100 * ratio:.0f} % known"
            say(f"{what} ...")
            jobs = steps(name, ratio, sizes)
            first = {}
            for form, job in jobs.items():
                with FlopCounterMode(display=False) as counter:
                    first[form] = job()
                facts["gflop"][f"{what}: {form}"] = counter.get_total_flops() / 1e9
            for precision in PRECISIONS:
                found, expected = first[precision], first[REFERENCE]
                near = [abs(found[term] / expected[term] - 1) <= TOLERANCE[precision] for term in expected]
                if found.keys() != expected.keys() or not all(near):
                    raise SystemExit(f"{what}: losses of the first step differ: {first}; nothing is timed")
            timed = in_turns(rounds, *jobs.values(), clock=time.process_time, warm_up=False)
            rows = [dict(zip(jobs, row, strict=True)) for row in timed]
            for precision, before in facts["matmul_peak_gflops"].items():
                # The largest so far: other work on the machine makes it too small.
                peak = peak_of(torch.device("cpu"), PRECISIONS[precision]) / 1e9
                facts["matmul_peak_gflops"][precision] = max(before, peak)
            facts["seconds"] |= {f"{what}: {form}": statistics.median(row[form] for row in rows) for form in jobs}
            facts["ratios"] |= {
                f"{what}: {form} over {REFERENCE}": statistics.median(row[form] / row[REFERENCE] for row in rows)
                for form in PRECISIONS
            }
    return facts


def table_of(facts: Mapping[str, Any], title: str) -> Table:
    peaks = facts["matmul_peak_gflops"]
    table = Table(
        title=title,
        caption="times as fast: the median over rounds, of the reference's seconds over these; fastest products: "
        + ", ".join(f"{peak:,.0f} GFLOP/s in {precision}" for precision, peak in peaks.items()),
    )
    for heading in ("a step", "seconds", "times as fast", "GFLOP", "of peak"):
        table.add_column(heading, justify="left" if heading == "a step" else "right")
    for name, seconds in facts["seconds"].items():
        times, form = 1 / facts["ratios"].get(f"{name} over {REFERENCE}", 1.0), name.rpartition(": ")[2]
        share = facts["gflop"][name] / seconds / peaks.get(form, peaks["32-true"])
        table.add_row(name, f"{seconds:.2f}", f"{times:.2f}", f"{facts['gflop'][name]:,.0f}", f"{share:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("side", 448), ("batch", 4), ("categories", 80), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--methods", nargs="+", choices=("ssgrl", "sarb"), default=["ssgrl", "sarb"])
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = (64, 2, 20) if options.quick else (options.side, options.batch, options.categories)
    rounds = 1 if options.quick else options.rounds
    facts = measure(options.methods, sizes, rounds)
    given = {"side": sizes[0], "batch": sizes[1], "categories": sizes[2], "rounds": rounds}
    command = ["-m", "benchmarks.step", *(f"--{name}={value}" for name, value in given.items())]
    write(options.json, [*command, "--methods", *options.methods], facts)
    Console().print(table_of(facts, f"ResNet-101, {sizes[0]} px, batch {sizes[1]}; {machine()}"))


if __name__ == "__main__":
    main()
