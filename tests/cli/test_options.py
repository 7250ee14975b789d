"""What the files with commands share."""

import dataclasses
import inspect
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mlrpl_bench.cli import app as cli
from mlrpl_bench.cli import options
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.training import options as training_options
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import METHOD, write_plugin


def test_registries_have_what_a_plugin_defines(tmp_path):
    methods, datasets = options.registries([write_plugin(tmp_path / "mine.py", METHOD)])
    assert "plain" in methods.entries and "ssgrl" in methods.entries
    assert "scenes" in datasets.entries


def test_a_file_that_cannot_be_loaded_is_a_warning(tmp_path, monkeypatch, capsys):
    write_plugin(tmp_path / "broken.py", "1 / 0")
    monkeypatch.setattr("mlrpl_bench.models.registry.bundled_folder", lambda name: tmp_path)
    options.registries(None)
    lines = capsys.readouterr().err.strip().split("\n")
    assert all(line.startswith("warning: ") and "broken.py" in line for line in lines)


def test_the_first_results_folder_is_written_to_and_all_are_read(tmp_path):
    (tmp_path / "b").mkdir()
    store = options.result_store([tmp_path / "a", tmp_path / "b"])
    assert (store.root, store.others) == (tmp_path / "a", (tmp_path / "b",))
    assert str(options.result_store(None).root) == "results"


def test_the_program_is_named_as_it_was_called(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench.py"])
    assert options.program() == "python bench.py"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mlrpl-bench"])
    assert options.program() == "mlrpl-bench"


@pytest.mark.parametrize(
    ("text", "ratios"),
    [
        (None, None),
        ("all", NINE_RATIOS),
        ("0.5", (0.5,)),
        ("0.5,0.1", (0.1, 0.5)),
        (" 0.5 , 1", (0.5, 1.0)),
        ("0.1,0.10,1e-1", (0.1,)),
    ],
)
def test_ratios_are_listed_or_all_or_the_presets(text, ratios):
    assert options.ratio_numbers(text) == ratios


@pytest.mark.parametrize("text", ["0", "1.5", "0.5,-0.1", "nan", "inf", "x", "", "0.5,", "0.1;0.5", "50%"])
def test_ratios_that_are_none_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"outside \(0, 1\]|is no number; write 0\.1,0\.5 or all") as refusal:
        options.ratio_numbers(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("text", "size"), [("auto", None), ("1", 1), ("12", 12)])
def test_a_group_is_a_number_of_cells_or_as_many_as_fit(text, size):
    assert options.group_size(text) == size


@pytest.mark.parametrize("text", ["0", "-3", "many", "", "1.5", "Auto"])
def test_groups_that_cannot_be_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"must be at least 1|is neither auto nor a number of cells") as refusal:
        options.group_size(text)
    assert "\n" not in str(refusal.value)


def test_weights_are_kept_or_not():
    assert (options.keeps_weights("last"), options.keeps_weights("none")) == (True, False)
    with pytest.raises(UserError, match="--keep-weights maybe is not valid; it is last or none"):
        options.keeps_weights("maybe")


@pytest.mark.parametrize(
    ("text", "names"),
    [(None, None), ("all", ("all",)), ("shown, basic", ("shown", "basic")), ("shown,", ("shown", ""))],
)
def test_methods_are_named_in_one_text(text, names):
    assert options.method_names(text) == names


def test_ratios_that_a_table_would_head_alike_are_refused():
    with pytest.raises(UserError, match="are both 50 % in a table; leave one out"):
        options.ratio_numbers("0.5,0.5000000001")


def test_plugins_do_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert options.plugin_files([Path("a.py")]) == (tmp_path / "a.py",)
    assert options.plugin_files(None) == ()


# The options that decide a setting


@pytest.fixture
def call():
    """Run a command that keeps what it was given."""
    app, given = typer.Typer(), {}

    @app.command()
    @options.with_setting
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
        "backbone": "b", "weights": "w", "precision": "bf16-mixed", "device": "x",
        "workers": "2", "evaluate_on": "val", "mask_scheme": "by_id", "mask_file": "m", "on_bad_image": "skip",
        "image_backend": "fast", "preset": "p", "trained_stages": "0", "feature_width": "9", "attention_width": "5",
    }  # fmt: skip
    arguments = [part for name, value in values.items() for part in (training_options.flag(name), value)]
    made = call("sarb", *arguments, "--deterministic", "--compile", "--set-data", "a=b", "--lr=0.5")["options"]
    converted = {
        "data_root": Path("d"),
        "epochs": 7,
        "batch": 8,
        "image_size": 64,
        "workers": 2,
        "mask_file": Path("m"),
        "trained_stages": 0,
        "feature_width": 9,
        "attention_width": 5,
        "lr_multiplier": 0.5,
    }
    assert made == Options(**{**values, **converted}, deterministic=True, compile=True, data={"a": "b"})
    apart = {"deterministic", "compile", "data", "lr_multiplier"}
    assert set(values) | apart == set(inspect.signature(Options).parameters)


@pytest.mark.parametrize("command", ["run", "leaderboard"])
def test_the_commands_that_train_have_them(command):
    parameters = {parameter.name for parameter in typer.main.get_command(cli.app).commands[command].params}
    assert set(inspect.signature(Options).parameters) - {"data"} <= parameters


def commands(command, path=()):
    """Every command that does something, with its name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
    for name, each in (inner or {}).items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("name", ["run", "leaderboard", "compare", "claims", "predict", "verify"])
def test_a_command_with_a_setting_has_each_option_once_with_its_help(name):
    parameters = COMMANDS[name].params
    flags = [flag for parameter in parameters for flag in parameter.opts]
    assert len(flags) == len(set(flags))
    for field in dataclasses.fields(Options):
        (parameter,) = (each for each in parameters if each.name == field.name)
        assert parameter.opts == [training_options.flag(field.name)]
        assert parameter.help.startswith(field.metadata["doc"])
        assert all(choice in parameter.help for choice in field.metadata.get("choices") or ())


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_of_the_setting_says_the_same_wherever_it_is_offered(name):
    fields = {field.name: field for field in dataclasses.fields(Options)}
    own = {("data check", "workers"), ("data prepare", "workers")}  # processes that decode, not a loader's
    own |= {("records export", "weights")}  # whether they are packed, not where they come from
    for parameter in COMMANDS[name].params:
        if parameter.name in fields and (name, parameter.name) not in own:
            assert parameter.help.startswith(fields[parameter.name].metadata["doc"])
            assert training_options.flag(parameter.name) in parameter.opts


def test_a_command_may_offer_some_of_the_options_under_another_name_too():
    app, given = typer.Typer(), []

    @app.command()
    @options.with_options("data_root", "epochs", also={"data_root": "--root"})
    def look(*, options: Options) -> None:
        """Look."""
        given.append(options)

    assert CliRunner().invoke(app, ["--root", "a", "--epochs", "3"]).exit_code == 0
    assert CliRunner().invoke(app, ["--data-root", "a"]).exit_code == 0
    assert CliRunner().invoke(app, ["--batch", "3"]).exit_code == 2
    assert given == [Options(data_root=Path("a"), epochs=3), Options(data_root=Path("a"))]


def test_a_value_that_cannot_be_is_refused_before_the_command_begins():
    app = typer.Typer()

    @app.command()
    @options.with_options("epochs")
    def look(*, options: Options) -> None:
        """Look."""
        pytest.fail("the command began")

    refused = CliRunner().invoke(app, ["--epochs", "0"]).exception
    assert isinstance(refused, UserError) and str(refused) == "--epochs 0 must be at least 1"


def test_a_command_that_reads_records_gets_which_ones_and_how_to_show_them_as_one_value(tmp_path):
    app, given = typer.Typer(), []

    @app.command()
    @options.with_setting
    @options.with_asked()
    def look(name: str, *, asked: options.Asked, options: Options) -> None:
        """Look."""
        given.append((name, asked, options))

    arguments = ["--dataset=coco", "--ratios=0.5,0.1", "--mask-seed=3", "--out=o", "--json", "--epochs=7"]
    asked_for = ["sarb", *arguments, f"--results-dir={tmp_path}", f"--plugin={tmp_path / 'p.py'}"]
    assert CliRunner().invoke(app, ["sarb"]).exit_code == CliRunner().invoke(app, asked_for).exit_code == 0
    (_, usual, _), (name, asked, setting) = given
    assert usual == options.Asked() and (name, setting) == ("sarb", Options(epochs=7))
    assert (asked.dataset, asked.out, asked.as_json) == ("coco", Path("o"), True)
    request = asked.request(setting)
    assert (request.dataset, request.ratios, request.mask_seed) == ("coco", (0.1, 0.5), 3)
    assert (request.plugins, request.results, request.options) == ((tmp_path / "p.py",), (tmp_path,), setting)


def test_a_command_that_writes_no_table_files_offers_no_folder_for_them():
    app, given = typer.Typer(), []

    @app.command()
    @options.with_asked(out=False)
    def look(*, asked: options.Asked) -> None:
        """Look."""
        given.append(asked)

    assert CliRunner().invoke(app, ["--json"]).exit_code == 0 and given == [options.Asked(as_json=True)]
    assert CliRunner().invoke(app, ["--out", "o"]).exit_code == 2
