"""``predict`` as a user meets it: tables, a picture, and one line for bad input."""

import json
import shutil

import pytest
from PIL import Image

from mlrpl_bench.cli.commands import predict as predict_cli
from mlrpl_bench.records.record import read_arrays
from mlrpl_bench.records.store import ResultStore
from tests.helpers.command import Answer, copy_of, in_folder
from tests.helpers.tiny_study import METHOD

LOOKING = (
    METHOD.replace('"plain"', '"looking"')
    + """
    def attention(self, frozen_BDHW):
        return self.trained(frozen_BDHW)[:, : len(self.classifier.bias)].abs()
"""
)


@pytest.fixture(scope="module")
def world(trained_once, tmp_path_factory):
    """A copy of the records, and two more of a method that says where it looks."""
    world = copy_of(trained_once, tmp_path_factory.mktemp("somewhere")).with_plugins(looking=LOOKING)
    with pytest.MonkeyPatch.context() as patch:
        bench = in_folder(patch, world.folder, "--dataset=tiny", "--epochs=1", "--device=cpu", *world.plugins)
        assert not bench("run", "looking", "--ratios=0.5,0.9").code
    return world


@pytest.fixture
def predict(world, monkeypatch, tmp_path):
    """Call the command in the user's folder; the picture goes elsewhere."""
    bench = in_folder(monkeypatch, world.folder, columns=60)

    def predict(*arguments, options=("--epochs=1",)) -> Answer:
        common = ["--dataset=tiny", "--device=cpu", f"--output={tmp_path / 'out.png'}", *world.plugins, *options]
        return bench("predict", *common, *arguments)

    return predict


@pytest.fixture(scope="module")
def image(world):
    return world.folder / "cache" / "tiny" / "5.png"


def test_a_table_for_each_image_and_a_picture(predict, image, tmp_path):
    code, out, err = predict("looking", image, image.with_name("6.png"), "--top=3")
    assert code == 0
    assert out.count(" square ") == 6
    assert str(image) in out.replace("\n", "")
    assert err.startswith("asked: looking 90 % seed 0 on tiny (")
    assert "; chosen from 2 that fit, see --ratio, --seed and --cell\n" in err
    assert err.endswith(f"wrote {tmp_path / 'out.png'}\n")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG"


def test_json_has_the_scores_of_the_record(predict, image, world):
    code, out, _ = predict("plain", image, "--ratio=0.5", "--json")
    assert code == 0
    answer = json.loads(out)
    (record,) = (r for r in ResultStore(world.results).survey("tiny").records if r.cell.key == answer["key"])
    assert (answer["cell"], record.cell.title) == ("plain 50 % seed 0 on tiny", "plain 50 % seed 0")
    logits = {row["category"].split()[0]: row["logit"] for row in answer["images"][0]["scores"]}
    scores = read_arrays(record.folder / "scores.npz")["scores"][5]
    assert [logits[ink] for ink in ("red", "green", "blue", "white")] == pytest.approx(scores.tolist(), abs=1e-5)
    assert answer["images"][0]["image"] == str(image)


def test_a_key_names_the_record(predict, image, world):
    record = ResultStore(world.results).survey("tiny").records[0]
    answer = predict(record.cell.method, image, f"--cell={record.cell.key[:9]}")
    assert answer.err.startswith(f"asked: {record.cell.title} on tiny ({record.cell.key[:8]})\n")
    assert answer.code == 0


def test_a_damaged_record_is_named_and_the_others_are_used(predict, image, world, tmp_path):
    copy = shutil.copytree(world.results, tmp_path / "copy")
    damaged = next((copy / "tiny" / "looking").glob("0.9-*/record.json"))
    damaged.write_text("{")
    answer = predict("looking", image, f"--results-dir={copy}")
    assert answer.code == 0
    assert answer.err.startswith(f"not used: {damaged} is cut short")
    assert "asked: looking 50 % seed 0" in answer.err


def test_the_threshold_leaves_out_what_is_not_predicted(predict, image):
    rows = json.loads(predict("plain", image, "--json").out)["images"][0]["scores"]
    assert predict("plain", image, "--threshold").out.count(" square ") == sum(row["predicted"] for row in rows)


def test_a_method_without_attention_is_told_so(predict, image):
    assert "plain has no attention maps; the picture shows scores only\n" in predict("plain", image).err


def test_many_images_are_all_scored_and_the_first_are_drawn(predict, image, monkeypatch):
    monkeypatch.setattr(predict_cli, "DRAWN", 2)
    answer = predict("plain", *[image] * 3)
    assert answer.out.count(str(image)) == 3
    assert answer.err.endswith("out.png with the first 2 images\n")


def test_an_alias_is_its_method_at_its_ratio(predict, image):
    answer = predict("upper_bound", image)
    assert (answer.code, answer.err.split(" (")[0]) == (0, "asked: ssgrl 100 % seed 0 on tiny")
    assert "leave --ratio out" in predict("upper_bound", image, "--ratio=0.5").err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plain"], "Missing argument 'IMAGE...'; see "),
        (["plian", "IMAGE"], "no method 'plian'; did you mean 'plain'?"),
        (["plain", "no.png"], "image no.png does not exist"),
        (["plain", "plain.py"], "image plain.py cannot be decoded"),
        (["plain", "."], "error: image . "),
        (["plain", "IMAGE", "--top=0"], "--top 0 must be at least 1"),
        (["plain", "IMAGE", "--output=a.jpg"], "--output a.jpg: the picture is a PNG"),
        (["plain", "IMAGE", "--output=no/a.png"], "--output no/a.png: there is no folder no"),
        (["plain", "IMAGE", "--cell=abc", "--seed=0"], "--cell names one record; leave --ratio and --seed out"),
        (["plain", "IMAGE", "--cell=zzz"], "--cell zzz: no record has such a key; there are: plain 50 % seed 0 ("),
        (["plain", "IMAGE", "--ratio=0.3"], "no record of plain with known ratio 0.3 at this setting; there are: "),
        (["plain", "IMAGE", "--batch=3"], "trained with --batch 4)"),
        (["plain", "IMAGE", "--results-dir=elsewhere"], "there is none of plain at all, train it with: run plain"),
    ],
)
def test_bad_input_is_one_line_and_no_picture(predict, image, tmp_path, arguments, line):
    answer = predict(*(image if argument == "IMAGE" else argument for argument in arguments))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert line in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "out.png").exists()
