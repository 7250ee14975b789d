"""A leaderboard with whole records in a folder, made up without training; test modules import this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlrpl_bench.leaderboard.tables.main import Context, Leaderboard, build
from mlrpl_bench.records.cell import Setting
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore
from tests.helpers.tiny_study import CATEGORIES, SETTING, cell, cells_of, finished

RATIOS = (0.1, 0.5)
PROVENANCE = {
    "mlrpl_bench": "0",
    "git": {"commit": "c0ffee", "changed": True},
    "versions": {"torch": "2"},
    "device": "d",
}
HOSTILE = "<script>alert(1)</script>"
METHODS = ("plain", "strong", "weak", "middle")


def records(folder: Path, methods=METHODS, seeds: int = 2, setting: Setting = SETTING) -> list[Record]:
    """Of each method at each ratio and seed; a method's place in the list does not tell its strength."""
    store, found = ResultStore(folder), []
    for method in methods:
        for ratio in RATIOS:
            for seed in range(seeds):
                of = cell(
                    setting=setting, method=method, ratio=ratio, seed=seed, mask_seed=seed, hyperparameters={"start": 1}
                )
                found.append(store.write(finished(of, seed=len(found), **logged(seed)), PROVENANCE))
    return found


def logged(seed: int) -> dict[str, Any]:
    """Two loss terms, of which one begins in the second epoch, and a scalar."""
    history = [
        {"epoch": epoch, "loss.bce": 0.5, "scalar.alpha": 0.5 + epoch + seed, "test.mAP": 0.25} for epoch in range(2)
    ]
    late_S = np.array([np.nan] * 3 + [1.0, 2, 3], dtype=np.float32)
    return {"history": history, "steps": {"bce": np.arange(6, dtype=np.float32), "late": late_S}}


def leaderboard(folder: Path, methods=METHODS, categories=CATEGORIES, **options: Any) -> Leaderboard:
    """With a hole, and a line on top."""
    of = records(folder, methods, **options)
    cells = dict(cells_of(of, noise=1.0))
    for ratio in RATIOS:
        cells["top", ratio] = cells[methods[0], 0.5]
    context = Context(
        differs={methods[0]: "shorter & <b>bolder</b>"},
        deviations=("epochs 2 (papers: 20)",),
        reference_rows={"top": "the upper line"},
        categories=categories,
    )
    return build(cells, [*methods, "absent"], RATIOS, context, {("absent", 0.1): "failed: out of memory (seed 0)"})
