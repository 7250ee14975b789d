"""The commands ``compare`` and ``claims``: what the records at hand say, without training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import (
    DatasetOption,
    JsonOption,
    PluginOption,
    RatiosOption,
    ResultsOptions,
    registries,
    result_store,
)
from mlrpl_bench.cli.setting_options import with_setting
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.leaderboard.evidence import EvidenceGrid
    from mlrpl_bench.training.options import Options

MaskSeedOption = Annotated[
    int | None, typer.Option("--mask-seed", help="Only cells of this mask.", show_default="those of mask seed = seed")
]


@with_setting
def compare(
    a: Annotated[str, typer.Argument(metavar="METHOD_A", help="A row of the table, such as sarb.")],
    b: Annotated[str, typer.Argument(metavar="METHOD_B", help="Another.")],
    dataset: DatasetOption = "scenes",
    ratios: RatiosOption = None,
    mask_seed: MaskSeedOption = None,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Compare two methods on the same images and seeds, with intervals and corrected p-values, from their records."""
    from mlrpl_bench.leaderboard import comparison as comparing
    from mlrpl_bench.utils import tables

    labels: set[str] = set()

    def is_wanted(label: str) -> bool:
        labels.add(label)
        return label in (a, b)

    cells, shown, all_used = _cells(dataset, ratios, mask_seed, plugin, results_dir, options, is_wanted)
    comparing.check(labels, a, b)
    found = comparing.compare(cells, a, b, shown)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        title = f"{a} and {b} on {dataset}"
        tables.from_text("compare", title, found.header(), found.rows(), found.notes(), wraps=True, repeated=1).print()
    if not all_used:
        raise typer.Exit(1)


@with_setting
def claims(
    dataset: DatasetOption = "scenes",
    ratios: RatiosOption = None,
    mask_seed: MaskSeedOption = None,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Whether what the papers claim holds in the records there are; also written as claims.md."""
    from mlrpl_bench.leaderboard.claims import claims as papers_claims
    from mlrpl_bench.utils import tables

    rows = papers_claims.rows_needed()
    cells, shown, all_used = _cells(dataset, ratios, mask_seed, plugin, results_dir, options, rows.__contains__)
    found = papers_claims.judge(cells, dataset, shown)
    path = result_store(results_dir).write_table(dataset, "claims.md", found.to_markdown())
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        title = f"The papers' claims on {dataset}"
        header = list(papers_claims.HEADER)
        tables.from_text("claims", title, header, found.rows(), found.notes(), wraps=True, repeated=1).print()
    print(f"wrote {path}", file=sys.stderr)
    if not all_used:
        raise typer.Exit(1)


def _cells(
    dataset: str,
    ratios: str | None,
    mask_seed: int | None,
    plugin: list[Path] | None,
    results_dir: list[Path] | None,
    options: Options,
    is_wanted: Callable[[str], bool],
) -> tuple[EvidenceGrid, Sequence[float], bool]:
    """The evidence of the rows that are wanted, of all seeds; the ratios looked at; whether all records can be used."""
    from mlrpl_bench import api
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.leaderboard import selection
    from mlrpl_bench.training.study import Study

    methods, datasets = registries(plugin)
    shown = api.ratios(ratios, datasets[dataset].preset, options)
    store = result_store(results_dir)
    with Display() as display:
        study = Study(datasets[dataset], options, display.report)
        found = selection.select(
            study,
            methods.entries,
            store,
            lambda cell: (
                is_wanted(cell.label)
                and cell.ratio in shown
                and cell.mask_seed == (cell.seed if mask_seed is None else mask_seed)
            ),
            report=display.report,
        )
    for line in found.problems:
        print(f"not used: {line}", file=sys.stderr)
    for line in found.left_out:
        print(line, file=sys.stderr)
    if not found.cells:
        raise UserError(f"no records of these methods and of this setting in {store.root / dataset}; train some first")
    return found.cells, shown, not found.problems
