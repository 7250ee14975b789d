"""VOC 2007: where kits are found, which objects count, and which annotations are refused."""

import sys

import pytest

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.utils.errors import UserError

ENTRY = load_datasets()["voc2007"]
voc2007 = sys.modules[ENTRY.cls.__module__]

TRAIN = {"000009": [("horse", 0), ("person", 1), ("person", 0)], "000005": [("chair", 1), ("sheep", 0)]}
TEST = {"000001": [("dog", 0)]}


def dataset(**options):
    return ENTRY.cls(hyperparameters.make_instance(ENTRY.cls.Options, options, "voc2007"))


def thing(name, difficult):
    part = "<part><name>head</name></part>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{part}</object>"


def xml(objects, kit="VOC2007"):
    return f"<annotation><folder>{kit}</folder>{''.join(thing(*entry) for entry in objects)}</annotation>"


def make(kit, **lists):
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (kit / folder).mkdir(parents=True, exist_ok=True)
    for name, images in lists.items():
        (kit / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{identity}\n" for identity in images))
        for identity, objects in images.items():
            (kit / "JPEGImages" / f"{identity}.jpg").touch()
            (kit / "Annotations" / f"{identity}.xml").write_text(xml(objects))
    return kit


@pytest.fixture
def kit(tmp_path):
    return make(tmp_path / "VOCdevkit" / "VOC2007", trainval=TRAIN, test=TEST)


def present(labels_C):
    return {name for name, label in zip(voc2007.CATEGORIES, labels_C, strict=True) if label == PRESENT}


def refused(root, split="train"):
    with pytest.raises(UserError) as caught:
        dataset().load(root, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_categories_are_twenty_in_alphabetical_order():
    assert len(voc2007.CATEGORIES) == 20 and list(voc2007.CATEGORIES) == sorted(voc2007.CATEGORIES)


def test_rows_keep_the_order_of_the_list(kit, tmp_path):
    loaded = dataset().load(tmp_path, "train")
    assert list(loaded.ids) == ["000009", "000005"]
    assert list(loaded.image_paths) == [kit / "JPEGImages" / f"{identity}.jpg" for identity in loaded.ids]
    assert list(dataset().load(tmp_path, "test").ids) == ["000001"]


def test_a_difficult_object_does_not_count_unless_there_is_another(kit, tmp_path):
    labels_NC = dataset().load(tmp_path, "train").labels_NC
    assert [present(labels_C) for labels_C in labels_NC] == [{"horse", "person"}, {"sheep"}]
    assert (labels_NC == UNKNOWN).sum() == 0


def test_ignored_difficult_objects_are_unknown_and_nothing_else_changes(kit, tmp_path):
    default_NC = dataset().load(tmp_path, "train").labels_NC
    labels_NC = dataset(difficult="ignore").load(tmp_path, "train").labels_NC
    differs_NC = labels_NC != default_NC
    assert differs_NC.sum() == 1
    assert labels_NC[1, voc2007.CATEGORIES.index("chair")] == UNKNOWN
    assert default_NC[1, voc2007.CATEGORIES.index("chair")] == ABSENT


@pytest.mark.parametrize("order", [[("cat", 1), ("cat", 0)], [("cat", 0), ("cat", 1)]])
@pytest.mark.parametrize("difficult_only", [ABSENT, UNKNOWN])
def test_a_plain_object_beside_a_difficult_one_makes_the_category_present(tmp_path, order, difficult_only):
    (tmp_path / "a.xml").write_text(xml(order))
    assert present(voc2007.read_labels(tmp_path / "a.xml", difficult_only)) == {"cat"}


def test_an_object_without_the_mark_is_not_difficult(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    assert present(voc2007.read_labels(tmp_path / "a.xml", ABSENT)) == {"cat"}


@pytest.mark.parametrize("levels_up", [0, 1, 2])
def test_the_root_may_be_any_folder_down_to_the_kit(kit, levels_up):
    root = [kit, kit.parent, kit.parent.parent][levels_up]
    assert len(dataset().load(root, "train")) == 2


@pytest.mark.parametrize("place", ["VOCtest_06-Nov-2007/VOCdevkit/VOC2007", "VOCdevkit_test/VOC2007"])
def test_a_test_kit_may_lie_apart(tmp_path, place):
    make(tmp_path / "VOCdevkit" / "VOC2007", trainval=TRAIN)
    make(tmp_path / place, test=TEST)
    assert list(dataset().load(tmp_path, "train").ids) == ["000009", "000005"]
    assert dataset().load(tmp_path, "test").image_paths[0].is_relative_to(tmp_path / place)


def test_a_missing_folder_is_named(tmp_path):
    assert f"no folder {tmp_path / 'none'}" in refused(tmp_path / "none")


def test_an_empty_folder_is_told_what_to_unpack(tmp_path):
    assert "VOCtrainval_06-Nov-2007.tar" in refused(tmp_path)


def test_a_kit_without_the_test_part_is_told_so(tmp_path):
    make(tmp_path / "VOCdevkit" / "VOC2007", trainval=TRAIN)
    assert "VOCtest_06-Nov-2007.tar" in refused(tmp_path, "test")


def test_another_year_beside_is_named(tmp_path):
    make(tmp_path / "VOCdevkit" / "VOC2012", trainval=TRAIN)
    assert "VOC2012" in refused(tmp_path)


def test_another_year_as_the_root_is_recognised_by_its_annotations(tmp_path):
    kit = make(tmp_path / "data", trainval=TRAIN)
    (kit / "Annotations" / "000005.xml").write_text(xml([("cat", 0)], kit="VOC2012"))
    assert "is of VOC2012" in refused(kit)


def test_missing_annotations_are_counted_and_the_first_one_named(kit, tmp_path):
    (kit / "Annotations" / "000005.xml").unlink()
    message = refused(tmp_path)
    assert message.startswith("1 of 2 annotation files that ") and "000005.xml" in message
    assert " lists are missing, the first is" in message
    assert "trainval.txt" in message


def test_a_missing_image_keeps_its_row(kit, tmp_path):
    whole = dataset().load(tmp_path, "train")
    (kit / "JPEGImages" / "000005.jpg").unlink()
    assert dataset().load(tmp_path, "train").image_paths == whole.image_paths


ENTITIES = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "cat">]>' + xml([("&b;", 0)])
BAD_XML = {
    "no objects": (xml([]), "no <object>"),
    "unknown category": (xml([("unicorn", 0)]), "'unicorn'"),
    "object without a name": ("<annotation><object/></annotation>", "object ''"),
    "cut short": (xml([("cat", 0)])[:-5], "cut short"),
    "empty": ("", "cut short"),
    "no XML": ("000005", "no XML"),
    "a document type": (ENTITIES, "DOCTYPE"),
}


@pytest.mark.parametrize(("text", "message"), BAD_XML.values(), ids=BAD_XML)
def test_a_bad_annotation_is_refused_by_name(kit, tmp_path, text, message):
    (kit / "Annotations" / "000005.xml").write_text(text)
    assert message in refused(tmp_path) and "000005.xml" in refused(tmp_path)


def test_a_document_type_in_another_encoding_is_refused_too(kit, tmp_path):
    (kit / "Annotations" / "000005.xml").write_bytes(ENTITIES.replace("?>", ' encoding="utf-16"?>').encode("utf-16"))
    assert "000005.xml" in refused(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [("000005\n000005\n", "twice"), ("../../000005\n", "outside"), ("\n \n", "has no names"), ("\xff", "000005")],
)
def test_a_bad_list_is_refused_by_name(kit, tmp_path, names, message):
    (kit / "ImageSets" / "Main" / "trainval.txt").write_text(names, encoding="latin-1")
    message_shown = refused(tmp_path)
    assert "trainval.txt" in message_shown and (message in message_shown or "no text" in message_shown)


def test_another_split_is_refused(kit, tmp_path):
    assert "train, test" in refused(tmp_path, "val")
