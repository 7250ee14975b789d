"""A leaderboard is found again while nothing has changed, and only then."""

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli import leaderboard_cache
from mlrpl_bench.cli.leaderboard_cache import CachedLeaderboard, CacheKey
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.tables import BEST, Entry, Table

TABLE = Table("t", "T", ("10 %",), [("a", [Entry("60.9", BEST, ("a", "0.1"), 60.9)])], ("a note",))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A question that was answered: one record, a file of labels beside an image, and a written table."""
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(leaderboard_cache, "CODE", (tmp_path / "code",))
    for name in (
        "results/d/m/cell/record.json",
        "data/labels.json",
        "data/images/1.jpg",
        "results/d/table.md",
        "my.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("something")
    request = Request(
        dataset="d",
        ratios=(0.1,),
        results=(tmp_path / "results", tmp_path / "more"),
        options=Options(data_root=tmp_path / "data"),
        plugins=(tmp_path / "my.py",),
        leaderboard=True,
    )
    question = leaderboard_cache.key(request)
    question.remember(
        CachedLeaderboard.from_table(TABLE, {"x": 1}, [tmp_path / "results/d/table.md"]), question.state()
    )
    return question


def asking(key, **other):
    """The key of a request with something else in it."""
    return replace(key, request=replace(key.request, **other))


def test_what_is_no_leaderboard_or_looks_at_every_image_is_not_remembered():
    assert leaderboard_cache.key(Request()) is None
    assert leaderboard_cache.key(Request(leaderboard=True, options=Options(on_bad_image="skip"))) is None


def test_what_rests_on_records_at_an_address_is_not_remembered():
    address = Path("s3://bucket/results")
    for folders in ((address,), (Path("results"), address)):
        assert leaderboard_cache.key(Request(leaderboard=True, results=folders)) is None


def test_while_nothing_changes_it_is_found_as_it_was(asked):
    found = asked.find()
    assert found.table.markdown() == TABLE.markdown()
    assert found.table.rows[0][1][0].mark == BEST
    assert found.json == '{\n "x": 1\n}'


@pytest.mark.parametrize(
    "other", [{"ratios": (0.5,)}, {"dataset": "e"}, {"results": (Path("more"),)}, {"out": Path("x")}]
)
def test_what_was_not_asked_is_not_found(asked, monkeypatch, other):
    monkeypatch.setattr(CacheKey, "state", lambda _: "the same")
    asked.remember(CachedLeaderboard.from_table(TABLE, {}, []), asked.state())
    assert asked.find() is not None and asking(asked, **other).find() is None


def test_the_same_words_in_another_folder_are_another_question(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(CacheKey, "state", lambda _: "the same")
    here = asking(asked, results=(Path("results"),))
    monkeypatch.chdir(tmp_path)
    here.remember(CachedLeaderboard.from_table(TABLE, {}, []), here.state())
    assert here.find() is not None
    monkeypatch.chdir(tmp_path / "data")
    assert here.find() is None


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("something else, and longer")


def touch(path):
    os.utime(path, ns=(1, 1))


def write_at_the_same_time(path):
    then = path.stat().st_mtime_ns
    write(path)
    os.utime(path, ns=(then, then))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (write, "results/d/m/cell/record.json"),
        (touch, "results/d/m/cell/record.json"),
        (write, "results/d/m/other/record.json"),
        (write, "results/d/m/cell/failed.json"),
        (write, "results/d/m/cell/claim-1.jsonl"),
        (write, "results/d/m/cell/claim-2.jsonl"),
        (write, "results/e/m/cell/record.json"),
        (write, "results/d/profile.json"),
        (write, "more/d/m/cell/record.json"),
        (write_at_the_same_time, "results/d/m/cell/record.json"),
        (write, "data/labels.json"),
        (write, "data/more.txt"),
        (write, "data/images/2.jpg"),
        (write, "my.py"),
        (write, "code/a.py"),
        (write, "code/deeper/b.py"),
        (write, "cache/words/vectors.npy"),
        (write, "results/d/table.md"),
        (lambda path: path.unlink(), "results/d/table.md"),
        (lambda path: path.unlink(), "results/d/m/cell/record.json"),
    ],
)
def test_whatever_changes_it_is_made_again(asked, tmp_path, change, name):
    change(tmp_path / name)
    assert asked.find() is None


def test_other_libraries_are_another_answer(asked, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: "0")
        assert asked.find() is None
    assert asked.find() is not None
    monkeypatch.setattr(sys, "version", "4.0")
    assert asked.find() is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"table": {"rows": 1}}'])
def test_what_is_damaged_is_made_again(asked, tmp_path, content):
    (path,) = (tmp_path / "cache/unchanged").iterdir()
    path.write_text(content)
    assert asked.find() is None


def test_a_row_with_another_number_of_entries_is_made_again(asked, tmp_path):
    (path,) = (tmp_path / "cache/unchanged").iterdir()
    content = json.loads(path.read_text())
    content["table"]["rows"][0][1] *= 2
    path.write_text(json.dumps(content))
    assert asked.find() is None


def test_a_folder_that_cannot_be_written_to_is_no_obstacle(asked, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(leaderboard_cache, "write_atomically", refuse)
    asking(asked, ratios=None).remember(CachedLeaderboard.from_table(TABLE, {}, []), asked.state())
    assert asking(asked, ratios=None).find() is None


def test_looking_imports_nothing_that_takes_long():
    code = (
        "import sys; import mlrpl_bench.cli.leaderboard_cache; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_local_modules_of_a_plugin_are_found(asked, tmp_path):
    (tmp_path / "helperlib.py").write_text("SIGN = 1")
    (tmp_path / "my.py").write_text("import helperlib")
    assert asked.with_imports([tmp_path / "my.py"]).imported == (tmp_path / "helperlib.py",)


def test_it_is_made_again_when_a_module_that_a_plugin_imports_was_edited(asked, tmp_path):
    (tmp_path / "helperlib.py").write_text("SIGN = 1")
    loaded = replace(asked, imported=(tmp_path / "helperlib.py",))
    loaded.remember(CachedLeaderboard.from_table(TABLE, {}, []), loaded.state())
    assert asked.find() is not None
    (tmp_path / "helperlib.py").write_text("SIGN = -1")
    assert asked.find() is None


def test_it_is_made_again_when_labels_outside_the_root_were_edited(asked, tmp_path):
    labels = tmp_path / "elsewhere.csv"
    labels.write_text("image,cat\n")
    options = replace(asked.request.options, data={"file": str(labels), "unknown": "-1"})
    here = asking(asked, options=options)
    here.remember(CachedLeaderboard.from_table(TABLE, {}, []), here.state())
    assert here.find() is not None
    labels.write_text("image,cat\na.jpg,1\n")
    assert here.find() is None
