"""This module defines the command ``site``, which writes static pages of records for people who have none of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import PluginOption, plugin_files, with_options
from mlrpl_bench.utils.tables import counted

if TYPE_CHECKING:
    from mlrpl_bench.training.options import Options


@with_options("data_root")
def site(
    results: Annotated[
        list[Path], typer.Argument(help="Folders of records, packs, or folders of tables that leaderboard wrote.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of the site: new, empty, or a site.")] = Path("site"),
    plugin: PluginOption = None,
    *,
    options: Options,
) -> None:
    """Write static pages of leaderboards, methods and records, which open from a disk; nothing is trained."""
    from mlrpl_bench.api.actions.showing import show
    from mlrpl_bench.cli.display import Display

    with Display() as display:
        made = show(results, out, plugin_files(plugin), options, display)
    pages, boards, records = counted(made.pages, "page"), counted(made.boards, "leaderboard"), made.records
    print(f"{pages}: {boards}, {counted(records, 'record')}, {made.bytes / 1e6:.1f} MB")
    print(f"open {made.folder / 'index.html'}", file=sys.stderr)
    if display.problems:
        raise typer.Exit(1)
