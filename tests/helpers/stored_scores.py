"""Records of made-up scores on disk, with the evidence of them and the split that they are of.

Test modules import this; it has no tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.evaluation.influences import influences
from mlrpl_bench.leaderboard.evidence import Evidence, EvidenceGrid, Seeds
from mlrpl_bench.records.store import ResultStore
from tests.helpers.tiny_study import cell, finished

CATEGORIES = ("cat", "dog", "owl", "bat")


class Stored(NamedTuple):
    """What was stored.

    Attributes:
        cells: the evidence of the records.
        test: the images that were evaluated.
    """

    cells: EvidenceGrid
    test: Split


def split(images: int = 120) -> Split:
    """Images of which a third have each category, and none has the last one."""
    present_NC = np.random.default_rng(1).random((images, len(CATEGORIES))) < 1 / 3
    present_NC[:, -1] = False
    labels_NC = np.where(present_NC, PRESENT, ABSENT).astype(np.int8)
    return Split(list(range(images)), [Path(f"{n}.jpg") for n in range(images)], labels_NC, CATEGORIES)


def stored(
    folder: Path,
    skills: Mapping[str, float | Sequence[float]],
    seeds: Sequence[Seeds] = ((0, 0), (1, 1), (2, 2)),
    ratios: Sequence[float] = (0.1, 0.5),
    own_noise: float = 1.0,
    **facts: Any,
) -> Stored:
    """Store scores that are a skill (of all categories, or of each) times the truth, and noise.

    Args:
        own_noise: the part of the noise that each seed draws by itself; the other part belongs to the images.
        facts: entries of the records, such as ``device``.
    """
    store, test = ResultStore(folder), split()
    shape = test.labels_NC.shape
    shared_NC = np.random.default_rng(2).normal(size=shape)
    cells: dict[tuple[str, float], dict[Seeds, Evidence]] = {}
    for label, skill in skills.items():
        for ratio in ratios:
            for of in seeds:
                random = np.random.default_rng([*map(ord, label), round(100 * ratio), *of])
                scores_NC = np.asarray(skill) * test.labels_NC + shared_NC + own_noise * random.normal(size=shape)
                scores_NC = scores_NC.astype(np.float32)
                measured = metrics.evaluate(scores_NC, test.labels_NC)
                done = finished(
                    cell(method=label, ratio=ratio, seed=of[0], mask_seed=of[1]),
                    scores_NC=scores_NC,
                    metrics=measured,
                    best_metrics=measured,
                )
                record = store.write(done, facts)
                drawn = influences(scores_NC, test.labels_NC)
                by_metric = {name: drawn[name].astype(np.float32) for name in metrics.REPORTED}
                cells.setdefault((label, ratio), {})[of] = Evidence(record, by_metric, 0.5, np.full(4, 0.5), 0.01)
    return Stored(cells, test)
