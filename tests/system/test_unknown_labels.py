"""Labels that nobody gave, from a table to the leaderboard: never learned from, never evaluated, always counted."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.cli.app import main
from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard.evidence import Collector
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from tests.helpers.places import ROOT
from tests.helpers.tiny_study import METHOD, refusal, write_plugin

INKS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
SMALL = ("--backbone", "small", "--image-size", "32", "--epochs", "1", "--batch", "4", "--device", "cpu")
OPTIONS = Options(backbone="small", image_size=32, epochs=1, batch=4, device="cpu")


def draw(path, shown):
    pixels_HW3 = np.full((32, 32, 3), 70, dtype=np.uint8)
    for place, ink in enumerate(shown):
        pixels_HW3[4:20, 10 * place : 10 * place + 8] = ink
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_HW3).save(path)


def make(root, splits, blanks=0.3):
    """Pictures of squares and a wide table of their labels, of which a share is blank; the complete labels by image."""
    random, rows, complete = np.random.default_rng(0), [], {}
    for number, split in enumerate(splits):
        name, shown = f"{number:02}.png", [bool(number >> bit & 1) for bit in range(3)]
        draw(root / name, [ink for ink, there in zip(INKS.values(), shown, strict=True) if there])
        complete[name] = shown
        blank = random.random(3) < blanks
        labels = ["" if hidden else str(int(there)) for hidden, there in zip(blank, shown, strict=True)]
        rows.append(",".join([name, split, *labels]))
    (root / "labels.csv").write_text("\n".join([f"image,split,{','.join(INKS)}", *rows]))
    return complete


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a table of 24 pictures to train on, 12 to test and 8 to validate on; and a method."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    make(tmp_path / "mine", ["train"] * 24 + ["test"] * 12 + ["val"] * 8)
    write_plugin(tmp_path / "plain.py", METHOD)
    return tmp_path


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


def study(place, **changes):
    return Study(load_datasets()["table"], Options(**{**OPTIONS.__dict__, "data_root": place / "mine", **changes}))


def test_the_leaderboard_learns_from_given_labels_and_evaluates_them_alone(place, command):
    words = ("leaderboard", "--dataset", "table", "--data-root", place / "mine", "--plugin", place / "plain.py", *SMALL)
    code, output = command(*words, "--methods", "plain", "--ratios", "0.5,1")
    assert code == 0, output
    of = study(place)
    (csv,), (markdown,) = ([*(place / "results" / "table").glob(f"leaderboard-*.{kind}")] for kind in ("csv", "md"))
    assert "all given" in csv.read_text().splitlines()[0] and "100 %" not in markdown.read_text()
    assert f"{of.train.num_unknown} of 72 training labels are unknown at every ratio" in output
    assert f"{of.test.num_unknown} of the 36 labels of the images evaluated on are unknown" in output
    assert "ssgrl with all given labels known" in output and "complete test labels" not in output
    positives = dict(zip(INKS, (of.test.labels_NC == PRESENT).sum(0).tolist(), strict=True))
    for name, count in positives.items():
        assert (f"{name} ({count} positive" in markdown.read_text()) == (count < 5)
    assert min(positives.values()) < 5, "so one is marked"

    for record in ResultStore(place / "results").survey("table").records:
        _assert_evaluated_on_given_labels(record, of)
        _assert_recovery_is_of_hidden_given_labels(record, of)


def _assert_evaluated_on_given_labels(record, of):
    """Every category's precision is that of its given labels alone, as if there were no other images."""
    scores_NC = np.load(record.folder / "scores.npz")["scores"]
    for column, precision in enumerate(record.metrics["AP_C"]):
        rows = np.flatnonzero(of.test.labels_NC[:, column] != UNKNOWN)
        alone = metrics.evaluate(
            scores_NC[rows, column, None], of.test.labels_NC[rows, column, None], surely_logits=True
        )
        assert precision == pytest.approx(alone["mAP"])


def _assert_recovery_is_of_hidden_given_labels(record, of):
    scores_NC = np.load(record.folder / "train_scores.npz")["scores"]
    draws_NC = np.random.RandomState(0).random_sample(of.train.labels_NC.shape)
    by_category = []
    for column in range(3):
        hidden = [
            row
            for row in range(len(of.train))
            if draws_NC[row, column] >= record.cell.ratio and of.train.labels_NC[row, column] != UNKNOWN
        ]
        labels_N = of.train.labels_NC[hidden, column]
        if (labels_N == PRESENT).any():
            scores = scores_NC[hidden, column, None]
            by_category.append(metrics.average_precisions(scores, labels_N[:, None])[0])
    found = Collector(of.train, of.test, of.masks).collect(record).recovery
    assert np.isnan(found) if record.cell.ratio == 1 else found == pytest.approx(np.mean(by_category))


def test_no_method_sees_a_label_that_nobody_gave(place):
    of = study(place)
    for ratio in (0.1, 0.5, 1.0):
        mask_NC = of.masks(ratio, 0)
        assert not mask_NC[of.train.labels_NC == UNKNOWN].any()
        drawn_NC = np.random.RandomState(0).random_sample(mask_NC.shape) < ratio
        np.testing.assert_array_equal(mask_NC, drawn_NC & (of.train.labels_NC != UNKNOWN))


def test_the_tables_own_validation_images_are_evaluated_and_no_training_image_is_lost(place):
    of = study(place, evaluate_on="val")
    assert len(of.train) == 24 and of.test.ids == [f"{number:02}.png" for number in range(36, 44)]
    assert of.setting.evaluate_on == "val"


def test_a_table_of_training_images_alone_is_evaluated_on_a_tenth_of_them(place, command):
    root = place / "alone"
    make(root, ["train"] * 40)
    words = ("leaderboard", "--dataset", "table", "--data-root", root, "--plugin", place / "plain.py", *SMALL)
    code, output = command(*words, "--methods", "plain", "--ratios", "1")
    assert code == 2 and "--evaluate-on val" in output
    code, output = command(*words, "--methods", "plain", "--ratios", "1", "--evaluate-on", "val")
    assert code == 0 and "given labels of a tenth of the training images, held out" in output


def test_images_of_which_no_metric_can_be_made_are_refused_before_training(place):
    table = place / "mine" / "labels.csv"
    text = table.read_text()
    table.write_text(re.sub(r"(,test,)(.*)", lambda m: m[1] + m[2].replace("1", ""), text))
    assert "none of the given labels of the 12 images to evaluate on is present" in refusal(lambda: study(place))
    table.write_text(re.sub(r"(,test,)(.*)", lambda m: m[1] + m[2].replace("0", ""), text))
    assert "none of the given labels of the 12 images to evaluate on is absent" in refusal(lambda: study(place))


def test_missing_and_damaged_images_are_one_line_or_left_out(place, command):
    (place / "mine" / "05.png").unlink()
    words = ("leaderboard", "--dataset", "table", "--data-root", place / "mine", "--plugin", place / "plain.py", *SMALL)
    code, output = command(*words, "--methods", "plain", "--ratios", "1")
    assert code == 2 and "05.png" in output and output.count("\n") == 1
    (place / "mine" / "05.png").write_bytes(b"no picture")
    code, output = command(*words, "--methods", "plain", "--ratios", "1", "--on-bad-image", "skip")
    assert code == 0 and "1 training images left out" in output


def test_a_completely_labelled_table_is_the_same_study_as_before(place):
    """With no unknown label nothing is worded, drawn or named differently."""
    root = place / "whole"
    make(root, ["train"] * 24 + ["test"] * 12, blanks=0)
    of = study(place, data_root=root)
    assert not of.train.num_unknown
    for ratio in (0.3, 1.0):
        drawn_NC = np.random.RandomState(0).random_sample(of.train.labels_NC.shape) < ratio
        np.testing.assert_array_equal(of.masks(ratio, 0), drawn_NC)


def test_the_example_in_the_documentation_runs(tmp_path, monkeypatch, command):
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    section = text.partition("## Your own images")[2].partition("\n## ")[0]
    (table,) = re.findall(r"```csv\n(.*?)```", section, re.DOTALL)
    assert len(table.splitlines()) == 7 and ",," in table
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    for line in table.splitlines()[1:]:
        draw(tmp_path / "mine" / line.split(",")[0], list(INKS.values())[: 1 + len(line) % 3])
    (tmp_path / "mine" / "labels.csv").write_text(table)
    commands = [
        line.split("#")[0].split()[2:] for line in section.splitlines() if "mine" in line and "bench.py" in line
    ]
    commands = [words for words in commands if "table" in words]
    assert [words[:2] for words in commands] == [["data", "check"], ["data", "show"], ["run", "partial_bce"]]
    code, output = command(*commands[0])
    assert code == 1 and "add --batch 4" in output and "train: 3 of 12 labels are unknown" in output
    for words in commands[1:]:
        code, output = command(*words)
        assert code == 0, (words, output)
    assert "all given" in output and "labels are unknown at every ratio" in output
    assert json.loads(next(Path("results/table").rglob("record.json")).read_text())["key"]
