"""This module finds out whether a method reads hidden labels from the disk, by training it beside permuted label files.

A method cannot reach hidden labels in memory. A file of Python code may open any file, though, such as the
data set's annotations. So the data set's folder is copied (images are linked), and the method is trained on a few of
its images in two new processes that get the same labels in memory and find the copy as the data set's folder: once
with its label files as they are, once with the labels in them permuted. Equal bits of the scores show that it did not
use the labels in these files. A method that has the path of the true files written into it finds these in both
trainings: try it where they are not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.masks import Masks
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry
from mlrpl_bench.records.cell import Cell
from mlrpl_bench.tools.conformance.label_files import copy_folder, permute_folder
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError

IMAGES = 64
"""The method is trained on, and scores, at most this many images of each split."""

EPOCHS, BATCH, RATIO = 2, 8, 0.5

ENVIRONMENT = "MLRPL_DATA"
"""Commands look for the data set's folder in this environment variable."""


@dataclass(frozen=True, eq=False)
class Training:
    """A training holds everything that a new process trains from; none of it is a label file.

    Attributes:
        plugins: files with methods besides the bundled ones.
        cell: the cell that is trained.
        train: the images and labels to train on.
        test: the images and labels to evaluate on.
        masks: which of the training labels are known.
        view: the transform that makes the network's input from an image.
        folder: the folder that the method is told to be the data set's.
    """

    plugins: Sequence[Path]
    cell: Cell
    train: Split
    test: Split
    masks: Masks
    view: ImageTransform
    folder: Path


def check(
    method: MethodEntry,
    dataset: DatasetEntry,
    options: Options,
    plugins: Sequence[Path] = (),
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> str | None:
    """Train a method beside true and beside permuted label files, on the CPU.

    Args:
        options: the data set's folder and its own options; the training is short, whatever they say of its length.
        plugins: files with methods besides the bundled ones.
        report: told about the trainings as (what, done, total).

    Returns:
        What is wrong with the method, or None.

    Raises:
        UserError: the data set has no label files that could be permuted, or the method cannot be trained.
    """
    if not dataset.cls.needs_root or options.data_root is None:
        raise UserError(f"{dataset.name} draws its labels itself; name a data set with label files, and --data-root")
    with tempfile.TemporaryDirectory(prefix="mlrpl-permuted-") as temporary:
        folder = Path(temporary, "data")
        copy_folder(options.data_root, folder)
        training = _training(method, dataset, options, folder, plugins)
        report("trainings", 0, 3)
        true = _in_new_process(training)
        permute_folder(folder)
        _refuse_unchanged(dataset, options, folder, training)
        report("trainings", 1, 3)
        permuted = _in_new_process(training)
        if true == permuted:
            report("trainings", 3, 3)
            return None
        shutil.rmtree(folder)
        copy_folder(options.data_root, folder)
        report("trainings", 2, 3)
        again = _in_new_process(training)
        report("trainings", 3, 3)
    if again != true:
        return "two trainings beside the same label files differ; make it deterministic first (test-method)"
    return "its scores change with the labels in the data set's files, which it must not read"


def _training(
    method: MethodEntry, dataset: DatasetEntry, options: Options, folder: Path, plugins: Sequence[Path]
) -> Training:
    from mlrpl_bench.training.study import Study

    short = dataclasses.replace(options, epochs=EPOCHS, batch=BATCH, weights="random", device="cpu", data_root=folder)
    study = Study(dataset, short)
    if len(study.train) < BATCH:
        raise UserError(f"{dataset.name}: {len(study.train)} training images are too few, a step takes {BATCH}")
    rows, test_rows = (np.arange(min(IMAGES, len(split))) for split in (study.train, study.test))
    return Training(
        plugins=plugins,
        cell=study.job(method, RATIO, 0, 0, {}).cell,
        train=study.train.rows(rows),
        test=study.test.rows(test_rows),
        masks=dataclasses.replace(study.masks, kept_rows=rows),
        view=study.view(),
        folder=folder,
    )


def _refuse_unchanged(dataset: DatasetEntry, options: Options, folder: Path, training: Training) -> None:
    """Refuse a data set that still has its labels after the permutation, as the check would prove nothing then.

    A data set that no longer loads has changed enough.

    Raises:
        UserError: its labels are in none of the permuted files.
    """
    from mlrpl_bench.models.hyperparameters import make_instance

    instance = dataset.cls(make_instance(dataset.cls.Options, dict(options.data), dataset.name, "option"))
    try:
        now = instance.load(folder, "train")
    except Exception:  # a data set may raise anything on labels that do not belong together
        return
    if now.fingerprint() == training.masks.split.fingerprint():
        raise UserError(
            f"the labels of {dataset.name} are in none of the files below --data-root that can be permuted; give paths "
            "below it, or convert the labels to COCO's format (coco_json)"
        )


def _in_new_process(training: Training) -> str:
    """Train in a new process, which has no memory of the files as they were, and return `digest_of_training`.

    Raises:
        UserError: the method cannot be trained.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(digest_of_training, training).result()
    if found.startswith("error: "):
        raise UserError(f"{training.cell.method} cannot be trained: {found.removeprefix('error: ')}")
    return found


def digest_of_training(training: Training) -> str:
    """Return the SHA-256 of the scores of a training, or ``error: `` and the reason; a new process runs this."""
    os.environ[ENVIRONMENT] = str(training.folder)
    sys.argv = [sys.argv[0], "run", training.cell.method, "--data-root", str(training.folder)]
    import torch
    from lightning_fabric import Fabric

    from mlrpl_bench.models import backbones
    from mlrpl_bench.models.registry import load_methods
    from mlrpl_bench.records.cell import Finished, Job
    from mlrpl_bench.training.trainer import Failed, train
    from mlrpl_bench.training.workbench import Workbench

    torch.set_num_threads(1)
    entry = load_methods(list(training.plugins))[training.cell.method]
    setting = training.cell.setting
    backbone = backbones.build(setting.backbone, "random")
    fabric = Fabric(accelerator="cpu", devices=1)
    workbench = Workbench(training.train, training.test, backbone, training.view, fabric, 0, training.masks)
    job = Job(training.cell, entry.cls, entry.hyperparameters({}))
    for event in train([job], workbench):
        if isinstance(event, Failed):
            return f"error: {event.reason}"
        if isinstance(event, Finished):
            scores = event.scores_NC.tobytes() + event.train_scores_NC.tobytes()
            return hashlib.sha256(scores).hexdigest()
    return "error: it gave no scores"
