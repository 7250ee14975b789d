"""How long a leaderboard of many records takes, and how much memory: 25 methods x 9 ratios x 5 seeds at COCO's size.

    python -m benchmarks.leaderboard [--cells 1125] [--images 40504] [--train-images 82783] [--json PATH]
    python -m benchmarks.leaderboard --quick    # small, without figures and whole commands

The records are real files that hold simulated scores: a few are drawn, and every cell links to one of them (a disk
would otherwise need 45 GB). Labels, masks, metrics and hashes are those of the files, so all checks pass. Only what is
kept of each cell's evidence is a shortcut: it is made for the few files and then written beside each record.

Each measurement runs in a process of its own, whose highest memory counts (the imports, with torch, are in it).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import measured_apart, peak_gb
from benchmarks.simulated_world import DATASET, IMPORTED_ON_USE, QUICK, Sizes, World, make, written_in
from mlrpl_bench.api.actions.training import cells
from mlrpl_bench.api.request import Request
from mlrpl_bench.cli.leaderboard_cache import CachedLeaderboard, CacheKey
from mlrpl_bench.evaluation import intervals
from mlrpl_bench.leaderboard import evidence, measurements
from mlrpl_bench.leaderboard.claims import claims
from mlrpl_bench.leaderboard.evidence import Collector
from mlrpl_bench.leaderboard.report import examples, figures, page, write
from mlrpl_bench.leaderboard.tables import main as leaderboard
from mlrpl_bench.records.record import RECORD, Record, read_record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils import tables
from mlrpl_bench.utils.processes import usable_cores

ROOT = Path(__file__).resolve().parents[1]
COLD_CELLS = 5


class Stages:
    """Where the time goes: functions are replaced by ones that count, time within another counted one aside."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [("other", time.perf_counter())]

    def _turn(self) -> None:
        now = time.perf_counter()
        name, since = self._open[-1]
        self.seconds[name] += now - since
        self._open[-1] = (name, now)

    def count(self, owner: Any, attribute: str, name: str) -> None:
        function = getattr(owner, attribute)

        def counted(*given: Any, **named: Any) -> Any:
            self._turn()
            self._open.append((name, time.perf_counter()))
            try:
                return function(*given, **named)
            finally:
                self._turn()
                self._open.pop()
                self._open[-1] = (self._open[-1][0], time.perf_counter())

        setattr(owner, attribute, counted)

    def finish(self) -> dict[str, float]:
        self._turn()
        return dict(self.seconds)


COUNTED: tuple[tuple[Any, str, str], ...] = (
    (Study, "__init__", "data set"),
    (cells, "jobs_of", "planning cells (masks)"),
    (sweep, "missing", "reading records"),
    (ResultStore, "survey", "reading records"),
    (Collector, "collect", "reading evidence"),
    (intervals, "intervals", "intervals"),
    (intervals, "all_paired", "paired comparisons"),
    (measurements, "measure", "measurements"),
    (leaderboard, "build", "tables"),
    (claims, "judge", "claims"),
    (write, "table_files", "writing tables"),
    (figures, "draw_all", "figures"),
    (examples, "draw", "page"),
    (page, "render", "page"),
)


def regenerate(world: World, root: Path, quick: bool) -> dict[str, float]:
    """Seconds by stage, and of all."""
    if quick:
        figures.draw_all = lambda *_: {}  # in this process alone
    stages = Stages()
    for counted in COUNTED:
        stages.count(*counted)
    start = time.perf_counter()
    world.table(ResultStore(root))
    return {"all": time.perf_counter() - start, **stages.finish()}


def cold(world: World) -> dict[str, float]:
    """Seconds for the evidence of a cell of which none is kept."""
    study = world.study()
    collector = Collector(study.train, study.test, study.masks)
    folders = sorted((world.folder / "drawn" / DATASET).glob("*/*"))[:COLD_CELLS]
    records: list[Record] = [read_record(folder / RECORD) for folder in folders]
    for record in records:
        (record.folder / evidence.FILE).unlink()
    start = time.perf_counter()
    for record in records:
        collector.collect(record)
    seconds = (time.perf_counter() - start) / len(records)
    return {"seconds_per_cell": seconds, "cells_per_hour": 3600 / seconds}


def found_unchanged(world: World) -> dict[str, float]:
    """Seconds to see that nothing changed."""
    table = tables.Table("leaderboard", "Leaderboard", ("a",), [("b", [tables.Entry("1")])])
    question = CacheKey(Request(dataset=DATASET, results=(world.results,), plugins=(world.plugin,)))
    question.remember(CachedLeaderboard.from_table(table, {}, []), question.state())
    start = time.perf_counter()
    found = question.find()
    assert found is not None
    return {"seconds": time.perf_counter() - start}


def whole_command(world: World) -> dict[str, float]:
    """Seconds and highest memory of ``bench.py leaderboard``."""
    names = ",".join(entry.name for entry in world.methods)
    command = [sys.executable, "bench.py", "leaderboard", "--dataset", DATASET, "--plugin", str(world.plugin)]
    command += ["--methods", names, "--ratios", "all", "--seeds", str(world.sizes.seeds)]
    command += ["--results-dir", str(world.results), "--no-train", "--device", "cpu"]
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - start, "peak_gb": peak_gb(resource.RUSAGE_CHILDREN)}


def measure(world: World, quick: bool) -> dict[str, Any]:
    """Everything, by name."""
    say = Console(stderr=True).print
    for name in IMPORTED_ON_USE:
        importlib.import_module(name)
    say("making records ...")
    facts: dict[str, Any] = {"making": measured_apart(make, world)}
    say("making tables, twice ...")
    facts["regenerated"] = measured_apart(regenerate, world, world.results, quick)
    other = world.in_other_order()
    facts["in_other_order"] = measured_apart(regenerate, world, other, quick)
    first, second = written_in(world.results), written_in(other)
    facts["identical"] = bool(first) and first == second
    facts["bytes_written"] = {name: len(content) for name, content in first.items()}
    say("making evidence anew, finding what did not change ...")
    facts["cold"] = measured_apart(cold, world)
    facts["unchanged"] = measured_apart(found_unchanged, world)
    if not quick:
        facts["command"] = measured_apart(whole_command, world)
        facts["command_unchanged"] = {"seconds": whole_command(world)["seconds"]}
    return facts


def table_of(facts: dict[str, Any], title: str) -> Table:
    table = Table(title=title, caption="indented: parts of the line above")
    table.add_column("leaderboard", no_wrap=True)
    for heading in ("seconds", "peak GB"):
        table.add_column(heading, justify="right")
    made, remade = facts["regenerated"], facts["cold"]
    table.add_row("tables, page and figures", f"{made['all']:.1f}", f"{made['peak_gb']:.2f}")
    for name, seconds in sorted(made.items(), key=lambda item: -item[1]):
        if name not in ("all", "peak_gb"):
            table.add_row(f"  {name}", f"{seconds:.1f}")
    rate = f"evidence of a cell, anew ({remade['cells_per_hour']:,.0f} cells/h)"
    table.add_row(rate, f"{remade['seconds_per_cell']:.2f}", f"{remade['peak_gb']:.2f}")
    table.add_row("seeing that nothing changed", f"{facts['unchanged']['seconds']:.2f}")
    for key, name in (("command", "bench.py leaderboard"), ("command_unchanged", "bench.py leaderboard, unchanged")):
        if key in facts:
            peak = f"{facts[key]['peak_gb']:.2f}" if "peak_gb" in facts[key] else ""
            table.add_row(name, f"{facts[key]['seconds']:.1f}", peak)
    table.add_row("same bytes from folders in another order", "yes" if facts["identical"] else "NO")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Sizes()
    for name in Sizes._fields:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(usual, name))
    parser.add_argument("--quick", action="store_true", help="small, without figures and whole commands")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes(*(getattr(options, name) for name in Sizes._fields))
    with tempfile.TemporaryDirectory() as name:
        facts = measure(World(Path(name), sizes), options.quick)
    cores = len(usable_cores())
    words = {1: "one core", 2: "two cores"}.get(cores, f"{cores} cores")
    machine = f"{words} of an {platform.machine().replace('_', '-')} CPU"
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    title = f"{sizes.cells:,} cells, {sizes.images:,} images, {sizes.categories} categories; {machine}"
    Console().print(table_of(facts, title))
    if options.json is not None:
        report = {"machine": machine, "threads": threads, "sizes": sizes._asdict(), **facts}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
