"""This module computes the numbers of one record again, from the files beside it and from labels.

Times and memory cannot be computed again. Of a best epoch that is not the last no scores are kept: there only the
files' own copies of mAP, OF1 and CF1 are compared, and what its numbers say of each other.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data import protocol
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.method import AVERAGED, RAW
from mlrpl_bench.records.elsewhere.packed import TRAIN_SCORES, tolerance_of
from mlrpl_bench.records.record import OTHER_WEIGHTS, DamagedRecord, Record, Unreadable, from_plain, read_arrays_of
from mlrpl_bench.tools.recompute.labels import Truth

TOLERANCE = 1e-9
"""Two numbers that differ by no more than this are the same: another NumPy may round the last digit otherwise."""

ROUNDED = 0.051
"""Images per second may differ by this much, as they are stored with one digit after the point."""

IN_HISTORY = ("mAP", "OF1", "CF1")
"""The file history.csv has these test metrics for every epoch after which the cell was evaluated."""


@dataclass(frozen=True)
class Disagreement:
    """A disagreement names a number that is stated otherwise than it was computed.

    Attributes:
        what: which number it is, and in which file it is stated.
        stated: the number that is stated.
        found: the number that was computed.
        source: what it was computed from.
    """

    what: str
    stated: Any
    found: Any
    source: str

    def to_text(self) -> str:
        """Write the disagreement as a part of a line."""
        return f"{self.what} is {_text(self.stated)}, from {self.source} it is {_text(self.found)}"

    def to_json(self) -> dict[str, Any]:
        """Return the disagreement as plain data."""
        return {
            "what": self.what,
            "stated": _plain(self.stated),
            "found": _plain(self.found),
            "source": self.source,
        }


def disagreements_of(record: Record, truth: Truth | None) -> Iterator[Disagreement]:
    """Yield every number of a record that is not what its files, and the labels where there are some, give.

    Raises:
        DamagedRecord: a file holds no scores, no losses or no history.
        Unreadable: the system could not read a file.
    """
    names = [name for name in ("scores.npz", TRAIN_SCORES) if name in record.files]
    scores = {name: _scores(record, name) for name in names}
    scores_NC = scores["scores.npz"]
    if truth is not None:
        for name, wanted in (("scores.npz", truth.test_NC.shape), (TRAIN_SCORES, truth.train_NC.shape)):
            if name in scores and scores[name].shape != wanted:
                yield Disagreement(f"the shape of {name}", scores[name].shape, wanted, "the labels")
                return
    history = _history(record)
    yield from _against_scores(record, scores_NC, truth, last_epoch=len(history["epoch"]) - 1)
    yield from _against_other_scores(record, truth)
    if truth is not None and truth.mask_NC is not None:
        stated = {name: from_plain(value) for name, value in (record.content.get("known_share") or {}).items()}
        shares = protocol.known_share(truth.train_NC, truth.mask_NC)
        yield from _differing("the known share of {} labels", stated, shares, "the mask")
    yield from _against_history(record, history)
    num_train = len(scores[TRAIN_SCORES]) if TRAIN_SCORES in scores else None if truth is None else len(truth.train_NC)
    if num_train is not None:
        yield from _against_steps(record, history, num_train)
    examples = read_arrays_of(record, "examples")
    rows, shown = examples.get("rows"), examples.get("scores")
    if rows is None or shown is None or not _is_copy(shown, scores_NC, rows):
        yield Disagreement("examples.npz", "something else", "its rows", "scores.npz")


def _against_scores(
    record: Record, scores_NC: NDArray[np.floating], truth: Truth | None, last_epoch: int
) -> Iterator[Disagreement]:
    """Compare the metrics of both epochs; of a best epoch that is not the last, only with each other."""
    last = record.metrics
    if truth is not None:
        last = metrics.evaluate(scores_NC, truth.test_NC, surely_logits=True)
        if record.is_rounded():
            last = {name: _as_stated(name, record.metrics.get(name), value) for name, value in last.items()}
        yield from _differing("{}", record.metrics, last, "scores.npz")
    else:
        yield from _differing("{}", record.metrics, _implied(record.metrics), "its other metrics")
    best = _best_metrics(record)
    if record.content["best_epoch"] == last_epoch:
        yield from _differing("{} of the best epoch", best, last, "the last epoch, which is the best one,")
    else:
        yield from _differing("{} of the best epoch", best, _implied(best), "its other metrics")


def _against_other_scores(record: Record, truth: Truth | None) -> Iterator[Disagreement]:
    """Compare the metrics of the weights that are not the row's with their scores, where a recipe averages weights.

    A pack that rounds scores leaves these out, see `packed.rounded`.
    """
    if record.cell.recipe.ema is None or truth is None or record.is_rounded():
        return
    name = RAW if record.cell.recipe.scored == AVERAGED else AVERAGED
    stated = {key: from_plain(value) for key, value in record.content[OTHER_WEIGHTS]["metrics"].items()}
    if record.content[OTHER_WEIGHTS]["weights"] != name:
        yield Disagreement("the other weights", record.content[OTHER_WEIGHTS]["weights"], name, "the recipe")
    scores_NC = read_arrays_of(record, "scores").get(name)
    if scores_NC is None or scores_NC.shape != truth.test_NC.shape:
        raise DamagedRecord(f"{record.folder / 'scores.npz'} lacks the {name} scores; move {record.folder} away")
    computed = metrics.evaluate(scores_NC, truth.test_NC, surely_logits=True)
    yield from _differing(f"{{}} of the {name} weights", stated, computed, "scores.npz")


def _as_stated(name: str, stated: Any, found: Any) -> Any:
    """Return what was stated where a metric of rounded scores is as near to it as rounding lets it be."""
    if isinstance(found, np.ndarray) and isinstance(stated, np.ndarray) and found.shape == stated.shape:
        near_C = (np.abs(found - stated) <= tolerance_of(name)) & ~np.isnan(found) & ~np.isnan(stated)
        return np.where(near_C, stated, found)
    is_number = isinstance(stated, float) and isinstance(found, float)
    return stated if is_number and abs(found - stated) <= tolerance_of(name) else found


def _best_metrics(record: Record) -> dict[str, Any]:
    return {name: from_plain(value) for name, value in record.content["best_metrics"].items()}


def _against_history(record: Record, history: Mapping[str, NDArray[np.float64]]) -> Iterator[Disagreement]:
    """Compare the best epoch and its metrics with the history."""
    precision_E, epochs = history["test.mAP"], record.cell.recipe.epochs
    if len(precision_E) != epochs:
        yield Disagreement("the number of epochs", epochs, len(precision_E), "history.csv")
        return
    best_epoch = int(np.argmax(np.nan_to_num(precision_E, nan=-1.0)))
    if record.content["best_epoch"] != best_epoch:
        yield Disagreement("best_epoch", record.content["best_epoch"], best_epoch, "history.csv")
    best = _best_metrics(record)
    for what, stated, epoch in (("{}", record.metrics, epochs - 1), ("{} of the best epoch", best, best_epoch)):
        of_epoch = {name: float(history[f"test.{name}"][epoch]) for name in IN_HISTORY}
        yield from _differing(what, stated, of_epoch, "history.csv")


def _against_steps(
    record: Record, history: Mapping[str, NDArray[np.float64]], num_train: int
) -> Iterator[Disagreement]:
    """Compare what follows from the number of steps, and the losses of each epoch with those of its steps."""
    terms = read_arrays_of(record, "steps")
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
    """Compute the metrics of an epoch that follow from its other metrics."""
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
    """Yield the numbers that are stated otherwise than they were computed; of arrays, the entries.

    Args:
        what: a text that names the number, with ``{}`` for its name.
        source: what the numbers were computed from.
    """
    for name, found in computed.items():
        there = stated.get(name)
        if isinstance(found, np.ndarray) and isinstance(there, np.ndarray) and found.shape == there.shape:
            for place in np.flatnonzero([not _same(a, b) for a, b in zip(there, found, strict=True)]):
                yield Disagreement(what.format(f"{name}[{place}]"), float(there[place]), float(found[place]), source)
        elif isinstance(found, np.ndarray) or not _same(there, found):
            yield Disagreement(what.format(name), there, found, source)


def _same(stated: Any, found: Any) -> bool:
    """Tell whether two numbers are the same but for the last digits; NaN is the same as NaN."""
    if isinstance(stated, bool) or not isinstance(stated, (int, float, np.floating)):
        return False
    if math.isnan(stated) or math.isnan(found):
        return math.isnan(stated) and math.isnan(found)
    return abs(stated - found) <= TOLERANCE * max(1.0, abs(found))


def _scores(record: Record, name: str) -> NDArray[np.floating]:
    scores_NC = read_arrays_of(record, name.removesuffix(".npz")).get("scores")
    if scores_NC is None or scores_NC.ndim != 2 or scores_NC.dtype.kind != "f" or not np.isfinite(scores_NC).all():
        raise DamagedRecord(f"{record.folder / name} holds no scores; move {record.folder} away, then run again")
    return scores_NC


def _is_copy(shown: NDArray, scores_NC: NDArray, rows: NDArray) -> bool:
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < len(scores_NC))).all():
        return False
    return np.array_equal(shown, scores_NC[rows])


def _history(record: Record) -> dict[str, NDArray[np.float64]]:
    """Read the columns of history.csv, each [E] with an entry an epoch; NaN where there is none.

    Raises:
        DamagedRecord: a column that every history has is missing, or an entry is no number.
        Unreadable: the system could not read the file.
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


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else str(value)
