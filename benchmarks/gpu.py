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
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import gpu_correctness, head
from benchmarks.common import clock_of, write
from benchmarks.groups import seconds_together
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, load_methods
from mlrpl_bench.tools.profiling import settings, step_costs
from mlrpl_bench.training.options import PRECISIONS, Options
from mlrpl_bench.training.parts.device import forget_peak_memory, peak_memory

COMPILED, GROUPED = ("ssgrl", "sarb"), "sarb"

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
    methods = session.methods(few=("partial_bce", "sarb", "ip_mixup"))
    for name, check in gpu_correctness.checks(methods, session.device).items():
        session.check_time()
        try:
            found = check()
            wrong = ", ".join(f"{key} {share:.1f} x" for key, share in found.items() if not share <= 1)
            yield name, {"of_tolerance": found} | ({"wrong": f"above the tolerance: {wrong}"} if wrong else {})
        except Exception as error:  # whatever a device raises
            yield name, {"wrong": reason(error)}


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
    with gpu_correctness.no_tf32():
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
