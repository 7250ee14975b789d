"""The command line as a user meets it: tables on standard output, one line and exit code 2 for bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from mlrpl_bench.cli import app as cli
from mlrpl_bench.data import protocol
from mlrpl_bench.models.registry import load_methods
from tests.helpers.command import FIRST, OF_TINY, Answer, call, copy_of, in_a_process, in_folder
from tests.helpers.places import BENCH
from tests.helpers.processes import work_in_imports_of_torch
from tests.helpers.tiny_study import EXPLODING, METHOD, contents, make_of_another_version, write_plugin

TABLE_HEAD = ("method", "50 %", "95 % interval")


@pytest.fixture(scope="module")
def world(trained_once, tmp_path_factory):
    """A copy of the records, and a method that fails."""
    return copy_of(trained_once, tmp_path_factory.mktemp("somewhere")).with_plugins(explodes=EXPLODING)


LINES = load_methods().aliases
"""Rows that every leaderboard has besides the methods that are asked for, by name."""


@pytest.fixture
def bench(world, monkeypatch):
    """Call the entry point in this process, in the user's folder."""
    return in_folder(monkeypatch, world.folder)


@pytest.fixture
def results(world, tmp_path):
    """A copy of the records, to be spoilt."""
    return shutil.copytree(world.results, tmp_path / "copy")


def rows_of(text: str) -> list[list[str]]:
    """The cells of a table drawn with lines."""
    lines = (line for line in text.split("\n") if line.startswith(("│", "┃")))
    return [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]


def objects_of(answer: Answer) -> list[dict]:
    """The objects on standard error, of which every line is one, with the fields that the documents name."""
    found = [json.loads(line) for line in answer.err.splitlines()]
    for each in found:
        (fields,) = re.findall(rf"^\| `{each['event']}` \|(.*?)\|", MANY_MACHINES.read_text(), re.MULTILINE)
        assert set(each) - {"event", "time"} <= set(re.findall(r"`(\w+)`", fields)), each
    return found


MANY_MACHINES = BENCH.parent / "docs" / "many-machines.md"


def test_with_log_json_every_line_on_standard_error_is_an_object(bench, world, tmp_path):
    place = f"--results-dir={tmp_path}"
    asked = (*FIRST, *world.plugins, "--log-json", "--epochs=2")
    answer = bench(*asked, "--methods=plain,explodes", place)
    assert answer.code == 1 and answer.out.startswith("Leaderboard of tiny")
    events = [each["event"] for each in objects_of(answer)]
    assert {"group", "epoch", "cells", "finished", "failed", "wrote", "failure", "hint"} <= set(events)
    again = objects_of(bench(*asked, "--methods=plain", place))
    written = [each["path"] for each in again if each["event"] == "wrote"]
    unchanged = objects_of(bench(*asked, "--methods=plain", place))
    assert [(each["event"], each["path"]) for each in unchanged] == [("unchanged", path) for path in written]
    for wrong, word in (("--ratios=2", "known ratio 2"), ("--nosuch", "nosuch"), ("--epochs=many", "epochs")):
        refused = bench("leaderboard", "--dataset=tiny", *world.plugins, "--log-json", wrong, place)
        (error,) = objects_of(refused)
        assert (refused.code, error["event"], error["exit_code"]) == (2, "error", 2) and word in error["text"]


# What a user sees first


def test_help_is_quick_and_shows_every_command(tmp_path):
    def ask():
        answer = in_a_process("--help", cwd=tmp_path, cache=tmp_path)
        assert answer.code == 0
        for command in ("list", "run", "leaderboard", "test-method", "new"):
            assert command in answer.out

    assert work_in_imports_of_torch(ask) < 0.8  # about 0.25, and more than 1 with torch


def test_the_command_line_imports_nothing_that_takes_long(tmp_path):
    code = (
        "import sys; from mlrpl_bench import cli; "
        "print({'torch', 'numpy', 'pandas', 'timm', 'sklearn', 'lightning_fabric', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCH.parent, capture_output=True, text=True, env={**os.environ}
    )
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("command", ["list", "run", "leaderboard", "test-method", "new"])
def test_every_command_has_help(bench, command):
    answer = bench(command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert "Usage" in answer.out


def options_of(command, path=()):
    """Of a command and its subcommands: where it stands, and the option."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options_of(inner, (*path, name))
    yield from (((*path, parameter.name), parameter) for parameter in command.params)


def test_help_holds_nothing_that_is_taken_for_markup_and_not_shown(bench):
    # Typer prints help as rich's markup, in which "[default: all]" would be a style.
    found = dict(options_of(typer.main.get_command(cli.app)))
    assert ("profile", "batch") in found and ("data", "show", "split") in found
    assert not [place for place, option in found.items() if "[" in (getattr(option, "help", "") or "")]
    assert "preset's" in bench("profile", "--help").out


# Training and tables


def test_a_leaderboard_is_trained_printed_and_written(world):
    code, out, err = world.first
    assert code == 0, err
    (head, *rows) = rows_of(out)
    assert tuple(head[:3]) == TABLE_HEAD
    assert {row[0] for row in rows} == {"plain", "partial_bce", *LINES}
    assert "this setting is not the papers'" in out
    assert "one seed" in out
    assert "plain differs from its paper: shorter" in out
    assert f"wrote {Path('results/tiny/leaderboard-epochs=1.csv')}" in err
    assert "Traceback" not in err


def test_the_files_have_the_numbers_of_the_printed_table(world):
    head, *printed = rows_of(world.first.out)
    with (world.results / "tiny" / "leaderboard-epochs=1.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    markdown = (world.results / "tiny" / "leaderboard-epochs=1.md").read_text(encoding="utf-8").replace("**", "")
    for name, *entries in printed:
        for column, entry in zip(head[1:], entries, strict=True):
            if column != "95 % interval":
                assert float(rows[name][column]) == pytest.approx(float(entry.lstrip("*≈ ")), abs=0.06)
        assert f"| {name} | {' | '.join(entry.removeprefix('* ') for entry in entries)} |" in markdown


def test_every_trained_cell_is_reported_as_it_ends(world):
    reports = [line.split(" in ")[0] for line in world.first.err.split("\n") if ": mAP " in line]
    printed = {row[0]: row[1].lstrip("*≈ ") for row in rows_of(world.first.out)[1:]}
    titles = {name: f"{name} 50 % seed 0" for name in ("plain", "partial_bce")}
    titles |= {name: f"{line.method} {100 * line.ratio:g} % seed 0" for name, line in LINES.items()}
    assert reports == [f"{title}: mAP {printed[name]}" for name, title in titles.items()]


def test_called_again_it_trains_nothing_and_prints_the_same(bench, world, monkeypatch):
    monkeypatch.setattr(
        "mlrpl_bench.training.launchers.sweep._train_together", lambda *_: pytest.fail("something is trained")
    )
    before = contents(world.results)
    answer = bench(*FIRST, *world.plugins)
    assert (answer.code, answer.out) == (0, world.first.out)
    assert contents(world.results) == before


def test_called_from_another_folder_it_finds_what_it_is_told(world, tmp_path):
    before = contents(world.results)
    answer = in_a_process(
        *FIRST, *world.plugins, "--no-train", "--results-dir", world.results, cwd=tmp_path, cache=world.folder / "cache"
    )
    assert (answer.code, answer.out) == (0, world.first.out)
    assert contents(world.results) == before
    assert list(tmp_path.iterdir()) == []


def test_the_leaderboard_as_json(bench, world):
    answer = bench(*FIRST, *world.plugins, "--no-train", "--json")
    rows = json.loads(answer.out)["rows"]
    printed = {row[0]: row[1].lstrip("*≈ ") for row in rows_of(world.first.out)[1:]}
    assert {name: f"{row['50 %']['mean']:.1f}" for name, row in rows.items()} == printed


def test_tables_that_were_deleted_come_back_without_training(bench, world, results):
    for path in [*(results / "tiny").glob("*.*"), *results.glob("tiny/*/*/evidence.npz")]:
        path.unlink()
    bench(*FIRST, *world.plugins, "--no-train", "--results-dir", results)
    assert contents(results) == contents(world.results)


def test_a_run_trains_one_method_and_shows_it_beside_the_others(bench, world, results):
    answer = bench("run", "ilrb", *OF_TINY, *world.plugins, "--results-dir", results, "--keep-weights=none")
    assert answer.code == 0, answer.err
    assert {row[0] for row in rows_of(answer.out)[1:]} == {"ilrb", "plain", "partial_bce"}
    (folder,) = (results / "tiny" / "ilrb").iterdir()
    assert (folder / "record.json").is_file()
    assert not (folder / "weights.safetensors").exists()


def test_a_run_does_not_touch_the_leaderboards_files(bench, world, results):
    bench("run", "plain", *OF_TINY, "--seeds=2", *world.plugins, "--results-dir", results)
    for suffix in ("csv", "md"):
        name = Path("tiny") / f"leaderboard-epochs=1.{suffix}"
        assert (results / name).read_bytes() == (world.results / name).read_bytes()


def test_a_changed_hyper_parameter_is_a_row_with_its_value(bench, world, results):
    arguments = ("run", "ilrb", "--set", "start=0", *OF_TINY, *world.plugins, "--results-dir", results)
    answer = bench(*arguments)
    assert answer.code == 0, answer.err
    assert "ilrb[start=0]" in [row[0] for row in rows_of(answer.out)]
    assert "ilrb[start=0] 50 % seed 0: mAP" in answer.err


def test_a_dry_run_says_what_would_be_trained_and_leaves_no_trace(bench, world):
    before = contents(world.results)
    text = bench("run", "plain", *OF_TINY[:1], *OF_TINY[2:], "--ratios=0.5,0.9", *world.plugins, "--dry-run")
    assert text.out.startswith("2 cells, 1 of them without a record:\n  plain 90 % seed 0\n")
    plan = json.loads(bench(*FIRST, *world.plugins, "--dry-run", "--json").out)
    assert plan.pop("trainings")[0]["steps_per_epoch"] == 3
    assert plan == {"cells": 2 + len(LINES), "to_train": [], "score_bytes": 0}
    assert contents(world.results) == before


def test_a_method_that_was_edited_is_announced_and_trained_anew(bench, world, results, tmp_path):
    mine = write_plugin(tmp_path / "mine.py", METHOD.replace('"plain"', '"mine"'))
    arguments = ("run", "mine", *OF_TINY, f"--plugin={world.folder / 'tiny_set.py'}", "--results-dir", results)
    first = bench(*arguments, f"--plugin={mine}")
    mine.write_text(mine.read_text().replace("mean((2, 3))", "amax((2, 3))"))
    second = bench(*arguments, f"--plugin={mine}")
    assert "changed since its record" not in first.err
    assert "the file of mine changed since its record; its cells are trained anew" in second.err
    assert len(list((results / "tiny" / "mine").iterdir())) == 2
    assert [row[0] for row in rows_of(second.out)].count("mine") == 1


def test_a_cell_that_fails_is_named_at_the_end_and_the_others_are_shown(bench, world, results):
    arguments = ("--dataset=tiny", "--ratios=0.5", "--epochs=2", "--methods=explodes,plain")
    answer = bench("leaderboard", *arguments, *world.plugins, "--results-dir", results)
    assert answer.code == 1
    assert [row[0] for row in rows_of(answer.out)] == ["method", *LINES, "plain", "explodes"]
    assert rows_of(answer.out)[-1][1] == "failed"
    assert "- explodes at 50 %: failed: NonFiniteLoss: loss term 'burst' is nan" in answer.out
    *_, last, hint = answer.err.strip().split("\n")
    assert last.startswith("failed: explodes 50 % seed 0: NonFiniteLoss: loss term 'burst' is nan at epoch 1, step 2")
    assert "failed.json" in last
    plugins = [word.removeprefix("--plugin=") for word in world.plugins if word != "--plugin"]
    expected = "".join(f" --plugin {path}" for path in plugins)
    assert hint == f"to look for the cause: python bench.py test-method explodes{expected}"
    assert "Traceback" not in answer.err


def test_when_all_cells_fail_they_are_named(bench, world, results):
    arguments = ("run", "explodes", "--dataset=tiny", "--ratios=0.5", "--epochs=2", *world.plugins)
    shutil.rmtree(results)
    answer = bench(*arguments, "--results-dir", results)
    assert (answer.code, answer.out) == (1, "")
    assert "failed: explodes 50 % seed 0: NonFiniteLoss" in answer.err
    assert "to look for the cause: python bench.py test-method explodes --plugin " in answer.err


# Lists


def test_methods_are_listed(bench, world):
    answer = bench("list", *world.plugins)
    assert (answer.code, answer.err) == (0, "")
    assert ["plain", "One linear layer on the mean position.", "", "1 tiny"] in rows_of(answer.out)


def test_methods_are_listed_with_their_facts(bench, world):
    answer = bench("list", "methods", "-v", *world.plugins)
    assert "\n  paper: https://example.org/plain\n" in answer.out


@pytest.mark.parametrize(("kind", "name"), [("methods", "plain"), ("datasets", "tiny")])
@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_lists_as_json(bench, world, kind, name, verbose):
    rows = json.loads(bench("list", kind, "--json", *verbose, *world.plugins).out)
    assert name in [row["name"] for row in rows]
    assert ("file" in rows[0]) == bool(verbose)


def test_cells_are_listed(bench, world):
    cells = json.loads(bench("list", "cells", "--json").out)
    assert {"plain 50 % seed 0", "partial_bce 50 % seed 0"} <= {cell["cell"] for cell in cells}
    assert len(cells) == 2 + len(LINES)


# The user's own methods


def test_a_users_method_passes_the_checks(bench, world):
    answer = bench("test-method", "plain", *world.plugins)
    assert answer.code == 0, answer.out
    assert all(line.startswith("ok  ") for line in answer.out.strip().split("\n"))


def test_a_method_that_fails_a_check_is_told_which(bench, world):
    answer = bench("test-method", "explodes", *world.plugins)
    assert answer.code == 1
    (failed,) = (line for line in answer.out.split("\n") if "burst" in line)  # named once
    assert failed.startswith("FAILED")
    assert "        for the same reason: " in answer.out


def test_a_new_method_is_written_and_the_next_steps_are_said(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("mlrpl_bench.tools.new_method.PACKAGE", tmp_path / "mlrpl_bench")
    (tmp_path / "methods").mkdir()
    answer = bench("new", "my_method")
    assert (answer.code, answer.err) == (0, "")
    assert (tmp_path / "methods" / "my_method.py").is_file()
    assert "python bench.py test-method my_method" in answer.out


# Bad input


def refused(answer: Answer) -> str:
    """The one line."""
    assert answer.code == 2, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    (line,) = answer.err.rstrip("\n").split("\n")
    assert line.startswith("error: ")
    return line


QUITS = METHOD.replace('"plain"', '"quits"').replace(
    "    def __init__",
    """    class Hyperparameters(Method.Hyperparameters):
        def __init__(self):
            raise SystemExit(7)

    def __init__""",
    1,
)
"""Ends the program where neither loading nor training goes on."""

BAD = {
    "unknown command": (["leaderbord"], "No such command 'leaderbord'"),
    "unknown option": (["list", "--colour"], "No such option: --colour"),
    "unknown list": (["list", "cats"], "nothing called 'cats' to list; there are: methods, datasets, cells"),
    "missing method": (["run"], "Missing argument"),
    "help of the command": (["run", "plain", "--colour"], " run --help"),
    "help of a command of a group": (["data", "check"], " data check --help"),
    "unknown method": (["run", "ssgr", "--dataset=tiny"], "no method 'ssgr'; did you mean 'ssgrl'? there are: "),
    "methods of run": (["run", "plain,ssgrl"], "for several use leaderboard --methods plain,ssgrl"),
    "image size": (
        ["run", "plain", "--dataset=tiny", "--backbone=vit_tiny_patch16_224", "--weights=random", "--image-size=64"],
        "takes images of 224 x 224 pixels and no others, not 64; add --image-size 224",
    ),
    "unknown methods": (
        ["leaderboard", "--methods=sarbb", "--dataset=tiny"],
        "no method 'sarbb'; did you mean 'sarb'?",
    ),
    "unknown dataset": (["run", "plain", "--dataset=scene"], "no dataset 'scene'; did you mean 'scenes'? there are: "),
    "seeds no number": (["run", "plain", "--seeds=x"], "Invalid value for '--seeds'"),
    "no seeds": (["run", "plain", "--seeds=0"], "--seeds 0 must be at least 1"),
    "mask seed": (["run", "plain", "--mask-seed=-1"], "--mask-seed -1 must be between 0 and"),
    "ratio 0": (["run", "plain", "--ratios=0"], "known ratio 0 is outside (0, 1]"),
    "ratio 1.5": (["run", "plain", "--ratios=1.5"], "known ratio 1.5 is outside (0, 1]"),
    "ratio nan": (["run", "plain", "--ratios=nan"], "known ratio nan is outside (0, 1]"),
    "ratio no number": (["run", "plain", "--ratios=x"], "--ratios x: 'x' is no number; write 0.1,0.5 or all"),
    "ratios all of these": (["leaderboard", "--ratios=0,1.5,x,nan"], "--ratios 0,1.5,x,nan: 'x' is no number; write"),
    "epochs": (["run", "plain", "--dataset=tiny", "--epochs=0"], "--epochs 0 must be at least 1"),
    "value out of range": (["run", "sarb", "--set=contrastive=-7"], "sarb: contrastive=-7 is not valid, it must be"),
    "value no number": (["run", "sarb", "--set=prototypes=x"], "sarb: prototypes=x is not valid, it must be int"),
    "unknown parameter": (["run", "sarb", "--set=alpah=7"], "sarb has no hyper-parameter 'alpah'"),
    "setting without value": (
        ["run", "sarb", "--set=nonsense"],
        "--set 'nonsense' is not valid; write it as name=value",
    ),
    "keep weights": (["run", "plain", "--keep-weights=maybe"], "--keep-weights maybe is not valid; it is last or none"),
    "precision": (
        ["run", "plain", "--dataset=tiny", "--precision=8"],
        "--precision 8 is not valid; it is 32-true or bf16-mixed",
    ),
    "device": (["run", "plain", "--dataset=tiny", "--device=tpu"], "no device 'tpu'; there are: auto, cpu, cuda"),
    "no such device": (["run", "plain", "--dataset=tiny", "--device=cuda:999"], "device cuda:999 is not there"),
    "loaders": (["run", "plain", "--dataset=tiny", "--loader-workers=-2"], "--loader-workers -2 must be at least 0"),
    "launcher": (["run", "plain", "--dataset=tiny", "--launcher=slum"], "no launcher 'slum'; there are: local, print"),
    "launcher's workers": (
        ["run", "plain", "--dataset=tiny", "--workers=2"],
        "--workers is for --launcher local, print",
    ),
    "workers on a CPU": (
        ["run", "plain", "--dataset=tiny", "--ratios=0.7", "--device=cpu", "--launcher=local"],
        "--launcher local needs --workers N where there is no GPU",
    ),
    "launcher and no training": (
        ["leaderboard", "--no-train", "--launcher=ray"],
        "--no-train and --launcher contradict each other; leave one out",
    ),
    "shard": (["leaderboard", "--shard=4/3"], "--shard 4/3 is not valid; write 1/3 for the first of three parts"),
    "planned workers": (["leaderboard", "--workers-planned=3"], "--workers-planned is for --dry-run; add it, or write"),
    "object storage": (
        ["leaderboard", "--results-dir=nostore://bucket"],
        "--results-dir nostore://bucket cannot be read",
    ),
    "backbone": (
        ["run", "plain", "--dataset=tiny", "--backbone=resnet1", "--weights=random"],
        "no backbone 'resnet1'; there are: small, resnet101, and timm's",
    ),
    "weights": (["run", "plain", "--dataset=tiny", "--weights=no.pth"], "--weights no.pth: there is no such file"),
    "weights of something else": (
        ["run", "plain", "--dataset=tiny", "--ratios=0.7", "--weights=plain.py"],
        "--weights plain.py cannot be read",
    ),
    "data root": (["run", "plain", "--dataset=tiny", "--data-root=nowhere"], "--data-root nowhere is not a folder"),
    "missing plugin": (["list", "--plugin=missing.py"], "missing.py: there is no such file"),
    "broken plugin": (
        ["list", "--plugin=broken.py"],
        "broken.py could not be loaded (ZeroDivisionError: division by zero, line 1)",
    ),
    "plugin that exits": (
        ["list", "--plugin=exits.py"],
        "exits.py could not be loaded (it calls sys.exit(3) while it is loaded, line 2; take the call out)",
    ),
    "plugin that exits in a hyper-parameter": (
        ["run", "quits", "--dataset=tiny", "--plugin=quits.py"],
        "a file's code called sys.exit(7); take the call out of it",
    ),
    "plugin a folder": (["list", "--plugin=."], " is a folder; name each of its .py files with a --plugin of its own"),
    "too many seeds": (["run", "plain", "--seeds=1000000", "--dry-run"], "--seeds 1000000 must be at most 1000"),
    "too large a batch": (
        ["run", "plain", "--dataset=tiny", "--batch=13", "--dry-run"],
        "plain: no batch of 13 in 12 training images; choose a smaller one with --batch",
    ),
    "an empty weight file": (
        ["run", "plain", "--dataset=tiny", "--weights=empty.pth", "--dry-run"],
        "--weights empty.pth is empty; get it again",
    ),
    "too large a picture": (
        ["run", "plain", "--dataset=tiny", "--image-size=100000000", "--dry-run"],
        "--image-size 100000000 must be at most 4096",
    ),
    "too many epochs": (
        ["leaderboard", "--dataset=tiny", "--epochs=100000000000000000000", "--dry-run"],
        "--epochs 100000000000000000000 must be at most 100000",
    ),
    "ratios of one heading": (
        ["run", "plain", "--dataset=tiny", "--ratios=0.5,0.5000000001", "--dry-run"],
        "the known ratios 0.5 and 0.5000000001 are both 50 % in a table; leave one out",
    ),
    "no label known": (
        ["run", "plain", "--dataset=tiny", "--ratios=1e-300", "--dry-run"],
        "known ratio 1e-300 leaves none of the 48 labels known",
    ),
    "method twice": (["list", "--plugin=twice.py"], "two methods are called 'plain': "),
    "results no folder": (
        ["list", "cells", "--results-dir=plain.py"],
        "--results-dir plain.py cannot be read (Not a dir",
    ),
    "method's name": (["new", "My-Method"], "'My-Method' is no name for a method"),
    "method's name taken": (["new", "sarb"], "there is a method 'sarb' already, in "),
    "method to test": (["test-method", "plan"], "no method 'plan'; did you mean 'plain'?"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(bench, world, case):
    arguments, reason = BAD[case]
    write_plugin(world.folder / "broken.py", "1 / 0")
    write_plugin(world.folder / "twice.py", METHOD)
    write_plugin(world.folder / "exits.py", "import sys\nsys.exit(3)")
    write_plugin(world.folder / "quits.py", QUITS)
    write_plugin(world.folder / "empty.pth", "")
    before = contents(world.results)
    plugins = [] if arguments[0] == "new" else world.plugins
    assert reason in refused(bench(*arguments, *plugins))
    assert contents(world.results) == before


def test_bad_input_is_refused_alike_in_a_process_of_its_own(world, tmp_path):
    answer = in_a_process("run", "ssgr", cwd=tmp_path, cache=tmp_path / "cache")
    assert "no method 'ssgr'; did you mean 'ssgrl'?" in refused(answer)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_results_folder_without_training_is_refused(bench, world, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        answer = bench(*FIRST, *world.plugins, "--no-train", "--results-dir", folder)
        assert "no records of this setting in" in refused(answer)
        assert "without --no-train" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("record.json", cut, "is cut short or no JSON"),
        ("scores.npz", cut, "bytes where its record says"),
        ("steps.npz", Path.unlink, "is missing though its record names it"),
    ],
)
class TestDamagedResults:
    def test_are_named_and_left_and_the_table_is_made_of_the_others(self, bench, world, results, name, damage, reason):
        (folder,) = (results / "tiny" / "plain").iterdir()
        damage(folder / name)
        before = contents(folder)
        answer = bench(*FIRST, "--no-train", *world.plugins, "--results-dir", results)
        assert answer.code == 1
        (line,) = [line for line in answer.err.split("\n") if line.startswith("not used: ")]
        assert reason in line and str(folder) in line
        rows = {row[0]: row[1] for row in rows_of(answer.out)}
        assert rows["plain"] == "record damaged" and float(rows["partial_bce"]) > 0
        assert contents(folder) == before

    def test_are_moved_aside_and_trained_anew_if_they_are_asked_for(self, bench, world, results, name, damage, reason):
        (folder,) = (results / "tiny" / "plain").iterdir()
        damage(folder / name)
        before = contents(folder)
        answer = bench("run", "plain", *OF_TINY, *world.plugins, "--results-dir", results)
        assert answer.code == 0
        assert reason in answer.err and "trained anew" in answer.err
        assert contents(folder.with_name(folder.name + ".damaged-1")) == before
        assert "plain 50 % seed 0: mAP" in answer.err

    def test_are_named_beside_a_list_of_the_other_cells(self, bench, world, results, name, damage, reason):
        (folder,) = (results / "tiny" / "plain").iterdir()
        damage(folder / name)
        answer = bench("list", "cells", *world.plugins, "--results-dir", results)
        (line,) = [line for line in answer.err.split("\n") if line.startswith("not used: ")]
        assert reason in line and str(folder) in line
        assert answer.code == 0 and "partial_bce" in answer.out and "plain" not in answer.out


class TestRecordsOfAnotherProtocolVersion:
    LINE = f"left out: 1 record of protocol version {protocol.VERSION + 1}: plain/0.5-s0-"

    @pytest.fixture
    def other(self, results):
        (folder,) = (results / "tiny" / "plain").iterdir()
        return make_of_another_version(folder)

    def test_are_counted_below_the_table_and_are_no_damage(self, bench, world, results, other):
        before = contents(other)
        answer = bench(*FIRST, "--no-train", *world.plugins, "--results-dir", results)
        assert answer.code == 0 and "not used" not in answer.err
        assert self.LINE in " ".join(answer.out.split()) and "plain" in {row[0] for row in rows_of(answer.out)}
        assert contents(other) == before

    def test_are_named_where_there_are_no_others(self, bench, world, tmp_path, other):
        results = tmp_path / "only"
        shutil.copytree(other, results / "tiny" / "plain" / other.name)
        before = contents(results)
        line = refused(bench("leaderboard", *OF_TINY, "--no-train", *world.plugins, "--results-dir", results))
        assert self.LINE in line and other.name in line and "train some first, without --no-train" in line
        assert contents(results) == before

    def test_stay_where_they_are_beside_the_cell_that_is_trained(self, bench, world, results, other):
        before = contents(other)
        answer = bench("run", "plain", *OF_TINY, *world.plugins, "--results-dir", results)
        assert answer.code == 0 and "plain 50 % seed 0: mAP" in answer.err and "moved" not in answer.err
        assert contents(other) == before
        assert len(list((results / "tiny" / "plain").iterdir())) == 2

    def test_are_never_moved_even_from_a_cells_own_place(self, bench, world, results, other):
        own = next((world.results / "tiny" / "plain").iterdir()).name
        other.rename(other.with_name(own))
        before = contents(results)
        answer = bench("run", "plain", *OF_TINY, *world.plugins, "--results-dir", results)
        assert f"is of protocol version {protocol.VERSION + 1} and this is version" in refused(answer)
        assert contents(results) == before

    def test_are_counted_beside_a_list_of_cells(self, bench, world, results, other):
        answer = bench("list", "cells", *world.plugins, "--results-dir", results)
        assert answer.code == 0 and self.LINE in answer.err and "plain" not in answer.out


def test_a_broken_file_of_the_project_is_a_warning_and_the_rest_works(bench, tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("methods", "datasets")}
    for folder in folders.values():
        folder.mkdir()
    write_plugin(folders["methods"] / "broken.py", "1 / 0")
    write_plugin(folders["methods"] / "plain.py", METHOD)
    monkeypatch.setattr("mlrpl_bench.models.registry.bundled_folder", lambda name: folders[name])
    answer = bench("list", "--json")
    assert answer.code == 0
    assert [row["name"] for row in json.loads(answer.out)] == ["plain"]
    (line,) = answer.err.strip().split("\n")
    assert line.startswith("warning: ")
    assert "broken.py could not be loaded (ZeroDivisionError: division by zero, line 1)" in line


def test_ctrl_c_is_one_line_and_exit_code_130(bench, world, results, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlrpl_bench.api.actions.execute.execute", interrupted)
    answer = bench("run", "plain", *OF_TINY, *world.plugins, "--results-dir", results)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "error: interrupted; finished cells are kept, the same command goes on with the rest\n"


@pytest.mark.parametrize("arguments", [("run", "plain", "--ratios"), ("run", "plain", "--no-such-option")])
def test_a_wrong_argument_of_a_command_points_to_that_commands_help(arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and err.endswith("; see python bench.py run --help\n")


@pytest.mark.parametrize("command", [("list", "methods", "-v"), ("list", "datasets")])
def test_a_reader_that_goes_away_ends_the_command_without_a_word(command, world, tmp_path):
    environment = {**os.environ, "MLRPL_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-u", str(BENCH), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (1, b"")


def test_what_was_finished_before_ctrl_c_is_kept(bench, world, results, monkeypatch):
    from mlrpl_bench.training.launchers import sweep

    train = sweep.train

    def interrupted_at_the_second(jobs, workbench, *how):
        if jobs[0].cell.ratio > 0.2:
            raise KeyboardInterrupt
        yield from train(jobs, workbench, *how)

    monkeypatch.setattr(sweep, "train", interrupted_at_the_second)
    arguments = ("run", "plain", "--dataset=tiny", "--ratios=0.1,0.9", "--epochs=1", "--group=1", *world.plugins)
    assert bench(*arguments, "--results-dir", results).code == 130
    assert [path.name[:7] for path in sorted((results / "tiny" / "plain").iterdir())] == ["0.1-s0-", "0.5-s0-"]


def test_an_error_in_the_program_is_not_taken_for_bad_input(bench, world, monkeypatch):
    monkeypatch.setattr("mlrpl_bench.api.actions.execute.execute", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench("run", "plain", *OF_TINY, *world.plugins)


def test_validation_numbers_have_files_of_their_own(bench, world, results):
    before = contents(results / "tiny")
    answer = bench(*FIRST, *world.plugins, f"--results-dir={results}", "--evaluate-on=val", "--mask-scheme=by_id")
    assert answer.code == 0 and "held out: for tuning" in answer.out and "mask scheme by_id" in answer.out
    kept = contents(results / "tiny")
    assert {name: kept[name] for name in before} == before
    assert {"leaderboard-val-by_id-epochs=1.csv", "measurements-val-by_id-epochs=1.csv"} <= {
        Path(name).name for name in kept
    }


def test_one_label_an_image_has_no_upper_line(bench, world, results):
    answer = bench(
        "leaderboard", "--dataset=tiny", "--epochs=1", "--device=cpu", "--methods=plain",
        "--mask-scheme=single_positive", *world.plugins, f"--results-dir={results}",
    )  # fmt: skip
    assert answer.code == 0 and not any(line in answer.out for line in LINES)
    assert "1 label an image" in answer.out and "100 %" not in answer.out


def test_sigterm_where_nothing_is_trained_tidies_up_and_says_a_line(bench, monkeypatch):
    tidied = []

    def app(**_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception:  # as much code has it; not meant for this
            pytest.fail("swallowed")
        finally:
            tidied.append(True)

    monkeypatch.setattr(cli, "app", app)
    answer = bench("list", "methods")
    assert answer.code == 143 and tidied
    assert answer.err == "error: stopped; finished cells are kept, the same command goes on with the rest (SIGTERM)\n"


# JSON


def documented_keys() -> dict[str, list[str]]:
    """What docs/usage.md says that commands print, by command: the words in quotes."""
    text = (BENCH.parent / "docs" / "usage.md").read_text(encoding="utf-8").partition("<!-- json-keys -->")[2]
    lines = [line.strip("|").split(" | ") for line in text.split("\n\n")[1].splitlines()[2:]]
    return {name: re.findall("`([^`]+)`", what) for names, what in lines for name in re.findall("`([^`]+)`", names)}


def test_every_command_that_prints_json_is_documented():
    found = {" ".join(place[:-1]) for place, _ in options_of(typer.main.get_command(cli.app)) if place[-1] == "as_json"}
    assert set(documented_keys()) == found


def test_what_is_printed_has_the_keys_that_are_documented(bench, world):
    keys = documented_keys()
    content = json.loads(bench(*FIRST, *world.plugins, "--no-train", "--json").out)
    assert list(content) == keys["leaderboard"]
    row, table = content["rows"]["plain"]["50 %"], content["tables"]["cost"]
    assert list(row) == ["mean", "std", "seeds", "low", "high", "mark", "status"]
    assert list(table) == ["title", "corner", "columns", "rows", "notes"]
    assert list(table["rows"][0]) == ["label", "entries"]
    assert list(table["rows"][0]["entries"][0]) == ["text", "value", "mark"]
    compared = json.loads(bench("compare", "plain", "partial_bce", *OF_TINY, *world.plugins, "--json").out)
    assert [*compared, *compared["rows"][0]] == keys["compare"]
    listed = [
        json.loads(bench("list", kind, "--json", *world.plugins).out)[0] for kind in ("methods", "datasets", "cells")
    ]
    assert [key for row in listed for key in row] == keys["list"][:-1]
