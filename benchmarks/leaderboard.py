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
import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mlrpl_bench.api.actions import execute
from mlrpl_bench.api.actions.training import cells
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.cli.leaderboard_cache import CachedLeaderboard, CacheKey
from mlrpl_bench.data import protocol
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.evaluation import intervals, metrics
from mlrpl_bench.leaderboard import evidence, measurements
from mlrpl_bench.leaderboard.claims import claims
from mlrpl_bench.leaderboard.evidence import Collector, Evidence
from mlrpl_bench.leaderboard.report import examples, figures, page, write
from mlrpl_bench.leaderboard.tables import main as leaderboard
from mlrpl_bench.models.registry import MethodEntry, load_datasets, load_methods
from mlrpl_bench.records.cell import Cell, Finished
from mlrpl_bench.records.record import RECORD, Record, read_record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils import tables
from mlrpl_bench.utils.processes import usable_cores

ROOT = Path(__file__).resolve().parents[1]
SCORE_FILES, COLD_CELLS = 12, 5
DATASET = "simulated"
IMPORTED_ON_USE = ("pandas", "scipy.optimize", "scipy.stats")
"""Imported before the processes part, so that no one's time has them."""
PLUGIN = '''"""Labels drawn at random; every picture is this file."""

from pathlib import Path

import numpy as np

from mlrpl_bench.data.dataset import Dataset, Preset, Split
from mlrpl_bench.models.registry import register_dataset


@register_dataset("simulated", preset=Preset(448, "small"))
class Simulated(Dataset):
    needs_root = False

    def load(self, root, split):
        labels_NC = np.load(Path(__file__).with_name(f"{split}.npy"))
        names = tuple(f"thing {number}" for number in range(labels_NC.shape[1]))
        return Split(range(len(labels_NC)), [Path(__file__)] * len(labels_NC), labels_NC, names)
'''


class Sizes(NamedTuple):
    """How much is simulated."""

    cells: int = 1125
    images: int = 40_504
    train_images: int = 82_783
    categories: int = 80
    seeds: int = 5


QUICK = Sizes(cells=90, images=100, train_images=120, categories=4)


class World:
    """A folder with a data set, results of it and a cache."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        self.plugin, self.results = folder / "simulated.py", folder / "results"
        os.environ["MLRPL_CACHE"] = str(folder / "cache")

    @property
    def methods(self) -> list[MethodEntry]:
        """As many as the cells need; their names are those that the papers' claims speak of, as far as they go."""
        registry, count = load_methods(), -(-self.sizes.cells // (len(NINE_RATIOS) * self.sizes.seeds))
        names = sorted(registry, key=lambda name: (name not in claims.rows_needed(), name))
        return [registry[name] for name in names[:count]]

    def study(self) -> Study:
        return Study(load_datasets([self.plugin])[DATASET], Options(device="cpu"))

    def make(self) -> None:
        """The data set, a few records with evidence, and the cells that link to them."""
        self.plugin.write_text(PLUGIN, encoding="utf-8")
        for name, rows in (("train", self.sizes.train_images), ("test", self.sizes.images)):
            np.save(self.folder / f"{name}.npy", simulated_labels(rows, self.sizes.categories))
        study, store = self.study(), ResultStore(self.results)
        collector = Collector(study.train, study.test, study.masks)
        bases = ResultStore(self.folder / "drawn")
        drawn = []
        for number in range(SCORE_FILES):
            cell = study.job(self.methods[0], NINE_RATIOS[number % 9], number, number, {}).cell
            drawn.append(collector.collect(bases.write(simulated(cell, study, number), {}, keep_weights=False)))
        for number, cell in enumerate(self.cells(study)):
            share(store, cell, drawn[sum(divmod(number, self.sizes.seeds)) % SCORE_FILES])

    def cells(self, study: Study) -> Iterator[Cell]:
        """By method, ratio and seed; a mask's hash is computed once for all methods."""
        grid = list(itertools.product(NINE_RATIOS, range(self.sizes.seeds)))
        hashes = {(ratio, seed): protocol.mask_hash(study.masks(ratio, seed)) for ratio, seed in grid}
        usual = [study.job(entry, 1.0, 0, 0, {}).cell for entry in self.methods]
        every = (
            replace(cell, ratio=ratio, seed=seed, mask_seed=seed, mask_hash=hashes[ratio, seed])
            for cell in usual
            for ratio, seed in grid
        )
        return itertools.islice(every, self.sizes.cells)

    def table(self, store: ResultStore) -> None:
        """All that the command ``leaderboard --no-train`` does."""
        request = Request(
            dataset=DATASET,
            methods=tuple(entry.name for entry in self.methods),
            ratios=NINE_RATIOS,
            seeds=self.sizes.seeds,
            options=Options(device="cpu"),
            plugins=(self.plugin,),
            results=(store.root,),
            train=False,
            only_these_rows=True,
            leaderboard=True,
        )
        found = execute.execute(resolve(request, Quiet()), Quiet())
        assert not found.problems and found.leaderboard is not None

    def in_other_order(self) -> Path:
        """The same results in folders that are made in another order."""
        other = self.folder / "shuffled"
        files = sorted(path for path in self.results.rglob("*/*/*/*") if path.is_file())
        random.Random(0).shuffle(files)
        for path in files:
            link = other / path.relative_to(self.results)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
        return other


def simulated_labels(rows: int, categories: int) -> NDArray[np.int8]:
    """Some categories much more frequent than others; about three an image at COCO's size."""
    random_numbers = np.random.default_rng(rows)
    share_C = 0.6 / np.arange(1, categories + 1)
    labels_NC = np.where(random_numbers.random((rows, categories)) < share_C, PRESENT, ABSENT).astype(np.int8)
    labels_NC[:2] = [[PRESENT], [ABSENT]]  # no category without either
    return labels_NC


def simulated(cell: Cell, study: Study, number: int) -> Finished:
    """What training might have left behind, with more skill the higher the number."""
    random_numbers = np.random.default_rng(number)

    def scores_of(labels_NC: NDArray[np.int8]) -> NDArray[np.float32]:
        noise_NC = random_numbers.normal(size=labels_NC.shape)
        return ((1 + 0.02 * number) * labels_NC + noise_NC).astype(np.float32)

    epochs, steps = study.preset.epochs, len(study.train) // study.preset.batch
    scores_NC, train_scores_NC = scores_of(study.test.labels_NC), scores_of(study.train.labels_NC)
    measured = metrics.evaluate(scores_NC, study.test.labels_NC)
    row = {"loss.partial_bce": 0.1, "lr": 1e-5, **{f"test.{name}": measured[name] for name in ("mAP", "OF1", "CF1")}}
    return Finished(
        cell=cell,
        history=[{"epoch": epoch, **row} for epoch in range(epochs)],
        steps={"partial_bce": random_numbers.random(epochs * steps).astype(np.float32)},
        scores_NC=scores_NC,
        train_scores_NC=train_scores_NC,
        examples={"rows": np.arange(8), "scores": scores_NC[:8]},
        metrics=measured,
        best_epoch=epochs - 1,
        best_metrics=measured,
        weights={},
        known_share={"present": cell.ratio, "absent": cell.ratio},
        dropped_images=0,
        seconds=1000.0 + number,
        images_per_second=100.0,
        peak_memory_bytes=10**9,
        cells_in_group=1,
        threads=(1,),
    )


def share(store: ResultStore, cell: Cell, drawn: Evidence) -> None:
    """A cell's record with the files, and the evidence, of another."""
    folder = store.folder(cell)
    folder.mkdir(parents=True)
    for name in drawn.record.content["files"]:
        os.link(drawn.record.folder / name, folder / name)
    content = {**drawn.record.content, "cell": cell.to_json(), "key": cell.key}
    (folder / RECORD).write_text(json.dumps(content, indent=1), encoding="utf-8")
    record = read_record(folder / RECORD)
    evidence._keep(replace(drawn, record=record), evidence._source(record))


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


def measured_apart(job: Callable[..., dict[str, float]], *given: Any) -> dict[str, float]:
    """A job's numbers from a process of its own, with its ``peak_gb`` where the job does not say another."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def work() -> None:
        found = job(*given)
        sending.send({"peak_gb": peak_gb(resource.RUSAGE_SELF), **found})

    process = context.Process(target=work)
    process.start()
    sending.close()
    with contextlib.suppress(EOFError):
        found: dict[str, float] = receiving.recv()
        process.join()
        return found
    raise SystemExit(f"{job.__name__} failed")


def peak_gb(of: int) -> float:
    return resource.getrusage(of).ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def make(world: World) -> dict[str, float]:
    start = time.perf_counter()
    world.make()
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


def written_in(root: Path) -> dict[str, bytes]:
    """Tables, page and figures, by name."""
    paths = sorted([*(root / DATASET).glob("*"), *(root / DATASET).glob("figures/*")])
    return {path.relative_to(root / DATASET).as_posix(): path.read_bytes() for path in paths if path.is_file()}


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
