"""Every command prints on any terminal and into any log file: ASCII alone, or a terminal that can do nothing."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.places import BENCH, ROOT
from tests.helpers.processes import PRELOADED
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin

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


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}

COMMANDS = [
    ("leaderboard", *TINY, "--methods=plain,ssgrl", "--seeds=2"),  # its table has signs of which ASCII has none
    ("run", "plain", *TINY, "--seeds=2"),
    ("compare", "plain", "ssgrl", *TINY),
    ("claims", *TINY),
    ("data", "stats", "tiny"),
    ("list", "-v"),
    ("list", "cells"),
    ("run", "--help"),
]

ONE_AFTER_THE_OTHER = f"""
import json, os, sys
from mlrpl_bench.cli import app
for module in {PRELOADED}:
    __import__(module)
for number, arguments in enumerate(json.loads(sys.argv[1])):
    if not os.fork():
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{{number}}.{{name}}", os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv = ["bench.py", *arguments]
        try:
            app.main()
        except SystemExit as end:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(end.code or 0)  # without taking down all that was imported, which takes a second
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
"""A program that calls commands, each in a process of its own that has imported everything already."""


@pytest.fixture(scope="module")
def answers(folder):
    """Exit code, table and standard error of each command where there is ASCII alone."""
    asked = [[*command, "--plugin=tiny_set.py", "--plugin=plain.py"] for command in COMMANDS]
    program = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(asked)]
    done = subprocess.run(
        program, cwd=folder, env=environment(folder, PYTHONPATH=str(ROOT), **ASCII), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    said = [[(folder / f"{number}.{name}").read_bytes() for name in ("out", "err")] for number in range(len(asked))]
    return {
        command: (int(code), *both) for command, code, both in zip(COMMANDS, done.stdout.split(), said, strict=True)
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_prints_in_ascii(answers, command):
    code, out, err = answers[command]
    assert (code, b"Traceback" in err) == (0, False), err.decode()
    assert out.strip() and out.isascii() and err.isascii()


def test_a_sign_that_ascii_lacks_is_replaced(answers):
    assert b"~" in answers[COMMANDS[0]][1]


def test_a_file_has_its_letters_whatever_the_terminal_knows(folder, answers):
    assert "±" in next((folder / "results" / "tiny").glob("leaderboard*.md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("more", [pytest.param({}, marks=pytest.mark.slow), {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_that_can_do_nothing_gets_plain_text(folder, more):
    import pty

    outer, inner = pty.openpty()
    arguments = ["run", "plain", *TINY, "--seeds=2", "--plugin=tiny_set.py", "--plugin=plain.py"]
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
