"""Your own images with annotations in COCO format: two annotation files and two image folders, by path.

    --set-data train_annotations=labels/train.json --set-data train_images=pictures ...

A path is relative to the root or absolute; both splits may share an image folder. Of the annotations only ``images``
(``id``, ``file_name``), ``annotations`` (``id``, ``image_id``, ``category_id``) and ``categories`` (``id``, ``name``)
are read, so boxes may be anything. Both files must list the same categories, those without a single image too.

Order: rows as in each JSON's ``images`` list, columns by ascending category id. An image without annotations is kept
with every category absent, so annotations must be complete for the numbers to mean something: a category that nobody
looked for counts as absent. No counts are expected. An image may not be in both splits; this is checked by path.

Unknown labels: where images have ``neg_category_ids``, as LVIS writes them, only these categories are absent and those
without an annotation are unknown, as are in any file an image's ``not_exhaustive_category_ids`` without an annotation.
Unknown training labels stay unknown at every known ratio, unknown test labels are not evaluated. An image without
``file_name`` is found by the last two parts of its ``coco_url`` (``train2017/000000000001.jpg``).

The usual preset is that of the photographs in the literature; ``--preset laptop`` is one for a few thousand images
without a GPU. Nothing in them was tuned for your images. Licence: that of your images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlrpl_bench import Dataset, Split, UserError, parameter, register_dataset
from mlrpl_bench.data import coco
from mlrpl_bench.data.dataset import PHOTOGRAPHS

SPLITS = ("train", "test")


@register_dataset("coco_json", preset=PHOTOGRAPHS["paper"], presets=PHOTOGRAPHS)
class CocoJson(Dataset):
    """Any images with COCO-format annotation files."""

    @dataclass(frozen=True)
    class Options(Dataset.Options):
        train_annotations: str = parameter(
            "annotations/instances_train.json", "COCO-format file to learn from", path_to="training images"
        )
        train_images: str = parameter(
            "train", "folder to which the training file's names are relative", path_to="training images"
        )
        test_annotations: str = parameter(
            "annotations/instances_test.json", "COCO-format file to test on", path_to="test images"
        )
        test_images: str = parameter(
            "test", "folder to which the test file's names are relative", path_to="test images"
        )

    expected_files = """\
ROOT/
  annotations/
    instances_train.json    (train_annotations)
    instances_test.json     (test_annotations)
  train/                    (train_images)
  test/                     (test_images)
"""

    def load(self, root: Path, split: str) -> Split:
        """The split; the test split is also compared with the training split."""
        if split not in SPLITS:
            raise UserError(f"coco_json has no split {split!r}; there are: {', '.join(SPLITS)}")
        loaded = self._load(root, split)
        if split == "test":
            _refuse_shared(self._load(root, "train"), loaded, self._annotation_file(root, "test"))
        return loaded

    def _load(self, root: Path, split: str) -> Split:
        annotation_file = self._annotation_file(root, split)
        image_folder = root / str(getattr(self.options, f"{split}_images"))
        for path, option in ((annotation_file, "annotations"), (image_folder, "images")):
            if not path.exists():
                raise UserError(f"{path} does not exist; say where it is with --set-data {split}_{option}=PATH")
        return coco.read_with_images(annotation_file, [image_folder])

    def _annotation_file(self, root: Path, split: str) -> Path:
        return root / str(getattr(self.options, f"{split}_annotations"))


def _refuse_shared(train: Split, test: Split, test_file: Path) -> None:
    if train.categories != test.categories:
        odd = sorted(set(train.categories) ^ set(test.categories)) or ["their order"]
        raise UserError(
            f"{test_file} has other categories than the training file (first difference: {' '.join(odd[0].split())}); "
            "both files must list the same categories with the same ids"
        )
    in_train = set(map(os.path.abspath, train.image_paths))
    shared = [path for path in test.image_paths if os.path.abspath(path) in in_train]
    if shared:
        raise UserError(
            f"{test_file} has {len(shared)} images of the training split, the first is {str(shared[0])!r}; "
            "testing on training images says nothing, remove them from one of the two files"
        )
