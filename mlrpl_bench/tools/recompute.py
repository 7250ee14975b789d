"""Computes the numbers of a record again, from the files beside it and from the labels of its data set.

What cannot be had again: of a best epoch that is not the last, only the files' own copies of mAP, OF1 and CF1 and what
its numbers say of each other, as no scores of that epoch are kept; times and memory.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data import protocol
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.registry import DatasetEntry
from mlrpl_bench.records.record import DamagedRecord, Record, Unreadable, from_plain, read_arrays
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError

TOLERANCE = 1e-9
"""Two numbers that differ by no more are the same: other versions of NumPy may round the last digit otherwise."""

ROUNDED = 0.051
"""Images per second are stored with one digit after the point."""

IN_HISTORY = ("mAP", "OF1", "CF1")
"""The test metrics that history.csv has for every epoch."""

LABELS_OF = re.compile(r"(?P<train>[0-9a-f]+)-(?P<test>[0-9a-f]+)(?:-(?P<options>.*))?")
"""A setting's fingerprint: hashes of two splits, and the data set's options that are not the usual ones."""

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Disagreement:
    """A number that is not what it follows from.

    Attributes:
        what: which number, and in which file it is stated.
        stated: what is stated.
        found: what was computed.
        source: what it was computed from.
    """

    what: str
    stated: Any
    found: Any
    source: str

    def to_text(self) -> str:
        """A part of a line."""
        return f"{self.what} is {_text(self.stated)}, from {self.source} it is {_text(self.found)}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "what": self.what,
            "stated": _plain(self.stated),
            "found": _plain(self.found),
            "source": self.source,
        }


@dataclass
class NumbersFound:
    """What computing the numbers of records again found.

    Attributes:
        cells: how many records were computed from files and labels.
        disagreeing: by the record's folder, what does not agree.
        damaged: a line for each record whose files cannot be computed from.
        without_labels: by reason, the folders of records that could not be held against labels.
        without_mask: by reason, the folders of records whose known share could not be computed.
    """

    cells: int = 0
    disagreeing: dict[Path, list[Disagreement]] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    without_labels: dict[str, list[Path]] = field(default_factory=dict)
    without_mask: dict[str, list[Path]] = field(default_factory=dict)

    def holds(self) -> bool:
        """Whether nothing disagrees."""
        return not self.disagreeing and not self.damaged

    def lines(self) -> Iterator[str]:
        """A line for each record that disagrees, and for each reason why something was not computed."""
        for reason in self.damaged.values():
            yield f"damaged: {reason}"
        for folder, found in self.disagreeing.items():
            parts = "; ".join(each.to_text() for each in found)
            yield f"disagrees: {folder}: {parts}; move the folder away, then run again to train the cell anew"
        for what, reasons in (("labels", self.without_labels), ("their mask", self.without_mask)):
            for reason, folders in reasons.items():
                yield f"not held against {what}: {len(folders)} of the cells, the first is {folders[0]}: {reason}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "recomputed": self.cells,
            "disagreeing": [
                {"folder": str(folder), "numbers": [each.to_json() for each in found]}
                for folder, found in self.disagreeing.items()
            ],
            "not_computable": [{"folder": str(folder), "reason": reason} for folder, reason in self.damaged.items()],
            "without_labels": _by_reason(self.without_labels),
            "without_mask": _by_reason(self.without_mask),
        }


class Truth(NamedTuple):
    """What a record is held against.

    Attributes:
        train_NC, test_NC: complete labels of the images that were trained on and evaluated on.
        mask_NC: the known entries of the training labels; None where the mask is not to be had.
        no_mask: why it is not.
    """

    train_NC: NDArray[np.int8]
    test_NC: NDArray[np.int8]
    mask_NC: NDArray[np.bool_] | None
    no_mask: str = ""


class Labels:
    """Gives the labels of records, each data set built once.

    Args:
        datasets: by name.
        options: where data is, and the mask file of records that were trained under one; the rest is each record's.
        report: told about long preparations as (what, done, total).
    """

    def __init__(
        self, datasets: Mapping[str, DatasetEntry], options: Options, report: Report = lambda *_: None
    ) -> None:
        self.datasets, self.options, self.report = datasets, options, report
        self._studies: dict[tuple, Study | UserError] = {}

    def truth(self, record: Record) -> Truth:
        """The labels that a record was trained on and evaluated with.

        Raises:
            UserError: the data set cannot be built here, or has other images or labels here; says why.
        """
        cell, study = record.cell, self._study(record)
        if study.setting.fingerprint != cell.setting.fingerprint:
            raise UserError(f"{cell.setting.dataset} has other images or labels here than when they were trained")
        if cell.setting.mask_scheme == FROM_FILE and self.options.mask_file is None:
            return Truth(study.train.labels_NC, study.test.labels_NC, None, "name their mask with --mask-file")
        try:
            mask_NC = study.masks(cell.ratio, cell.mask_seed)
        except UserError as error:
            return Truth(study.train.labels_NC, study.test.labels_NC, None, str(error))
        if protocol.mask_hash(mask_NC) != cell.mask_hash:
            reason = "the mask here is not the one that they were trained under"
            return Truth(study.train.labels_NC, study.test.labels_NC, None, reason)
        return Truth(study.train.labels_NC, study.test.labels_NC, mask_NC)

    def _study(self, record: Record) -> Study:
        setting = record.cell.setting
        place = (setting.dataset, setting.fingerprint, setting.evaluate_on, setting.mask_scheme, setting.bad_images)
        if place not in self._studies:
            try:
                self._studies[place] = self._build(record)
            except UserError as error:
                self._studies[place] = error
        found = self._studies[place]
        if isinstance(found, UserError):
            raise found
        return found

    def _build(self, record: Record) -> Study:
        setting = record.cell.setting
        if setting.dataset not in self.datasets:
            raise UserError(f"{setting.dataset} is not registered; name its file with --plugin")
        from_file = setting.mask_scheme == FROM_FILE
        options = Options(
            data_root=self.options.data_root,
            weights="random",  # no network is needed
            device="cpu",
            data={**self.options.data, **_data_options(setting.fingerprint)},
            evaluate_on=setting.evaluate_on,
            mask_scheme=Options.mask_scheme if from_file else setting.mask_scheme,
            mask_file=self.options.mask_file if from_file else None,
            on_bad_image=setting.bad_images,
        )
        return Study(self.datasets[setting.dataset], options, self.report)


def check(records: Sequence[Record], labels: Labels, report: Report = lambda *_: None) -> NumbersFound:
    """Compute the numbers of records again; nothing is touched.

    Args:
        records: whole ones, see `verify.check_files`.
    """
    found = NumbersFound()
    for number, record in enumerate(records, start=1):
        truth = None
        try:
            truth = labels.truth(record)
        except UserError as error:
            found.without_labels.setdefault(str(error), []).append(record.folder)
        if truth is not None and truth.mask_NC is None:
            found.without_mask.setdefault(truth.no_mask, []).append(record.folder)
        try:
            disagreements = list(disagreements_of(record, truth))
        except (DamagedRecord, Unreadable) as error:
            found.damaged[record.folder] = str(error)
        else:
            found.cells += truth is not None
            if disagreements:
                found.disagreeing[record.folder] = disagreements
        report("computing numbers again", number, len(records))
    return found


def disagreements_of(record: Record, truth: Truth | None) -> Iterator[Disagreement]:
    """Every number of a record that is not what its files, and the labels where there are some, give.

    Raises:
        DamagedRecord: a file holds no scores, no losses or no history.
    """
    scores_NC, train_scores_NC = (_scores(record, name) for name in ("scores.npz", "train_scores.npz"))
    best = {name: from_plain(value) for name, value in record.content["best_metrics"].items()}
    last = record.metrics
    if truth is not None:
        for name, scores, labels_NC in (
            ("scores.npz", scores_NC, truth.test_NC),
            ("train_scores.npz", train_scores_NC, truth.train_NC),
        ):
            if scores.shape != labels_NC.shape:
                yield Disagreement(f"the shape of {name}", scores.shape, labels_NC.shape, "the labels")
                return
        last = metrics.evaluate(scores_NC, truth.test_NC, surely_logits=True)
        yield from _differing("{}", record.metrics, last, "scores.npz")
    else:
        yield from _differing("{}", record.metrics, _implied(record.metrics), "its other metrics")
    history = _history(record)
    if record.content["best_epoch"] == len(history["epoch"]) - 1:
        yield from _differing("{} of the best epoch", best, last, "the last epoch, which is the best one,")
    else:
        yield from _differing("{} of the best epoch", best, _implied(best), "its other metrics")
    if truth is not None and truth.mask_NC is not None:
        stated = {name: from_plain(value) for name, value in (record.content.get("known_share") or {}).items()}
        shares = protocol.known_share(truth.train_NC, truth.mask_NC)
        yield from _differing("the known share of {} labels", stated, shares, "the mask")
    yield from _against_history(record, best, history)
    yield from _against_steps(record, history, len(train_scores_NC))
    examples = read_arrays(record.folder / "examples.npz")
    rows, shown = examples.get("rows"), examples.get("scores")
    if rows is None or shown is None or not _is_copy(shown, scores_NC, rows):
        yield Disagreement("examples.npz", "something else", "its rows", "scores.npz")


def _against_history(
    record: Record, best: Mapping[str, Any], history: Mapping[str, NDArray[np.float64]]
) -> Iterator[Disagreement]:
    precision_E, epochs = history["test.mAP"], record.cell.recipe.epochs
    if len(precision_E) != epochs:
        yield Disagreement("the number of epochs", epochs, len(precision_E), "history.csv")
        return
    best_epoch = int(np.argmax(precision_E))
    if record.content["best_epoch"] != best_epoch:
        yield Disagreement("best_epoch", record.content["best_epoch"], best_epoch, "history.csv")
    for what, stated, epoch in (("{}", record.metrics, epochs - 1), ("{} of the best epoch", best, best_epoch)):
        of_epoch = {name: float(history[f"test.{name}"][epoch]) for name in IN_HISTORY}
        yield from _differing(what, stated, of_epoch, "history.csv")


def _against_steps(
    record: Record, history: Mapping[str, NDArray[np.float64]], num_train: int
) -> Iterator[Disagreement]:
    """What follows from how many steps there were, and the losses of each epoch from those of its steps."""
    terms = read_arrays(record.folder / "steps.npz")
    recipe = record.cell.recipe
    are_losses = bool(terms) and all(term_S.ndim == 1 and term_S.dtype.kind == "f" for term_S in terms.values())
    if not recipe.epochs or not recipe.batch or not are_losses:
        raise DamagedRecord(f"{record.folder / 'steps.npz'} holds no losses of steps; move {record.folder} away")
    per_epoch = num_train // recipe.batch
    expected = {"steps": recipe.epochs * per_epoch}
    for name, term_S in terms.items():
        yield from _differing(f"the number of {{}} in {name}", {"steps": len(term_S)}, expected, "the recipe")
        if len(term_S) != expected["steps"]:
            continue
        stated_E = history.get(f"loss.{name}", np.full(recipe.epochs, np.nan))
        for epoch, term_P in enumerate(term_S.astype(np.float64).reshape(recipe.epochs, per_epoch)):
            there_P = term_P[~np.isnan(term_P)]
            mean = float(np.mean(there_P)) if len(there_P) else math.nan
            if epoch < len(stated_E) and not _same(stated_E[epoch], mean):
                yield Disagreement(f"loss.{name} of epoch {epoch} in history.csv", stated_E[epoch], mean, "steps.npz")
    yield from _differing("{}", record.content, {"dropped_images": num_train % recipe.batch}, "train_scores.npz")
    rate = expected["steps"] * recipe.batch / max(float(history["seconds"].sum()), 1e-9)
    stated = float(record.content["cost"]["images_per_second"])
    if not abs(stated - rate) <= ROUNDED + 1e-6 * rate:
        yield Disagreement("images_per_second", stated, round(rate, 1), "steps.npz and history.csv")


def _implied(stated: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an epoch that follow from others of it."""
    implied = {"mAP": metrics.mean_average_precision(stated["AP_C"])}
    for ending in ("", f"_top{metrics.PER_IMAGE}"):
        for kind in "OC":
            precision, recall = stated[f"{kind}P{ending}"], stated[f"{kind}R{ending}"]
            both = precision + recall
            implied[f"{kind}F1{ending}"] = 2 * precision * recall / both if both else 0.0
    return {**implied, "categories_without_positives": int(np.isnan(stated["AP_C"]).sum())}


def _differing(
    what: str, stated: Mapping[str, Any], computed: Mapping[str, Any], source: str
) -> Iterator[Disagreement]:
    """The numbers that are stated otherwise than they were computed; of arrays the entries.

    Args:
        what: how the number is named; ``{}`` is its name.
    """
    for name, found in computed.items():
        there = stated.get(name)
        if isinstance(found, np.ndarray) and isinstance(there, np.ndarray) and found.shape == there.shape:
            for place in np.flatnonzero([not _same(a, b) for a, b in zip(there, found, strict=True)]):
                yield Disagreement(what.format(f"{name}[{place}]"), float(there[place]), float(found[place]), source)
        elif isinstance(found, np.ndarray) or not _same(there, found):
            yield Disagreement(what.format(name), there, found, source)


def _same(stated: Any, found: Any) -> bool:
    """Whether two numbers are the same but for the last digits; NaN is NaN."""
    if isinstance(stated, bool) or not isinstance(stated, (int, float, np.floating)):
        return False
    if math.isnan(stated) or math.isnan(found):
        return math.isnan(stated) and math.isnan(found)
    return abs(stated - found) <= TOLERANCE * max(1.0, abs(found))


def _scores(record: Record, name: str) -> NDArray[np.floating]:
    scores_NC = read_arrays(record.folder / name).get("scores")
    if scores_NC is None or scores_NC.ndim != 2 or scores_NC.dtype.kind != "f" or not np.isfinite(scores_NC).all():
        raise DamagedRecord(f"{record.folder / name} holds no scores; move {record.folder} away, then run again")
    return scores_NC


def _is_copy(shown: NDArray, scores_NC: NDArray, rows: NDArray) -> bool:
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < len(scores_NC))).all():
        return False
    return np.array_equal(shown, scores_NC[rows])


def _history(record: Record) -> dict[str, NDArray[np.float64]]:
    """The columns of history.csv, an entry an epoch; NaN where there is none.

    Raises:
        DamagedRecord: one that every history has is missing, or an entry is no number.
        Unreadable: the system could not read it.
    """
    path = record.folder / "history.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = rows[0].keys() if rows else ()
        found = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror}); allow it") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise DamagedRecord(f"{path} holds something else than numbers; move {record.folder} away") from error
    lacking = {"epoch", "seconds", *(f"test.{name}" for name in IN_HISTORY)} - found.keys()
    if lacking:
        raise DamagedRecord(f"{path} has no {', '.join(sorted(lacking))}; move {record.folder} away")
    return found


def _data_options(fingerprint: str) -> dict[str, str]:
    """The data set's options that a fingerprint names.

    >>> _data_options("0f-1e-side=48-shapes=many")
    {'side': '48', 'shapes': 'many'}
    """
    found = LABELS_OF.fullmatch(fingerprint)
    if found is None or not found["options"]:
        return {}
    parts = re.split(r"-(?=[A-Za-z_]\w*=)", found["options"])
    return {name: value for name, _, value in (part.partition("=") for part in parts)}


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else str(value)


def _by_reason(reasons: Mapping[str, Iterable[Path]]) -> dict[str, list[str]]:
    return {reason: [str(folder) for folder in folders] for reason, folders in reasons.items()}
