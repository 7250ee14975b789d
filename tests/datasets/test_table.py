"""A user's own images with a table of labels: what is found, what is read, and what is refused."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.cli.app import main
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.training.study import Options, Study
from tests.helpers.tiny_study import refusal

ENTRY = load_datasets()["table"]

WIDE = """\
image,split,cat,dog
a.jpg,train,1,0
b.jpg,train,,1
c.jpg,test,0,1
d.jpg,test,1,
"""


def dataset(**options):
    return ENTRY.cls(hyperparameters.make_instance(ENTRY.cls.Options, options, "table", "option"))


def write(root, text=WIDE, name="labels.csv", images="abcd"):
    root.mkdir(exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    for image in images:
        Image.new("RGB", (40, 30), (9 * ord(image) % 256, 90, 30)).save(root / f"{image}.jpg")
    return root


def refused(root, split="train", **options):
    return refusal(lambda: dataset(**options).load(root, split))


def test_the_roots_only_table_is_read_and_unknown_labels_are_kept(tmp_path):
    write(tmp_path)
    train, test = (dataset().load(tmp_path, split) for split in ("train", "test"))
    assert train.labels_NC.tolist() == [[PRESENT, ABSENT], [UNKNOWN, PRESENT]]
    assert test.labels_NC.tolist() == [[ABSENT, PRESENT], [PRESENT, UNKNOWN]]
    assert train.ids == ["a.jpg", "b.jpg"] and test.image_paths == [tmp_path / "c.jpg", tmp_path / "d.jpg"]
    assert train.categories == test.categories == ("cat", "dog")
    assert dataset().splits(tmp_path) == ("train", "test")


def test_images_may_lie_in_another_folder_and_the_table_anywhere(tmp_path):
    write(tmp_path / "data")
    found = dataset(file=str(tmp_path / "data" / "labels.csv"), images="pictures").load(tmp_path, "train")
    assert found.image_paths[0] == tmp_path / "pictures" / "a.jpg"
    assert dataset(file="data/labels.csv").load(tmp_path, "test").ids == ["c.jpg", "d.jpg"]


def test_one_table_is_read_once_for_all_its_splits_and_anew_when_it_changes(tmp_path, monkeypatch):
    write(tmp_path)
    one, opened = dataset(), []
    monkeypatch.setattr(one, "_read", lambda root, file, read=one._read: opened.append(file) or read(root, file))
    for split in ("train", "test"):
        one.load(tmp_path, split)
    assert len(opened) == 1
    write(tmp_path, WIDE.replace("cat", "tiger"))
    assert one.load(tmp_path, "train").categories == ("tiger", "dog") and len(opened) == 2


def test_a_table_without_test_images_says_how_to_go_on(tmp_path):
    write(tmp_path, "image,cat\na.jpg,1\nb.jpg,0\n")
    assert dataset().splits(tmp_path) == ("train",)
    assert "--evaluate-on val" in refused(tmp_path, "test")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"absent": "-1", "unknown": "0"}, [[PRESENT, UNKNOWN], [ABSENT, PRESENT]]),
        ({"unknown": "-1"}, [[PRESENT, ABSENT], [UNKNOWN, PRESENT]]),
    ],
)
def test_minus_one_means_what_the_user_says(tmp_path, options, expected):
    write(tmp_path, "image,cat,dog\na.jpg,1,0\nb.jpg,-1,1\n")
    assert dataset(**options).load(tmp_path, "train").labels_NC.tolist() == expected
    message = refused(tmp_path)
    assert "row 3, column 'cat': '-1' is no label" in message and "--set-data absent=-1" in message
    assert "say what 0 means" in refused(tmp_path, absent="-1")


def test_a_category_that_nobody_labelled_is_refused_or_left_out(tmp_path):
    write(tmp_path, "image,split,cat,owl,dog\na.jpg,train,1,,0\nb.jpg,train,0,,1\nc.jpg,test,1,1,0\n")
    message = refused(tmp_path)
    assert "no known label of 1 of 3 categories" in message and "(owl)" in message and "empty=drop" in message
    left = dataset(empty="drop")
    assert left.load(tmp_path, "train").categories == left.load(tmp_path, "test").categories == ("cat", "dog")
    write(tmp_path, "image,cat,dog\na.jpg,,\n")
    for empty in ("refuse", "drop"):  # to drop them all would not help
        message = refused(tmp_path, empty=empty)
        assert "no known label of any category" in message and "empty=drop" not in message


@pytest.mark.parametrize(
    ("name", "text", "separator", "ending"),
    [("labels.tsv", WIDE, "commas", ".csv"), ("labels.csv", WIDE.replace(",", "\t"), "tabs", ".tsv")],
)
def test_a_table_under_the_ending_of_another_separator_is_told(tmp_path, name, text, separator, ending):
    write(tmp_path, text, name=name)
    message = refused(tmp_path)
    assert f"separated by {separator}, which files called {ending} may be; rename it" in message
    assert "image_column" not in message


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "C:\\a.jpg"])
def test_no_image_lies_outside_the_folder(tmp_path, name):
    write(tmp_path, f"image,cat\n{name},1\n")
    assert "names an image outside" in refused(tmp_path)


def test_no_table_and_two_tables_are_refused(tmp_path):
    assert f"{tmp_path} has no table" in refused(tmp_path)
    write(tmp_path)
    write(tmp_path, name="other.TSV")
    message = refused(tmp_path)
    assert "2 tables (labels.csv, other.TSV)" in message and "--set-data file=NAME" in message
    assert "no table" in refused(tmp_path, file="nowhere.csv")
    assert "no folder" in refused(tmp_path / "nowhere")
    assert "no split 'nowhere'" in refused(tmp_path, "nowhere", file="labels.csv")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the program with arguments and gives its exit code and what it said, on both streams."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench.py", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")  # so that no note is broken into lines
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, "".join(capsys.readouterr())

    return run


BAD = {
    "twice": (WIDE + "a.jpg,train,1,1\n", {}, "names the image 'a.jpg' in row 2 and in row 6"),
    "no label": (WIDE.replace("a.jpg,train,1", "a.jpg,train,maybe"), {}, "row 2, column 'cat': 'maybe' is no label"),
    "empty": (WIDE.replace("dog", "dog,owl").replace("\n", ",\n").replace("owl,", "owl"), {}, "(owl)"),
    "both": ("image,category,value,split\na.jpg,cat,1,train\na.jpg,dog,1,test\n", {}, "is in train (row 2)"),
    "contradicting": ("image,category,value\na.jpg,cat,1\na.jpg,cat,0\n", {}, "'cat' is present in 'a.jpg' in row 2"),
    "like a column": (WIDE.replace("dog", "Split"), {}, "a category called 'Split'"),
    "unknown column": (WIDE, {"image_column": "path"}, "no column 'path'"),
    "one column, two meanings": (WIDE, {"unknown": "0"}, "would mean absent and unknown"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("words", [("leaderboard", "--dataset"), ("data", "stats")])
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, command, monkeypatch, bad, words):
    monkeypatch.chdir(tmp_path)
    text, options, said = BAD[bad]
    root = write(tmp_path / "mine", text)
    pairs = [word for name, value in options.items() for word in ("--set-data", f"{name}={value}")]
    code, output = command(*words, "table", "--data-root", root, *pairs)
    assert code == 2 and said in output
    assert output.startswith("error: ") and output.count("\n") == 1


def test_another_encoding_is_one_line_and_exit_code_2(tmp_path, command):
    (write(tmp_path / "mine") / "labels.csv").write_bytes(WIDE.replace("cat", "kätzchen").encode("latin-1"))
    code, output = command("leaderboard", "--dataset", "table", "--data-root", tmp_path / "mine")
    assert code == 2 and "is not UTF-8" in output and output.count("\n") == 1


def test_data_check_names_missing_and_damaged_images_and_what_is_unknown(tmp_path, command):
    root = write(tmp_path / "mine", images="ab")
    (root / "c.jpg").write_bytes(b"no image")
    code, output = command("data", "check", "table", "--root", root, "--workers", "0")
    assert code == 1
    assert str(root / "d.jpg") in output and "missing" in output and str(root / "c.jpg") in output
    assert "train: 1 of 4 labels are unknown" in output and "test: 1 of 4 labels are unknown" in output


def test_data_check_of_a_table_without_test_images_gives_the_command_that_works(tmp_path, command):
    rows = "".join(f"{image}.jpg,{k % 2},{(k + 1) % 2}\n" for k, image in enumerate("abcdefghij"))
    root = write(tmp_path / "mine", "image,cat,dog\n" + rows, images="abcdefghij")
    _, output = command("data", "check", "table", "--root", root, "--workers", "0")
    assert "there are no test images" in output and "--evaluate-on val" in output
    assert "--batch 9" in output  # a tenth of ten images is held out


def test_data_check_of_a_category_that_nobody_labelled_gives_the_check_that_leaves_it_out(tmp_path, command):
    root = write(tmp_path / "mine", BAD["empty"][0])
    _, output = command("data", "check", "table", "--root", root, "--workers", "0")
    assert "(owl)" in output and output.splitlines()[-1].endswith(f"--root {root} --set-data empty=drop")


def test_data_stats_and_show_count_unknown_labels_apart(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "mine")
    code, output = command("data", "stats", "table", "--root", root)
    assert code == 0 and "unknown labels" in output and "% given" in output
    assert "ratio and shares are of the given labels" in " ".join(output.split())
    assert command("data", "show", "table", "--root", root, "--ratio", "1")[0] == 0
    assert np.asarray(Image.open(tmp_path / "table-images.png")).std() > 0
    code, output = command("data", "show", "table", "--root", root, "--split", "val")
    assert code == 2 and "no split 'val'; there are: train, test" in output


def study_of(root, **options):
    return Study(ENTRY, Options(data_root=root, data=options, weights="random", device="cpu", batch=2))


def test_one_table_in_several_places_is_one_setting_whose_notes_name_the_file(tmp_path):
    root = write(tmp_path / "mine")
    usual = study_of(root).setting
    (root / "again").mkdir()
    for name in ("copy.tsv", "again/labels.csv"):
        (root / name).write_text(WIDE.replace(",", "\t") if name.endswith("tsv") else WIDE)
    places = [study_of(root, file=name) for name in ("labels.csv", "copy.tsv", str(root / "again" / "labels.csv"))]
    assert all(place.setting == usual for place in places)
    assert "dataset option file=copy.tsv" in places[1].deviations()
    names = {place.variant(whichever) for place in places for whichever in (True, False)}
    assert len({name.removesuffix("-batch=2-weights=random") for name in names}) == 1, names
    (root / "other.csv").write_text(WIDE.replace("a.jpg,train,1,0", "a.jpg,train,1,1"))
    other = study_of(root, file="other.csv")
    assert other.setting != usual and other.variant() not in names


def test_the_folder_of_images_is_identified_by_its_images_and_not_by_its_path(tmp_path):
    write(tmp_path / "one")
    (tmp_path / "one" / "labels.csv").rename(tmp_path / "labels.csv")
    (tmp_path / "one").rename(tmp_path / "pictures")
    shutil.copytree(tmp_path / "pictures", tmp_path / "moved")
    places = [study_of(tmp_path, images=name) for name in ("pictures", "./pictures/", str(tmp_path / "moved"))]
    assert len({place.setting for place in places}) == len({place.variant() for place in places}) == 1
    Image.new("RGB", (400, 300)).save(tmp_path / "moved" / "a.jpg")
    assert study_of(tmp_path, images="moved").setting != places[0].setting


def test_a_check_says_an_error_of_the_table_once(tmp_path, command):
    root = write(tmp_path / "mine", WIDE.replace("a.jpg,train,1", "a.jpg,train,maybe"))
    code, output = command("data", "check", "table", "--root", root)
    assert code == 1 and output.count("'maybe' is no label") == 1 and "error: train and test: " in output


def test_a_column_of_words_may_be_no_category_and_that_is_said(tmp_path):
    root = write(tmp_path / "mine", WIDE.replace("dog", "note").replace(",train,1,0", ",train,1,by Ann"))
    assert "is left out with --set-data ignore=note" in refused(root)
    write(root, WIDE.replace(",train,1,0", ",train,1,7"))
    assert "ignore=" not in refused(root)


def test_too_few_images_to_hold_some_out_are_refused_in_one_line(tmp_path):
    root = write(tmp_path / "mine", "image,cat\na.jpg,1\nb.jpg,0\nc.jpg,1\n")
    options = Options(data_root=root, weights="random", device="cpu", batch=2, evaluate_on="val")
    line = refusal(lambda: Study(ENTRY, options))
    assert line == "table: 3 training images are too few to hold a tenth of them out; give more"


def test_the_validation_setting_of_a_table_with_val_is_that_of_its_val(tmp_path):
    root = write(tmp_path / "mine", WIDE + "e.jpg,val,1,0\n", images="abcde")
    options = Options(data_root=root, weights="random", device="cpu", batch=2, evaluate_on="val")
    assert study_of(root).validation_setting() == Study(ENTRY, options).setting


REAL = Path(os.environ.get("MLRPL_TEST_DATA", "/nonexistent")) / "coco18"


@pytest.mark.skipif(not REAL.is_dir(), reason="the photographs are not here")
def test_a_table_of_real_photographs_gives_the_labels_of_their_annotations(tmp_path):
    annotated = load_datasets()["coco_json"].cls().load(REAL, "train")
    words = {PRESENT: "1", ABSENT: "0"}
    lines = [",".join(["image", *annotated.categories])]
    for path, labels_C in zip(annotated.image_paths, annotated.labels_NC.tolist(), strict=True):
        lines.append(",".join([str(path.relative_to(REAL)), *(words[label] for label in labels_C)]))
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    found = dataset(file=str(tmp_path / "labels.csv")).load(REAL, "train")
    np.testing.assert_array_equal(found.labels_NC, annotated.labels_NC)
    assert found.image_paths == annotated.image_paths and found.categories == annotated.categories
