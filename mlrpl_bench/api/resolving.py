"""This module resolves the names of a request: it loads the methods, the dataset and the store that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlrpl_bench.api.request import Request
from mlrpl_bench.api.tuned import Tuned
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.data.protocol import check_ratios
from mlrpl_bench.models.hyperparameters import recipe_changes
from mlrpl_bench.models.registry import (
    DatasetEntry,
    MethodEntry,
    Registry,
    chosen_methods,
    describe_failure,
    load_datasets,
    load_methods,
)
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.progress import Report, silent

Rows = Sequence[tuple[MethodEntry, Mapping[str, Any]]]
"""This type holds methods, each with the hyper-parameters that the user changed."""


@dataclass(frozen=True)
class Resolved:
    """A resolved request holds a request and what its names stand for.

    Attributes:
        request: the request.
        methods: all registered methods.
        dataset: the data set that is registered under the request's name.
        store: the folders of records.
        rows: the methods that are asked for, each with the hyper-parameters that the user changed.
        ratios: known ratios, ascending.
        seeds: pairs of training seed and mask seed.
        tuned: the values that `tune` chose, where the rows are those; known once the data set is loaded.
    """

    request: Request
    methods: Registry[MethodEntry]
    dataset: DatasetEntry
    store: ResultStore
    rows: Rows
    ratios: Sequence[float]
    seeds: Sequence[tuple[int, int]]
    tuned: Tuned | None = None


def resolve(request: Request, watcher: Watcher, *, needs_ratios: bool = True) -> Resolved:
    """Load what a request names, and refuse what cannot be before any data is read.

    Args:
        needs_ratios: whether known ratios are looked at; without, those of a mask file need not be named.

    Raises:
        UserError: an unknown name, a wrong hyper-parameter, or a ratio or seed out of range.
    """
    methods, datasets = load_methods(request.plugins), load_datasets(request.plugins)
    for path, error in {**methods.failures, **datasets.failures}.items():
        watcher.warn(f"{describe_failure(path, error)}; the others are there")
    dataset = datasets[request.dataset]
    request = _without_needless_preset(request, dataset)
    rows, ratios = _rows(request, methods, dataset, needs_ratios)
    check_ratios(ratios)
    store = store_of(request.results, watcher.report)
    return Resolved(request, methods, dataset, store, rows, ratios, request.seed_pairs())


def _without_needless_preset(request: Request, dataset: DatasetEntry) -> Request:
    """Return the same request; the usual preset asked for by its name makes no other tables."""
    if dataset.preset_called(request.options.preset) != dataset.preset:
        return request
    return replace(request, options=replace(request.options, preset=None))


def store_of(folders: Sequence[Path], report: Report = silent) -> ResultStore:
    """Return the store that writes into the first of the folders and reads from all.

    Args:
        folders: also addresses, which are only read.
        report: is told how many files of an address are copied.

    Raises:
        UserError: no folder is named, one cannot be read, or one besides the first is not there.
    """
    if not folders:
        raise UserError("no folder of results is named; give at least one")
    return ResultStore(folders[0], folders[1:], report)


def _rows(
    request: Request, methods: Registry[MethodEntry], dataset: DatasetEntry, needs_ratios: bool
) -> tuple[Rows, tuple[float, ...]]:
    """Return the methods that are asked for, with their overrides, and the known ratios in ascending order."""
    names, ratios = request.methods, request.ratios
    if request.evaluate_every < 1:
        raise UserError(f"--evaluate-every {request.evaluate_every} must be at least 1")
    if needs_ratios and request.options.mask_file is not None and (ratios is None or len(ratios) > 1):
        raise UserError("--mask-file is one mask: name its known ratio with --ratios, such as 0.1")
    if ratios is None:
        usual = dataset.preset_called(request.options.preset).ratios
        ratios = (1.0,) if request.options.mask_scheme == "single_positive" else usual
    elif not ratios:
        raise UserError("no known ratio is named; give at least one")
    if request.overrides and (names is None or len(names) != 1):
        raise UserError("hyper-parameters are changed for one method at a time; name it alone")
    if not request.leaderboard and names is not None and len(names) == 1 and names[0] in methods.aliases:
        alias = methods.aliases[names[0]]
        if request.ratios is not None:
            raise UserError(
                f"{alias.name} stands for {alias.method} at known ratio {alias.ratio:g}; leave --ratios out"
            )
        names, ratios = (alias.method,), (alias.ratio,)
    entries = chosen_methods(methods, names)
    for entry in entries:
        _, changed = recipe_changes(request.overrides, entry.name)
        entry.hyperparameters(changed)  # refuse before anything is loaded
    return [(entry, request.overrides) for entry in entries], tuple(sorted(ratios))
