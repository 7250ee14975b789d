"""This module defines the command ``verify``, which checks records by their files or by training cells again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import (
    JsonOption,
    PluginOption,
    ResultsOptions,
    registries,
    result_store,
    with_setting,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import counted, from_text

if TYPE_CHECKING:
    from mlrpl_bench.records.store import ResultStore
    from mlrpl_bench.tools.verify import Recheck
    from mlrpl_bench.training.options import Options


@with_setting
def verify(
    cell: Annotated[
        str | None, typer.Argument(help="The beginning of a cell's key (see: list cells), or its folder.")
    ] = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files",
            help="Compare every record's files with their sizes and hashes, and compute its numbers again from scores "
            "and labels; trains nothing.",
        ),
    ] = False,
    share: Annotated[
        float | None, typer.Option("--share", help="Train so many percent of the setting's cells again, at least one.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the cells of --share.")] = 0,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="A difference of mAP in percent points that is no failure.")
    ] = 0.0,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="With --share: scenes, unless it is named. Else: all that have records.",
            autocompletion=completion.dataset,
        ),
    ] = None,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Check records: --files their bytes and numbers, CELL or --share by training again. Exit code 1 if one fails."""
    if [cell is not None, files, share is not None].count(True) != 1:
        raise UserError("say what to verify: a CELL, or --files, or --share 10; one of them")
    if share is not None and not 0 < share <= 100:
        raise UserError(f"--share {share:g} must be above 0 and at most 100 percent")
    store = result_store(results_dir)
    if files:
        holds = _verify_files(store, dataset, plugin, options, as_json)
    else:
        from mlrpl_bench.tools.verify import confirm

        verdicts = (
            _verify_share(store, dataset or "scenes", share, seed, plugin, options)
            if share is not None
            else [_verify_cell(store, dataset, cell or "", plugin, options)]
        )
        for verdict in verdicts:
            confirm(verdict, tolerance, store)
        holds = all(verdict.holds(tolerance) for verdict in verdicts)
        _print_verdicts(verdicts, tolerance, as_json)
    if not holds:
        raise typer.Exit(1)


def _verify_files(
    store: ResultStore, dataset: str | None, plugin: list[Path] | None, options: Options, as_json: bool
) -> bool:
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.records.store import left_out_line
    from mlrpl_bench.tools.recompute.check import recompute_numbers
    from mlrpl_bench.tools.recompute.labels import Labels
    from mlrpl_bench.tools.verify import check_files

    names = _datasets(store, dataset)
    _, datasets = registries(plugin)
    with Display() as display:
        found = check_files(store, names, display.report)
        labels = Labels(datasets.entries, options, display.report)
        numbers = recompute_numbers(found.whole, labels, display.report)
    if as_json:
        print(json.dumps({**found.to_json(), **numbers.to_json()}, indent=1))
        return not found.damages and numbers.holds()
    for line in (*(damage.to_text() for damage in found.damages), *numbers.lines()):
        print(line)
    for reason, folders in found.excluded_folders.items():
        print(left_out_line(reason, folders))
    disagree = len(numbers.disagreeing) or "none"
    print(f"computed the numbers of {counted(numbers.cells, 'cell')} from scores and labels: {disagree} disagree")
    print(f"checked {counted(found.cells, 'cell')}, {found.bytes_read:,} bytes: {len(found.damages) or 'none'} damaged")
    return not found.damages and numbers.holds()


def _verify_cell(
    store: ResultStore, dataset: str | None, cell: str, plugin: list[Path] | None, options: Options
) -> Recheck:
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools import verify as verifying
    from mlrpl_bench.training.study import Study

    record = verifying.find(store, _datasets(store, dataset), cell)
    methods, datasets = registries(plugin)
    with Display() as display:
        study = Study(datasets[record.cell.setting.dataset], options, display.report)
        return verifying.verify(record, verifying.rebuild(record, methods.entries, study), study, display.event)


def _verify_share(
    store: ResultStore, dataset: str, percent: float, seed: int, plugin: list[Path] | None, options: Options
) -> list[Recheck]:
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools import verify as verifying
    from mlrpl_bench.training.study import Study

    methods, datasets = registries(plugin)
    verdicts = []
    with Display() as display:
        study = Study(datasets[dataset], options, display.report)
        chosen = verifying.share(verifying.records_of_setting(store, study, methods.entries), percent, seed)
        jobs = [verifying.rebuild(record, methods.entries, study) for record in chosen]
        for done, (record, job) in enumerate(zip(chosen, jobs, strict=True)):
            display.cells(done, len(chosen))
            verdicts.append(verifying.verify(record, job, study, display.event))
    return verdicts


def _datasets(store: ResultStore, dataset: str | None) -> list[str]:
    there = store.datasets()
    if dataset is None:
        return there
    if dataset not in there:
        raise UserError(
            f"no records of {dataset!r} in {store.in_words(store.root)}; there are: {', '.join(there) or 'none'}"
        )
    return [dataset]


def _print_verdicts(verdicts: Sequence[Recheck], tolerance: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps([verdict.to_json(tolerance) for verdict in verdicts], indent=1))
        return
    rows = [[verdict.record.cell.title, verdict.record.cell.key[:8], verdict.to_text()] for verdict in verdicts]
    from_text("verify", "", ["cell", "key", "trained again"], rows, (), wraps=True).print()
    for verdict in verdicts:
        if verdict.differing:
            reasons = "; ".join(verdict.elsewhere) or "nothing that is known is different here"
            print(f"{verdict.record.cell.title} ({verdict.record.cell.key[:8]}): {reasons}", file=sys.stderr)
    held = sum(verdict.holds(tolerance) for verdict in verdicts)
    print(
        f"{held} of {counted(len(verdicts), 'cell')} {'holds' if held == len(verdicts) == 1 else 'hold'}"
        + (f" within {tolerance:g} points of mAP" if tolerance else "")
    )
