"""What can only be learnt on a GPU: is it right there, how fast is a step, and what does it need.

    python -m benchmarks.gpu [--only PART ...] [--device cuda|cpu] [--precision 32-true|bf16-mixed] [--quick]
                             [--seconds 480] [--json PATH]

- *correctness*: losses and gradients of every method, of `tanh_scores` and of the head that reads some entries, in
  float32 without TF32, beside float64 on the CPU; tiny sizes, one batch late in training with the same draws. In
  bfloat16, that what must stay in 32 bits (softmax, logarithms, cross-entropy, the sum of loss terms) does.
- *frozen*: ResNet-101 up to layer3 in bfloat16, as it is trained with (folded, channels last), compiled, and as a CUDA
  graph: images a second and the share of the fastest bfloat16 product (aim: half).
- *head*: the literal form of the head beside the short one, see `benchmarks.head`.
- *group*: nine ratios of sarb in one group beside one cell alone, of JPEG files and of images in memory: step time and
  memory (aim: at most three times a cell's time, with reading).
- *compile*: steps of ssgrl and sarb with and without compiling, as ``--compile`` does it.
- *steps*: a training step of every method in the papers' setting (`settings.paper_setting`), batch 16 and 64, the
  papers' own methods first: time, images a second, memory, share of the fastest matrix product. In 32 bits,
  convolutions use TF32, as they do in training.
- *deterministic*: a step of every method with deterministic algorithms alone, as ``--deterministic`` allows them.

Nothing is fetched or trained, and all weights are random. Not measured: evaluation, the passes over the training set,
several GPUs. A part that fails is reported with its reason and the others go on; what does not fit into `--seconds` is
left out, and named. The JSON is written again after every result. With ``--device cpu --quick`` this only shows that
the script runs. Exit codes: 1 where something was computed wrongly or failed, 3 where the time was too short for all.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import data_pipeline, gpu_correctness, head
from benchmarks.common import clock_of, in_turns, peak_of, write
from benchmarks.groups import seconds_together
from mlrpl_bench.data.dataset import NINE_RATIOS, Split
from mlrpl_bench.data.images import loader
from mlrpl_bench.models import backbones
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, load_methods
from mlrpl_bench.tools.profiling import settings, step_costs
from mlrpl_bench.training.options import PRECISIONS, Options
from mlrpl_bench.training.parts.device import forget_peak_memory, peak_memory
from mlrpl_bench.training.study import Study

COMPILED, GROUPED = ("ssgrl", "sarb"), "sarb"
FIRST = ("sarb", "ssgrl", "kggr", "gcn_ml", "partial_bce", "curriculum", "fm_mixup", "ip_mixup")
"""Of the steps, as the time may not suffice for all."""

Say = Callable[[str], None]


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


def correctness(session: Session) -> Iterator[tuple[str, Any]]:
    """A line for each thing checked: its largest differences as shares of the tolerance, or what is wrong."""
    methods = session.methods(few=("partial_bce", "sarb", "ip_mixup", "q2l"))
    for name, check in gpu_correctness.checks(methods, session.device).items():
        session.check_time()
        try:
            found = check()
            wrong = ", ".join(f"{key} {share:.1f} x" for key, share in found.items() if not share <= 1)
            yield name, {"of_tolerance": found} | ({"wrong": f"above the tolerance: {wrong}"} if wrong else {})
        except Exception as error:  # whatever a device raises
            yield name, {"wrong": reason(error)}


def frozen(session: Session) -> Iterator[tuple[str, Any]]:
    """The frozen part in bfloat16, by the way it is run."""
    side, batch, rounds = (32, 2, 1) if session.quick else (448, 64, 7)
    device, clock = session.torch_device, clock_of(session.torch_device)
    network = backbones.build(backbones.RESNET101, "random", folded=backbones.is_folded(backbones.RESNET101)).frozen
    network = network.to(device, memory_format=torch.channels_last)
    images_B3HW = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        forward(network, images_B3HW)
    flops, peak = counter.get_total_flops(), peak_of(device, torch.bfloat16)
    for name, make in FORMS.items():
        session.check_time()
        try:
            job = make(network, images_B3HW)
            seconds = statistics.median(row[0] for row in in_turns(rounds, job, clock=clock))
        except Exception as error:  # one way may not exist on a device
            yield name, {"not_possible": reason(error)}
            continue
        yield name, {"seconds": seconds, "images_per_second": batch / seconds, "share_of_peak": flops / seconds / peak}


def forward(network: nn.Module, images_B3HW: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast(images_B3HW.device.type, torch.bfloat16):
        maps_BDHW: Tensor = network(images_B3HW)
        return maps_BDHW


def as_cuda_graph(network: nn.Module, images_B3HW: Tensor) -> Callable[[], object]:
    """One recorded forward pass that is launched as a whole."""
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries choose their algorithms before anything is recorded
        forward(network, images_B3HW)
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.graph(graph):
        forward(network, images_B3HW)
    return graph.replay


FORMS: dict[str, Callable[[nn.Module, Tensor], Callable[[], object]]] = {
    "as it is trained with": lambda network, images: lambda: forward(network, images),
    "compiled": lambda network, images: (lambda compiled: lambda: forward(compiled, images))(torch.compile(network)),
    "as a CUDA graph": as_cuda_graph,
}


def steps(session: Session) -> Iterator[tuple[str, Any]]:
    """The cost of a step of every method, by batch and method; the papers' own in both batches first."""
    small, large = (4, 4) if session.quick else (16, 64)
    entries = session.methods(few=("sarb",))
    first, others = [[each for each in entries if (each.name in FIRST) == wanted] for wanted in (True, False)]
    for batch, chosen in ((small, first), (large, first), (small, others), (large, others)):
        bench = bench_of(session, batch=batch)
        for entry in chosen:
            session.check_time()
            yield f"batch {batch}, {entry.name}", cost_or_reason(bench, entry, session)


def deterministic(session: Session) -> Iterator[tuple[str, Any]]:
    """A step of every method with deterministic algorithms alone, or why there is none."""
    bench = bench_of(session, batch=16, deterministic=True)
    try:
        for entry in session.methods(few=("sarb", "q2l")):
            session.check_time()
            yield entry.name, cost_or_reason(bench, entry, session)
    finally:
        torch.use_deterministic_algorithms(False)


def bench_of(session: Session, **chosen: Any) -> settings.ProfilingSetting:
    return settings.paper_setting(session.options(**chosen), 80, 0.1, lambda *_: None)


def cost(bench: settings.ProfilingSetting, entry: MethodEntry, session: Session) -> dict[str, Any]:
    """What `profiling` says of one method.

    Raises:
        RuntimeError: the method failed.
    """
    if session.torch_device.type == "cuda":
        torch.cuda.empty_cache()
    found = step_costs.profile(bench, [entry], 1 if session.quick else 5, lambda *_: None, cells=False)
    for _, why in found.failures:
        raise RuntimeError(why)
    numbers = dataclasses.asdict(found.costs[0])
    return {name: numbers[name] for name in numbers if name != "method"} | {"peak_format": found.facts["peak_format"]}


def cost_or_reason(bench: settings.ProfilingSetting, entry: MethodEntry, session: Session) -> dict[str, Any]:
    """As `cost`; of a method that fails why, so that the others go on."""
    try:
        return cost(bench, entry, session)
    except RuntimeError as error:
        return {"wrong": reason(error)}


def head_forms(session: Session) -> Iterator[tuple[str, Any]]:
    """The literal and the short form, as `benchmarks.head` measures them."""
    plan = head.QUICK if session.quick else head.Plan(rounds=7)
    with gpu_correctness.no_tf32():
        for facts in head.measured(plan, session.torch_device):
            session.check_time()
            yield "forms", facts


def compiling(session: Session) -> Iterator[tuple[str, Any]]:
    """Steps with and without compiling."""
    registry = load_methods()
    for name in COMPILED:
        session.check_time()
        found = [
            cost_or_reason(bench_of(session, batch=16, compile=compiled), registry[name], session)
            for compiled in (False, True)
        ]
        if wrong := next((each["wrong"] for each in found if "wrong" in each), None):
            yield name, {"wrong": wrong}
            continue
        times = [each["step_seconds"] for each in found]
        yield name, {"seconds": dict(zip(("plain", "compiled"), times, strict=True)), "ratio": times[1] / times[0]}


class Photographs(settings.RandomData):
    """The labels of random data, with image files."""

    paths: ClassVar[list[Path]] = []

    def load(self, root: Path, split: str) -> Split:
        return dataclasses.replace(super().load(root, split), image_paths=self.paths)


def group(session: Session) -> Iterator[tuple[str, Any]]:
    """A group of nine cells beside one cell, with and without reading."""
    timed, rounds = (2, 1) if session.quick else (15, 3)
    options = session.options(batch=16, epochs=1)
    number = (timed + 1) * (options.batch or 0)
    options = dataclasses.replace(options, data={"categories": "80", "images": str(number)})
    # Loader processes may still read when the folder goes; and no image is kept, as none of COCO's would be.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        patch.object(loader, "KEEP_DECODED_BYTES", 0),
    ):
        Photographs.paths = data_pipeline.make_images(Path(folder), number)
        for name, study_type, dataset in (
            ("nine cells over one", Study, Photographs),
            ("nine cells over one, without reading", settings.InMemory, settings.RandomData),
        ):
            entry = DatasetEntry("paper", dataset, Path(__file__), settings.PAPER)
            yield name, nine_over_one(session, study_type(entry, options), timed, rounds)


def nine_over_one(session: Session, study: Study, timed: int, rounds: int) -> dict[str, Any]:
    """Step times, memory, and the ratio of the times, the median over rounds."""
    method = load_methods()[GROUPED]
    jobs = [study.job(method, ratio, 0, 0, {}) for ratio in NINE_RATIOS]
    found: dict[str, list[tuple[float, int]]] = {"alone": [], "nine": []}
    for number in range(rounds):
        session.check_time()
        for name, cells in (("alone", jobs[4:5]), ("nine", jobs))[:: 1 if number % 2 else -1]:  # neither always first
            session.say(f"group: {name}, round {number + 1} ...")
            gc.collect()
            forget_peak_memory(session.torch_device)
            seconds = seconds_together(cells, study.workbench, timed, clock_of(session.torch_device)) / timed
            found[name].append((seconds, peak_memory(session.torch_device)))
    ratios = [nine[0] / alone[0] for alone, nine in zip(found["alone"], found["nine"], strict=True)]
    return {
        "step_seconds": {name: statistics.median(row[0] for row in rows) for name, rows in found.items()},
        "peak_memory_bytes": {name: max(row[1] for row in rows) for name, rows in found.items()},
        "ratio": statistics.median(ratios),
    }


PARTS: dict[str, Callable[[Session], Iterator[tuple[str, Any]]]] = {
    "correctness": correctness,
    "frozen": frozen,
    "head": head_forms,
    "group": group,
    "compile": compiling,
    "steps": steps,
    "deterministic": deterministic,
}
"""The longest late, so that the time that runs out is theirs; the last one changes what the process allows."""


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
    for key, title in (("wrong", "WRONG"), ("not_possible", "not possible here")):
        if key in result:
            return f"{title}: {result[key]}"
    if "of_tolerance" in result:
        return f"right ({max(result['of_tolerance'].values(), default=0):.2f} of the tolerance)"
    if isinstance(result.get("step_seconds"), dict):
        return f"{result['ratio']:.2f} times; " + "; ".join(
            f"{name}: {1000 * seconds:.1f} ms, {result['peak_memory_bytes'][name] / 1e9:.2f} GB"
            for name, seconds in result["step_seconds"].items()
        )
    if "share_of_peak" in result:
        seconds = result.get("step_seconds") or result["seconds"]
        memory = f"{result['peak_memory_bytes'] / 1e9:.2f} GB, " if "peak_memory_bytes" in result else ""
        return (
            f"{1000 * seconds:.1f} ms, {result['images_per_second']:.0f} images/s, {memory}"
            f"{result['share_of_peak']:.2f} of peak"
        )
    ratios = result.get("ratios") or {"ratio": result["ratio"]}
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help="of steps, compile, group and deterministic"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a few methods: only to see that it runs")
    parser.add_argument("--seconds", type=float, default=480, help="after them nothing new is begun")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too, after every result")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --quick shows that the script runs")
    # Read when CUDA starts; deterministic algorithms need it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    until = time.monotonic() + options.seconds
    console = Console(soft_wrap=True, markup=False, highlight=False)
    session = Session(options.device, options.precision, options.quick, options.json, until, console.print)
    session.facts = {"device": session.machine(), "torch": torch.__version__, "cuda": torch.version.cuda}
    session.say(f"{session.machine()}, torch {torch.__version__}")
    for name in PARTS:
        if name in options.only:
            run_part(session, name)
    raise SystemExit(exit_code(session.facts))


def exit_code(facts: dict[str, Any]) -> int:
    """1 where a part failed or something is wrong, else 3 where something was left out, else 0."""
    parts = [facts[name] for name in PARTS if name in facts]
    if any("failed" in part or any("wrong" in result for result in part["results"].values()) for part in parts):
        return 1
    return 3 if any("left_out" in part for part in parts) else 0


if __name__ == "__main__":
    main()
