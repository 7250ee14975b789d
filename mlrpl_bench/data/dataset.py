"""This module defines a dataset: images by path, their labels, and the preset that all methods share on it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.progress import Report, silent

NINE_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset, with all labels that were given. The order of rows and categories defines the mask.

    Attributes:
        ids: N image ids, unique.
        image_paths: N files.
        labels_NC: int8, PRESENT or ABSENT; UNKNOWN where nobody gave the label (or it is left out, as VOC's difficult
            objects are if asked for): such an entry is known at no ratio in training, and is not evaluated in testing.
        categories: C names.
        word_vectors_CE: float32 vectors of the category names, or None where there are none.
    """

    ids: Sequence[int | str]
    image_paths: Sequence[Path]
    labels_NC: NDArray[np.int8]
    categories: tuple[str, ...]
    word_vectors_CE: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        rows, columns = self.labels_NC.shape
        assert len(self.ids) == len(self.image_paths) == rows, "ids, image_paths and labels_NC differ in length"
        assert len(set(self.ids)) == rows, "image ids are not unique"
        assert len(self.categories) == columns, "categories and labels_NC differ in width"
        assert self.labels_NC.dtype == np.int8, "labels_NC is int8"
        # The three states are neighbours; np.isin needs several times the labels' memory.
        assert not self.labels_NC.size or (self.labels_NC.min() >= ABSENT and self.labels_NC.max() <= PRESENT)
        assert self.word_vectors_CE is None or len(self.word_vectors_CE) == columns

    def __len__(self) -> int:
        return len(self.image_paths)

    @property
    def num_unknown(self) -> int:
        """Return the number of entries whose label nobody gave."""
        return int(np.count_nonzero(self.labels_NC == UNKNOWN))

    def rows(self, rows: NDArray[np.intp]) -> Split:
        """Return some of the rows, in the order given."""
        ids, paths = [self.ids[row] for row in rows], [self.image_paths[row] for row in rows]
        return replace(self, ids=ids, image_paths=paths, labels_NC=self.labels_NC[rows])

    def fingerprint(self) -> str:
        """Return SHA-256 over ids, categories and labels, in order: what must be equal for numbers to be comparable."""
        digest = hashlib.sha256(json.dumps([list(map(str, self.ids)), self.categories]).encode())
        digest.update(np.ascontiguousarray(self.labels_NC).tobytes())
        return digest.hexdigest()


def images_digest(split: Split) -> str:
    """Identify the images of a split by their ids and by the sizes of their files, wherever these lie.

    Returns:
        Sixteen hexadecimal digits. A file that is not there has size -1.
    """
    digest = hashlib.sha256()
    for identity, path in zip(split.ids, split.image_paths, strict=True):
        try:
            size = path.stat().st_size
        except OSError:  # who reads the image says what is wrong with it
            size = -1
        digest.update(json.dumps([str(identity), size]).encode())
    return digest.hexdigest()[:16]


def refuse_unmeasurable(split: Split, name: str) -> None:
    """Refuse to evaluate on images of whose labels no metric can be made, before anything is trained.

    Raises:
        UserError: no given label is present, or none is absent though some labels are unknown.
    """
    for state, word in ((PRESENT, "present"), (ABSENT, "absent")):
        if not (split.labels_NC == state).any() and (state == PRESENT or split.num_unknown):
            raise UserError(
                f"{name}: none of the given labels of the {len(split):,} images to evaluate on is {word}, so no metric "
                "is defined; label more of these images, or evaluate on others"
            )


def held_out(num_rows: int, share: float = 0.1, seed: int = 0) -> NDArray[np.bool_]:
    """Return which of N training rows are held out for validation: a share of them, drawn by seed."""
    held_N = np.zeros(num_rows, dtype=bool)
    held_N[np.random.RandomState(seed).permutation(num_rows)[: round(share * num_rows)]] = True
    return held_N


@dataclass(frozen=True)
class Preset:
    """This is the setting that every method shares on a dataset.

    Attributes:
        image_size: side of the square that the network sees, in pixels.
        backbone: a name that `backbones.build` knows.
        epochs: the training length, unless a method's recipe names its own.
        batch: the images per step, unless a method's recipe names its own.
        lr_multiplier: factor on the recipe's learning rate, which is written for a pre-trained ResNet-101.
        ratios: the known ratios shown when none are asked for.
        crop_sides: augmentation: crop sides as fractions of the enlarged image; one is drawn per image.
        flip: augmentation: mirror half of the images.
        pretraining_split: the split on which the backbone is pre-trained here, once; None where weights are loaded.
        pretraining_image_size: side of the square that the backbone sees there; None for `image_size`.
        trained_stages: how many of the backbone's stages are trained, the last ones; see `models.parts.cutting`.
        feature_width: D, the width of category features; None for the backbone's own.
        attention_width: M, the width in which words and positions meet; None for the backbone's own.
        pool: whether heads of SSGRL's line average 2 x 2 positions first; None for the backbone's own choice.
    """

    image_size: int
    backbone: str
    epochs: int = 20
    batch: int = 16
    lr_multiplier: float = 1.0
    ratios: tuple[float, ...] = NINE_RATIOS
    crop_sides: tuple[float, ...] = (1.0, 0.875, 0.75, 0.625, 0.5)
    flip: bool = True
    pretraining_split: str | None = None
    pretraining_image_size: int | None = None
    trained_stages: int = 1
    feature_width: int | None = None
    attention_width: int | None = None
    pool: bool | None = None


PAPERS = Preset(image_size=448, backbone="resnet101", epochs=20, batch=16)
"""This is the setting of the papers, on every data set."""

LAPTOP = Preset(
    image_size=224,
    backbone="tf_efficientnet_lite0",
    epochs=10,
    batch=32,
    lr_multiplier=100.0,
    trained_stages=0,
    feature_width=256,
    attention_width=128,
    pool=False,
)
"""A setting for photographs without a GPU: only the head is trained, on 7 x 7 maps, like the papers' after their pool.

See docs/decisions.md for how it was chosen.
"""

PHOTOGRAPHS: Mapping[str, Preset] = MappingProxyType({"paper": PAPERS, "laptop": LAPTOP})
"""These are the presets of a data set of photographs, by name."""


class Dataset(ABC):
    """A dataset file defines one of these under ``@register_dataset(name, preset=...)``."""

    @dataclass(frozen=True)
    class Options:
        """These are fields made with `hyperparameters.parameter`; ``--set-data name=value`` changes them.

        Those that differ from the defaults are part of a cell's key, since they may name other pictures. Of an option
        with ``path_to`` it is what lies there, so that the same files in another place are the same setting.
        """

    expected_files = ""
    """These are the files that `load` expects under the root, as a tree to show to a user."""

    expected_counts: Mapping[str, int] = MappingProxyType({})
    """This is the number of images per split of the official data; another number is no error, but worth saying."""

    needs_root = True
    """Whether the user must say where the images are; False for data that is generated into the cache."""

    report: Report = staticmethod(silent)
    """This is a progress callback for long preparations, called with (what, done, total); the caller sets it."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or self.Options()

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the names of the splits that `load` reads: ``train``, and ``test`` or ``val`` or both.

        Where there is ``val``, it is what ``--evaluate-on val`` means; else a tenth of the training images is.

        Args:
            root: as in `load`.

        Raises:
            UserError: what tells which splits there are is missing or damaged.
        """
        return ("train", "test")

    def source_table(self, root: Path) -> Any:
        """Return the table that all splits were read from, a `label_tables.rewriting.SourceTable`; None where there is
        none.

        Args:
            root: as in `load`.
        """
        return None

    @abstractmethod
    def load(self, root: Path, split: str) -> Split:
        """Read one of `splits`: labels and where the images should be.

        Whether the images are there is not asked here; who uses them does, and may leave missing ones out.

        Args:
            root: the folder with the user's data (the cache folder where `needs_root` is False).

        Raises:
            UserError: something is missing or damaged; the line names it.
        """
