"""Lists of image files are read, located, and refused where files are missing."""

import errno
import json

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data import coco, file_lists
from mlrpl_bench.data.file_lists import missing_rows
from mlrpl_bench.data.images import decoding
from mlrpl_bench.utils.errors import UserError


def small_content():
    """Ids in no order, gaps between category ids, one image without annotations, one crowd."""
    return {
        "images": [
            {"id": 30, "file_name": "c.jpg"},
            {"id": 10, "file_name": "z.jpg"},
            {"id": 20, "file_name": "a.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 20, "category_id": 90, "iscrowd": 0},
            {"id": 2, "image_id": 20, "category_id": 90, "iscrowd": 0},
            {"id": 3, "image_id": 30, "category_id": 2, "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "tree"}, {"id": 2, "name": "hot dog"}, {"id": 44, "name": "cat"}],
    }


@pytest.fixture
def content():
    return small_content()


@pytest.fixture
def read(tmp_path):
    """Read what a content, or a text, gives as an annotation file."""

    def read_content(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "instances.json").write_text(text)
        return coco.read(tmp_path / "instances.json", tmp_path / "images")

    return read_content


def test_a_file_is_taken_from_the_first_folder_that_has_it(tmp_path):
    for name in ("one/a.jpg", "two/a.jpg", "two/deep/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folders = [tmp_path / "none", tmp_path / "one", tmp_path / "two"]
    expected = [tmp_path / "two" / "deep" / "b.jpg", tmp_path / "one" / "a.jpg"]
    assert file_lists.locate(["deep/b.jpg", "a.jpg"], folders, tmp_path / "list") == expected


def test_a_missing_file_gets_a_place_where_most_of_the_others_are(tmp_path):
    for name in ("one/a.jpg", "two/b.jpg", "two/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folders = [tmp_path / "one", tmp_path / "two"]
    found = file_lists.locate(["a.jpg", "b.jpg", "d.jpg", "c.jpg"], folders, tmp_path / "list")
    assert found == [tmp_path / name for name in ("one/a.jpg", "two/b.jpg", "two/d.jpg", "two/c.jpg")]
    assert file_lists.locate(["d.jpg"], folders, tmp_path / "list") == [tmp_path / "one" / "d.jpg"]


def test_missing_files_that_are_needed_are_counted_and_the_first_in_the_list_is_named(tmp_path):
    (tmp_path / "b.xml").touch()
    with pytest.raises(UserError, match=r"^2 of 3 drawings are missing, the first is .*c\.xml; .* again, or not$"):
        file_lists.refuse_missing([tmp_path / name for name in ("b.xml", "c.xml", "a.xml")], "drawings", ", or not")


@pytest.mark.parametrize("names", [["x.jpg", "./x.jpg"], ["deep/x.jpg", "deep//x.jpg"], ["deep/./x.jpg", "deep/x.jpg"]])
def test_one_picture_under_two_names_is_refused(tmp_path, read, content, names):
    with pytest.raises(UserError, match=r"has the file name .*x\.jpg' twice"):
        file_lists.locate(names, [tmp_path], tmp_path / "list")
    for image, name in zip(content["images"], names, strict=False):
        image["file_name"] = name
    with pytest.raises(UserError, match=r"has the file name .*x\.jpg' twice"):
        read(content)


@pytest.mark.parametrize("text", ["a.jpg\nb.jpg\n", "a.jpg\nb.jpg", "a.jpg\r\nb.jpg\r\n", "\n a.jpg \n\nb.jpg"])
def test_a_list_is_read_whatever_its_line_breaks(tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert file_lists.read_list(tmp_path / "list.txt") == ["a.jpg", "b.jpg"]


def noise(width=60, height=40, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def save(path, image=None, **options):
    (image or noise()).save(path, **options)
    return path


def test_missing_rows_are_those_without_a_file_whatever_folder_they_are_in(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    names = ["a.png", "folder.png", "none/b.png", "gone", "c.png"]
    save(tmp_path / "a.png")
    assert missing_rows([tmp_path / name for name in names]) == [1, 2, 3, 4]


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_empty(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(decoding.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be read .*check its permissions"):
        missing_rows([tmp_path / "a.png"])
