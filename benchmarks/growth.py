"""How time grows with what grows: categories, cells in a group, records in a leaderboard, images.

    python -m benchmarks.growth [--only categories group records images] [--quick] [--json PATH]
    python -m benchmarks.growth --draw      # docs/growth.svg from benchmarks/results/growth.json

Each part measures some sizes, and beside them a physical limit: what the same machine needs at least for the numbers
or bytes that the work cannot do without. Seconds are the processor's own, of one thread, so that other programs weigh
little. A part that was measured replaces that part of the file; the others stay.

- *categories*: a head's forward and backward (semantic decoupling, gated graph, classifiers; one image, maps of
  14 x 14, D = 1024, M = 512). Limit: its matrix products at the speed of the fastest product.
- *group*: a training step of all cells of a group on `scenes`. Limit: the shared part once, and each cell's own part.
- *records*: tables and page of a leaderboard of simulated records (`benchmarks.leaderboard`; few images, no figures).
  Limit: reading the files that hold records and evidence.
- *images*: labels after hiding, masks, label graph and row order, 80 categories. Limit: copying the labels.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import groups, simulated_world
from benchmarks.common import in_turns, measured_apart, peak_of, write
from mlrpl_bench.data.images.loader import row_order
from mlrpl_bench.data.protocol import ABSENT, PRESENT, hide, known_mask
from mlrpl_bench.leaderboard.report import figures
from mlrpl_bench.leaderboard.report.figures import COLOURS, DASHES, MARKERS
from mlrpl_bench.models.layers.attention import SemanticDecoupling
from mlrpl_bench.models.layers.graphs import cooccurrence
from mlrpl_bench.models.layers.heads import GraphHead
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "growth.json"
PICTURE = ROOT / "docs" / "growth.svg"

BATCH, SIDE, WIDTH, HIDDEN, WORD_WIDTH = 1, 14, 1024, 512, 300
CATEGORIES = 80
SEEDS_OF_RECORDS = 225
"""Records of a seed: 25 methods at nine known ratios."""


class Curve(NamedTuple):
    """What was measured at some sizes.

    Attributes:
        unit: what the sizes count.
        sizes: rising.
        seconds: by name, at each size.
        limit: what the limit is, in words.
        limit_seconds: at each size.
        more: other numbers at each size, by name.
    """

    unit: str
    sizes: list[int]
    seconds: dict[str, list[float]]
    limit: str
    limit_seconds: list[float]
    more: dict[str, list[float]] = {}  # noqa: RUF012 - never changed


def of_categories(sizes: Sequence[int], rounds: int = 1) -> Curve:
    """The head's step, by number of categories."""
    seconds, flops = [], []
    for count in sizes:
        step = head_step(count)
        with FlopCounterMode(display=False) as counter:
            step()  # and warms up
        flops.append(counter.get_total_flops())
        seconds.append(min(row[0] for row in in_turns(rounds, step, clock=time.process_time, warm_up=False)))
    peak = peak_of(torch.device("cpu"))
    limit = "its matrix products at the fastest product's speed"
    return Curve("categories", list(sizes), {"head": seconds}, limit, [number / peak for number in flops])


def head_step(num_categories: int) -> Callable[[], object]:
    """A forward and backward pass of SSGRL's head on random maps."""
    torch.manual_seed(0)
    maps_BDHW = torch.randn(BATCH, WIDTH, SIDE, SIDE, requires_grad=True)
    words_CE = torch.randn(num_categories, WORD_WIDTH)
    labels_BC = torch.where(torch.rand(BATCH, num_categories) < 0.1, PRESENT, ABSENT).to(torch.int8)
    decoupling = SemanticDecoupling(WIDTH, WORD_WIDTH, HIDDEN)
    head = GraphHead(WIDTH, torch.rand(num_categories, num_categories) / num_categories)

    def step() -> None:
        partial_bce(head(decoupling(maps_BDHW, words_CE)), labels_BC).backward()

    return step


def of_group(sizes: Sequence[int], steps: int = 3) -> Curve:
    """A step of a group, by number of cells: SSGRL at nine known ratios, then SARB."""
    study = Study(load_datasets()["scenes"], Options(device="cpu", epochs=1, weights="random"))
    jobs_of = groups.series(study)
    jobs = [*jobs_of["ssgrl"], *jobs_of["sarb"]][: max(sizes)]
    found = groups.one_round(jobs, study.workbench, groups.Plan(steps, 1, sizes))
    floor = [(found[n]["shared"] + found[n]["own"]) / steps for n in sizes]
    alone = [found[n]["alone"] / steps for n in sizes]
    together = [found[n]["group"] / steps for n in sizes]
    limit = "the shared part once, and each cell's own part"
    return Curve("cells in a group", list(sizes), {"in a group": together, "each alone": alone}, limit, floor)


def of_records(sizes: Sequence[int]) -> Curve:
    """A leaderboard's tables and page, by number of records; more of them by more seeds."""
    found = []
    for name in simulated_world.IMPORTED_ON_USE:
        importlib.import_module(name)
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            seeds = -(-count // SEEDS_OF_RECORDS)
            world = simulated_world.World(Path(folder), simulated_world.Sizes(count, 100, 120, 20, seeds))
            measured_apart(simulated_world.make, world)
            facts = measured_apart(table_of_records, world)
            found.append({**facts, "page_mb": len(simulated_world.written_in(world.results)["index.html"]) / 1e6})
    return Curve(
        "records",
        list(sizes),
        {"tables and page": [facts["seconds"] for facts in found]},
        "reading the records' files",
        [facts["reading"] for facts in found],
        {name: [facts[name] for facts in found] for name in ("peak_gb", "page_mb")},
    )


def table_of_records(world: simulated_world.World) -> dict[str, float]:
    """Processor seconds of reading the files alone, and of the whole table; in a process of its own."""
    figures.draw_all = lambda *_: {}  # as many lines are drawn however many records there are
    start = time.process_time()
    for name in ("record.json", "evidence.npz"):
        for path in world.results.rglob(name):
            path.read_bytes()
    read = time.process_time()
    world.table(ResultStore(world.results))
    return {"reading": read - start, "seconds": time.process_time() - read}


def of_images(sizes: Sequence[int], rounds: int = 1) -> Curve:
    """What is done with the labels of all images before training, by their number."""
    rows: list[dict[str, float]] = []
    for count in sizes:
        labels_NC = simulated_world.simulated_labels(count, CATEGORIES)
        mask_NC, ids = known_mask(labels_NC.shape, 0.5), list(range(count))
        hidden_NC = torch.from_numpy(hide(labels_NC, mask_NC))
        jobs: dict[str, Callable[[], object]] = {
            "copy": labels_NC.copy,
            "hiding": lambda labels_NC=labels_NC, mask_NC=mask_NC: hide(labels_NC, mask_NC),
            "mask, hcp": lambda shape=labels_NC.shape: known_mask(shape, 0.5),
            "mask, by_id": lambda shape=labels_NC.shape, ids=ids: known_mask(shape, 0.5, scheme="by_id", ids=ids),
            "label graph": lambda hidden_NC=hidden_NC: cooccurrence(hidden_NC),
            "row order": lambda count=count: row_order(count, 0, 0),
        }
        taken = in_turns(rounds, *jobs.values(), clock=time.process_time, warm_up=False)
        rows.append({name: min(row[place] for row in taken) for place, name in enumerate(jobs)})
    names = [name for name in rows[0] if name != "copy"]
    seconds = {name: [row[name] for row in rows] for name in names}
    return Curve("images", list(sizes), seconds, "copying the labels", [row["copy"] for row in rows])


PARTS: dict[str, tuple[Callable[[Sequence[int]], Curve], Sequence[int], Sequence[int]]] = {
    "categories": (of_categories, (20, 80, 200, 1000), (3, 6)),
    "group": (of_group, (1, 3, 9, 18), (1, 2)),
    "records": (of_records, (1125, 2250, 4500, 20_250), (18, 36)),
    "images": (of_images, (10_000, 100_000, 1_000_000), (200, 400)),
}
"""By name what measures it, its sizes, and those of a run that only shows that it works."""


PAGE_MB = 10
"""What a leaderboard's page may have."""


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the power of the size with which time grows between the two largest sizes; 1 is linear.

    >>> exponent([1, 10, 100], [5.0, 7.0, 700.0])
    2.0
    """
    if len(sizes) < 2:  # a single size has no curve
        return math.nan
    return float(np.log(seconds[-1] / seconds[-2]) / np.log(sizes[-1] / sizes[-2]))


def ratios(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What `benchmarks.check` compares: how time and memory grow at the end of each curve, as ten to that power.

    A group's further cells are of another method, which is dearer: there the time over the limit counts. Of a page the
    largest size counts, as a share of what it may have.
    """
    found = {}
    for part, curve in parts.items():
        if part == "group":
            found["group, in a group: over the limit"] = curve["seconds"]["in a group"][-1] / curve["limit_seconds"][-1]
            continue
        grows = curve["seconds"] | {name: sizes for name, sizes in curve["more"].items() if name == "peak_gb"}
        for name, values in grows.items():
            if not math.isnan(power := exponent(curve["sizes"], values)):
                found[f"{part}, {name}: growth for ten times the size"] = 10**power
        if "page_mb" in curve["more"]:
            found[f"{part}, page: largest over {PAGE_MB} MB"] = max(curve["more"]["page_mb"]) / PAGE_MB
    return {name: round(ratio, 2) for name, ratio in found.items()}


def table_of(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Growth", caption="power: of the size, between the two largest; limit: of the largest size")
    table.add_column("what grows", no_wrap=True)
    for heading in ("from", "to", "smallest", "largest", "power", "of limit"):
        table.add_column(heading, justify="right")
    for part, curve in parts.items():
        ends = [f"{size:,}" for size in (curve["sizes"][0], curve["sizes"][-1])]
        for name, seconds in curve["seconds"].items():
            power, times = exponent(curve["sizes"], seconds), seconds[-1] / curve["limit_seconds"][-1]
            shown = (f"{value:.3g} s" for value in (seconds[0], seconds[-1]))
            table.add_row(f"{part}: {name}", *ends, *shown, f"{power:.2f}", f"{times:.1f}")
        for name, values in curve["more"].items():
            table.add_row(f"{part}: {name}", *ends, f"{values[0]:.3g}", f"{values[-1]:.3g}")
    return table


def draw(file: Path = RESULTS) -> bytes:
    """Draw a panel for each part as an SVG; its description holds the SHA-256 of the file that it was drawn from."""
    content = file.read_bytes()
    parts = json.loads(content)["parts"]
    with rc_context({"svg.hashsalt": PICTURE.name, "svg.fonttype": "none", "font.size": 8}):
        figure = Figure((7.6, 7.2), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        for panel, (part, curve) in zip(figure.subplots(2, 2).flat, parts.items(), strict=False):
            for slot, (name, seconds) in enumerate(curve["seconds"].items()):
                style = {"color": COLOURS[slot], "linestyle": DASHES[slot], "marker": MARKERS[slot]}
                panel.plot(curve["sizes"], seconds, **style, markersize=4, linewidth=1.4, label=name)
            panel.plot(curve["sizes"], curve["limit_seconds"], color="#565d66", linestyle=":", label=curve["limit"])
            panel.set(xscale="log", yscale="log", xlabel=curve["unit"], ylabel="processor seconds", title=part)
            panel.grid(color="#d9dbd6", linewidth=0.5)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xticks(curve["sizes"], [f"{size:,}" for size in curve["sizes"]])
            panel.minorticks_off()
            columns = 1 if len(curve["seconds"]) < 3 else 2
            panel.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)
        buffer = io.BytesIO()
        digest = hashlib.sha256(content).hexdigest()
        metadata = {"Date": None, "Title": "Growth", "Description": f"made from a file with SHA-256 {digest}"}
        figure.savefig(buffer, format="svg", metadata=metadata, facecolor="white")
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="parts to measure")
    parser.add_argument("--sizes", nargs="+", type=int, help="other sizes, for a single part")
    parser.add_argument("--quick", action="store_true", help="small sizes, only to see that it runs")
    parser.add_argument("--draw", action="store_true", help="measure nothing; draw docs/growth.svg")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too, beside its other parts")
    options = parser.parse_args(arguments)
    if options.draw:
        PICTURE.write_bytes(draw())
        return
    if options.sizes and len(options.only) != 1:
        parser.error("--sizes goes with --only and a single part")
    torch.set_num_threads(1)
    parts: dict[str, Any] = {}
    if options.json is not None and options.json.exists():
        parts = json.loads(options.json.read_text(encoding="utf-8"))["parts"]
    for name in options.only:
        Console(stderr=True).print(f"{name} ...")
        measure, usual, quick = PARTS[name]
        sizes = options.sizes or (quick if options.quick else usual)
        parts[name] = measure(sorted(sizes))._asdict()
        ordered = {part: parts[part] for part in PARTS if part in parts}
        command = ["-m", "benchmarks.growth", "--only", *ordered]
        write(options.json, command, {"parts": ordered, "ratios": ratios(ordered)})
    Console().print(table_of(ordered))


if __name__ == "__main__":
    main()
