"""Reads and writes COCO-format annotations.

An image has a category when at least one annotation says so, crowds included. Where images list the categories that
were verified to be absent (``neg_category_ids``, as LVIS does), the others are unknown; else they are absent. Rows keep
the order of the file's ``images`` list, because the order decides the mask (torchvision's CocoDetection sorts, and
gives other masks); columns are the category ids in ascending order, which may have gaps.

`read_list` and `locate` read a plain list of names and find the files it names; they serve other formats as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.file_lists import is_text, locate, refuse_outside, refuse_repeated
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.utils import arrays as array_files
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import cache_folder, write_atomically

LISTS = ("images", "annotations", "categories")
ABSENT_IDS = "neg_category_ids"
"""The key of an image's categories that were verified to be absent, in LVIS and its kin."""
UNSURE_IDS = "not_exhaustive_category_ids"
"""The key of an image's categories of which not every object has an annotation; one without any may still be there."""


def read(annotation_file: Path, image_folder: Path) -> Split:
    """Return the labels that an annotation file gives its images; without word vectors.

    Images without annotations are kept, all ABSENT, or UNKNOWN but for the categories that they list as verified to be
    absent. The image files themselves are not looked at.

    Raises:
        UserError: the file is missing, cut short or inconsistent; the line names it.
    """
    split = kept(annotation_file, lambda: _read(annotation_file, image_folder))
    return replace(split, image_paths=[image_folder / name for name in split.image_paths])


def read_with_images(annotation_file: Path, image_folders: Sequence[Path]) -> Split:
    """Read the same as `read`, with every image in the first of the folders that has it.

    See `locate` for those that are missing.
    """
    split = kept(annotation_file, lambda: _read(annotation_file, image_folders[0]))
    return replace(split, image_paths=locate([str(path) for path in split.image_paths], image_folders, annotation_file))


def write(
    annotation_file: Path,
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
) -> None:
    """Write an annotation file, atomically; equal content gives equal bytes.

    Args:
        images: each with ``id`` and ``file_name`` (relative to the image folder), in the order of the rows.
        annotations: each with ``id``, ``image_id`` and ``category_id``.
        categories: each with ``id`` and ``name``.
    """
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_atomically(annotation_file, json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")


def _read(annotation_file: Path, image_folder: Path) -> Split:
    """Return a split whose image paths are the file's own relative names."""
    content = _parse(annotation_file)
    images, annotations, categories = (content[name] for name in LISTS)
    names = tuple(category["name"] for category in categories)
    file_names = [image["file_name"] for image in images]

    image_ids = [image["id"] for image in images]
    category_ids = [category["id"] for category in categories]
    for what, values in (
        ("image id", image_ids),
        ("file name", [os.path.normpath(name) for name in file_names]),
        ("category id", category_ids),
        ("category name", names),
    ):
        refuse_repeated(values, what, annotation_file)
    refuse_outside(file_names, image_folder, annotation_file)

    row_A = _places(annotations, "image_id", image_ids, annotation_file)
    column_A = _places(annotations, "category_id", category_ids, annotation_file)
    labels_NC = _before_annotations(images, category_ids, annotation_file)
    if any(ABSENT_IDS in image for image in images) and (labels_NC[row_A, column_A] == ABSENT).any():
        wrong = annotations[int(np.argmax(labels_NC[row_A, column_A] == ABSENT))]
        raise UserError(
            f"{annotation_file}: annotation {wrong['id']!r} shows category {wrong['category_id']!r} in image "
            f"{wrong['image_id']!r}, whose {ABSENT_IDS} say that it is absent; correct one of the two"
        )
    labels_NC[row_A, column_A] = PRESENT
    return Split(image_ids, [Path(name) for name in file_names], labels_NC, names)


def _before_annotations(
    images: Sequence[Mapping[str, Any]], category_ids: Sequence[Hashable], annotation_file: Path
) -> NDArray[np.int8]:
    """Return what is known of images (N x C) before any annotation is looked at.

    All is ABSENT. Where images list the categories that were verified to be absent, only these are, and the others are
    UNKNOWN; so are, in any file, those of which an image says that its annotations are not exhaustive.
    """
    some_verified = any(ABSENT_IDS in image for image in images)
    labels_NC = np.full((len(images), len(category_ids)), UNKNOWN if some_verified else ABSENT, dtype=np.int8)
    column_of = {identity: column for column, identity in enumerate(category_ids)}
    for row, image in enumerate(images):
        if some_verified and ABSENT_IDS not in image:
            raise UserError(
                f"{annotation_file}: image {image['id']!r} has no {ABSENT_IDS}, as others have; add it, [] where no "
                "category was verified to be absent"
            )
        for key, state in ((ABSENT_IDS, ABSENT), (UNSURE_IDS, UNKNOWN)):
            columns = [column_of.get(identity, -1) for identity in _ids(image.get(key, []))]
            if -1 in columns:
                raise UserError(f"{annotation_file}: {key} of image {image['id']!r} is no list of the categories' ids")
            labels_NC[row, columns] = state
    return labels_NC


def _ids(value: Any) -> list[Hashable]:
    """Return the ids in a list; for anything else, return one id that no category has."""
    return [item if _is_id(item) else None for item in value] if isinstance(value, list) else [None]


def _parse(annotation_file: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the file's content, every key that `read` uses in place and the categories in the order of the columns."""
    from pycocotools.coco import COCO

    if not annotation_file.is_file():
        raise UserError(f"no annotation file {annotation_file}; check the path of the data, or download the file")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress with print
            content = COCO(str(annotation_file)).dataset
        for name in LISTS:
            if not isinstance(content[name], list):
                raise TypeError(f"{name!r} is not a list")
        for image in content["images"]:
            if "file_name" not in image and is_text(image.get("coco_url")):  # LVIS names images by address alone
                image["file_name"] = "/".join(image["coco_url"].split("/")[-2:])
            if not is_text(image["file_name"]):
                raise TypeError(f"the file name {image['file_name']!r} is not text")
        for category in content["categories"]:
            if not is_text(category["name"]):
                raise TypeError(f"the category name {category['name']!r} is not text")
        for entry in (*content["images"], *content["categories"]):
            if not _is_id(entry["id"]):
                raise TypeError(f"the id {entry['id']!r} is neither a number nor text")
        content["categories"].sort(key=lambda category: category["id"])
    except KeyError as error:
        raise UserError(
            f"{annotation_file} lacks {error}; it must be a COCO instances file with {', '.join(LISTS)}"
        ) from error
    except (TypeError, AssertionError) as error:
        raise UserError(
            f"{annotation_file} is JSON but no COCO instances file ({error}); check which file it is"
        ) from error
    except RecursionError as error:
        raise UserError(f"{annotation_file} is nested too deeply for a COCO instances file; get it again") from error
    except OSError as error:
        raise UserError(f"{annotation_file} cannot be read ({error.strerror}); check its permissions") from error
    except ValueError as error:  # JSON that does not parse, bytes that are no text
        raise UserError(
            f"{annotation_file} is cut short or not JSON ({error}); download or generate it again"
        ) from error
    for name in ("images", "categories"):
        if not content[name]:
            raise UserError(f"{annotation_file} has no {name}; check which file it is")
    return content


def _is_id(value: Any) -> bool:
    """Tell whether a value is a whole number; other programs may write it as 1.0."""
    return is_text(value) or type(value) is int or (type(value) is float and math.isfinite(value))


def _places(
    annotations: Sequence[Mapping[str, Any]], key: str, ids: Sequence[Hashable], annotation_file: Path
) -> NDArray[np.intp]:
    """Return where the id that each of A annotations refers to stands among `ids`: shape (A,)."""
    place_of = {identity: place for place, identity in enumerate(ids)}
    places_A = np.array([place_of.get(annotation[key], -1) for annotation in annotations], dtype=np.intp)
    if (places_A < 0).any():
        lost = annotations[int(np.argmax(places_A < 0))]
        raise UserError(
            f"{annotation_file}: annotation {lost['id']!r} has the unknown {key} {lost[key]!r}; "
            "the file is incomplete or was put together from two; get it again"
        )
    return places_A


VERSION = 2
"""This is the version of the cached labels; it is raised when their format, or what is read from a file, changes."""


KEEP_ABOVE_BYTES = 20 * 2**20
"""Annotation files are cached only if they are larger; smaller ones are read as fast as their cache entry."""


def kept(annotation_file: Path, read: Callable[[], Split]) -> Split:
    """Return what `read` gives for a file: a split whose image paths are relative names, without word vectors."""
    try:
        facts = annotation_file.stat()
    except OSError:
        return read()  # which says what is wrong
    if facts.st_size <= KEEP_ABOVE_BYTES:
        return read()
    name = repr((VERSION, str(annotation_file.resolve()), facts.st_size, facts.st_mtime_ns))
    path = cache_folder() / "labels" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
    split = _load(path)
    if split is None:
        split = read()
        write_atomically(path, _bytes_of(split))
    return split


def _bytes_of(split: Split) -> bytes:
    words = {"ids": list(split.ids), "names": [str(p) for p in split.image_paths], "categories": split.categories}
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(words).encode(), dtype=np.uint8)
    np.savez_compressed(buffer, text=text, labels_NC=split.labels_NC, fingerprint=np.array(split.fingerprint()))
    return buffer.getvalue()


def _load(path: Path) -> Split | None:
    """Return the entry, or None if there is none or it is not what was written."""
    if not path.is_file():
        return None
    try:
        arrays = array_files.read(path)
        words = json.loads(arrays["text"].tobytes())
        paths = [Path(name) for name in words["names"]]
        split = Split(words["ids"], paths, arrays["labels_NC"], tuple(words["categories"]))
        return split if split.fingerprint() == str(arrays["fingerprint"]) else None
    except Exception:  # damaged in whatever way: it is only a copy, and is made anew
        return None
