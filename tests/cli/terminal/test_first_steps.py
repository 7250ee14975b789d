"""What is said to somebody who calls the command line without a command."""

import typer

from mlrpl_bench.cli import app as cli
from mlrpl_bench.cli.terminal.first_steps import STEPS, first_steps
from tests.helpers.command import call


def test_three_commands_with_a_line_each_fit_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = first_steps("python bench.py").splitlines()
    assert len(STEPS) == 3
    for command, words in STEPS:
        (line,) = (line for line in lines if f"python bench.py {command} " in line)
        assert line.endswith(words)
    assert max(map(len, lines)) <= 80


def test_on_a_narrow_terminal_the_words_stand_below(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = first_steps("python bench.py").splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[2:4] == ["  python bench.py leaderboard", "      train a first table; minutes, needs no data"]


def test_each_of_them_is_a_command_that_there_is():
    known = typer.main.get_command(cli.app).commands
    assert {command.split()[0] for command, _ in STEPS} <= set(known)


def test_no_command_is_a_usage_error_without_a_line_of_its_own():
    code, out, err = call()
    assert (code, err) == (2, "")
    assert out == first_steps("python bench.py") + "\n"
