"""What can only be learnt on a GPU, in ten minutes: is it right there, how fast is a step, and what does it need.

    python -m benchmarks.gpu [--only PART ...] [--device cuda|cpu] [--precision 32-true|bf16-mixed] [--quick]
                             [--seconds 570] [--json PATH]

- *correctness*: losses and gradients of every method, of `tanh_scores` and of the head that reads some entries, in
  float32 without TF32, beside float64 on the CPU; tiny sizes, one batch late in training with the same draws. In
  bfloat16, that what must stay in 32 bits (softmax, logarithms, cross-entropy, the sum of loss terms) does.
- *steps*: a training step of every method in the papers' setting (`settings.paper_setting`), batch 16 and 64:
  time, images a second, memory, share of the fastest matrix product. In 32 bits, convolutions use TF32, as they do
  in training.
- *head*: the literal form of the head beside the short one, see `benchmarks.head`.
- *compile*: steps of ssgrl and sarb with and without compiling, as ``--compile`` does it.
- *group*: nine ratios of sarb in one group beside one cell alone: step time and memory. Images are random and lie in
  memory, so reading is no part of it: the aim, at most three times a cell's time, is one *with* reading.

Nothing is read, fetched or trained, and all weights are random. Not measured: reading, evaluation, the passes over the
training set, several GPUs. A part that fails is reported with its reason and the others go on; what does not fit into
`--seconds` is left out, and named. The JSON is written again after every result. With ``--device cpu --quick`` this
only shows that the script runs. Exit code 1: something was computed wrongly.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import head
from benchmarks.common import clock_of, write
from benchmarks.groups import seconds_together
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.attention import tanh_scores
from mlrpl_bench.models.layers.heads import GraphHead
from mlrpl_bench.models.method import Batch, Progress
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, load_methods
from mlrpl_bench.tools.conformance.sample import NUM_CATEGORIES, PRESET, Sample
from mlrpl_bench.tools.profiling import settings, step_costs
from mlrpl_bench.training.options import PRECISIONS, Options
from mlrpl_bench.training.parts.device import forget_peak_memory, peak_memory
from mlrpl_bench.training.run import CellRun

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
"""Relative differences from float64: of a loss (or of 1e-3 if it is smaller), and of the norm of a gradient (to which a
thousandth of the whole gradient's norm is added, for parameters that hardly have one)."""

LATE = Progress(PRESET.epochs - 1, PRESET.epochs, 1, 4)
"""A step at which all that starts late has started."""

IN_32_BITS = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "binary_cross_entropy_with_logits",
    "log_sigmoid_forward",
    "log",
    "log1p",
    "exp",
)
"""Operations that must not see bfloat16 in a loss; of `IN_16_BITS` one must, or autocast is off."""
IN_16_BITS = ("mm", "addmm", "bmm", "convolution")

COMPILED, GROUPED = ("ssgrl", "sarb"), "sarb"

Say = Callable[[str], None]


class WrongError(Exception):
    """A device does not compute what it should."""


class OutOfTime(Exception):
    """The rest is left out."""


@dataclasses.dataclass
class Session:
    """Where results go, and how much is measured."""

    device: str
    precision: str
    quick: bool
    json: Path | None
    until: float
    say: Say
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    def options(self, **chosen: Any) -> Options:
        """The papers' setting, or something tiny."""
        tiny = {"image_size": 32, "backbone": "small", "batch": 4} if self.quick else {}
        return Options(**{"weights": "random", "device": self.device, "precision": self.precision, **chosen, **tiny})

    def methods(self, few: Sequence[str]) -> list[MethodEntry]:
        """Every method, or a few."""
        registry = load_methods()
        return [registry[name] for name in (few if self.quick else registry)]

    def check_time(self) -> None:
        """To be called before what takes long."""
        if time.monotonic() > self.until:
            raise OutOfTime("no time was left for the rest")

    def write(self) -> None:
        """All results so far."""
        quick = ["--quick"] if self.quick else []
        command = ["-m", "benchmarks.gpu", f"--device={self.device}", f"--precision={self.precision}", *quick]
        write(self.json, command, self.facts, self.machine())

    def machine(self) -> str:
        """The device's name."""
        return torch.cuda.get_device_name(self.torch_device) if self.torch_device.type == "cuda" else "CPU"


# --- correctness


class SameDraws(TorchFunctionMode):
    """What is drawn from any generator comes from one on the CPU, in float32: devices draw differently.

    Args:
        wide: what is widened to 32 bits is widened to 64 instead: with a model of float64 all is float64 then.
    """

    def __init__(self, wide: bool) -> None:
        super().__init__()
        self.wide, self.generator = wide, torch.Generator().manual_seed(0)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if kwargs.get("generator") is not None:
            even = {"dtype": torch.float32} if func is torch.rand else {}
            drawn = func(*args, **{**kwargs, **even, "generator": self.generator, "device": "cpu"})
            dtype = torch.get_default_dtype() if even else drawn.dtype
            return drawn.to(kwargs.get("device", "cpu"), dtype)
        if self.wide and func is Tensor.float:
            func = Tensor.double
        return func(*args, **kwargs)


class DtypesSeen(TorchDispatchMode):
    """Which operations saw bfloat16, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.in_16_bits: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if any(isinstance(value, Tensor) and value.dtype == torch.bfloat16 for value in args):
            self.in_16_bits.add(func.overloadpacket.__name__.strip("_"))  # in place or not
        return func(*args, **(kwargs or {}))


def correctness(session: Session) -> Iterator[tuple[str, Any]]:
    """A line for each thing checked: its largest differences as shares of the tolerance, or what is wrong."""
    checks: dict[str, Callable[[], dict[str, float]]] = {
        "tanh_scores": partial(product_differences, session.torch_device),
        "head that reads some entries": partial(head_differences, session.torch_device),
    }
    for entry in session.methods(few=("partial_bce", "sarb", "ip_mixup")):
        checks[entry.name] = partial(method_differences, entry, session.device)
        checks[f"{entry.name}, bfloat16"] = partial(stays_in_32_bits, entry, session.device)
    for name, check in checks.items():
        session.check_time()
        try:
            found = check()
            wrong = ", ".join(f"{key} {share:.1f} x" for key, share in found.items() if not share <= 1)
            yield name, {"of_tolerance": found} | ({"wrong": f"above the tolerance: {wrong}"} if wrong else {})
        except Exception as error:  # whatever a device raises
            yield name, {"wrong": reason(error)}


def product_differences(device: torch.device) -> dict[str, float]:
    """Of `tanh_scores`, value and gradients, over the tolerances; in portions, so that seams are seen."""
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=random) for shape in ((3, 49, 64), (11, 64), (64,))]

    def values(inputs: list[Tensor], form: Callable[..., Tensor]) -> dict[str, Tensor]:
        leaves = [value.detach().requires_grad_() for value in inputs]
        scores_BCP = form(*leaves)
        weights_BCP = torch.linspace(-1, 1, scores_BCP.numel()).view(scores_BCP.shape).to(scores_BCP)
        gradients = torch.autograd.grad((scores_BCP * weights_BCP).sum(), leaves)
        return {"value": scores_BCP.detach()} | {f"gradient {number}": g for number, g in enumerate(gradients)}

    found = values([value.to(device) for value in inputs], partial(tanh_scores, chunk=20_000))
    return shares(values([value.double() for value in inputs], head.plain), found)


def head_differences(device: torch.device) -> dict[str, float]:
    """Of the head on some entries, logits there and gradients, beside the head on all entries in float64."""
    torch.manual_seed(0)
    graph_head = GraphHead(32, 0.1 * torch.rand(7, 7).fill_diagonal_(10))
    features_BCD, read_BC = torch.randn(3, 7, 32), torch.rand(3, 7) < 0.5

    def values(kind: torch.dtype, where: torch.device, pruned: bool) -> dict[str, Tensor]:
        graph_head.to(where, kind).zero_grad()
        with SameDraws(wide=kind == torch.float64):
            logits_BC = graph_head(features_BCD.to(where, kind), read_BC=read_BC.to(where) if pruned else None)
        wanted_S = logits_BC[read_BC.to(where)]
        wanted_S.square().sum().backward()
        of_parameters = {name: parameter.grad for name, parameter in graph_head.named_parameters()}
        return {"value": wanted_S.detach()} | {name: g.clone() for name, g in of_parameters.items() if g is not None}

    with no_tf32():
        found = values(torch.float32, device, pruned=True)
    return shares(values(torch.float64, torch.device("cpu"), pruned=False), found)


def shares(expected: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, float]:
    """Relative differences in norm, over the tolerance of gradients."""
    return {name: apart(value, found[name], 0.0) / GRADIENT_TOLERANCE for name, value in expected.items()}


def method_differences(entry: MethodEntry, device: str) -> dict[str, float]:
    """Of a method's losses and gradients in one late step; the largest of each, over its tolerance."""
    with tempfile.TemporaryDirectory() as folder:
        state = late_state(entry, Path(folder))
        losses, gradients = outcome(Sample(entry, Path(folder), device), state, wide=False)
        exact_losses, exact_gradients = outcome(Sample(entry, Path(folder)), state, wide=True)
    if set(losses) != set(exact_losses) or set(gradients) != set(exact_gradients):
        raise WrongError("other losses, or other parameters have a gradient")
    floor = 1e-3 * float(torch.stack([gradient.norm() for gradient in exact_gradients.values()]).norm())
    of_losses = [apart(value, losses[name], 1e-3) for name, value in exact_losses.items()]
    of_gradients = [apart(value, gradients[name], floor) for name, value in exact_gradients.items()]
    return {"loss": max(of_losses) / LOSS_TOLERANCE, "gradient": max(of_gradients) / GRADIENT_TOLERANCE}


def apart(expected: Tensor, found: Tensor, floor: float) -> float:
    """The norm of the difference beside the norm, or the floor: for a loss instead of it, for gradients added."""
    return float((found.cpu().double() - expected).norm() / (expected.norm() + floor))


def late_state(entry: MethodEntry, folder: Path) -> dict[str, Any]:
    """Weights, and what a pass over the training set leaves: made once, as clusters turn on the last digit."""
    run = Sample(entry, folder).run()
    run.look_at_training_set(LATE)
    return run.method.state_dict()


def outcome(sample: Sample, state: dict[str, Any], wide: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of one late step, in float32 or float64."""
    run, batch = late_run(sample, state)
    with widened() if wide else no_tf32():
        if wide:
            frozen = run.workbench.backbone.frozen.double()
            run.method.double()
            assert batch.strong_images_B3HW is not None
            views = [images_B3HW.double() for images_B3HW in (batch.images_B3HW, batch.strong_images_B3HW)]
            of_view = {"images_B3HW": views[0], "frozen_BDHW": frozen(views[0])}
            of_strong = {"strong_images_B3HW": views[1], "strong_BDHW": frozen(views[1])}
            batch = dataclasses.replace(batch, **of_view, **of_strong)
        with SameDraws(wide):
            losses = run.method.losses(batch, LATE)
            torch.stack(list(losses.values())).sum().backward()
    gradients = {name: value.grad for name, value in run.method.named_parameters() if value.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def late_run(sample: Sample, state: dict[str, Any]) -> tuple[CellRun, Batch]:
    """A method that is about to make a late step, and its batch; two in seven labels are unknown."""
    run = sample.run()
    run.method.load_state_dict(state)
    run.start_epoch(LATE)
    place_BC = torch.arange(PRESET.batch * NUM_CATEGORIES).view(PRESET.batch, NUM_CATEGORIES)
    labels_BC = torch.tensor([PRESENT, UNKNOWN, ABSENT, ABSENT, PRESENT, UNKNOWN, PRESENT])[place_BC % 7]
    with no_tf32():
        return run, sample.batch(labels_BC.to(torch.int8))


@contextmanager
def widened() -> Iterator[None]:
    """New tensors are float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def no_tf32() -> Iterator[None]:
    """On CUDA matrix products and convolutions in 32 bits keep 32 bits."""
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    matmul.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, convolutions.allow_tf32 = before


def stays_in_32_bits(entry: MethodEntry, device: str) -> dict[str, float]:
    """Nothing, or what is wrong with a method's losses under autocast to bfloat16."""
    with tempfile.TemporaryDirectory() as folder:
        state = late_state(entry, Path(folder))
        sample = Sample(entry, Path(folder), device, "bf16-mixed")
        run, batch = late_run(sample, state)
        with sample.fabric.autocast(), SameDraws(wide=False), DtypesSeen() as seen:
            losses = run.method.losses(batch, LATE)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    narrow = [name for name, loss in losses.items() if loss.dtype != torch.float32]
    narrow += sorted(seen.in_16_bits & set(IN_32_BITS))
    if narrow:
        raise WrongError(f"in 16 bits: {', '.join(narrow)}")
    if not seen.in_16_bits & set(IN_16_BITS):
        raise WrongError("nothing is computed in 16 bits")
    infinite = [name for name, value in run.method.named_parameters() if not is_finite(value.grad)]
    if infinite:
        raise WrongError(f"no finite gradient: {', '.join(infinite)}")
    return {}


def is_finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(gradient.isfinite().all())


# --- how fast


def steps(session: Session) -> Iterator[tuple[str, Any]]:
    """The cost of a step of every method, by batch and method."""
    for batch in (4,) if session.quick else (16, 64):
        bench = bench_of(session, batch=batch)
        for entry in session.methods(few=("sarb",)):
            session.check_time()
            yield f"batch {batch}, {entry.name}", cost(bench, entry, session)


def bench_of(session: Session, **chosen: Any) -> settings.ProfilingSetting:
    return settings.paper_setting(session.options(**chosen), 80, 0.1, lambda *_: None)


def cost(bench: settings.ProfilingSetting, entry: MethodEntry, session: Session) -> dict[str, Any]:
    """What `profiling` says of one method.

    Raises:
        RuntimeError: the method failed.
    """
    if session.torch_device.type == "cuda":
        torch.cuda.empty_cache()
    found = step_costs.profile(bench, [entry], 1 if session.quick else 5, lambda *_: None)
    for _, why in found.failures:
        raise RuntimeError(why)
    numbers = dataclasses.asdict(found.costs[0])
    return {name: numbers[name] for name in numbers if name != "method"} | {"peak_format": found.facts["peak_format"]}


def head_forms(session: Session) -> Iterator[tuple[str, Any]]:
    """The literal and the short form, as `benchmarks.head` measures them."""
    plan = head.QUICK if session.quick else head.Plan(rounds=7)
    with no_tf32():
        for facts in head.measured(plan, session.torch_device):
            session.check_time()
            yield "forms", facts


def compiling(session: Session) -> Iterator[tuple[str, Any]]:
    """Steps with and without compiling."""
    registry = load_methods()
    for name in COMPILED:
        session.check_time()
        times = [
            cost(bench_of(session, batch=16, compile=compiled), registry[name], session)["step_seconds"]
            for compiled in (False, True)
        ]
        yield name, {"seconds": dict(zip(("plain", "compiled"), times, strict=True)), "ratio": times[1] / times[0]}


def group(session: Session) -> Iterator[tuple[str, Any]]:
    """A group of nine cells beside one cell."""
    timed, rounds = (2, 1) if session.quick else (15, 3)
    options = session.options(batch=16, epochs=1)
    images = str((timed + 1) * (options.batch or 0))
    options = dataclasses.replace(options, data={"categories": "80", "images": images})
    entry = DatasetEntry("paper", settings.RandomData, Path(__file__), settings.PAPER)
    study = settings.InMemory(entry, options)
    method = load_methods()[GROUPED]
    jobs = [study.job(method, ratio, 0, 0, {}) for ratio in NINE_RATIOS]
    found: dict[str, list[tuple[float, int]]] = {"alone": [], "nine": []}
    for number in range(rounds):
        session.check_time()
        for name, cells in (("alone", jobs[4:5]), ("nine", jobs)):
            session.say(f"group: {name}, round {number + 1} ...")
            gc.collect()
            forget_peak_memory(session.torch_device)
            seconds = seconds_together(cells, study.workbench, timed, clock_of(session.torch_device)) / timed
            found[name].append((seconds, peak_memory(session.torch_device)))
    ratios = [nine[0] / alone[0] for alone, nine in zip(found["alone"], found["nine"], strict=True)]
    yield (
        "nine cells over one, without reading",
        {
            "step_seconds": {name: statistics.median(row[0] for row in rows) for name, rows in found.items()},
            "peak_memory_bytes": {name: max(row[1] for row in rows) for name, rows in found.items()},
            "ratio": statistics.median(ratios),
        },
    )


PARTS: dict[str, Callable[[Session], Iterator[tuple[str, Any]]]] = {
    "correctness": correctness,
    "head": head_forms,
    "group": group,
    "compile": compiling,
    "steps": steps,
}
"""The longest last, so that the time that runs out is its."""


def run_part(session: Session, name: str) -> None:
    """Every result is in the file before the next one is begun."""
    found = session.facts[name] = {"results": {}}
    start = time.monotonic()
    try:
        for what, result in PARTS[name](session):
            found["results"][what] = result
            session.say(f"{name}: {what}: {in_words(result)}")
            session.write()
    except OutOfTime as end:
        found["left_out"] = str(end)
    except (Exception, SystemExit) as error:  # the other parts go on
        found["failed"] = reason(error)
    found["seconds"] = time.monotonic() - start
    for key in ("failed", "left_out"):
        if key in found:
            session.say(f"{name}: {key.replace('_', ' ')}: {found[key]}")
    session.write()


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no message'}"


def in_words(result: Any) -> str:
    """A line on a result; the JSON has all of it."""
    if not isinstance(result, dict):
        return str(result)
    if "images_per_second" in result:
        return (
            f"{1000 * result['step_seconds']:.1f} ms, {result['images_per_second']:.0f} images/s, "
            f"{result['peak_memory_bytes'] / 1e9:.2f} GB, {result['share_of_peak']:.2f} of peak"
        )
    if "wrong" in result:
        return f"WRONG: {result['wrong']}"
    if "of_tolerance" in result:
        return f"right ({max(result['of_tolerance'].values(), default=0):.2f} of the tolerance)"
    ratios = result.get("ratios") or {"ratio": result["ratio"]}
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0], help="of steps, compile and group")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a few methods: only to see that it runs")
    parser.add_argument("--seconds", type=float, default=570, help="after them nothing new is begun")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too, after every result")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --quick shows that the script runs")
    until = time.monotonic() + options.seconds
    console = Console(soft_wrap=True, markup=False, highlight=False)
    session = Session(options.device, options.precision, options.quick, options.json, until, console.print)
    session.facts = {"device": session.machine(), "torch": torch.__version__, "cuda": torch.version.cuda}
    session.say(f"{session.machine()}, torch {torch.__version__}")
    for name in PARTS:
        if name in options.only:
            run_part(session, name)
    checked = session.facts.get("correctness", {"results": {}})
    raise SystemExit("failed" in checked or any("wrong" in result for result in checked["results"].values()))


if __name__ == "__main__":
    main()
