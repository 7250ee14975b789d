"""VG-200: the photographs of Visual Genome with 200 categories of objects (Krishna et al., IJCV 2017,
https://homes.cs.washington.edu/~ranjay/visualgenome). Two datasets under two names, since their labels differ.

**vg200** is read from the files that the reference reads, those of VG-500 (the SSGRL repository), and its categories
are the first 200 of the 500. Expected are 82,904 training images and 10,000 test images.

- Order: rows as in ``train_list_500.txt`` and ``test_list_500.txt``, columns by category index.
- The labels are ``vg_category_200_labels_index.json``, else ``vg_category_500_labels_index.json`` without the indices
  from 200 on; an image left with no category is kept, all absent.
- The files do not name the categories: they are called "category 0" to "category 199", unless there is a
  ``vg_category_200_names.txt`` with one name a line. Names are part of the fingerprint, so put the file there before
  the first run or not at all.
- Differs from the reference: a list's last line counts whether or not it ends with a line break (the reference cuts off
  its last character), and images are found where the two archives put them instead of in one merged folder. The papers
  print 98,249 training images; the list has 82,904.

**vg200_rebuilt** is for those who have Visual Genome but not these files. Everything comes from ``objects.json`` by
this recipe:

- An object's names are put in lower case, with single blanks. A category's frequency is the number of images, of both
  splits, that have it; categories are the 200 most frequent names, the most frequent first, equal ones by name.
- Image ids in ascending order are shuffled by NumPy's ``RandomState(0).permutation``. The first 10,000 are the test
  split, the others train; rows of both are in ascending order of ids. Visual Genome 1.2 has 108,077 images, so that
  98,077 and 10,000 are expected.
- Names stay as annotators typed them: "man" and "men", "tree" and "trees" are two categories each. Annotation is not
  exhaustive, so absent means that nobody named it.
- Its numbers cannot be compared with vg200's or with published ones.

Licence: Visual Genome's annotations are CC BY 4.0; for the photographs (of YFCC100M and COCO) see the data set's page.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench import ABSENT, PRESENT, Dataset, Split, UserError, register_dataset
from mlrpl_bench.data.dataset import PHOTOGRAPHS
from mlrpl_bench.data.file_lists import is_text, locate, read_list

SPLITS = ("train", "test")
CATEGORIES = 200
TEST_IMAGES = 10_000  # of vg200_rebuilt
LABEL_FILES = {"vg_category_200_labels_index.json": 200, "vg_category_500_labels_index.json": 500}
NAMES_FILE = "vg_category_200_names.txt"


@register_dataset("vg200", preset=PHOTOGRAPHS["paper"], presets=PHOTOGRAPHS)
class VG200(Dataset):
    """VG-200 as the reference has it."""

    expected_counts = MappingProxyType({"train": 82_904, "test": 10_000})
    expected_files = """\
ROOT/
  train_list_500.txt
  test_list_500.txt
  vg_category_200_labels_index.json    (or vg_category_500_labels_index.json)
  vg_category_200_names.txt            (optional)
  VG_100K/*.jpg                        (or images/VG_100K/)
  VG_100K_2/*.jpg                      (or images/VG_100K_2/)
"""

    def load(self, root: Path, split: str) -> Split:
        """The split; the test list is also compared with the training list."""
        _refuse_split("vg200", split)
        list_file = root / f"{split}_list_500.txt"
        names = read_list(list_file)
        if split == "test":
            _refuse_shared(names, root / "train_list_500.txt", list_file)
        paths = locate(names, _image_folders(root), list_file)
        return Split(names, paths, _listed_labels(root, names, list_file), _category_names(root))


@register_dataset("vg200_rebuilt", preset=PHOTOGRAPHS["paper"], presets=PHOTOGRAPHS)
class VG200Rebuilt(Dataset):
    """200 categories and a test split drawn anew from Visual Genome's objects."""

    expected_counts = MappingProxyType({"train": 98_077, "test": TEST_IMAGES})
    expected_files = """\
ROOT/
  objects.json
  VG_100K/*.jpg      (or images/VG_100K/)
  VG_100K_2/*.jpg    (or images/VG_100K_2/)
"""

    def load(self, root: Path, split: str) -> Split:
        """The split. Reading ``objects.json``, which is large, takes a while, once per process."""
        _refuse_split("vg200_rebuilt", split)
        file = root / "objects.json"
        if not file.is_file():
            raise UserError(f"no file {file}; download objects.json.zip from Visual Genome's page and unpack it there")
        state = file.stat()
        everything = _rebuild(file, state.st_mtime_ns, state.st_size)
        rows_S = _rows_of(split, len(everything.ids), file)
        ids = [everything.ids[row] for row in rows_S]
        paths = locate([f"{identity}.jpg" for identity in ids], _image_folders(root), file)
        return Split(ids, paths, everything.labels_NC[rows_S], everything.categories)


def _refuse_split(dataset: str, split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"{dataset} has no split {split!r}; there are: {', '.join(SPLITS)}")


def _image_folders(root: Path) -> list[Path]:
    return [root / "VG_100K", root / "VG_100K_2", root / "images" / "VG_100K", root / "images" / "VG_100K_2"]


def _parse(file: Path, **hooks: Any) -> Any:
    try:
        return json.loads(file.read_bytes(), **hooks)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is cut short or not JSON ({error}); download it again") from error


# vg200


def _refuse_shared(test_names: list[str], train_list: Path, test_list: Path) -> None:
    in_train = set(read_list(train_list))
    shared = [name for name in test_names if name in in_train]
    if shared:
        raise UserError(
            f"{test_list} has {len(shared):,} images of {train_list}, the first is {shared[0]}; testing on training "
            "images says nothing, get the two lists from one place"
        )


def _listed_labels(root: Path, names: list[str], list_file: Path) -> NDArray[np.int8]:
    """The labels of the listed images: N x 200."""
    label_file = next((root / name for name in LABEL_FILES if (root / name).is_file()), None)
    if label_file is None:
        raise UserError(f"{root} has neither {' nor '.join(LABEL_FILES)}; get one of them, or use vg200_rebuilt")
    indices_of = _parse(label_file, object_pairs_hook=lambda pairs: _without_repetition(pairs, label_file))
    if not isinstance(indices_of, dict):
        raise UserError(f"{label_file} does not map image names to category indices; check which file it is")
    labels_NC = np.full((len(names), CATEGORIES), ABSENT, dtype=np.int8)
    for row, name in enumerate(names):
        if name not in indices_of:
            raise UserError(
                f"{label_file} has no labels for {name}, which {list_file} lists; get the two from one place"
            )
        indices = _checked(indices_of[name], name, label_file)
        labels_NC[row, [index for index in indices if index < CATEGORIES]] = PRESENT
    return labels_NC


def _without_repetition(pairs: list[tuple[str, Any]], label_file: Path) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise UserError(f"{label_file} has the image {twice!r} twice; download it again")
    return content


def _checked(indices: Any, name: str, label_file: Path) -> list[int]:
    highest = LABEL_FILES[label_file.name] - 1
    if not isinstance(indices, list):
        raise UserError(f"{label_file} has no list of categories for {name}; check which file it is")
    for index in indices:
        if type(index) is not int or not 0 <= index <= highest:
            raise UserError(
                f"{label_file} has the category {index!r} for {name}, valid are 0 to {highest}; check which file it is"
            )
    return indices


def _category_names(root: Path) -> tuple[str, ...]:
    file = root / NAMES_FILE
    if not file.is_file():
        return tuple(f"category {index}" for index in range(CATEGORIES))
    names = tuple(read_list(file))
    if len(names) != CATEGORIES or len(set(names)) != CATEGORIES:
        raise UserError(
            f"{file} has {len(names)} names, {len(set(names))} of them different, and must have {CATEGORIES} "
            "different ones, one a line; mend or remove it"
        )
    return names


# vg200_rebuilt


class Rebuilt(NamedTuple):
    """All images: N ids in ascending order, labels N x 200, and the names of the 200 categories."""

    ids: list[int]
    labels_NC: NDArray[np.int8]
    categories: tuple[str, ...]


@lru_cache(maxsize=1)
def _rebuild(file: Path, modified_ns: int, size: int) -> Rebuilt:
    """Categories and labels by the recipe; the last two arguments only tell whether the file is still the same."""
    names_of = _object_names(file)
    frequency = Counter(name for names in names_of.values() for name in names)
    categories = tuple(sorted(frequency, key=lambda name: (-frequency[name], name))[:CATEGORIES])
    if len(categories) < CATEGORIES:
        raise UserError(f"{file} has {len(categories)} names of objects, not {CATEGORIES}; download it again")
    column_of = {name: column for column, name in enumerate(categories)}
    ids = sorted(names_of)
    labels_NC = np.full((len(ids), CATEGORIES), ABSENT, dtype=np.int8)
    for row, identity in enumerate(ids):
        labels_NC[row, [column_of[name] for name in names_of[identity] if name in column_of]] = PRESENT
    return Rebuilt(ids, labels_NC, categories)


def _object_names(file: Path) -> dict[int, set[str]]:
    """Image id -> the normalised names of its objects."""
    # An object is reduced to its names while the file is read: millions of whole ones would take gigabytes.
    content = _parse(file, object_hook=lambda entry: entry.get("names", entry))
    names_of: dict[int, set[str]] = {}
    try:
        for image in content:
            identity = image["image_id"]
            if identity in names_of:
                raise UserError(f"{file} has the image {identity!r} twice; download it again")
            if type(identity) is not int:
                raise TypeError(f"the image id {identity!r} is no number")
            if not all(isinstance(names, list) for names in image["objects"]):
                raise TypeError(f"image {identity} has an object without names")
            if not all(is_text(name) for names in image["objects"] for name in names):
                raise TypeError(f"image {identity} has a name that is no text")
            names_of[identity] = {_normalised(name) for names in image["objects"] for name in names}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is no list of images with image_id and objects with names ({error}); check which file it is"
        ) from error
    return names_of


def _normalised(name: str) -> str:
    return " ".join(name.lower().split())


def _rows_of(split: str, images: int, file: Path) -> NDArray[np.intp]:
    """The rows of a split in ascending order; the same for the same number of images, on every NumPy."""
    if images <= TEST_IMAGES:
        raise UserError(f"{file} has {images} images, the test split alone needs {TEST_IMAGES}; download it again")
    order_N = np.random.RandomState(0).permutation(images)
    return np.sort(order_N[:TEST_IMAGES] if split == "test" else order_N[TEST_IMAGES:])
