"""A file or a folder is whole or not there, also after a failure and with two processes at once."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlrpl_bench.utils.files import (
    build_folder_once,
    cache_folder,
    is_writable,
    set_aside,
    sha256_of_file,
    unfinished,
    write_atomically,
    write_lines_atomically,
)
from tests.helpers.places import ROOT


def test_a_written_file_holds_the_content_and_its_folder_is_made(tmp_path):
    write_atomically(tmp_path / "new" / "record.json", "{}")
    assert (tmp_path / "new" / "record.json").read_bytes() == b"{}"


def test_text_is_written_as_utf8_with_unix_line_ends(tmp_path):
    write_atomically(tmp_path / "table.md", "α ≥ 0\n")
    assert (tmp_path / "table.md").read_bytes() == "α ≥ 0\n".encode()


def test_lines_are_written_one_after_the_other(tmp_path):
    write_lines_atomically(tmp_path / "new" / "table.csv", (f"{row},α\n" for row in range(3)))
    assert (tmp_path / "new" / "table.csv").read_bytes() == "0,α\n1,α\n2,α\n".encode()


def test_lines_that_break_off_leave_the_old_content_and_nothing_else(tmp_path):
    def lines():
        yield "new\n"
        raise RuntimeError("no more")

    path = tmp_path / "table.csv"
    write_atomically(path, "old")
    with pytest.raises(RuntimeError, match="no more"):
        write_lines_atomically(path, lines())
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError("disk full")

    path = tmp_path / "record.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_complete_before_it_gets_its_name(tmp_path, monkeypatch):
    seen = []
    replace = os.replace

    def look_and_replace(temporary, path):
        seen.append((Path(temporary).read_bytes(), Path(temporary).parent, Path(path).exists()))
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", look_and_replace)
    write_atomically(tmp_path / "record.json", "whole")
    assert seen == [(b"whole", tmp_path, False)]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_written_file_has_the_mode_any_other_new_file_has(tmp_path):
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_unfinished_file_is_whole_lies_beside_its_place_and_is_gone_afterwards(tmp_path):
    with unfinished(tmp_path / "a", "α") as temporary:
        assert temporary.read_bytes() == "α".encode()
        assert list(tmp_path.iterdir()) == [temporary] and temporary.name.startswith(".a.")
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_file_may_be_linked_to_its_name(tmp_path):
    with unfinished(tmp_path / "a", b"1") as temporary:
        os.link(temporary, tmp_path / "a")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1"}


def test_what_is_set_aside_gets_the_next_free_number(tmp_path):
    for number in (1, 2):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_text(str(number))
        moved = set_aside(tmp_path / "folder", ".damaged-")
        assert moved == tmp_path / f"folder.damaged-{number}"
        assert (moved / "file").read_text() == str(number)
    with pytest.raises(FileNotFoundError):
        set_aside(tmp_path / "folder", ".damaged-")


def test_a_folder_is_built_once(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "image").write_text("1")

    for _ in range(2):
        assert build_folder_once(tmp_path / "scenes", build) == tmp_path / "scenes"
    assert len(built) == 1
    assert (tmp_path / "scenes" / "image").read_text() == "1"


def test_a_folder_whose_building_fails_does_not_appear(tmp_path):
    def build(folder):
        (folder / "half").write_text("")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        build_folder_once(tmp_path / "scenes", build)
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_building_at_once_one_wins_whole(tmp_path):
    script = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from mlrpl_bench.utils.files import build_folder_once
here = Path({str(tmp_path)!r})
def build(folder):
    (here / f"started-{{os.getpid()}}").touch()
    deadline = time.monotonic() + 30
    while len(list(here.glob("started-*"))) < 2:  # both are building before either is done
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for part in range(20):
        (folder / str(part)).write_text(str(os.getpid()))
build_folder_once(here / "scenes", build)
print({{part.read_text() for part in (here / "scenes").iterdir()}}, len(list((here / "scenes").iterdir())))
"""
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0] in {f"{{'{process.pid}'}} 20\n" for process in processes}
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"scenes", "started"}


def test_the_cache_folder_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLRPL_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "cache"


@pytest.mark.skipif(sys.platform != "linux", reason="XDG is Linux's convention")
def test_the_cache_folder_is_else_the_platforms(monkeypatch, tmp_path):
    monkeypatch.delenv("MLRPL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mlrpl-bench"


def test_the_hash_of_a_file_is_its_bytes_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "weights").write_bytes(content)
    assert sha256_of_file(tmp_path / "weights") == hashlib.sha256(content).hexdigest()


def test_a_folder_that_does_not_exist_yet_is_as_writable_as_the_one_that_it_would_be_made_in(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "closed")
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").mkdir()
    assert is_writable(tmp_path / "open" / "a" / "b") and not is_writable(tmp_path / "closed" / "a" / "b")
