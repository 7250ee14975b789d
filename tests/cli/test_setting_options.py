"""Every command that trains has the same options for its setting."""

import inspect
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mlrpl_bench.cli import app as cli
from mlrpl_bench.cli.setting_options import with_setting
from mlrpl_bench.training.study import Options


@pytest.fixture
def call():
    """Run a command that keeps what it was given."""
    app, given = typer.Typer(), {}

    @app.command()
    @with_setting
    def train(name: str, seeds: int = 1, *, options: Options) -> None:
        """Train."""
        given.update(name=name, seeds=seeds, options=options)

    def call(*arguments, env=None):
        result = CliRunner().invoke(app, list(arguments), env={"MLRPL_DATA": None, **(env or {})})
        assert result.exit_code == 0, result.output
        return given

    return call


def test_a_command_keeps_its_own_options_and_gets_the_settings(call):
    given = call("sarb", "--seeds", "3", "--epochs", "7", "--evaluate-on", "val", "--set-data", "year=2017")
    assert (given["name"], given["seeds"]) == ("sarb", 3)
    assert given["options"] == Options(epochs=7, evaluate_on="val", data={"year": "2017"})


def test_without_options_the_settings_are_those_of_the_library(call):
    assert call("sarb")["options"] == Options()


def test_the_data_root_may_stand_in_the_environment(call, tmp_path):
    assert call("sarb", env={"MLRPL_DATA": str(tmp_path)})["options"].data_root == tmp_path


def test_every_field_of_the_options_can_be_set(call):
    values = {
        "data_root": "d", "epochs": "7", "batch": "8", "image_size": "64",
        "backbone": "b", "weights": "w", "precision": "p", "device": "x",
        "workers": "2", "evaluate_on": "val", "mask_scheme": "by_id", "mask_file": "m", "on_bad_image": "skip",
        "image_backend": "fast",
    }  # fmt: skip
    arguments = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value)]
    options = call("sarb", *arguments, "--deterministic", "--compile", "--set-data", "a=b")["options"]
    converted = {
        "data_root": Path("d"),
        "epochs": 7,
        "batch": 8,
        "image_size": 64,
        "workers": 2,
        "mask_file": Path("m"),
    }
    assert options == Options(**{**values, **converted}, deterministic=True, compile=True, data={"a": "b"})
    assert set(values) | {"deterministic", "compile", "data"} == set(inspect.signature(Options).parameters)


@pytest.mark.parametrize("command", ["run", "leaderboard"])
def test_the_commands_that_train_have_them(command):
    parameters = {parameter.name for parameter in typer.main.get_command(cli.app).commands[command].params}
    assert set(inspect.signature(Options).parameters) - {"data"} <= parameters
