"""The help of every command fits its terminal, and each of its options stands in a panel."""

import re

import pytest
import typer
from typer.testing import CliRunner

from mlrpl_bench.cli import app as cli
from mlrpl_bench.cli.terminal import panels
from tests.helpers.command import call


def commands(command, path=()):
    """Every command, groups included, with the words that call it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(cli.app)))
DOING = {path: command for path, command in COMMANDS.items() if not hasattr(command, "commands")}


def options_of(command) -> list:
    """The options of a command as its help has them."""
    with command.make_context("any", [], resilient_parsing=True) as context:
        return [param for param in command.get_params(context) if param.param_type_name == "option"]


def panels_of(text: str) -> dict[str, str]:
    """What stands in each panel of a help, by title."""
    return dict(re.findall(r"╭─ (.+?) ─*╮\n(.*?)╰", text, flags=re.S))


@pytest.mark.parametrize("columns", [60, 80])
def test_every_help_fits_and_shows_every_option_whole_in_its_panel(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for path, command in COMMANDS.items():
        code, out, err = call(*path, "--help")
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= columns, path
        assert "…" not in out, path
        found = panels_of(out)
        for option in options_of(command) if path in DOING else ():
            words = re.split(r"[ ,│\n]+", found[option.rich_help_panel])
            assert set(option.opts) <= set(words), (path, option.name)


@pytest.mark.parametrize("path", DOING, ids=" ".join)
def test_no_option_is_without_a_panel(path):
    options, titles = options_of(DOING[path]), {panels.TITLES.get(path[-1], ""), *panels.ORDER[1:]}
    assert {option.rich_help_panel for option in options} <= titles
    assert all(option.metavar is not None for option in options), "name it in panels.KINDS"


def test_panels_have_one_order_and_the_help_comes_last(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    found = panels_of(call("leaderboard", "--help").out)
    assert list(found) == ["What to train", "Setting", "Machine", "Output"]
    assert "--epochs" in found["Setting"] and "--launcher" in found["Machine"] and "--ratios" in found["What to train"]
    assert "--help" in found["Output"].rstrip().splitlines()[-1]


def test_an_option_in_two_panels_would_be_found():
    names = [name for kinds in panels.KINDS.values() for name in kinds]
    assert len(names) == len(set(names))


def test_a_panel_and_a_word_that_a_declaration_names_are_kept():
    app = panels.App()

    @app.command()
    def look(
        batch: int = typer.Option(1, rich_help_panel="Mine", metavar="SIZE"), epochs: int = typer.Option(1)
    ) -> None:
        """Look."""

    out = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    found = panels_of(out)
    assert "SIZE" in found["Mine"] and " N " in found["Setting"]


def test_boxes_are_plain_where_the_terminal_knows_no_others(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in call("run", "--help").out
