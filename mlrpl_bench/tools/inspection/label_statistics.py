"""This module counts labels per image, categories, pairs, and what the masks leave known at each ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import NINE_RATIOS, Split
from mlrpl_bench.data.protocol import PRESENT, UNKNOWN, hide, known_mask, known_share
from mlrpl_bench.utils.arrays import plain

FEW = 10
"""A category with fewer known positives than this is counted as hard to learn."""

RARE_PAIR_SHARE = 0.001
"""A pair is among the strongest only if it occurs in this share of the images, and in two at least."""


@dataclass(frozen=True, eq=False)
class SplitCounts:
    """These counts are of one split with all labels that were given.

    Attributes:
        positives_C: images of each category.
        labels_N: categories present in each image.
        known_C: images of which it is known whether they have the category.
        unknown: entries of the label matrix that nobody gave, or that the data set leaves out.
    """

    positives_C: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    known_C: NDArray[np.int64]
    unknown: int

    def to_json(self) -> dict[str, Any]:
        labels_N = self.labels_N
        return {
            "images": len(labels_N),
            "labels": int(labels_N.sum()),
            "labels per image": {
                "mean": float(labels_N.mean()) if len(labels_N) else None,
                "min": int(labels_N.min(initial=len(self.positives_C))),
                "max": int(labels_N.max(initial=0)),
            },
            "images without labels": int((labels_N == 0).sum()),
            "unknown labels": self.unknown,
        }


@dataclass(frozen=True, eq=False)
class KnownCounts:
    """These counts are of the training labels that one mask leaves known.

    Attributes:
        positives_C: known positives of each category.
        present_share, absent_share: of the present and of the absent entries, the share that is known.
        images_without_any: images of which no label is known.
        images_without_present: images of which no present label is known, though there may be absent ones.
    """

    ratio: float
    positives_C: NDArray[np.int64]
    present_share: float
    absent_share: float
    images_without_any: int
    images_without_present: int

    def to_json(self) -> dict[str, Any]:
        return {
            "ratio": self.ratio,
            "fewest known positives": int(self.positives_C.min()),
            f"categories with fewer than {FEW}": int((self.positives_C < FEW).sum()),
            "known share of present": plain(self.present_share),
            "known share of absent": plain(self.absent_share),
            "images without any known label": self.images_without_any,
            "images without a known present label": self.images_without_present,
        }


@dataclass(frozen=True)
class Pair:
    """A pair is two categories (their columns) that occur together.

    Attributes:
        images: that show both. overlap: of the images that show either, the share that shows both.
        times_chance: how many times as often as if the two were independent.
    """

    first: int
    second: int
    images: int
    overlap: float
    times_chance: float


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics hold everything that was counted.

    `together_CC` holds the training images that show both categories; its diagonal, each.
    """

    categories: tuple[str, ...]
    splits: dict[str, SplitCounts]
    known: list[KnownCounts]
    together_CC: NDArray[np.int64]
    mask_seed: int

    @property
    def train(self) -> SplitCounts:
        """Return the split whose labels are hidden."""
        return self.splits["train"]

    def by_frequency(self) -> list[int]:
        """Return the columns from the most to the least frequent category in training."""
        return np.argsort(-self.train.positives_C, kind="stable").tolist()

    def pairs(self, how_many: int) -> list[Pair]:
        """Return the pairs that overlap most, strongest first."""
        return _strongest(self.together_CC, len(self.train.labels_N))[:how_many]

    def to_json(self) -> dict[str, Any]:
        names = self.categories
        return {
            "splits": {name: counts.to_json() for name, counts in self.splits.items()},
            "mask seed": self.mask_seed,
            "known": [known.to_json() for known in self.known],
            "categories": [
                {
                    "name": names[column],
                    **{split: int(counts.positives_C[column]) for split, counts in self.splits.items()},
                    "known positives": {f"{known.ratio:g}": int(known.positives_C[column]) for known in self.known},
                }
                for column in self.by_frequency()
            ],
            "strongest pairs": [
                {
                    "categories": [names[pair.first], names[pair.second]],
                    "images": pair.images,
                    "overlap": pair.overlap,
                    "times chance": pair.times_chance,
                }
                for pair in self.pairs(20)
            ],
        }


def measure(splits: Mapping[str, Split], ratios: Sequence[float] = NINE_RATIOS, mask_seed: int = 0) -> Statistics:
    """Count everything in the splits of a dataset, one of which is called ``train``."""
    train = splits["train"]
    present_NC = (train.labels_NC == PRESENT).astype(np.float32)
    return Statistics(
        categories=train.categories,
        splits={name: count_split(split) for name, split in splits.items()},
        known=[count_known(train.labels_NC, ratio, mask_seed) for ratio in ratios],
        together_CC=(present_NC.T @ present_NC).astype(np.int64),
        mask_seed=mask_seed,
    )


def count_split(split: Split) -> SplitCounts:
    """Count the images of each category and the labels of each image."""
    present_NC = split.labels_NC == PRESENT
    given_NC = split.labels_NC != UNKNOWN
    return SplitCounts(present_NC.sum(0), present_NC.sum(1), given_NC.sum(0), split.num_unknown)


def count_known(labels_NC: NDArray[np.int8], ratio: float, mask_seed: int = 0) -> KnownCounts:
    """Count what the protocol's mask leaves known of the given labels."""
    mask_NC = known_mask(labels_NC.shape, ratio, mask_seed, labels_NC=labels_NC)
    seen_NC = hide(labels_NC, mask_NC)
    share = known_share(labels_NC, mask_NC)
    known_present_NC = seen_NC == PRESENT
    return KnownCounts(
        ratio=ratio,
        positives_C=known_present_NC.sum(0),
        present_share=share["present"],
        absent_share=share["absent"],
        images_without_any=int((seen_NC == UNKNOWN).all(1).sum()),
        images_without_present=int((~known_present_NC.any(1)).sum()),
    )


def _strongest(together_CC: NDArray[np.int64], images: int) -> list[Pair]:
    positives_C = np.diag(together_CC)
    first, second = np.triu_indices(len(together_CC), k=1)
    both = together_CC[first, second]
    often = both >= max(2, RARE_PAIR_SHARE * images)
    first, second, both = first[often], second[often], both[often]
    overlap = both / (positives_C[first] + positives_C[second] - both)
    times_chance = both * images / (positives_C[first] * positives_C[second])
    order = np.lexsort((-both, -overlap))
    return [
        Pair(int(first[at]), int(second[at]), int(both[at]), float(overlap[at]), float(times_chance[at]))
        for at in order
    ]
