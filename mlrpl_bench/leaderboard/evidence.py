"""This module computes what a finished cell tells beyond its metrics, once, and keeps it beside the cell's record.

- Each test image's influence on mAP, OF1 and CF1: what intervals and paired comparisons resample (`intervals`).
- Recovery: how well the trained method ranks the training labels that were hidden from it, the mAP over these entries
  alone. Methods that learn to fill in labels should be good at it, and no test image is needed.
- Precision, recall and F1 with one threshold a category, chosen on the training labels that the method was given.
- mAP of each epoch: what another choice of the epoch would have reported.
- Loss fluctuation: how much the training loss jumps from step to step.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data import protocol
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.evaluation import influences, metrics, thresholds
from mlrpl_bench.models.method import Progress
from mlrpl_bench.records.elsewhere.packed import TRAIN_EVIDENCE, TRAIN_SCORES, tolerance_of
from mlrpl_bench.records.record import Record, read_arrays, read_arrays_of
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import write_atomically

FILE = "evidence.npz"
VERSION = 2
"""Raised by hand whenever the same record would give other evidence; what is kept of another version is made anew."""

SUPERVISED_TERM = "partial_bce"
PAPERS_START = 5
"""This is the epoch (of 20) at which the papers' methods begin to fill in labels; where a method has no start of its
own.
"""

Masks = Callable[[float, int], NDArray[np.bool_]]
Seeds = tuple[int, int]
"""Return training seed and mask seed."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence holds what is known of one finished cell: its record, and what was computed from its files.

    Attributes:
        record: what the cell left behind.
        influences: by metric of `metrics.REPORTED`, float32 [N]; see `influences`.
        recovery: mAP over the training entries that were hidden, in [0, 1]; NaN where nothing was.
        recovery_AP_C: the same by category; NaN for one without a hidden present label.
        loss_fluctuation: see `loss_fluctuation`; NaN where the method has no such term.
        chosen: `metrics.THRESHOLDED` with `thresholds.chosen` on the known training labels, fractions.
        oracle: `thresholds.ORACLE` with thresholds chosen on the evaluated labels themselves, fractions.
        course_E: mAP of each epoch on the evaluated images, in [0, 1]; NaN where it was not taken.
        validated_epoch: the best epoch, from 0, of the same training on validation images; None where there is none.
        validated: as `chosen`, with thresholds from the same training on validation images; empty where there is none.
    """

    record: Record
    influences: Mapping[str, NDArray[np.float32]]
    recovery: float
    recovery_AP_C: NDArray[np.float64]
    loss_fluctuation: float
    chosen: Mapping[str, float] = field(default_factory=dict)
    oracle: Mapping[str, float] = field(default_factory=dict)
    course_E: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    validated_epoch: int | None = None
    validated: Mapping[str, float] = field(default_factory=dict)

    @property
    def seeds(self) -> Seeds:
        """Return training seed and mask seed."""
        return self.record.cell.seed, self.record.cell.mask_seed


EvidenceGrid = Mapping[tuple[str, float], Mapping[Seeds, Evidence]]
"""This is the evidence of a table: by row label and known ratio, then by seeds."""


def without_labels(record: Record) -> Evidence:
    """Take the evidence that is kept beside a record; where none is, what can be said without its data set's labels.

    The metrics are then those that the record states, and there are no influences, so no interval.

    Raises:
        UserError: a file is damaged.
    """
    kept = _kept(record, _source(record))
    if kept is not None:
        return kept
    number = len(record.metrics["AP_C"])
    nothing = {"recovery": float("nan"), "recovery_AP_C": np.full(number, np.nan)}
    stated = _stated(record, number) if TRAIN_SCORES not in record.files else nothing
    return Evidence(record, {}, **stated, loss_fluctuation=loss_fluctuation(record), course_E=mAP_of_epochs(record))


class Collector:
    """A collector finds the evidence of records of one setting.

    Args:
        train: the split that the setting trains on, with complete labels.
        test: the split that it evaluates on, with complete labels.
        masks: the mask of the training split for a known ratio and a mask seed.
    """

    def __init__(self, train: Split, test: Split, masks: Masks) -> None:
        self.train, self.test, self.masks = train, test, masks

    def collect(self, record: Record) -> Evidence:
        """Take the evidence of a record that is kept beside it, if it came from the same files; else make and keep it.

        A folder that may not be written to is no obstacle; its evidence is then made at every call.

        Raises:
            UserError: the record's scores are damaged, are those of other images, or do not give the metrics that it
                states.
        """
        if len(record.metrics["AP_C"]) != len(self.test.categories):
            raise UserError(f"{record.folder}: its record has not one AP_C for each category; move the folder away")
        source = _source(record)
        kept = _kept(record, source)
        if kept is not None:
            return kept
        found = self._made(record)
        _keep(found, source)
        return found

    def _made(self, record: Record) -> Evidence:
        scores_NC = read_scores(record, "scores.npz", self.test)
        measured = metrics.evaluate(scores_NC, self.test.labels_NC, surely_logits=True)
        for name in metrics.REPORTED:
            tolerance = tolerance_of(name) if record.is_rounded() else 1e-9
            if abs(measured[name] - record.metrics[name]) > tolerance:
                raise UserError(
                    f"{record.folder}: its scores give {name} {measured[name]:.6f} and its record says "
                    f"{record.metrics[name]:.6f}; move the folder away, then run again to train the cell anew"
                )
        drawn = influences.influences(scores_NC, self.test.labels_NC)
        by_metric = {name: drawn[name].astype(np.float32) for name in metrics.REPORTED}
        mask_NC = self.masks(record.cell.ratio, record.cell.mask_seed)
        if protocol.mask_hash(mask_NC) != record.cell.mask_hash:
            raise UserError(f"{record.folder}: the mask that it was trained with is not the one drawn here")
        course_E = mAP_of_epochs(record)
        if TRAIN_SCORES not in record.files:
            stated = _stated(record, len(self.test.categories))
            return Evidence(record, by_metric, **stated, loss_fluctuation=loss_fluctuation(record), course_E=course_E)
        train_scores_NC = read_scores(record, TRAIN_SCORES, self.train)
        recovery, recovery_AP_C = self._recovery(train_scores_NC, mask_NC)
        thresholds_C = thresholds.chosen(train_scores_NC, protocol.hide(self.train.labels_NC, mask_NC))
        return Evidence(
            record,
            by_metric,
            recovery,
            recovery_AP_C,
            loss_fluctuation(record),
            thresholds.evaluate(scores_NC, self.test.labels_NC, thresholds_C),
            thresholds.oracle(scores_NC, self.test.labels_NC, [thresholds_C]),
            course_E,
        )

    def _recovery(
        self, train_scores_NC: NDArray[np.float32], mask_NC: NDArray[np.bool_]
    ) -> tuple[float, NDArray[np.float64]]:
        labels_NC = np.where(mask_NC, protocol.UNKNOWN, self.train.labels_NC)  # UNKNOWN entries are not evaluated
        none_C = np.full(labels_NC.shape[1], np.nan)
        if not (labels_NC == protocol.PRESENT).any() or not (labels_NC == protocol.ABSENT).any():
            return float("nan"), none_C
        AP_C = metrics.average_precisions(train_scores_NC, labels_NC)
        return metrics.mean_average_precision(AP_C), AP_C


def of_training(record: Record) -> dict[str, NDArray[np.float64]]:
    """Return what tables need of a record's training scores, as its kept evidence has it.

    Returns:
        ``recovery`` (a number), ``recovery_AP_C`` and ``thresholds``, the shares of `metrics.THRESHOLDED` and
        `thresholds.ORACLE`.

    Raises:
        UserError: no evidence of these scores is kept.
    """
    kept = _kept(record, _source(record))
    if kept is None:
        advice = "make its table first (leaderboard --no-train), or give --train-scores"
        raise UserError(f"{record.folder} has no {FILE} of its scores, which stands for the training scores; {advice}")
    return {name: np.asarray(values, dtype=np.float64) for name, values in _of_training(kept).items()}


def _of_training(found: Evidence) -> dict[str, Any]:
    shares = [*(found.chosen[name] for name in metrics.THRESHOLDED), *(found.oracle[n] for n in thresholds.ORACLE)]
    return {"recovery": found.recovery, "recovery_AP_C": found.recovery_AP_C, "thresholds": shares}


def _from_training(arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    """Return the fields of `Evidence` that `_of_training` gave as arrays."""
    shares = arrays["thresholds"].tolist()
    return {
        "recovery": float(arrays["recovery"]),
        "recovery_AP_C": arrays["recovery_AP_C"],
        "chosen": dict(zip(metrics.THRESHOLDED, shares[: len(metrics.THRESHOLDED)], strict=True)),
        "oracle": dict(zip(thresholds.ORACLE, shares[len(metrics.THRESHOLDED) :], strict=True)),
    }


def _stated(record: Record, num_categories: int) -> dict[str, Any]:
    """Return what a record without training scores states in their place, which nothing here can confirm.

    Raises:
        UserError: it states something else than shares.
    """
    path = record.folder / TRAIN_EVIDENCE
    try:
        arrays = read_arrays(path)
        shapes = [arrays[name].shape for name in ("recovery", "recovery_AP_C", "thresholds")]
        if shapes != [(), (num_categories,), (len(metrics.THRESHOLDED) + len(thresholds.ORACLE),)]:
            raise ValueError(f"its arrays have the shapes {shapes}")
        if any(((values < 0) | (values > 1)).any() for values in arrays.values()):
            raise ValueError("its numbers are no shares between 0 and 1")
        return _from_training(arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}); move its folder away") from error


def loss_fluctuation(record: Record) -> float:
    """Measure how much the supervised loss term jumps from step to step once the method fills in labels.

    The mean absolute second difference of the term over the steps from the method's start epoch on (its
    hyper-parameter ``start``, else the papers'). The second difference of a steady fall is 0, so it is not the fall
    that is measured. Steps of a stopped term (NaN) count as none. NaN where the method has no such term.
    """
    terms = read_arrays(record.folder / "steps.npz")
    term_S = terms.get(SUPERVISED_TERM)
    epochs = record.cell.recipe.epochs
    if term_S is None or term_S.dtype.kind != "f" or term_S.ndim != 1 or not epochs:
        return float("nan")
    start = record.cell.hyperparameters.get("start")
    start = int(start) if isinstance(start, (int, float)) else PAPERS_START
    first = Progress(0, epochs, 0, 1).at(start) * (len(term_S) // epochs)
    second_differences_S = np.diff(term_S[first:].astype(np.float64), n=2)
    finite_S = second_differences_S[np.isfinite(second_differences_S)]
    return float(np.abs(finite_S).mean()) if len(finite_S) else float("nan")


def mAP_of_epochs(record: Record) -> NDArray[np.float64]:
    """Return the mAP of each epoch, NaN where it was not taken; empty where the history does not say it."""
    path = record.folder / "history.csv"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        stated = [row["test.mAP"] for row in rows]  # "" after an epoch without evaluation, which the last one never is
        course_E = np.array([math.nan if text == "" else float(text) for text in stated])
        is_taken_E = np.array([text != "" for text in stated], dtype=bool)
        taken_E = course_E[is_taken_E]
        if not ((taken_E >= 0) & (taken_E <= 1)).all() or not is_taken_E[-1:].all():
            raise ValueError("its test.mAP are no shares between 0 and 1")
        return course_E
    except KeyError:
        return np.empty(0)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); move its folder away") from error


def read_scores(record: Record, name: str, split: Split) -> NDArray[np.float32]:
    """Read the scores in one of a record's files, N x C.

    Args:
        name: ``scores.npz`` or ``train_scores.npz``, which a pack may have left out.
        split: whose images they are of.

    Raises:
        UserError: they are not here, damaged, no finite numbers, or of another number of images or categories.
    """
    if name not in record.files:
        raise UserError(f"{record.folder} came in a pack without {name}; ask for a pack with --train-scores")
    scores_NC = read_arrays_of(record, name.removesuffix(".npz")).get("scores")
    if scores_NC is None or scores_NC.shape != split.labels_NC.shape:
        found = "no scores" if scores_NC is None else f"scores of shape {scores_NC.shape}"
        raise UserError(f"{record.folder / name} holds {found}, not {split.labels_NC.shape}; move its folder away")
    if scores_NC.dtype.kind != "f" or not np.isfinite(scores_NC).all():
        raise UserError(f"{record.folder / name} holds scores that are no finite numbers; move its folder away")
    return scores_NC


def _source(record: Record) -> str:
    """Identify what evidence is made from."""
    files = record.files
    stated = [record.metrics[name] for name in metrics.REPORTED]  # which were looked at when the evidence was made
    parts = [
        VERSION,
        record.cell.key,
        stated,
        *(files.get(f"{name}.npz") for name in ("scores", "train_scores", "steps")),
        files.get("history.csv"),
        *(files[name] for name in (TRAIN_EVIDENCE,) if name in files),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _kept(record: Record, source: str) -> Evidence | None:
    """Read what was kept of the same files, or None; whatever cannot be read is made anew."""
    try:
        arrays = read_arrays(record.folder / FILE)
        if str(arrays["source"]) != source:
            return None
        return Evidence(
            record,
            {name: arrays[name] for name in metrics.REPORTED},
            **_from_training(arrays),
            loss_fluctuation=float(arrays["loss_fluctuation"]),
            course_E=arrays["course_E"],
        )
    except Exception:  # missing, cut short, of another kind: it is only a copy of what the record gives
        return None


def _keep(found: Evidence, source: str) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"source": source, "loss_fluctuation": found.loss_fluctuation, **_of_training(found)}
    arrays |= {"course_E": found.course_E, **found.influences}
    np.savez(buffer, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]
    try:
        write_atomically(found.record.folder / FILE, buffer.getvalue())
    except OSError:
        return  # another machine's folder, perhaps read-only
