"""The options of where workers train reach the command, and contradictions are refused."""

import inspect

import pytest
import typer

from mlrpl_bench.cli import placing
from mlrpl_bench.cli.options import with_setting
from mlrpl_bench.launchers.placement import Placement
from tests.helpers.tiny_study import refusal


@pytest.fixture
def call():
    """Call a command with the options of a setting and of a placement; what it was given comes back."""
    given = []

    @with_setting
    @placing.with_placement
    def command(seeds: int = 1, *, options, placement) -> None:
        """Do something."""
        given.append((seeds, options, placement))

    app = typer.Typer()
    app.command()(command)

    def call(*arguments):
        app(list(arguments), standalone_mode=False)
        return given[-1]

    return call


def test_without_options_nothing_is_started(call):
    assert call()[2] == Placement()


def test_options_reach_the_command_and_the_two_kinds_of_workers_are_told_apart(call):
    seeds, options, placement = call("--seeds=3", "--launcher=local", "--workers=2", "--loader-workers=5")
    assert (seeds, options.workers, placement) == (3, 5, Placement("local", workers=2))
    rest = ("--launcher=submitit", "--partition=gpu", "--time=90")
    assert call(*rest)[2] == Placement("submitit", partition="gpu", time="90")
    assert call("--launcher=ray", "--ray-address=local", "--accelerator=H100")[2].accelerator == "H100"


def test_contradictions_are_refused_before_the_command_begins(call):
    assert "no launcher 'slum'" in refusal(lambda: call("--launcher=slum"))
    line = refusal(lambda: call("--workers=4"))
    assert line.endswith("; loader processes are --loader-workers")
    line = refusal(lambda: call("--launcher=local", "--launcher=ray", "--workers=2"))
    assert line == "--launcher local and --launcher ray contradict each other; leave one out"


def test_the_command_keeps_its_name_and_its_help():
    def command(*, options, placement):
        """Do something."""

    found = placing.with_placement(command)
    assert (found.__name__, found.__doc__) == ("command", "Do something.")
    assert "options" in inspect.signature(found).parameters


@pytest.mark.parametrize(("text", "shard"), [(None, None), ("1/1", (1, 1)), ("2/3", (2, 3))])
def test_a_shard_is_two_numbers(text, shard):
    assert placing.shard_of(text) == shard


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/3/5", "1/²"])
def test_what_is_no_shard_is_refused(text):
    assert refusal(lambda: placing.shard_of(text)).startswith(f"--shard {text} is not valid; write 1/3")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((Placement(), None, 4, False), "--workers-planned is for --dry-run;"),
        ((Placement(), None, 0, True), "--workers-planned 0 must be between 1 and"),
        ((Placement("local"), None, None, False, True), "--no-train and --launcher contradict each other"),
        ((Placement(), (1, 2), None, False, True), "--no-train and --shard contradict each other"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(arguments, line):
    assert refusal(lambda: placing.refuse_contradictions(*arguments)).startswith(line)


def test_choices_that_go_together_are_not_refused():
    placing.refuse_contradictions(Placement("local"), (1, 2), 4, dry_run=True)
    placing.refuse_contradictions(Placement(), None, None, dry_run=False, no_train=True)
