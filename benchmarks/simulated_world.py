"""A made-up world at COCO's size: labels, records that hold simulated scores, and the leaderboard of them.

`benchmarks.leaderboard` and `benchmarks.growth` measure in it. The records are real files: a few are drawn, and every
cell links to one of them. Labels, masks, metrics and hashes are those of the files, so all checks pass.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.api.actions import execute
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.data import protocol
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard import evidence
from mlrpl_bench.leaderboard.claims import claims
from mlrpl_bench.leaderboard.evidence import Collector, Evidence
from mlrpl_bench.models.registry import MethodEntry, load_datasets, load_methods
from mlrpl_bench.records.cell import Cell, Finished
from mlrpl_bench.records.record import RECORD, read_record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study

SCORE_FILES = 12
"""So many cells have scores of their own."""

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


def make(world: World) -> dict[str, float]:
    start = time.perf_counter()
    world.make()
    return {"seconds": time.perf_counter() - start}


def written_in(root: Path) -> dict[str, bytes]:
    """Tables, page and figures, by name."""
    paths = sorted([*(root / DATASET).glob("*"), *(root / DATASET).glob("figures/*")])
    return {path.relative_to(root / DATASET).as_posix(): path.read_bytes() for path in paths if path.is_file()}
