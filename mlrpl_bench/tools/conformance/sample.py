"""This module makes a handful of random images, and builds and trains a method on them."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from mlrpl_bench.data import protocol
from mlrpl_bench.data.dataset import Preset, Split
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.data.word_vectors import hashed_vectors
from mlrpl_bench.models import backbones
from mlrpl_bench.models.method import Batch
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.cell import Cell, Finished, Job, Setting
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.trainer import Failed, train
from mlrpl_bench.training.workbench import Workbench
from mlrpl_bench.utils.randomness import generator_at

NUM_TRAIN, NUM_TEST, NUM_CATEGORIES, SIDE = 23, 9, 6, 32
PRESET = Preset(image_size=SIDE, backbone=backbones.SMALL, epochs=4, batch=5, lr_multiplier=100)
RATIO = 0.5


class Size(NamedTuple):
    """A size says how many images and categories a sample has.

    Attributes:
        train: the number of training images.
        test: the number of test images.
        categories: the number of categories.
        batch: the number of images in a step.
    """

    train: int
    test: int
    categories: int
    batch: int


LARGE = Size(train=48, test=4, categories=40, batch=48)
"""This size has 48 x 40 labels of 64 features, several times the 32,768 elements from which on torch adds with several
threads."""


class Violation(Exception):
    """A method does not do what every method must; the message says what."""


class Sample:
    """A sample holds random images and labels, and builds and trains a method on them.

    Args:
        entry: the method.
        folder: the folder in which the images are written.
        device: the device on which the method is trained, see `device.find_device`.
        precision: the number format in which it computes, see `options.PRECISIONS`.
        size: how many images and categories there are.
    """

    def __init__(
        self,
        entry: MethodEntry,
        folder: Path,
        device: str = "cpu",
        precision: Any = "32-true",
        size: Size = Size(NUM_TRAIN, NUM_TEST, NUM_CATEGORIES, 5),  # noqa: B008 - it cannot be changed
    ) -> None:
        self.entry, self.hyperparameters, self.folder, self.size = entry, entry.hyperparameters(), folder, size
        self.preset = dataclasses.replace(PRESET, batch=size.batch)
        self.fabric = Fabric(accelerator=device, devices=1, precision=precision)
        random = np.random.default_rng(0)
        self.splits = {
            name: _random_split(folder, name, count, size.categories, random)
            for name, count in (("train", size.train), ("test", size.test))
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.backbone = backbones.build(backbones.SMALL, "random")

    def job(self, ratio: float = RATIO) -> Job:
        """Make the job of a short cell: 4 epochs that stand for the papers' 20."""
        cell = Cell(
            setting=_setting(self.fabric),
            method=self.entry.name,
            hyperparameters=dataclasses.asdict(self.hyperparameters),
            changed=(),
            recipe=self.entry.cls.recipe.resolve(self.preset),
            source_digest="",
            ratio=ratio,
            seed=0,
            mask_seed=0,
            mask_hash="",
        )
        return Job(cell, self.entry.cls, self.hyperparameters)

    def workbench(self, train: Split | None = None, workers: int = 0) -> Workbench:
        """Make a workbench of the sample's images, with other complete labels if a split is given."""
        return Workbench(
            train or self.splits["train"],
            self.splits["test"],
            self.backbone,
            ImageTransform(SIDE),
            self.fabric,
            workers,
        )

    @cached_property
    def finished(self) -> Finished:
        """Return what the method leaves behind when trained alone."""
        return self.train_alone(self.workbench())

    def train_alone(self, workbench: Workbench, ratio: float = RATIO) -> Finished:
        """Train one cell.

        Raises:
            Violation: the training failed.
        """
        last = list(train([self.job(ratio)], workbench))[-1]
        if isinstance(last, Failed):
            raise Violation(last.reason)
        assert isinstance(last, Finished)
        return last

    def weights_after_training(self, ratio: float = 0.9) -> dict[str, Tensor]:
        """Return the method's tensors after a short training alone, without plain data that it keeps beside them.

        Raises:
            Violation: the training failed.
        """
        weights = self.train_alone(self.workbench(), ratio).weights
        return {name: value for name, value in weights.items() if isinstance(value, Tensor)}

    def run(self) -> CellRun:
        """Return a cell that is about to be trained."""
        return CellRun(self.job(), self.workbench())

    def batch(self, labels_BC: Tensor) -> Batch:
        """Make a batch of the first images, with the given labels."""
        workbench = self.workbench()
        shared = next(iter(workbench.in_order("train", len(labels_BC))))
        generator = generator_at("conformance", device=self.fabric.device)
        strong_B3HW = shared.images_B3HW.flip(3)  # stands in for a strong view, for methods that ask for one
        with torch.no_grad(), self.fabric.autocast():
            strong_BDHW = workbench.backbone.frozen(strong_B3HW)
        labels_BC = labels_BC.to(self.fabric.device)
        plain = (shared.images_B3HW, shared.frozen_BDHW, labels_BC, shared.index_B, generator)
        return Batch(*plain, strong_B3HW, strong_BDHW)


def _random_split(folder: Path, name: str, count: int, num_categories: int, random: np.random.Generator) -> Split:
    paths = [folder / f"{name}-{row}.jpg" for row in range(count)]
    for path in paths:
        Image.fromarray(random.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    labels_NC = np.where(random.random((count, num_categories)) < 0.4, PRESENT, ABSENT).astype(np.int8)
    categories = tuple(f"category {number}" for number in range(num_categories))
    return Split(list(range(count)), paths, labels_NC, categories, hashed_vectors(categories))


def _setting(fabric: Fabric) -> Setting:
    return Setting(
        protocol_version=protocol.VERSION,
        dataset="conformance",
        fingerprint="",
        evaluate_on="test",
        mask_scheme="hcp",
        backbone=PRESET.backbone,
        weights="random",
        word_vectors="",
        image_size=PRESET.image_size,
        crop_sides=PRESET.crop_sides,
        flip=PRESET.flip,
        transform="reference",
        bad_images="error",
        precision=str(fabric._precision.precision),
        epochs=PRESET.epochs,
        batch=PRESET.batch,
    )
