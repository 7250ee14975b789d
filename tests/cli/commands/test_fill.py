"""``fill`` as a user meets it: trained, filled, written; and one line for bad input."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlrpl_bench.models.registry import load_datasets
from tests.helpers.command import Answer, in_folder
from tests.helpers.partly_labelled import DATASET
from tests.helpers.tiny_study import METHOD, write_plugin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The user's folder with one trained cell."""
    folder = tmp_path_factory.mktemp("user")
    plugins = [write_plugin(folder / "partly.py", DATASET), write_plugin(folder / "plain.py", METHOD)]
    with pytest.MonkeyPatch.context() as patch:
        bench = in_folder(patch, folder, *(f"--plugin={path}" for path in plugins))
        answer = bench("run", "plain", "--dataset=partly", "--ratios=0.5", "--device=cpu")
        assert not answer.code, answer.err
    return folder


@pytest.fixture
def fill(folder, monkeypatch):
    """Call the command in the user's folder."""
    plugins = [f"--plugin={folder / name}" for name in ("partly.py", "plain.py")]
    bench = in_folder(monkeypatch, folder, "--dataset=partly", "--device=cpu", *plugins)

    def fill(*arguments: object) -> Answer:
        return bench("fill", *arguments)

    return fill


def test_what_is_set_is_right_as_often_as_promised(fill, folder, tmp_path):
    code, out, err = fill("plain", "--precision=0.8", f"--output={tmp_path / 'out'}")
    assert code == 0, err
    assert err.startswith("asked: plain 50 % seed 0 on partly (")
    assert f"wrote {tmp_path / 'out' / 'filled.csv'}\n" in err
    assert "Calibration" in out and "Set at a precision of 80 %" in out and "unknown labels are set" in out
    decisions = pd.read_csv(tmp_path / "out" / "decisions.csv")
    dataset = load_datasets([folder / "partly.py"])["partly"].cls
    truth_NC = sys.modules[dataset.__module__].truth("train")
    split = dataset().load(folder / "cache", "train")
    rows, columns = {name: row for row, name in enumerate(split.ids)}, list(split.categories)
    places = [(rows[d.image], columns.index(d.category)) for d in decisions.itertuples()]
    true = np.array([truth_NC[place] for place in places]) == 1
    assert len(true) > 100 and (true == (decisions.value == 1)).mean() >= 0.8
    assert all(split.labels_NC[place] == 0 for place in places)


def test_json_is_what_the_report_says(fill, tmp_path):
    code, out, _ = fill("plain", "--json", "--precision=0.8", f"--output={tmp_path / 'out'}")
    assert code == 0
    content = json.loads(out)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["promises"] == report["promises"] and content["cell"] == report["title"]
    assert len(content["written"]) == 5


def test_the_usual_folder_is_filled(fill, folder):
    assert fill("plain").code == 0
    with Image.open(folder / "filled" / "contact-sheet.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--precision=95"], "--precision 95 must be above 0.5 and below 1"),
        (["--cell=ab", "--ratio=0.5"], "--cell names one record; leave --ratio and --seed out"),
        (["--output=partly.py"], "--output partly.py is a file; name a folder"),
        (["--output=no/where"], "there is no folder no"),
        (["--ratio=0.9"], "no record of plain with known ratio 0.9"),
        (["--epochs=7"], "no record of plain at this setting"),
    ],
)
def test_bad_input_is_one_line(fill, arguments, line):
    code, out, err = fill("plain", *arguments)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("error: ") and line in err


def test_an_alias_for_all_given_labels_cannot_fill(fill):
    code, _, err = fill("upper_bound")
    assert code == 2 and "none of ssgrl at all" in err
