"""Label files keep their form and lose which label belongs to which image."""

import json

import pytest

from mlrpl_bench.tools.conformance.label_files import copy_folder, permute_folder


def test_a_copy_has_label_files_of_its_own_and_links_to_all_others(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.jpg").write_bytes(b"a")
    (tmp_path / "data" / "list.txt").write_text("a 1\nb 2\nc 3\n")
    copy_folder(tmp_path / "data", tmp_path / "copy")
    assert (tmp_path / "copy" / "images" / "a.jpg").is_symlink()
    assert permute_folder(tmp_path / "copy") == [tmp_path / "copy" / "list.txt"]
    assert (tmp_path / "data" / "list.txt").read_text() == "a 1\nb 2\nc 3\n"


def test_in_cocos_format_annotations_change_images_and_images_stay(tmp_path):
    annotations = [{"id": n, "image_id": n // 2, "category_id": n, "bbox": [n]} for n in range(20)]
    content = {"images": [{"id": n} for n in range(10)], "annotations": annotations, "categories": [{"id": 1}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    permute_folder(tmp_path)
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["images"], found["categories"]) == (content["images"], content["categories"])
    assert [one["image_id"] for one in found["annotations"]] == [one["image_id"] for one in annotations]
    categories = [one["category_id"] for one in found["annotations"]]
    assert sorted(categories) == list(range(20)) != categories
    assert all(one["bbox"] == [one["category_id"]] for one in found["annotations"])


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.json", json.dumps({str(n): [n] for n in range(9)})), ("l.txt", "".join(f"{n} {n}\n" for n in range(9)))],
)
def test_a_table_of_images_keeps_images_and_labels(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert permute_folder(tmp_path) == [tmp_path / name]
    found = (tmp_path / name).read_text()
    assert found != content and sorted(found) == sorted(content)


def test_xml_files_of_a_folder_change_their_contents(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}.xml").write_text(f"<a>{number}</a>")
    permute_folder(tmp_path)
    found = [(tmp_path / f"{number}.xml").read_text() for number in range(9)]
    assert sorted(found) == [f"<a>{number}</a>" for number in range(9)] != found


@pytest.mark.parametrize(("name", "content"), [("names.txt", "cat\ndog\n"), ("broken.json", "{"), ("one.json", "{}")])
def test_what_has_no_labels_stays_as_it_is(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert permute_folder(tmp_path) == [] or json.loads(content) == json.loads((tmp_path / name).read_text())
