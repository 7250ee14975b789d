"""This module makes a site of static pages from folders of records, for people who have none of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlrpl_bench.api.watching import Progress, Watcher, watcher
from mlrpl_bench.models.registry import describe_failure, load_datasets, load_methods
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.tools.site.gathering import gather
from mlrpl_bench.tools.site.making import Made, make
from mlrpl_bench.tools.site.output import Output
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError


def show(results: Sequence[Path], out: Path, plugins: Sequence[Path], options: Options, told: Watcher) -> Made:
    """Make a site, see `site`."""
    if not results:
        raise UserError("no folder of records is named; give at least one")
    output = Output(out)  # refuses before anything is read
    methods, datasets = load_methods(plugins), load_datasets(plugins)
    for path, error in {**methods.failures, **datasets.failures}.items():
        told.warn(f"{describe_failure(path, error)}; the others are there")
    with tempfile.TemporaryDirectory(prefix="mlrpl-bench-packs-") as unpacked:
        gathered = gather(results, Path(unpacked), told.report)
        labels = Labels(datasets.entries, options, told.report)
        made = make(gathered, output, methods, datasets.entries, labels, told.report)
    for line in made.notes:
        told.note(line)
    for line in made.problems:
        told.problem(line)
    return made


def site(
    results: str | Path | Sequence[str | Path],
    out: str | Path = "site",
    *,
    data_root: str | Path | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    progress: Progress | Watcher | None = None,
) -> Made:
    """Write static pages of everything in folders of records; nothing is trained.

    There is an overview, a page for each leaderboard, each method and each record. The pages open from a disk and ask
    no network for anything. The same records give the same bytes.

    Args:
        results: folders of records, packs that `export_records` wrote, or folders of tables that `leaderboard` wrote;
            one or several, of whose records of one cell the first that agree count.
        out: the folder of the site: new, empty, or a site, which is then written anew.
        data_root: where data sets lie; of those that are not there intervals are shown where they are kept already.
        plugins: files with methods and data sets of the user's own, whose ideas and labels are then known.
        progress: called as (what, done, total), or a `Watcher`.

    Raises:
        UserError: there is nothing to show, a pack is damaged, or `out` holds something else.
    """
    folders = (results,) if isinstance(results, (str, Path)) else tuple(results)
    files = (plugins,) if isinstance(plugins, (str, Path)) else tuple(plugins)
    options = Options(data_root=None if data_root is None else Path(data_root))
    return show([Path(each) for each in folders], Path(out), [Path(each) for each in files], options, watcher(progress))
