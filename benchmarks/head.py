"""What the head costs beside its literal form: time, memory, and how much of the machine it uses.

    python -m benchmarks.head [--sides 7 14] [--rounds N] [--quick] [--json PATH]

Forward and backward of semantic decoupling, gated graph and classifiers, in float32 on one thread. Three pieces:

- *head*: one version of the features is classified; *sarb*: three, as in a step of SARB with blending on;
- *product*: `tanh_scores` beside the same written down, without what stands around it.

The literal form (`literal_head`) stands as in the papers' public code. The short form is the package's: with all
entries, and with those alone that a loss reads at 10 % and at 90 % known labels (and, of SARB's three versions, what
their first step in the graph shares computed once; *apart* is the same without that). Both have the same weights, and
losses and all gradients must agree before anything is timed. The literal form's two biases that the softmax removes
are compared with nothing: the short form does not have them.

Seconds are the processor's own; ratios are taken within a round, and the median over the rounds counts. Memory is
what a fresh process needs at its peak beyond weights and inputs, by the system's account (`ru_maxrss`); gradients are
in it. GFLOP counts matrix products alone, each form's own, so that a share of the peak can be low because of the tanh.

Not measured: backbone, trunk, SARB's contrastive loss and the drawing of prototypes, which both forms share; the
optimiser; 16-bit arithmetic.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import resource
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import clock_of, in_turns, machine, peak_of, write
from benchmarks.literal_head import LiteralHead
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.attention import SemanticDecoupling, tanh_scores
from mlrpl_bench.models.layers.blending import Blending, Version, supervise, unknown_choice
from mlrpl_bench.models.layers.heads import GraphHead
from mlrpl_bench.models.losses import partial_bce

TOLERANCE = 1e-4
"""Of the norm of a difference over the norm of the literal form's value."""

LITERAL, SHORT = "literal", "short"
READ = {f"short, {100 * ratio:.0f} % read": ratio for ratio in (0.9, 0.1)}
APART = {form: f"{form}, apart" for form in READ}
"""By form of SARB's head the same with nothing of the graph's first step shared by the versions."""
FEW = min(READ.values())
"""The known ratio of the forms that compute all entries: it makes no difference to their cost."""

PIECES = ("head", "sarb", "product")

Job = Callable[[], dict[str, Tensor]]
"""Makes a forward and a backward pass, and gives the losses."""


class Sizes(NamedTuple):
    """Of a batch and of the layers; by default those of COCO in SSGRL's paper."""

    batch: int = 8
    categories: int = 80
    width: int = 1024
    hidden: int = 512
    word_width: int = 300


class Plan(NamedTuple):
    """How much is measured."""

    sizes: Sizes = Sizes()
    sides: Sequence[int] = (7, 14)
    rounds: int = 3


QUICK = Plan(Sizes(2, 5, 16, 12, 6), sides=(2,), rounds=1)


class ShortHead(nn.Module):
    """The package's layers, without the trunk."""

    def __init__(self, sizes: Sizes, adjacency_CC: Tensor) -> None:
        super().__init__()
        self.decoupling = SemanticDecoupling(sizes.width, sizes.word_width, sizes.hidden)
        self.head = GraphHead(sizes.width, adjacency_CC)


class ProfilingSetting:
    """Both forms with the same weights, and inputs for them, drawn on the CPU."""

    def __init__(self, sizes: Sizes, side: int, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.random = torch.Generator().manual_seed(0)
        torch.manual_seed(0)  # for the initial weights
        self.maps_BDHW = self._normal(sizes.batch, sizes.width, side, side).requires_grad_()
        self.words_CE = self._normal(sizes.categories, sizes.word_width)
        adjacency_CC = 0.1 * torch.rand(sizes.categories, sizes.categories, generator=self.random)
        self.short = ShortHead(sizes, adjacency_CC.fill_diagonal_(1)).to(device)
        arguments = (sizes.width, sizes.word_width, sizes.hidden, self.short.head.adjacency_CC)
        self.literal = LiteralHead(*arguments).to(device)
        self.literal.load_short(self.short)
        self.labels_BC = {ratio: self._labels(ratio) for ratio in READ.values()}
        self.others_B1D = self._normal(sizes.batch, 1, sizes.width)
        self.chosen_BC = {
            ratio: unknown_choice(labels_BC.cpu(), torch.ones(sizes.categories).bool(), self.random).to(device)
            for ratio, labels_BC in self.labels_BC.items()
        }
        self.product = [
            self._normal(*shape).requires_grad_()
            for shape in ((sizes.batch, side * side, sizes.hidden), (sizes.categories, sizes.hidden), (sizes.hidden,))
        ]
        self.direction_BCP = self._normal(sizes.batch, sizes.categories, side * side)

    def jobs(self, piece: str) -> dict[str, Job]:
        """By form, the one that others are compared with first."""
        if piece == "product":
            return {LITERAL: lambda: self._multiply(plain), SHORT: lambda: self._multiply(tanh_scores)}
        return {
            LITERAL: partial(self._literal_step, piece, FEW),
            SHORT: self._whole(piece, FEW),
            **{form: partial(self._short_step, piece, ratio, supervise) for form, ratio in READ.items()},
            **{APART[form]: partial(self._short_step, piece, READ[form], supervise_apart) for form in _shared(piece)},
        }

    def agreement(self, piece: str) -> tuple[float, dict[str, int]]:
        """The largest relative difference of a loss or a gradient between forms; by form the matrix operations.

        Raises:
            SystemExit: the difference is above `TOLERANCE`.
        """
        outcomes, operations = {}, {}
        for form, job in self.jobs(piece).items():
            with FlopCounterMode(display=False) as counter:
                outcomes[form] = self._outcome(job)
            operations[form] = counter.get_total_flops()
        expected = {SHORT: outcomes[LITERAL]}
        if piece != "product":  # on the same labels
            expected |= {
                form: outcomes[SHORT] if ratio == FEW else self._outcome(self._whole(piece, ratio))
                for form, ratio in READ.items()
            }
            expected |= {APART[form]: outcomes[form] for form in _shared(piece)}
        differences = [_difference(values, outcomes[form], f"{piece}, {form}") for form, values in expected.items()]
        return max(differences), operations

    def gradients(self) -> dict[str, Tensor]:
        """Of the form whose pass was the last, under the short form's names, and of the inputs."""
        of_literal = self.literal.gradients() if self.literal.mix.weight.grad is not None else {}
        inputs = enumerate((self.maps_BDHW, *self.product))
        others = [*self.short.named_parameters(), *((f"input {number}", value) for number, value in inputs)]
        return of_literal | {name: value.grad for name, value in others if value.grad is not None}

    def _whole(self, piece: str, ratio: float) -> Job:
        return partial(self._short_step, piece, ratio, all_entries)

    def _outcome(self, job: Job) -> dict[str, Tensor]:
        return {**job(), **self.gradients()}

    def forget_gradients(self) -> None:
        for value in (self.maps_BDHW, *self.product, *self.literal.parameters(), *self.short.parameters()):
            value.grad = None

    def _literal_step(self, piece: str, ratio: float) -> dict[str, Tensor]:
        self.forget_gradients()
        versions = self._versions(piece, self.literal.features(self.maps_BDHW, self.words_CE), ratio)
        return _backward({name: partial_bce(self.literal.logits(f), t) for name, (f, t, _) in versions.items()})

    def _short_step(
        self, piece: str, ratio: float, classify: Callable[[GraphHead, dict[str, Version]], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        self.forget_gradients()
        versions = self._versions(piece, self.short.decoupling(self.maps_BDHW, self.words_CE), ratio)
        return _backward(classify(self.short.head, versions))

    def _versions(self, piece: str, features_BCD: Tensor, ratio: float) -> dict[str, Version]:
        labels_BC = self.labels_BC[ratio]
        versions = {"partial_bce": Version(features_BCD, labels_BC)}
        if piece == "sarb":
            blending = Blending(instance=True, prototype=True, learned=True).to(self.device)
            prototypes = (self.chosen_BC[ratio], self.others_B1D)
            versions |= blending(features_BCD, labels_BC, step=0, prototypes=prototypes)
        return versions

    def _multiply(self, form: Callable[..., Tensor]) -> dict[str, Tensor]:
        self.forget_gradients()
        return _backward({"scores": (form(*self.product) * self.direction_BCP).sum()})

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random).to(self.device)

    def _labels(self, ratio: float) -> Tensor:
        shape = (self.sizes.batch, self.sizes.categories)
        known_BC, present_BC = (torch.rand(shape, generator=self.random) < share for share in (ratio, 0.1))
        labels_BC = torch.where(known_BC, torch.where(present_BC, PRESENT, ABSENT), UNKNOWN).to(torch.int8)
        labels_BC[0, 0] = PRESENT  # at least one is known, however small the sizes
        return labels_BC.to(self.device)


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor], what: str) -> float:
    """The largest of all; refused above the tolerance."""
    assert set(expected) == set(found)
    worst = 0.0
    for name, value in expected.items():
        difference = float((found[name] - value).norm() / value.norm())
        if not difference <= TOLERANCE:  # NaN is too far, too
            raise SystemExit(f"{what}: {name} differs by {difference:.1e}; nothing is timed")
        worst = max(worst, difference)
    return worst


def all_entries(head: GraphHead, versions: dict[str, Version]) -> dict[str, Tensor]:
    """As `supervise`, with every logit computed."""
    logits = head(torch.cat([version.features_BCD for version in versions.values()])).chunk(len(versions))
    targets = [version.targets_BC for version in versions.values()]
    return {name: partial_bce(*pair) for name, pair in zip(versions, zip(logits, targets, strict=True), strict=True)}


def supervise_apart(head: GraphHead, versions: dict[str, Version]) -> dict[str, Tensor]:
    """As `supervise`, with nothing shared by the versions."""

    def without_sharing(features_BCD: Tensor, read_BC: Tensor, mixed_VBC: Tensor) -> Tensor:
        return head(features_BCD, read_BC=read_BC)

    return supervise(without_sharing, versions)


def _shared(piece: str) -> Sequence[str]:
    """The forms in which versions of the features share something."""
    return tuple(APART) if piece == "sarb" else ()


def plain(positions_BPM: Tensor, words_CM: Tensor, direction_M: Tensor) -> Tensor:
    """`tanh_scores` written down."""
    return torch.tanh(positions_BPM[:, None] * words_CM[:, None]) @ direction_M


def _backward(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.stack(list(losses.values())).sum().backward()
    return {name: loss.detach() for name, loss in losses.items()}


def measured(plan: Plan, device: torch.device) -> Iterator[dict[str, Any]]:
    """After each piece and size of the map, all that is known so far."""
    say = Console(stderr=True).print
    facts: dict[str, Any] = {"sizes": plan.sizes._asdict(), "tolerance": TOLERANCE, "largest_difference": 0.0}
    facts |= {"matmul_peak_gflops": 0.0, "ratios": {}, "rows": {}}
    for side in plan.sides:
        bench = ProfilingSetting(plan.sizes, side, device)
        for piece in PIECES:
            name = f"{piece}, {side} x {side}"
            say(f"{name} ...")
            difference, rows, ratios = measured_piece(bench, plan, side, piece)
            facts["largest_difference"] = max(facts["largest_difference"], difference)
            facts["rows"] |= {f"{name}: {form}": row for form, row in rows.items()}
            facts["ratios"] |= {f"{name}: {of}": ratio for of, ratio in ratios.items()}
            # The largest so far: other work on the machine makes it too small.
            peak = max(facts["matmul_peak_gflops"], peak_of(device) / 1e9)
            facts["matmul_peak_gflops"] = peak
            for row in facts["rows"].values():
                row["share_of_peak"] = row["gflop"] / row["seconds"] / peak
            yield facts


def measured_piece(
    bench: ProfilingSetting, plan: Plan, side: int, piece: str
) -> tuple[float, dict[str, dict[str, float]], dict[str, float]]:
    """The largest difference between forms, the facts on each form, and the ratios of seconds by what they compare."""
    difference, operations = bench.agreement(piece)
    jobs = bench.jobs(piece)
    timed = in_turns(plan.rounds, *jobs.values(), clock=clock_of(bench.device), warm_up=False)
    rounds = [dict(zip(jobs, row, strict=True)) for row in timed]

    def over(form: str, other: str) -> float:
        return statistics.median(seconds[form] / seconds[other] for seconds in rounds)

    rows = {
        form: {
            "seconds": statistics.median(seconds[form] for seconds in rounds),
            "over_literal": over(form, LITERAL),
            "gflop": operations[form] / 1e9,
            "extra_gb": extra_memory(bench, plan.sizes, side, piece, form) / 1e9,
        }
        for form in jobs
    }
    apart = {APART[form] for form in _shared(piece)}
    ratios = {f"{form} over literal": over(form, LITERAL) for form in jobs if form not in {LITERAL, *apart}}
    ratios |= {f"{form} over apart": over(form, APART[form]) for form in _shared(piece)}
    return difference, rows, ratios


def extra_memory(bench: ProfilingSetting, sizes: Sizes, side: int, piece: str, form: str) -> int:
    """Bytes that a pass needs at its peak beyond weights and inputs; on a CPU of a process of its own."""
    if bench.device.type == "cpu":
        # One that has measured nothing before, from a server that has only imported what it takes: the peak of a
        # process never falls.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["mlrpl_bench.tools.profiling.step_costs"])
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(_growth, sizes, side, piece, form).result()
    bench.forget_gradients()
    gc.collect()
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    bench.jobs(piece)[form]()
    return torch.cuda.max_memory_allocated(bench.device) - before


def _growth(sizes: Sizes, side: int, piece: str, form: str) -> int:
    torch.set_num_threads(1)
    bench = ProfilingSetting(sizes, side, torch.device("cpu"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bench.jobs(piece)[form]()
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def table_of(facts: Mapping[str, Any], title: str) -> Table:
    table = Table(
        title=title,
        caption=f"fastest matrix product: {facts['matmul_peak_gflops']:,.0f} GFLOP/s; losses and gradients agree to "
        f"{facts['largest_difference']:.0e} (at most {TOLERANCE:.0e}); times: the literal form's seconds over these; "
        "peak GB: beyond weights and inputs",
    )
    table.add_column("forward + backward", no_wrap=True)
    for heading in ("s", "times", "peak GB", "GFLOP", "of peak"):
        table.add_column(heading, justify="right")
    for name, row in facts["rows"].items():
        numbers = (f"{row['seconds']:.3f}", f"{1 / row['over_literal']:.2f}", f"{row['extra_gb']:.2f}")
        table.add_row(name, *numbers, f"{row['gflop']:,.1f}", f"{row['share_of_peak']:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=Plan().sides, help="of the square maps")
    parser.add_argument("--rounds", type=int, default=Plan().rounds)
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too, after every piece")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = QUICK if options.quick else Plan(sides=options.sides, rounds=options.rounds)
    command = ["-m", "benchmarks.head", f"--rounds={plan.rounds}", "--sides", *map(str, plan.sides)]
    for facts in measured(plan, torch.device("cpu")):
        write(options.json, command, facts)
    Console().print(table_of(facts, f"The head, batch {plan.sizes.batch}; {machine()}"))


if __name__ == "__main__":
    main()
