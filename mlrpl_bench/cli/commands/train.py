"""The commands ``run`` and ``leaderboard``: train what has no record, and show the table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli.options import (
    DatasetOption,
    JsonOption,
    PluginOption,
    RatiosOption,
    ResultsOptions,
    group_size,
    keeps_weights,
    method_names,
    plugin_files,
    program,
    ratio_numbers,
    result_folders,
    with_fields,
    with_setting,
)
from mlrpl_bench.cli.placing import (
    LogJsonOption,
    ShardOption,
    WorkersPlannedOption,
    refuse_contradictions,
    shard_of,
    with_placement,
)
from mlrpl_bench.cli.streams import say
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.launchers.placement import Placement
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.api.actions.execute import Result
    from mlrpl_bench.api.resolving import Resolved
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.cli.json_log import JsonLog
    from mlrpl_bench.training.options import Options

SET_HELP = (
    "A hyper-parameter, name=value. Repeatable. For every method: lr=FACTOR on its learning rate; ema=EPOCHS, the time "
    "constant of averaged weights in epochs of 20, or none."
)
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
EvaluateOption = Annotated[
    int,
    typer.Option("--evaluate-every", min=1, help="Score the test images after every so many epochs, and the last."),
]
KeepWeightsOption = Annotated[
    str, typer.Option("--keep-weights", help="last or none.", autocompletion=completion.one_of("last", "none"))
]
TunedOption = Annotated[
    bool, typer.Option("--tuned", help="With the values that tune chose, from the file beside the tables.")
]
TunedFileOption = Annotated[
    Path | None, typer.Option("--tuned-file", help="With the values that tune chose, from this file.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be trained, and how much disk.")]


@dataclass(frozen=True)
class Manner:
    """This says how a request is carried out and shown.

    Its fields are declared as the command's options, in the order of the help; see `with_fields`.
    """

    group: GroupOption = "auto"
    checkpoint_every: CheckpointOption = 10.0
    evaluate_every: EvaluateOption = 1
    plugin: PluginOption = None
    results_dir: ResultsOptions = None
    as_json: JsonOption = False
    dry_run: DryRunOption = False
    shard: ShardOption = None
    workers_planned: WorkersPlannedOption = None
    log_json: LogJsonOption = False

    def of_request(self) -> dict[str, Any]:
        """Return the fields of a request that it decides."""
        return {
            "plugins": plugin_files(self.plugin),
            "results": result_folders(self.results_dir),
            "group": group_size(self.group),
            "checkpoint_seconds": 60 * self.checkpoint_every,
            "evaluate_every": self.evaluate_every,
            "shard": shard_of(self.shard),
        }


@with_setting
@with_placement
@with_fields(Manner, "manner")
def run(
    method: Annotated[
        str, typer.Argument(help="A registered method; see: list methods.", autocompletion=completion.method)
    ],
    dataset: DatasetOption = "scenes",
    ratios: RatiosOption = None,
    seeds: SeedsOption = 1,
    mask_seed: MaskSeedOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help=SET_HELP)] = None,
    keep_weights: KeepWeightsOption = "last",
    tuned: TunedOption = False,
    tuned_file: TunedFileOption = None,
    *,
    manner: Manner,
    options: Options,
    placement: Placement,
) -> None:
    """Train one method over known ratios (where it has no record yet) and print its row beside the others."""
    from mlrpl_bench.models.hyperparameters import parse_assignments

    if "," in method:
        raise UserError(f"run takes one method, not {method!r}; for several use leaderboard --methods {method}")
    refuse_contradictions(placement, shard_of(manner.shard), manner.workers_planned, manner.dry_run)
    request = Request(
        dataset=dataset,
        methods=(method,),
        overrides=parse_assignments(set_ or []),
        ratios=ratio_numbers(ratios),
        seeds=seeds,
        mask_seed=mask_seed,
        options=options,
        **manner.of_request(),
        keep_weights=keeps_weights(keep_weights),
        tuned=tuned,
        tuned_file=tuned_file,
    )
    _carry_out(request, manner, placement)


@with_setting
@with_placement
@with_fields(Manner, "manner")
def leaderboard(
    dataset: DatasetOption = "scenes",
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Names such as ssgrl,sarb, or all, or paper.",
            show_default="the basic ones",
            autocompletion=completion.methods,
        ),
    ] = None,
    ratios: RatiosOption = None,
    seeds: SeedsOption = 1,
    mask_seed: MaskSeedOption = None,
    keep_weights: KeepWeightsOption = "last",
    tuned: TunedOption = False,
    tuned_file: TunedFileOption = None,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Only make the tables, from the records there are.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Also a table of the papers' own numbers beside the measured ones.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder for tables, figures and page.", show_default="beside the records"),
    ] = None,
    *,
    manner: Manner,
    options: Options,
    placement: Placement,
) -> None:
    """Train what has no record yet, then write and print the leaderboard of a dataset."""
    refuse_contradictions(placement, shard_of(manner.shard), manner.workers_planned, manner.dry_run, no_train)
    request = Request(
        dataset=dataset,
        methods=method_names(methods),
        ratios=ratio_numbers(ratios),
        seeds=seeds,
        mask_seed=mask_seed,
        options=options,
        **manner.of_request(),
        keep_weights=keeps_weights(keep_weights),
        tuned=tuned,
        tuned_file=tuned_file,
        train=not no_train,
        only_these_rows=methods is not None,
        leaderboard=True,
        published=published,
        out=out,
    )
    _carry_out(request, manner, placement)


def worker(
    order: Annotated[Path, typer.Argument(help="A file that --launcher print wrote.")],
    group_most: Annotated[
        int | None, typer.Option("--group-most", min=1, help="Cells trained side by side at most.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for cells that others train, or end when nothing is left.")
    ] = False,
    log_json: LogJsonOption = False,
) -> None:
    """Train what nobody else trains of the cells that a work order is for, and end."""
    from mlrpl_bench.api.actions.training.working import carry_out
    from mlrpl_bench.launchers.order import WorkOrder

    with shown(log_json) as display:
        failed = carry_out(WorkOrder.read(order), group_most, display, waits=wait)
    if failed:
        raise typer.Exit(1)


def shown(log_json: bool) -> Display | JsonLog:
    """Return the object that shows progress."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.cli.json_log import JsonLog

    return JsonLog() if log_json else Display()


def _carry_out(request: Request, manner: Manner, placement: Placement) -> None:
    """Answer from memory if nothing has changed, else do what is requested and print it."""
    from mlrpl_bench.cli import leaderboard_cache

    # The output of `print` is a command and never a table, known as that may be.
    key = None if placement.launcher == "print" else leaderboard_cache.key(request)
    if not manner.dry_run and key is not None and (cached := key.find()) is not None:
        print(cached.json) if manner.as_json else cached.table.print()
        _say_written("unchanged", [Path(name) for name in cached.written])
        return
    from mlrpl_bench.api.actions import execute
    from mlrpl_bench.api.resolving import resolve
    from mlrpl_bench.launchers.starting import planned_workers

    with shown(manner.log_json) as display:
        resolved = resolve(request, display)
        if manner.dry_run:
            workers = manner.workers_planned or planned_workers(placement, request.options.device)
            planned = execute.plan(resolved, display, workers, placement)
        else:
            key = None if key is None else key.with_imports(_files_of_code(resolved))
            states: list[str] = []
            on_trained = (lambda: None) if key is None else (lambda: states.append(key.state()))
            result = execute.execute(resolved, display, on_trained, placement=placement)
    if manner.dry_run:
        print(json.dumps(planned.to_json(), indent=1) if manner.as_json else planned.to_text())
        return
    table = result.leaderboard
    if key is not None and table is not None and not (result.failures or result.problems or result.unwritten):
        key.remember(
            leaderboard_cache.CachedLeaderboard.from_table(table.main, table.to_json(), result.written), *states
        )
    _finish(result, manner.as_json, request.plugins)


def _files_of_code(resolved: Resolved) -> set[Path]:
    """Return the files of all methods and of the data set."""
    return {resolved.dataset.path, *resolved.methods.files()}


def _finish(result: Result, as_json: bool, plugins: Sequence[Path]) -> None:
    """Print what came out; exit code 1 if a cell failed."""
    if result.leaderboard is not None:
        if as_json:
            print(json.dumps(result.leaderboard.to_json(), indent=1))
        else:
            result.leaderboard.print()
    _say_written("wrote", result.written)
    if result.remark:
        say("note", result.remark)
    if result.unwritten:
        say("note", result.unwritten)
    for problem in result.problems:
        say("problem", f"not used: {problem}")
    for failure in result.failures:
        say("failure", f"failed: {failure}")
    hint = "".join(f" --plugin {shlex.quote(str(path))}" for path in plugins)
    for method in result.failed_methods:
        say("hint", f"to look for the cause: {program()} test-method {method}{hint}")
    if result.failures or result.problems:
        raise typer.Exit(1)


def _say_written(verb: str, paths: Sequence[Path]) -> None:
    """Print a line for each file; the figures are many and get one together."""
    figures = [path for path in paths if path.parent.name.startswith("figures")]
    for path in paths:
        if path not in figures:
            say(verb, f"{verb} {path}", path=str(path))
    if figures:
        say(verb, f"{verb} {len(figures)} figures in {figures[0].parent}", path=str(figures[0].parent))
