"""This module copies a data set's folder and permutes the labels in the copy's files, which keep their form."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlrpl_bench.utils.randomness import seed_of

LABEL_FILES = (".json", ".txt", ".csv", ".tsv", ".xml")
"""Files with these endings are copied and may be permuted; all others, images above all, are linked."""

IDENTITIES = ("id", "image_id", "file_name", "filename", "url", "width", "height")
"""An entry of a JSON list keeps these fields when the rest goes to another one."""


def copy_folder(root: Path, copy: Path) -> None:
    """Copy a folder's label files, and link all others."""
    for folder, _, names in os.walk(root):
        into = copy / Path(folder).relative_to(root)
        into.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = Path(folder, name).resolve()
            if path.suffix.lower() in LABEL_FILES:
                shutil.copyfile(path, into / name)
            else:
                (into / name).symlink_to(path)


def permute_folder(folder: Path) -> list[Path]:
    """Give the entries of the label files in a folder each other's labels, and return the files that changed.

    In a JSON file the entries that have an ``image_id``, and the lists of a table of images, go to other images; in a
    text file what follows a line's first word goes to other lines; XML files, one an image, change their contents.
    """
    changed = []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in LABEL_FILES and not path.is_symlink())
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        if path.suffix.lower() == ".xml":
            by_folder.setdefault(path.parent, []).append(path)
            continue
        before = path.read_bytes()
        after = _permuted_json(before) if path.suffix.lower() == ".json" else _permuted_lines(before)
        if after != before:
            path.write_bytes(after)
            changed.append(path)
    for of_folder in by_folder.values():
        contents = [path.read_bytes() for path in of_folder]
        for path, content in zip(of_folder, _shuffled(contents), strict=True):
            path.write_bytes(content)
        changed += of_folder if len(of_folder) > 1 else []
    return changed


def _permuted_json(content: bytes) -> bytes:
    try:
        found = json.loads(content)
    except ValueError:
        return content  # no JSON, whatever it is called: no data set reads labels from it
    return json.dumps(_permuted(found)).encode()


def _permuted(value: Any) -> Any:
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, dict) and "image_id" in one for one in value):
        kept = [{name: one[name] for name in one if name in IDENTITIES} for one in value]
        rest = [{name: one[name] for name in one if name not in IDENTITIES} for one in value]
        return [{**own, **other} for own, other in zip(kept, _shuffled(rest), strict=True)]
    if isinstance(value, dict) and len(value) > 1 and all(_is_list_of_scalars(one) for one in value.values()):
        return dict(zip(value, _shuffled(list(value.values())), strict=True))
    return {name: _permuted(one) for name, one in value.items()} if isinstance(value, dict) else value


def _is_list_of_scalars(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(one, (list, dict)) for one in value)


def _permuted_lines(content: bytes) -> bytes:
    lines = [line.partition(b" ") for line in content.split(b"\n")]
    rest = iter(_shuffled([tail for _, blank, tail in lines if blank]))
    return b"\n".join(head + blank + (next(rest) if blank else b"") for head, blank, _ in lines)


def _shuffled(items: Sequence[Any]) -> list[Any]:
    """Return items in another order, which is always the same for the same number of items."""
    order = np.random.default_rng(seed_of("permuted labels", len(items))).permutation(len(items))
    return [items[place] for place in order]
