"""This module reads from a dataset the images and labels to train on and to evaluate on, and the masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import Dataset, Split, held_out, images_digest, refuse_unmeasurable
from mlrpl_bench.data.file_lists import refuse_missing
from mlrpl_bench.data.images.cache import Prepared, PreparedRows, prepared_folder
from mlrpl_bench.data.images.decoding import BadImage, bad_rows
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.masks import Masks
from mlrpl_bench.data.word_vectors import hashed_vectors, prepared
from mlrpl_bench.models.hyperparameters import paths_of
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.processes import usable_cores

Report = Callable[[str, int, int], None]

GO_ON_WITHOUT = " (data check lists all), or leave them out with --on-bad-image skip"


@dataclass(frozen=True, eq=False)
class Inputs:
    """This class holds the images and labels of a study.

    Attributes:
        sources: the dataset's own splits by ``train`` and ``test``, each with the rows of it that are used.
        train: the images that are trained on, with complete labels.
        test: the images that are evaluated on, with complete labels.
        masks: which of the training labels are known; drawn before damaged images are left out.
        skipped_images: the ``training`` and the ``evaluation`` images that a run goes on without, as (id, reason).
        has_word_vectors: whether the dataset or the user gave word vectors; else they are made from the names.
    """

    sources: dict[str, tuple[Split, NDArray[np.intp]]]
    train: Split
    test: Split
    masks: Masks
    skipped_images: dict[str, list[tuple[int | str, str]]]
    has_word_vectors: bool


def read(dataset: Dataset, name: str, root: Path, options: Options, report: Report, reads_files: bool = True) -> Inputs:
    """Load a dataset's splits, hold images out, and leave out or refuse what cannot be read.

    Args:
        name: the name of the dataset.
        root: the folder of the dataset.
        options: the setting's options: the split to evaluate on, the masks, and what to do with damaged images.
        report: told about long preparations as (what, done, total).
        reads_files: whether the images are files; images that are made up need not be there.

    Raises:
        UserError: splits that do not fit each other, images that are missing, or nothing left to train on.
    """
    whole, has_word_vectors = _load(dataset, name, root, "train")
    if options.evaluate_on == "test":
        evaluated, _ = _load(dataset, name, root, "test")
        train_rows, test_rows = np.arange(len(whole)), np.arange(len(evaluated))
    elif "val" in dataset.splits(root):
        evaluated, _ = _load(dataset, name, root, "val")
        train_rows, test_rows = np.arange(len(whole)), np.arange(len(evaluated))
    else:
        evaluated, held_N = whole, held_out(len(whole))
        if not held_N.any():
            raise UserError(
                f"{name}: {len(whole):,} training images are too few to hold a tenth of them out; give more"
            )
        train_rows, test_rows = np.flatnonzero(~held_N), np.flatnonzero(held_N)
    if whole.categories != evaluated.categories:
        raise UserError(f"{name}: train and test split have different categories, or in different order")
    masks = Masks(whole.rows(train_rows), options.mask_scheme, options.mask_file)
    skipped_images: dict[str, list[tuple[int | str, str]]] = {"training": [], "evaluation": []}
    if options.on_bad_image == "skip":
        kept, skipped_images["training"] = _readable(whole, train_rows, report)
        kept_test, skipped_images["evaluation"] = _readable(evaluated, test_rows, report)
        masks = dataclasses.replace(masks, kept_rows=kept)
        train_rows, test_rows = train_rows[kept], test_rows[kept_test]
    elif reads_files:
        _refuse_missing(whole, train_rows, f"training images of {name}")
        _refuse_missing(evaluated, test_rows, f"evaluation images of {name}")
    if not len(train_rows) or not len(test_rows):
        raise UserError(f"{name}: no images left to train on, or none to evaluate on")
    sources = {"train": (whole, train_rows), "test": (evaluated, test_rows)}
    test = evaluated.rows(test_rows)
    refuse_unmeasurable(test, name)
    return Inputs(sources, whole.rows(train_rows), test, masks, skipped_images, has_word_vectors)


def prepared_rows(inputs: Inputs, view: ImageTransform) -> dict[str, PreparedRows] | None:
    """Open the images that ``data prepare`` made ready, by ``train`` and ``test``.

    Returns None where the transform reads the originals.

    Raises:
        UserError: they are not there, or were made from other images.
    """
    if not view.is_prepared:
        return None
    return {
        name: PreparedRows(Prepared(prepared_folder(split, view), split, view.backend, view.enlarged), rows)
        for name, (split, rows) in inputs.sources.items()
    }


def identified(options: Dataset.Options, inputs: Inputs, evaluate_on: str) -> dict[str, str]:
    """Return what identifies the options of a dataset that are not the usual ones, by name.

    Of a path it is what lies there: images are identified by `images_digest`. Labels are in the fingerprint of the
    splits, so a path to labels is left out; so is a path to test images where these are not evaluated.
    """
    paths, splits = paths_of(type(options)), {"training images": "train", "test images": "test"}
    found = {}
    for name, value in chosen(options).items():
        path_to = paths.get(name, "")
        if path_to == "labels" or (path_to == "test images" and evaluate_on != "test"):
            continue
        found[name] = images_digest(inputs.sources[splits[path_to]][0]) if path_to else str(value)
    return found


def chosen(options: Dataset.Options) -> dict[str, Any]:
    """Return the options of a dataset that are not the usual ones, by name."""
    usual = type(options)()
    return {name: value for name, value in asdict(options).items() if value != getattr(usual, name)}


def unexpected_counts(inputs: Inputs, dataset: Dataset, evaluate_on: str) -> list[str]:
    """Write a line for each split that has another number of images than the official data."""
    official = {split: count for split, count in dataset.expected_counts.items() if split in inputs.sources}
    if evaluate_on != "test":
        official.pop("test", None)
    found = {name: len(split) for name, (split, _) in inputs.sources.items()}
    return [
        f"{found[name]:,} {name} images (official: {count:,})"
        for name, count in official.items()
        if found[name] != count
    ]


def met_in_training(error: BadImage, on_bad_image: str) -> BadImage:
    """Return a refusal of an image that training came upon, with how to go on without it.

    Args:
        error: what is wrong with the image.
        on_bad_image: the setting's option; under ``skip`` the image was whole when all of them were decoded before.

    >>> print(met_in_training(BadImage("image a.jpg is no image; replace it"), "error"))
    image a.jpg is no image; replace it (data check lists all), or leave them out with --on-bad-image skip
    """
    if on_bad_image == "skip":
        return BadImage(f"{error}, or start the same command again, which leaves it out")
    return error if "--on-bad-image" in str(error) else BadImage(f"{error}{GO_ON_WITHOUT}")


def refuse_batch(batch: int, inputs: Inputs, method: str) -> None:
    """Refuse a method's batch that is larger than the training set, as there would be no step.

    Raises:
        UserError: there are fewer images than the batch takes.
    """
    if batch > (images := len(inputs.train)):
        raise UserError(
            f"{method}: no batch of {batch:,} in {images:,} training images; choose a smaller one with --batch"
        )


def _load(dataset: Dataset, name: str, root: Path, split_name: str) -> tuple[Split, bool]:
    """Load a split, and tell whether the dataset or the user gave its word vectors; else they are made from the names.

    Raises:
        UserError: the dataset's code ended the process, or its data is missing or wrong.
    """
    try:
        split = dataset.load(root, split_name)
    except SystemExit as error:
        raise UserError(
            f"the dataset {name} called sys.exit({error.code!r}) while its {split_name} split was loaded; "
            "take the call out of its file"
        ) from error
    if split.word_vectors_CE is not None:
        return split, True
    kept_CE = prepared(split.categories)
    vectors_CE = hashed_vectors(split.categories) if kept_CE is None else kept_CE
    return dataclasses.replace(split, word_vectors_CE=vectors_CE), kept_CE is not None


def _refuse_missing(split: Split, rows: NDArray[np.intp], what: str) -> None:
    refuse_missing([split.image_paths[row] for row in rows], what, GO_ON_WITHOUT)


def _readable(
    split: Split, rows: NDArray[np.intp], report: Report
) -> tuple[NDArray[np.intp], list[tuple[int | str, str]]]:
    """Return the places of those rows whose image can be decoded, and the other rows as (id, reason)."""
    told = lambda done, total: report("looking for damaged images", done, total)  # noqa: E731
    bad = bad_rows([split.image_paths[row] for row in rows], len(usable_cores()), told, remember=True)
    skipped_images = [(split.ids[rows[place]], reason) for place, reason in bad]
    return np.setdiff1d(np.arange(len(rows)), [place for place, _ in bad]), skipped_images
