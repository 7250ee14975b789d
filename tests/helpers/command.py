"""The command line in the tests: called in this process or in one of its own, in a folder with records or without.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from mlrpl_bench.cli import app
from tests.helpers.places import BENCH
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin


def logged(text: str) -> list[dict[str, Any]]:
    """The objects of a log for machines, without their times."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(each.pop("time"), float) for each in found)
    return found


class Answer(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code.
        out: what it printed.
        err: what it said on standard error.
    """

    code: int
    out: str
    err: str


def call(*arguments: object, program: str = "bench.py") -> Answer:
    """Call the entry point in this process; what it raises besides SystemExit goes through.

    Args:
        program: the name that it is called by.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="", write_through=True) for _ in range(2)]
    with (
        mock.patch.object(sys, "argv", [program, *map(str, arguments)]),
        # click calls a program that was started as ``python -m pytest`` by that, whatever argv says
        mock.patch.object(sys.modules["__main__"], "__package__", None),
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
        pytest.raises(SystemExit) as end,
    ):
        app.main()
    out, err = (stream.buffer.getvalue().decode() for stream in streams)
    return Answer(end.value.code or 0, out, err)


def in_folder(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *options: object, columns: int = 200
) -> Callable[..., Answer]:
    """A way to call the command line in a folder that has the cache too.

    Args:
        options: given after each command's own arguments.
        columns: the width of the terminal.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLRPL_CACHE", str(folder / "cache"))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("MLRPL_DATA", raising=False)
    return lambda *arguments: call(*arguments, *options)


def in_a_process(*arguments: object, cwd: Path, cache: Path) -> Answer:
    """Call `bench.py` as a user does."""
    kept = {name: value for name, value in os.environ.items() if name != "MLRPL_DATA"}
    environment = {**kept, "MLRPL_CACHE": str(cache), "COLUMNS": "200"}
    command = [sys.executable, str(BENCH), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    return Answer(done.returncode, done.stdout, done.stderr)


OF_TINY = ("--dataset=tiny", "--ratios=0.5", "--epochs=1", "--device=cpu")
FIRST = ("leaderboard", *OF_TINY, "--methods=plain,partial_bce")
"""What `trained_once` is trained with."""


class World(NamedTuple):
    """A folder with a data set and a method of the user's own, and the records of one leaderboard.

    Attributes:
        folder: the user's; the cache is in it.
        plugins: options that name the data set's and the method's file.
        results: the records.
        first: how the command that trained them ended.
    """

    folder: Path
    plugins: list[str]
    results: Path
    first: Answer

    def with_plugins(self, **texts: str) -> World:
        """The same with more files of methods."""
        more = [f"--plugin={write_plugin(self.folder / f'{name}.py', text)}" for name, text in texts.items()]
        return self._replace(plugins=[*self.plugins, *more])


def train_in(folder: Path) -> World:
    """Write the user's files into a folder and train a leaderboard of two methods there."""
    for name, text in (("tiny_set.py", DATASET), ("plain.py", METHOD)):
        write_plugin(folder / name, text)
    with pytest.MonkeyPatch.context() as patch:
        first = in_folder(patch, folder, "--plugin=tiny_set.py", "--plugin=plain.py")(*FIRST)
    return _world(folder, first)


def copy_of(world: World, folder: Path) -> World:
    """The same in another folder, which exists."""
    shutil.copytree(world.folder, folder, dirs_exist_ok=True)
    return _world(folder, world.first)


def _world(folder: Path, first: Answer) -> World:
    plugins = [f"--plugin={folder / name}" for name in ("tiny_set.py", "plain.py")]
    return World(folder, plugins, folder / "results", first)
