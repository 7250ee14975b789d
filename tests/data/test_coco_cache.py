"""Large annotation files are read once, and again when they change."""

import json
import os

import numpy as np
import pytest

from mlrpl_bench.data import coco


@pytest.fixture
def annotations(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco, "KEEP_ABOVE_BYTES", 10)
    content = {
        "images": [{"id": 7, "file_name": "b/7.jpg"}, {"id": "x", "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": "x", "category_id": 5}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def parsed(monkeypatch):
    """The files that were really parsed."""
    files, parse = [], coco._parse
    monkeypatch.setattr(coco, "_parse", lambda path: files.append(path) or parse(path))
    return files


def same(one, other):
    assert (list(one.ids), list(one.image_paths), one.categories) == (
        list(other.ids), list(other.image_paths), other.categories,
    )  # fmt: skip
    np.testing.assert_array_equal(one.labels_NC, other.labels_NC)
    assert one.fingerprint() == other.fingerprint()


def test_a_file_is_parsed_once_and_gives_the_same_split(annotations, parsed, tmp_path):
    first = coco.read(annotations, tmp_path)
    same(coco.read(annotations, tmp_path), first)
    assert len(parsed) == 1
    assert coco.read(annotations, tmp_path / "elsewhere").image_paths[1] == tmp_path / "elsewhere" / "a.jpg"


def test_a_changed_file_is_parsed_again(annotations, parsed, tmp_path):
    coco.read(annotations, tmp_path)
    annotations.write_text(annotations.read_text().replace('"cat"', '"cow"'))
    os.utime(annotations, ns=(1, 1))  # of equal size: only the time tells
    assert coco.read(annotations, tmp_path).categories == ("cow", "dog")
    assert len(parsed) == 2


@pytest.mark.parametrize("damage", ["cut short", "empty", "other labels"])
def test_a_damaged_entry_is_made_anew(annotations, parsed, tmp_path, damage):
    first = coco.read(annotations, tmp_path)
    (entry,) = (tmp_path / "cache" / "labels").iterdir()
    if damage == "other labels":
        with np.load(entry) as arrays:
            content = dict(arrays)
        content["labels_NC"] = -content["labels_NC"]
        np.savez(entry, **content)
    else:
        entry.write_bytes(entry.read_bytes()[: 0 if damage == "empty" else 100])
    same(coco.read(annotations, tmp_path), first)
    same(coco.read(annotations, tmp_path), first)
    assert len(parsed) == 2


def test_small_files_are_not_kept(annotations, parsed, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "KEEP_ABOVE_BYTES", 10_000)
    for _ in range(2):
        coco.read(annotations, tmp_path)
    assert len(parsed) == 2 and not (tmp_path / "cache").exists()
