"""The command line: the only place that wires everything. What takes long to import is imported in the commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrpl_bench.cli.commands.analyse import claims, compare
from mlrpl_bench.cli.commands.data import data_app
from mlrpl_bench.cli.commands.predict import predict
from mlrpl_bench.cli.commands.profile import profile
from mlrpl_bench.cli.commands.verify import verify
from mlrpl_bench.cli.options import (
    DatasetOption,
    JsonOption,
    PluginOption,
    RatiosOption,
    ResultsOptions,
    program,
    registries,
    result_store,
)
from mlrpl_bench.cli.setting_options import with_setting
from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.signals import Interrupted, Terminated, terminate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlrpl_bench.api import Result
    from mlrpl_bench.cli.leaderboard_cache import CachedLeaderboard, CacheKey
    from mlrpl_bench.leaderboard.tables.main import Leaderboard
    from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
    from mlrpl_bench.training.options import Options

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare methods for multi-label image recognition with partial labels.",
)
app.add_typer(data_app, name="data")

SeedsOption = Annotated[int, typer.Option("--seeds", help="Number of seeds, from 0; a seed sets mask and training.")]
MaskSeedOption = Annotated[int | None, typer.Option("--mask-seed", help="One mask for all training seeds.")]
GroupOption = Annotated[
    str,
    typer.Option(
        "--group",
        help="Cells trained side by side, sharing reading and the frozen part: a number, or auto, as many as fit.",
    ),
]
CheckpointOption = Annotated[
    float, typer.Option("--checkpoint-every", min=0, help="Minutes of work that may be lost when training is cut off.")
]
KeepWeightsOption = Annotated[str, typer.Option("--keep-weights", help="last or none.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be trained, and how much disk.")]


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, datasets or cells.")] = "methods",
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Also papers, differences, settings.")] = False,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/methods.md; measures costs.")] = False,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
) -> None:
    """Methods and datasets that are registered, or cells that have a record."""
    from mlrpl_bench.cli.commands import listing

    if what not in listing.KINDS:
        raise UserError(f"nothing called {what!r} to list; there are: {', '.join(listing.KINDS)}")
    methods, datasets = registries(plugin)
    if markdown and what != "methods":
        raise UserError(f"--markdown makes the page of methods; there is none of {what}")
    if markdown:
        print(_page_of_methods(methods, datasets["scenes"]), end="")
        return
    rows = listing.KINDS[what](methods, datasets, result_store(results_dir), verbose)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        listing.print_table(rows)


@app.command()
@with_setting
def run(
    method: Annotated[str, typer.Argument(help="A registered method; see: list methods.")],
    dataset: DatasetOption = "scenes",
    ratios: RatiosOption = None,
    seeds: SeedsOption = 1,
    mask_seed: MaskSeedOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A hyper-parameter, name=value. Repeatable.")] = None,
    group: GroupOption = "auto",
    checkpoint_every: CheckpointOption = 10.0,
    keep_weights: KeepWeightsOption = "last",
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    *,
    options: Options,
) -> None:
    """Train one method over known ratios (where it has no record yet) and print its row beside the others."""
    from mlrpl_bench import api

    methods, datasets = registries(plugin)
    if (alias := methods.aliases.get(method)) is not None:
        if ratios is not None:
            raise UserError(f"{method} stands for {alias.method} at known ratio {alias.ratio:g}; leave --ratios out")
        method, ratios = alias.method, f"{alias.ratio:g}"
    changed = api.parse_assignments(set_ or [])
    methods[method].hyperparameters(changed)  # refuse before anything is loaded
    request = api.Request(
        rows=[(methods[method], changed)],
        ratios=api.ratios(ratios, datasets[dataset].preset, options),
        seeds=api.seed_pairs(seeds, mask_seed if options.mask_file is None else 0),
        keep_weights=api.keep_weights(keep_weights),
        group=api.group(group),
        checkpoint_seconds=60 * checkpoint_every,
    )
    store = result_store(results_dir)
    result = api.compare(request, datasets[dataset], options, methods, store, dry_run=dry_run)
    _finish(result, as_json, plugin)


@app.command()
@with_setting
def leaderboard(
    dataset: DatasetOption = "scenes",
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Names such as ssgrl,sarb, or all, or paper.", show_default="the basic ones"),
    ] = None,
    ratios: RatiosOption = None,
    seeds: SeedsOption = 1,
    mask_seed: MaskSeedOption = None,
    group: GroupOption = "auto",
    checkpoint_every: CheckpointOption = 10.0,
    keep_weights: KeepWeightsOption = "last",
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Only make the tables, from the records there are.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Also a table of the papers' own numbers beside the measured ones.")
    ] = False,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    *,
    options: Options,
) -> None:
    """Train what has no record yet, then write and print the leaderboard of a dataset."""
    question = _question(dict(locals()), dataset, options, plugin, results_dir)
    if not dry_run and question is not None and (remembered := question.find()) is not None:
        _print_again(remembered, as_json)
        return
    from mlrpl_bench import api

    registry, datasets = registries(plugin)
    if question is not None:
        question = replace(question, imported=_imported_by(registry, datasets))
    request = api.Request(
        rows=[(entry, {}) for entry in api.chosen_methods(registry, methods)],
        ratios=api.ratios(ratios, datasets[dataset].preset, options),
        seeds=api.seed_pairs(seeds, mask_seed if options.mask_file is None else 0),
        keep_weights=api.keep_weights(keep_weights),
        group=api.group(group),
        checkpoint_seconds=60 * checkpoint_every,
        only_these_rows=methods is not None,
        leaderboard=True,
        published=published,
    )
    store = result_store(results_dir)
    states: list[str] = []

    def look() -> None:
        if question is not None:
            states.append(question.state())

    result = api.compare(
        request,
        datasets[dataset],
        options,
        registry,
        store,
        dry_run=dry_run,
        no_train=no_train,
        on_trained=look,
    )
    _finish(result, as_json, plugin)
    if question is not None and result.leaderboard is not None:
        _remember(question, result.leaderboard, result.written, *states)


@app.command("test-method")
def test_method(
    method: Annotated[str, typer.Argument(help="A registered method.")],
    plugin: PluginOption = None,
    permuted_labels: Annotated[
        bool,
        typer.Option(
            "--permuted-labels", help="Instead: train it beside true and beside permuted label files of --dataset."
        ),
    ] = False,
    dataset: Annotated[str | None, typer.Option("--dataset", help="For --permuted-labels.")] = None,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", envvar="MLRPL_DATA", help="The folder with its files.")
    ] = None,
    set_data: Annotated[
        list[str] | None, typer.Option("--set-data", help="An option of the data set, name=value. Repeatable.")
    ] = None,
) -> None:
    """Run the checks that every method must pass, on small random data."""
    from mlrpl_bench.cli.commands.permuted_labels import is_blind_to_label_files
    from mlrpl_bench.tools import conformance

    if permuted_labels:
        if not is_blind_to_label_files(method, dataset, data_root, set_data, plugin):
            raise typer.Exit(1)
        return
    methods, _ = registries(plugin)
    failed = False
    for report in conformance.reports(conformance.run(methods[method])):
        print(f"{'ok    ' if report.problem is None else 'FAILED'}  {report.check}", end="")
        print("" if report.problem is None else f": {report.problem}")
        for check in report.same_fault:
            print(f"        for the same reason: {check}")
        failed |= report.problem is not None
    if failed:
        raise typer.Exit(1)


@app.command()
def new(name: Annotated[str, typer.Argument(help="The new method's name, a Python identifier.")]) -> None:
    """Write a new method's file: a working method to edit."""
    from mlrpl_bench.tools import new_method

    path = new_method.write(name)
    print(
        f"wrote {path}: a working method. Edit it, then\n  {program()} test-method {name}{new_method.plugin_hint(path)}"
    )
    print(f"  {program()} run {name}{new_method.plugin_hint(path)}")


app.command()(compare)
app.command()(claims)
app.command()(predict)
app.command()(profile)
app.command()(verify)


def main() -> None:
    """The entry point: one line and exit code 2 for bad input, no traceback."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        sys.exit(_complain(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted; finished cells are kept, the same command goes on with the rest", INTERRUPTED))
    except Terminated:
        message = "stopped; finished cells are kept, the same command goes on with the rest (SIGTERM)"
        sys.exit(_complain(message, 128 + signal.SIGTERM))
    except Interrupted as stop:
        message = "stopped; finished cells and checkpoints of the others are kept, the same command goes on from them"
        sys.exit(_complain(f"{message} ({stop})", stop.exit_code))
    except BrokenPipeError:  # the reader of our output has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, RuntimeError) as error:
        if (shortage := shortages.shortage(error)) is not None:
            sys.exit(_complain(str(shortage), 2))
        if not isinstance(error, OSError) or error.filename is None:
            raise
        sys.exit(_complain(f"{error.filename}: {error.strerror}; check the path and its permissions", 2))
    except MemoryError as error:
        sys.exit(_complain(f"no memory left ({error}); what is finished is kept, the same command goes on", 2))
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own errors about arguments have it
            raise
        message = error.format_message().rstrip(".")  # empty where no command was named: the help was shown
        sys.exit(_complain(f"{message}; see {_command_of(error)} --help", 2) if message else 2)


def _command_of(error: Any) -> str:
    """The command, as it is typed, whose arguments an error of typer is about."""
    names: list[str] = []
    context = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    return " ".join([program(), *names])


def _page_of_methods(methods: Registry[MethodEntry], dataset: DatasetEntry) -> str:
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools import method_page
    from mlrpl_bench.training.options import Options
    from mlrpl_bench.training.study import Study

    with Display() as display:
        study = Study(dataset, Options(), display.report)
        costs = method_page.step_costs(study, methods, "ssgrl", display.report)
    preset = dataset.preset
    where = f"`{dataset.name}` ({preset.backbone} backbone, {preset.image_size} px, batch {preset.batch})"
    return method_page.page(methods, costs, "ssgrl", f"{where} on {study.workbench.fabric.device.type}")


def _question(
    asked: dict[str, Any], dataset: str, options: Options, plugin: list[Path] | None, results_dir: list[Path] | None
) -> CacheKey | None:
    """What a leaderboard rests on; None where every image would have to be looked at."""
    from mlrpl_bench.cli.leaderboard_cache import CacheKey

    if options.on_bad_image != "error":
        return None
    asked = {name: value for name, value in asked.items() if name not in ("as_json", "dry_run")}
    files = [*(plugin or ()), *(Path(name) for name in (options.weights, options.mask_file) if name is not None)]
    return CacheKey(asked, dataset, tuple(results_dir or [Path("results")]), options.data_root, tuple(files))


def _imported_by(methods: Registry[MethodEntry], datasets: Registry[DatasetEntry]) -> tuple[Path, ...]:
    """The local modules that the files of methods and data sets import."""
    from mlrpl_bench.models.local_imports import local_modules

    files = {*(m.path for m in methods.entries.values()), *(d.path for d in datasets.entries.values())}
    return tuple(sorted({module.path for file in files for module in local_modules(file)}))


def _print_again(remembered: CachedLeaderboard, as_json: bool) -> None:
    if as_json:
        print(remembered.json)
    else:
        remembered.table.print()
    _say_written("unchanged", [Path(name) for name in remembered.written])


def _remember(question: CacheKey, table: Leaderboard, written: Sequence[Path], state: str) -> None:
    from mlrpl_bench.cli.leaderboard_cache import CachedLeaderboard

    question.remember(CachedLeaderboard.of(table.main, table.to_json(), written), state)


def _finish(result: Result, as_json: bool, plugins: Sequence[Path] | None) -> None:
    """Print what came out; exit code 1 if a cell failed."""
    if result.plan is not None:
        print(json.dumps(result.plan.to_json(), indent=1) if as_json else result.plan.to_text())
    if result.leaderboard is not None:
        if as_json:
            print(json.dumps(result.leaderboard.to_json(), indent=1))
        else:
            result.leaderboard.print()
    _say_written("wrote", result.written)
    for problem in result.problems:
        print(f"not used: {problem}", file=sys.stderr)
    for failure in result.failures:
        print(f"failed: {failure}", file=sys.stderr)
    hint = "".join(f" --plugin {shlex.quote(str(path))}" for path in plugins or ())
    for method in result.failed_methods:
        print(f"to look for the cause: {program()} test-method {method}{hint}", file=sys.stderr)
    if result.failures or result.problems:
        raise typer.Exit(1)


def _say_written(verb: str, paths: Sequence[Path]) -> None:
    """A line for each file; the figures are many and get one together."""
    figures = [path for path in paths if path.parent.name.startswith("figures")]
    for path in paths:
        if path not in figures:
            print(f"{verb} {path}", file=sys.stderr)
    if figures:
        print(f"{verb} {len(figures)} figures in {figures[0].parent}", file=sys.stderr)


def _complain(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
