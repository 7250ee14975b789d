"""This module reads stored scores again, without training: ensembles, ratings, costs and the winners of categories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mlrpl_bench.api.actions.functions import Folders, _folders, _ratios, _reading
from mlrpl_bench.api.actions.reading import collect
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve, store_of
from mlrpl_bench.api.watching import Progress, Watcher, watcher
from mlrpl_bench.leaderboard.comparison import check_known
from mlrpl_bench.leaderboard.tables.analyses import category_wins, contests, costs, ensembles
from mlrpl_bench.leaderboard.tables.analyses.analysis import Analysis
from mlrpl_bench.models.registry import describe_failure, load_methods
from mlrpl_bench.utils.errors import UserError

KINDS = ("ensembles", "ranks", "cost", "categories")


def analyse(
    kind: str,
    dataset: str | None = None,
    *,
    rows: str | Iterable[str] = (),
    ratios: float | Iterable[float] | None = None,
    mask_seed: int | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> Analysis:
    """Read stored scores again; nothing is trained and nothing is written.

    Args:
        kind: ``ensembles`` (is a row more than a second seed of the first one?), ``ranks`` (Elo and win rates over all
            data sets), ``cost`` (cost against mAP) or ``categories`` (who wins where).
        dataset: the data set, ``scenes`` unless another one is named; ``ranks`` takes all unless one is named.
        rows: rows of the table, such as ``sarb`` or ``sarb[alpha=0.3]``; all unless some are named, as ensembles need.

    Other arguments are those of `compare`; ``ranks`` takes of each data set the setting that most records are of, and
    so no mask seed and no options.

    Returns:
        An `Analysis`: ``frame`` has the numbers, ``tables`` are for people, ``figures`` the pictures as bytes,
        ``write(folder)`` writes all.

    Raises:
        UserError: an unknown kind, row or data set, or too few records.
    """
    if kind not in KINDS:
        raise UserError(f"no analysis {kind!r}; there are: {', '.join(KINDS)}")
    names = [rows] if isinstance(rows, str) else list(rows)
    told = watcher(progress)
    if kind != "ranks":
        request = _reading(dataset or "scenes", ratios, mask_seed, results, plugins, options)
        return of_dataset(kind, request, names, told)
    if options or mask_seed is not None:
        given = ", ".join([*options, *(["mask_seed"] if mask_seed is not None else [])])
        raise UserError(f"ranks are over data sets, each under the setting with the most records; leave out {given}")
    return over_datasets(
        _folders(results), _folders(plugins), names, [dataset] if dataset else None, _ratios(ratios), told
    )


def of_dataset(kind: str, request: Request, rows: Sequence[str], told: Watcher) -> Analysis:
    """Analyse the records of a data set under one setting, see `analyse`."""
    if len(set(rows)) < len(rows):
        raise UserError(f"a row is named twice among {', '.join(rows)}; name each once")
    if kind == "ensembles" and not rows:
        raise UserError(
            "ensembles of which rows? Name them, the one whose second seed is the yardstick first: ssgrl sarb"
        )
    resolved = resolve(request, told)
    there: set[str] = set()

    def is_wanted(label: str) -> bool:
        there.add(label)
        return not rows or label in rows

    study, cells = collect(resolved, is_wanted, told, lambda: check_known(there, rows))
    labels = list(rows) or sorted({label for label, _ in cells})
    if kind == "ensembles":
        found = ensembles.analyse(cells, labels, resolved.ratios, study.test, told.report)
    elif kind == "categories":
        found = category_wins.analyse(cells, labels, resolved.ratios, study.test, told.report)
    else:
        found = costs.analyse(cells, labels, resolved.ratios)
    return replace(found, variant=study.variant())


def over_datasets(
    results: Sequence[Any],
    plugins: Sequence[Any],
    rows: Sequence[str],
    datasets: Sequence[str] | None,
    ratios: Sequence[float] | None,
    told: Watcher,
) -> Analysis:
    """Rate rows over data sets, see `analyse`."""
    methods = load_methods(plugins)
    for path, error in methods.failures.items():
        told.warn(f"{describe_failure(path, error)}; the others are there")
    store = store_of(results, told.report)
    return contests.analyse(store, methods.entries, rows, datasets, ratios)
