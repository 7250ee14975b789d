"""Every command prints on any terminal and into any log file: ASCII alone, or a terminal that can do nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny_study import DATASET, METHOD, write_plugin

BENCH = Path(__file__).resolve().parents[2] / "bench.py"
TINY = ("--dataset=tiny", "--ratios=0.5", "--epochs=1", "--device=cpu")
NAMED = DATASET.replace("red square", "röd fyrkant")
"""A category whose name is no ASCII."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX's")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    write_plugin(folder / "tiny_set.py", NAMED)
    write_plugin(folder / "plain.py", METHOD)
    return folder


def environment(folder, **changes):
    kept = {name: value for name, value in os.environ.items() if name not in ("MLRPL_DATA", "COLUMNS")}
    return {**kept, "MLRPL_CACHE": str(folder / "cache"), **changes}


def call(folder, *arguments, **changes):
    command = [sys.executable, str(BENCH), *arguments, "--plugin=tiny_set.py", "--plugin=plain.py"]
    return subprocess.run(command, cwd=folder, env=environment(folder, **changes), capture_output=True)


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}


@pytest.fixture(scope="module")
def trained(folder):
    """A leaderboard of two methods and seeds; its table has signs of which ASCII has none."""
    return call(folder, "leaderboard", *TINY, "--methods=plain,ssgrl", "--seeds=2", **ASCII)


def test_a_leaderboard_is_printed_in_ascii(trained):
    assert trained.returncode == 0, trained.stderr.decode()
    assert b"~" in trained.stdout and b"Traceback" not in trained.stderr
    assert trained.stdout.isascii() and trained.stderr.isascii()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "plain", *TINY, "--seeds=2"),
        ("compare", "plain", "ssgrl", *TINY),
        ("claims", *TINY),
        ("data", "stats", "tiny"),
        ("list", "-v"),
        ("list", "cells"),
        ("run", "--help"),
    ],
    ids=" ".join,
)
def test_every_command_prints_in_ascii(folder, trained, arguments):
    done = call(folder, *arguments, **ASCII)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode()
    assert done.stdout.strip() and done.stdout.isascii() and done.stderr.isascii()


def test_a_file_has_its_letters_whatever_the_terminal_knows(folder, trained):
    assert "±" in next((folder / "results" / "tiny").glob("leaderboard*.md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("more", [{}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_that_can_do_nothing_gets_plain_text(folder, more):
    import pty

    outer, inner = pty.openpty()
    arguments = ["run", "plain", *TINY, "--seeds=3", "--plugin=tiny_set.py", "--plugin=plain.py"]
    process = subprocess.Popen(
        [sys.executable, str(BENCH), *arguments, f"--results-dir=dumb-{len(more)}"],
        cwd=folder,
        env=environment(folder, TERM="dumb", **more),
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    text = b""
    try:
        while piece := os.read(outer, 4096):
            text += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(outer)
    assert process.wait() == 0, text.decode(errors="replace")
    assert b"plain" in text and b"Traceback" not in text and b"\x1b[" not in text
    assert text.isascii() or not more
