"""This module makes settings to profile in: a data set's own, or the papers' with made-up images in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlrpl_bench.data.dataset import PAPERS, Dataset, Split
from mlrpl_bench.data.images.loader import PixelBatch, Reader
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.data.word_vectors import hashed_vectors
from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.registry import DatasetEntry
from mlrpl_bench.records.provenance import provenance
from mlrpl_bench.tools.profiling.whole_cell import Counts
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.workbench import Workbench
from mlrpl_bench.utils.progress import Report

PAPER = replace(PAPERS, ratios=(0.1,))
"""This is the papers' setting at one known ratio."""

COCO_IMAGES = (82_783, 40_504)
"""The training and test images of COCO 2014, which the papers' setting stands for."""

CUDA_WARM_UP = 4
PREFETCHED = 33
"""Loader processes have this many batches ready before the first step (16 with two each); waiting starts after them."""


@dataclass(frozen=True, eq=False)
class ProfilingSetting:
    """A profiling setting says where methods are measured.

    Attributes:
        name: the setting's name.
        reads: whether images come from files.
        ratio: the share of labels that is known.
        stands_for: the training and test images of the data set that made-up images stand for; None for its own.
    """

    name: str
    study: Study
    ratio: float
    reads: bool
    stands_for: tuple[int, int] | None = None

    def counts(self) -> Counts:
        """Return how much a whole cell does in this setting."""
        study = self.study
        train, test = self.stands_for or (len(study.train), len(study.test))
        assert study.preset.epochs is not None
        return Counts(train, test, study.preset.epochs, self.batch)

    @property
    def batch(self) -> int:
        return self.study.preset.batch

    @property
    def device(self) -> torch.device:
        return self.study.workbench.fabric.device

    def warm_up(self) -> int:
        """Return the number of steps before those that count.

        The first of a method is not like the others, and counts its operations.
        """
        if self.device.type == "cpu":
            return 1
        return PREFETCHED if self.reads else CUDA_WARM_UP

    def facts(self) -> dict[str, Any]:
        """Return the setting and the machine as plain data."""
        setting, machine = self.study.setting, provenance(self.device)
        return {
            "setting": self.name,
            **{name: getattr(setting, name) for name in ("backbone", "image_size", "batch", "precision")},
            "categories": len(self.study.train.categories),
            "ratio": self.ratio,
            "training_images": len(self.study.train),
            "reads": self.reads,
            "device_type": self.device.type,
            "device": machine["device"],
            "threads": machine["threads"],
            "torch": machine["versions"]["torch"],
        }


def dataset_setting(entry: DatasetEntry, options: Options, ratio: float, report: Report) -> ProfilingSetting:
    """Make a data set's own setting, with its images."""
    bench = ProfilingSetting(entry.name, Study(entry, options, report), ratio, reads=True)
    workbench, batch = bench.study.workbench, bench.batch
    total = -(-len(bench.study.train) // batch)
    # Decodes every image: what a first epoch waits for is no matter of the method that happens to be measured first.
    for number, _ in enumerate(workbench.in_order("train", batch), start=1):
        report("reading images", number, total)
    return bench


def paper_setting(options: Options, classes: int, ratio: float, report: Report) -> ProfilingSetting:
    """Make the papers' setting (`PAPER`, unless options say otherwise) on images and labels that are made up."""
    batch = options.batch or PAPER.batch
    data = {"categories": str(classes), "images": str(4 * max(batch, 1))}
    chosen = replace(options, data=data)
    entry = DatasetEntry("paper", RandomData, Path(__file__), PAPER)
    return ProfilingSetting("paper", InMemory(entry, chosen, report), ratio, False, COCO_IMAGES)


class RandomData(Dataset):
    """This dataset has labels without images: three categories an image on average, as in COCO."""

    needs_root = False

    @dataclass(frozen=True)
    class Options:
        categories: int = parameter(80, "how many categories", low=1)
        images: int = parameter(64, "how many images", low=1)

    def load(self, root: Path, split: str) -> Split:
        options: Any = self.options
        shape = (options.images, options.categories)
        present_NC = np.random.default_rng(0).random(shape) < min(0.5, 3 / options.categories)
        labels_NC = np.where(present_NC, PRESENT, ABSENT).astype(np.int8)
        names = tuple(f"category {number}" for number in range(options.categories))
        rows = list(range(options.images))
        return Split(rows, [Path(f"{row} is not a file") for row in rows], labels_NC, names, hashed_vectors(names))


class InMemory(Study):
    """This study has images that are random numbers on the device."""

    reads_files = False

    @cached_property
    def workbench(self) -> Workbench:
        workbench: Workbench = super().workbench
        reader = RandomImages(self.train.image_paths, self.view(), self.preset.batch, workbench.fabric.device)
        workbench.readers = {"train": reader, "test": reader}
        return workbench


class RandomImages(Reader):
    """This reader gives the same pixels for every batch, at once."""

    def __init__(self, image_paths: Sequence[Path], view: ImageTransform, batch: int, device: torch.device) -> None:
        super().__init__(image_paths, view)
        generator = torch.Generator().manual_seed(0)
        shape = (batch, view.size, view.size, 3)
        self.pixels_BHW3 = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device)

    def read(self) -> Iterator[PixelBatch]:
        for addresses in self.batches.addresses:
            rows_B = torch.tensor([address.row for address in addresses])
            pixels_B3HW = self.pixels_BHW3[: len(rows_B)].permute(0, 3, 1, 2)
            yield PixelBatch(pixels_B3HW, rows_B, tuple(pixels_B3HW for _ in addresses[0].strong))
