"""What a notebook calls: frames come back, nothing is printed, and bad input is a `UserError`."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import mlrpl_bench as mb
from mlrpl_bench.api.actions import execute
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.training.options import Options
from tests.helpers.tiny_study import contents


@pytest.fixture(autouse=True)
def _silent(capsys):
    """Nothing here prints."""
    yield
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def folder_of(trained):
    return Path(trained["results"]) / "tiny"


def test_a_leaderboard_is_a_tidy_frame_and_files(trained, folder_of):
    result = mb.leaderboard(methods=["plain", "other"], ratios=[0.5, 0.9], seeds=2, **trained)
    frame = result.measurements
    assert isinstance(frame, pd.DataFrame)
    assert set(frame.method) == {"plain", "other", "upper_bound"}
    row = frame[(frame.method == "plain") & (frame.known_ratio == "0.5") & (frame.metric == "mAP")].iloc[0]
    assert row.n == 2 and 0 < row["mean"] < 100
    assert folder_of / "leaderboard-epochs=1.csv" in result.written
    assert (result.failures, result.problems, result.unwritten) == ([], [], "")


def test_tables_go_where_they_are_asked_to(trained, tmp_path):
    result = mb.leaderboard(methods=["plain"], ratios=[0.5], seeds=1, train=False, out=tmp_path / "here", **trained)
    assert result.written and all(path.is_relative_to(tmp_path / "here") for path in result.written)


def test_a_run_trains_what_is_missing_and_tells_of_progress(trained):
    heard = []
    result = mb.run("plain", ratios=[0.7], progress=lambda *what: heard.append(what), **trained)
    assert ("plain 70 % seed 0", 1, 1) in heard
    assert {"0.7"} <= set(result.measurements.known_ratio)
    heard.clear()
    assert mb.run("plain", ratios=[0.7], progress=lambda *what: heard.append(what), **trained).written == ()
    assert not [what for what in heard if what[0].startswith("plain")]


def test_test_images_are_scored_as_often_as_is_asked_and_the_table_says_so(trained, tmp_path):
    asked = {**trained, "epochs": 3, "results": tmp_path, "ratios": [0.5]}
    result = mb.leaderboard(methods=["plain"], evaluate_every=2, **asked)
    histories = [pd.read_csv(path) for path in tmp_path.glob("tiny/*/*/history.csv")]
    assert len(histories) == 2  # the upper bound's too
    assert all(history["test.mAP"].notna().tolist() == [False, True, True] for history in histories)
    texts = {
        path.suffix: path.read_text(encoding="utf-8") for path in result.written if path.suffix in (".md", ".html")
    }
    assert "the best of those epochs that were evaluated (--evaluate-every): " in texts[".md"]
    assert not re.search(r"[\[:, ]NaN[,\]}]", texts[".html"])  # which is no JSON
    every = mb.leaderboard(methods=["plain"], **{**asked, "results": tmp_path / "every"})
    same = result.measurements.metric.isin(["mAP", "OF1", "CF1"])
    pd.testing.assert_frame_equal(result.measurements[same], every.measurements[same])


def test_hyper_parameters_are_changed_by_name(trained):
    with pytest.raises(mb.UserError, match="nothing_such"):
        mb.run("plain", ratios=[0.5], overrides={"nothing_such": 3}, **trained)


def test_two_methods_are_compared(trained):
    found = mb.compare("plain", "other", ratios=[0.5, 0.9], **trained)
    assert (found.a, found.b) == ("plain", "other")
    assert {line["metric"] for line in found.to_json()["rows"]} == {"mAP", "OF1", "CF1"}


def test_claims_of_papers_need_records_of_their_methods(trained):
    with pytest.raises(mb.UserError, match="no records of these methods"):
        mb.claims(**trained)


def test_images_are_scored(trained, tmp_path):
    image = next((Path(trained["results"]).parent / "cache").rglob("0.png"))
    frame = mb.predict("plain", [image], ratio=0.9, seed=1, **trained)
    assert list(frame.columns) == ["image", "category", "logit", "probability", "predicted"]
    assert len(frame) == 4 and frame.probability.is_monotonic_decreasing
    assert ((frame.probability >= 0.5) == frame.predicted).all()


def test_records_are_listed(trained):
    frame = mb.records(trained["results"], dataset="tiny")
    assert len(frame[frame.known_ratio.isin([0.5, 0.9])]) == 8  # beside them the upper bound, at 1
    assert {"method", "known_ratio", "seed", "mAP", "OF1", "epochs", "folder", "seconds"} <= set(frame.columns)
    assert frame.mAP.between(0, 100).all() and frame.epochs.eq(1).all()
    assert len(mb.records([trained["results"]])) == len(frame)
    with pytest.raises(mb.UserError, match="no records of 'other_set'"):
        mb.records(trained["results"], dataset="other_set")


def test_no_records_are_an_empty_frame(tmp_path):
    frame = mb.records(tmp_path / "nothing")
    assert frame.empty and {"method", "known_ratio", "mAP", "folder"} <= set(frame.columns)


def test_one_of_something_may_be_given_as_it_is(trained):
    one = mb.leaderboard(methods="plain", ratios=0.5, train=False, **trained)
    assert set(one.measurements.method) == {"plain", "upper_bound"}


def test_a_damaged_record_is_a_warning(trained, tmp_path):
    copy = shutil.copytree(trained["results"], tmp_path / "copy")
    next(Path(copy).rglob("record.json")).write_text("{")
    with pytest.warns(UserWarning, match="not used: .*record.json"):
        mb.records(copy)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda kw: mb.run("plain", **{**kw, "epoch": 3}), "no option 'epoch'; there are: "),
        (lambda kw: mb.run("plainn", **kw), "no method 'plainn'; did you mean 'plain'?"),
        (lambda kw: mb.run("plain", ratios=[2], **kw), r"outside \(0, 1\]"),
        (lambda kw: mb.run("plain", ratios=2, **kw), r"outside \(0, 1\]"),
        (lambda kw: mb.run("plain", ratios=["a"], **kw), "known ratios are numbers"),
        (lambda kw: mb.run("plain", **{**kw, "epochs": "x"}), "the option epochs is 'x'; it must be int"),
        (lambda kw: mb.predict("plain", "no.png", ratio=0.5, **kw), "no.png"),
        (lambda kw: mb.leaderboard(methods="plainn", **kw), "no method 'plainn'"),
        (lambda kw: mb.predict("plain", [], cell="ab", ratio=0.5, **kw), "--cell names one record"),
        (lambda kw: mb.leaderboard(**{**kw, "dataset": "no"}), "no dataset 'no'"),
        (lambda kw: mb.compare("plain", "plain", **kw), "compared with itself"),
        (lambda kw: mb.predict("plain", ["no.png"], ratio=0.5, **kw), "no.png"),
        (lambda kw: mb.predict("plain", [], ratio=0.3, **kw), "no record of plain with known ratio 0.3"),
    ],
)
def test_bad_input_is_one_line(trained, call, line):
    with pytest.raises(mb.UserError, match=line) as refusal:
        call(trained)
    assert "\n" not in str(refusal.value)


def test_a_request_that_travelled_makes_the_same_table(trained, folder_of):
    request = Request(
        dataset="tiny",
        methods=("plain", "other"),
        ratios=(0.5, 0.9),
        seeds=2,
        options=Options(epochs=1, device="cpu"),
        plugins=tuple(trained["plugins"]),
        results=(trained["results"],),
        train=False,
        only_these_rows=True,
        leaderboard=True,
    )
    here = mb.leaderboard(methods=["plain", "other"], ratios=[0.5, 0.9], seeds=2, **trained)
    before = contents(folder_of)
    there = Request.from_json(json.loads(json.dumps(pickle.loads(pickle.dumps(request)).to_json())))
    result = execute.execute(resolve(there, Quiet()), Quiet())
    assert result.leaderboard.to_json() == here.leaderboard.to_json()
    assert contents(folder_of) == before


def test_records_at_an_address_answer_as_those_of_the_folder_do(trained, folder_of, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    storage = fsspec.filesystem("memory")
    storage.put(str(trained["results"]), "/bucket/results", recursive=True)
    there = {**trained, "results": [tmp_path / "mine", "memory://bucket/results"]}
    before = set(storage.find("/bucket"))
    try:
        asked = {"ratios": [0.5, 0.9], "seeds": 2, "train": False}
        here, remote = (mb.leaderboard(methods=["plain", "other"], **asked, **each) for each in (trained, there))
        pd.testing.assert_frame_equal(here.measurements, remote.measurements)
        assert here.leaderboard.main == remote.leaderboard.main
        assert remote.written and all(path.is_relative_to(tmp_path / "mine") for path in remote.written)
        assert mb.compare("plain", "other", **there).to_json() == mb.compare("plain", "other", **trained).to_json()
        listed = mb.records(there["results"])
        assert len(listed) == len(mb.records(trained["results"]))
        assert listed.folder.str.startswith("memory://bucket/results/tiny/").all()
        alone = {**trained, "results": "memory://bucket/results"}
        printed = mb.leaderboard(methods=["plain", "other"], **asked, **alone)
        assert printed.leaderboard.main == here.leaderboard.main and printed.written == []
        assert printed.unwritten.startswith(
            "--results-dir memory://bucket/results is object storage, which is only read, "
        )
        with pytest.raises(mb.UserError, match="which is only read; name a folder of this machine"):
            mb.run("plain", ratios=[0.3], **alone)
        with pytest.raises(mb.UserError, match="which is only read; name a folder of this machine"):
            mb.tune(["plain"], **alone)
        image = next((trained["results"].parent / "cache").rglob("1.png"))
        with pytest.raises(mb.UserError, match=r"are at memory://bucket/results/tiny/plain/.*/weights.safetensors"):
            mb.predict("plain", [image], **alone)
        assert set(storage.find("/bucket")) == before
    finally:
        storage.store.clear()
        storage.pseudo_dirs.clear()
