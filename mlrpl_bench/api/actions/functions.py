"""This module defines the functions of the public interface, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlrpl_bench.api.actions import execute, reading, tuning
from mlrpl_bench.api.actions.execute import Result
from mlrpl_bench.api.actions.tuning import Tuning
from mlrpl_bench.api.request import CHECKPOINT_SECONDS, Request
from mlrpl_bench.api.resolving import Resolved, resolve, store_of
from mlrpl_bench.api.watching import Progress, Quiet, Watcher, watcher
from mlrpl_bench.leaderboard.claims.claims import Claims
from mlrpl_bench.leaderboard.comparison import Comparison
from mlrpl_bench.tools.predict import Wanted
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.api.actions.filling import Filled

Folders = str | Path | Sequence[str | Path]
"""This type names one folder of records, or several, of which the first is written to."""


def run(
    method: str,
    dataset: str = "scenes",
    *,
    ratios: float | Iterable[float] | None = None,
    seeds: int = 1,
    mask_seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    group: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    evaluate_every: int = 1,
    keep_weights: bool = True,
    tuned: bool | str | Path = False,
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> Result:
    """Train one method at each known ratio where it has no record yet, and read its row and those beside it.

    Args:
        method: a registered method, or an alias such as ``upper_bound``.
        overrides: hyper-parameters to change, and under ``lr`` a factor on the learning rate.
        tuned: whether the method has the values that `tune` chose; or the file with these.
        results: where records are kept; of several folders the first is written to.
        progress: called as (what, done, total), or a `Watcher`.
        options: fields of `Options`, such as ``epochs=5``.

    Other arguments are those of `Request`.

    Raises:
        UserError: bad input or missing data; nothing was trained then.
    """
    request = Request(
        dataset=dataset,
        methods=(method,),
        overrides={name: str(value) for name, value in (overrides or {}).items()},
        ratios=_ratios(ratios),
        seeds=seeds,
        mask_seed=mask_seed,
        options=_options(options),
        plugins=_folders(plugins),
        results=_folders(results),
        group=group,
        checkpoint_seconds=checkpoint_seconds,
        evaluate_every=evaluate_every,
        keep_weights=keep_weights,
        **_tuned(tuned),
    )
    return execute.execute(*_resolved(request, progress))


def leaderboard(
    dataset: str = "scenes",
    *,
    methods: str | Iterable[str] | None = None,
    ratios: float | Iterable[float] | None = None,
    seeds: int = 1,
    mask_seed: int | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    group: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    evaluate_every: int = 1,
    keep_weights: bool = True,
    train: bool = True,
    published: bool = False,
    tuned: bool | str | Path = False,
    out: str | Path | None = None,
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> Result:
    """Train what has no record yet, then make and write the leaderboard of a data set.

    Args:
        methods: names, or ``["all"]`` or ``["paper"]``; None for the basic ones and whatever has records beside.
        results: where records are kept; of several folders the first is written to.
        train: whether cells without a record are trained.
        tuned: whether methods have the values that `tune` chose; or the file with these.
        out: the folder for tables, figures and page; None for that of the data set in `results`.
        progress: called as (what, done, total), or a `Watcher`.
        options: fields of `Options`, such as ``epochs=5``.

    Other arguments are those of `Request`.

    Raises:
        UserError: bad input, missing data, or nothing to show.
    """
    request = Request(
        dataset=dataset,
        methods=_names(methods),
        ratios=_ratios(ratios),
        seeds=seeds,
        mask_seed=mask_seed,
        options=_options(options),
        plugins=_folders(plugins),
        results=_folders(results),
        group=group,
        checkpoint_seconds=checkpoint_seconds,
        evaluate_every=evaluate_every,
        keep_weights=keep_weights,
        train=train,
        only_these_rows=methods is not None,
        leaderboard=True,
        published=published,
        **_tuned(tuned),
        out=None if out is None else Path(out),
    )
    return execute.execute(*_resolved(request, progress))


def tune(
    methods: Iterable[str],
    dataset: str = "scenes",
    *,
    rates: Sequence[float] = tuning.RATES,
    values: Mapping[str, Sequence[Any]] | None = None,
    ratios: float | Iterable[float] | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    group: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    evaluate_every: int = 1,
    keep_weights: bool = False,
    out: str | Path | None = None,
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> Tuning:
    """Choose learning rates and hyper-parameters on validation images, with the same trials for every method.

    Trials are cells, trained where there is no record yet, with one seed. The choices are added to a file, which
    ``leaderboard(tuned=True)`` reads.

    Args:
        methods: names, or ``["all"]`` or ``["paper"]``.
        rates: factors on each method's learning rate.
        values: by name of a hyper-parameter that every method has, the values that are tried.
        ratios: known ratios of the trials, 0.5 unless others are given; the mean over them decides.
        out: the file; None for the one beside the data set's tables.
        progress: called as (what, done, total), or a `Watcher`.
        options: fields of `Options` but ``evaluate_on``, such as ``epochs=5``.

    Other arguments are those of `Request`.

    Raises:
        UserError: bad input, missing data, or a file of another setting; nothing was trained then.
    """
    request = Request(
        dataset=dataset,
        methods=tuple(methods),
        ratios=_ratios(ratios),
        options=_options({"evaluate_on": "val", **options}),
        plugins=_folders(plugins),
        results=_folders(results),
        group=group,
        checkpoint_seconds=checkpoint_seconds,
        evaluate_every=evaluate_every,
        keep_weights=keep_weights,
        only_these_rows=True,
    )
    resolved, told = _resolved(tuning.with_usual_ratio(request), progress)
    return tuning.tune(resolved, told, rates, values, None if out is None else Path(out))


def compare(
    a: str,
    b: str,
    dataset: str = "scenes",
    *,
    ratios: float | Iterable[float] | None = None,
    mask_seed: int | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> Comparison:
    """Compare two rows on the test images and seeds that both have records of; nothing is trained.

    Args:
        a: a row of the table, such as ``sarb`` or ``sarb[alpha=0.3]``.
        b: the row that it is compared with.
        mask_seed: the mask whose cells are compared; None for those whose mask seed is their training seed.

    Other arguments are those of `leaderboard`.

    Raises:
        UserError: there are no records of one of the two, or bad input.
    """
    request = _reading(dataset, ratios, mask_seed, results, plugins, options)
    return reading.compare_rows(*_resolved(request, progress), a, b)


def claims(
    dataset: str = "scenes",
    *,
    ratios: float | Iterable[float] | None = None,
    mask_seed: int | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> Claims:
    """Judge what the papers claim by the records there are; nothing is trained.

    Arguments are those of `compare`.

    Raises:
        UserError: there are no records of the rows that the claims are about, or bad input.
    """
    request = _reading(dataset, ratios, mask_seed, results, plugins, options)
    return reading.judge_claims(*_resolved(request, progress))


def predict(
    method: str,
    images: Folders,
    dataset: str = "scenes",
    *,
    ratio: float | None = None,
    seed: int | None = None,
    cell: str | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Score images with a trained cell.

    Args:
        method: a registered method with a record, or an alias such as ``upper_bound``.
        images: the image files.
        ratio: the known ratio of the record; None for the highest that there is.
        seed: the training seed of the record; None for the lowest that there is.
        cell: the beginning of the record's key, in place of ratio and seed.

    Other arguments are those of `leaderboard`.

    Returns:
        A row for each image and category: ``image, category, logit, probability, predicted``; an image's rows are in
        falling order of probability, which is in [0, 1].

    Raises:
        UserError: there is no such record, it has no weights, or an image cannot be read.
    """
    request = _reading(dataset, None, None, results, plugins, options)
    paths = list(_folders(images))
    told = watcher(progress)
    resolved = resolve(request, told, needs_ratios=False)
    return reading.ask(resolved, told, method, paths, Wanted(cell, ratio, seed)).frame()


def fill(
    method: str,
    dataset: str,
    *,
    precision: float = 0.95,
    trained_precision: str = Options.precision,
    ratio: float | None = None,
    seed: int | None = None,
    cell: str | None = None,
    results: Folders = "results",
    plugins: Folders = (),
    progress: Progress | Watcher | None = None,
    **options: Any,
) -> Filled:
    """Fill in the training labels that nobody gave, by a cell from which a part of the given ones was hidden.

    Args:
        precision: the share of right ones that is promised of the entries that are set, above 0.5 and below 1.
        trained_precision: the arithmetic of the training, which is ``precision`` elsewhere.
        ratio, seed, cell: as for `predict`; without a ratio the highest below 1.

    Returns:
        Probabilities and decisions: ``frame()`` has a row for each unknown entry, ``promises()`` one for each group of
        categories, ``write(folder)`` writes the filled table. Nothing is written by itself.

    Raises:
        UserError: there is no such record, no label is unknown, or too few given labels were hidden to calibrate.
    """
    from mlrpl_bench.api.actions import filling

    request = _reading(dataset, None, None, results, plugins, {**options, "precision": trained_precision})
    told = watcher(progress)
    resolved = resolve(request, told, needs_ratios=False)
    return filling.fill(resolved, told, method, Wanted(cell, ratio, seed), precision)


def records(results: Folders = "results", dataset: str | None = None) -> pd.DataFrame:
    """Read which cells have records.

    Args:
        results: one folder of records, or several.
        dataset: the data set whose records are read; None for all.

    Returns:
        A row a record: what was trained, under which setting, its metrics in percent, its seconds and its folder.
        Records that cannot be used become Python warnings.

    Raises:
        UserError: the data set has no records.
    """
    return reading.list_records(store_of(_folders(results)), dataset, Quiet())


def _folders(results: Folders) -> tuple[Path, ...]:
    return (Path(results),) if isinstance(results, (str, Path)) else tuple(map(Path, results))


def _names(names: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Return one name or several."""
    return (names,) if isinstance(names, str) else None if names is None else tuple(names)


def _ratios(ratios: float | Iterable[float] | None) -> tuple[float, ...] | None:
    """Return one known ratio or several, ascending."""
    if ratios is None:
        return None
    several = [ratios] if isinstance(ratios, (int, float, str)) else ratios
    try:
        return tuple(sorted({float(ratio) for ratio in several}))
    except (TypeError, ValueError):
        raise UserError(f"ratios={ratios!r}: known ratios are numbers such as [0.1, 0.5]") from None


def _options(given: Mapping[str, Any]) -> Options:
    names = list(Options.__dataclass_fields__)
    for name in given:
        if name not in names:
            raise UserError(f"no option {name!r}; there are: {', '.join(names)}")
    content = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    if isinstance(data := given.get("data"), Mapping):
        content["data"] = {name: str(value) for name, value in data.items()}
    if isinstance(content.get("lr_multiplier"), int):
        content["lr_multiplier"] = float(content["lr_multiplier"])
    return Options.from_json(content)


def _tuned(tuned: bool | str | Path) -> dict[str, Any]:
    """Return the fields of a request that say where tuned values come from."""
    return {"tuned": tuned} if isinstance(tuned, bool) else {"tuned_file": Path(tuned)}


def _reading(
    dataset: str,
    ratios: float | Iterable[float] | None,
    mask_seed: int | None,
    results: Folders,
    plugins: Folders,
    options: Mapping[str, Any],
) -> Request:
    """Make a request that only reads records."""
    folders = _folders(plugins), _folders(results)
    return Request.for_reading(dataset, _options(options), *folders, _ratios(ratios), mask_seed)


def _resolved(request: Request, progress: Progress | Watcher | None) -> tuple[Resolved, Watcher]:
    told = watcher(progress)
    return resolve(request, told), told
