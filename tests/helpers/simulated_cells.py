"""Evidence of cells that were never trained: scores drawn around a skill, metrics and influences really theirs.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import numpy as np

from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.evaluation.influences import influences as influences_of
from mlrpl_bench.leaderboard.evidence import Evidence, EvidenceGrid, Seeds
from tests.helpers import tiny_study as tiny

IMAGES, CATEGORIES = 150, 5
RATIOS = (0.1, 0.5, 0.9)


def seeds(count: int) -> list[Seeds]:
    return [(seed, seed) for seed in range(count)]


def evidence(label: str, ratio: float, of: Seeds, skill: float, fluctuation: float = 0.01, world: int = 0) -> Evidence:
    """A cell whose scores are skill times the truth and noise, most of which belongs to the image and all share."""
    shared = np.random.default_rng([world, 99])
    labels_NC = np.where(shared.random((IMAGES, CATEGORIES)) < 0.4, PRESENT, ABSENT).astype(np.int8)
    own = np.random.default_rng([world, *map(ord, label), round(10 * ratio), *of])
    noise_NC = shared.normal(size=labels_NC.shape) + 0.15 * own.normal(size=labels_NC.shape)
    scores_NC = (skill + 0.01 * own.normal()) * labels_NC + noise_NC
    measured = metrics.evaluate(scores_NC, labels_NC)
    influences = influences_of(scores_NC, labels_NC)
    cell = tiny.cell(method=label, ratio=ratio, seed=of[0], mask_seed=of[1])
    return Evidence(
        record=tiny.record(cell, **{name: measured[name] for name in metrics.REPORTED}),
        influences={name: influences[name].astype(np.float32) for name in metrics.REPORTED},
        recovery=0.5,
        recovery_AP_C=np.full(CATEGORIES, 0.5),
        loss_fluctuation=fluctuation + 0.0005 * own.normal(),
    )


def cells(skills: dict[str, float], count: int = 4, world: int = 0, fluctuations: dict[str, float] | None = None):
    """Rows of these skills at `RATIOS` (0.1 is harder), with so many seeds."""
    return {
        (label, ratio): {
            of: evidence(label, ratio, of, skill + 0.3 * ratio, (fluctuations or {}).get(label, 0.01), world)
            for of in seeds(count)
        }
        for label, skill in skills.items()
        for ratio in RATIOS
    }


def without(of: EvidenceGrid, label: str, ratio: float, *dropped: Seeds) -> EvidenceGrid:
    """The cells less these seeds of a row at a ratio; less all of them if none is named."""
    left = {key: dict(by_seeds) for key, by_seeds in of.items()}
    left[label, ratio] = {s: one for s, one in left[label, ratio].items() if dropped and s not in dropped}
    return left
