"""Says how a filling was calibrated and what it promises, as tables and as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.tools.filling.fill_in import STATES, Filling, Promise
from mlrpl_bench.tools.filling.thresholds import CONFIDENCE, labels_needed
from mlrpl_bench.utils.tables import Table, counted, from_text

SHOWN_EFFECT = 1.05
"""Design effects from this one on are worth a note."""


def calibration_table(filling: Filling) -> Table:
    """Return a row for each category: its number of labels, and whether its probabilities are those that were found."""
    rows = []
    for column, name in enumerate(filling.split.categories):
        present, absent = filling.held_out[column]
        expected, found = filling.expected[column], filling.found[column]
        unknown = int((filling.split.labels_NC[:, column] == UNKNOWN).sum())
        calibration = filling.calibrations[column].to_text
        rows.append([name, f"{unknown:,}", f"{present:,}", f"{absent:,}", _percent(expected), _percent(found)])
        rows[-1].append(calibration)
    head = ["category", "unknown", "hidden present", "hidden absent", "expected", "found", "calibration"]
    notes = [
        "hidden: labels that were given and that the method did not see; half of them calibrate",
        "expected and found: of the other half, the mean probability and the share that is present",
    ]
    return from_text("calibration", "Calibration", head, rows, notes, left=[6])


def promise_table(filling: Filling) -> Table:
    """Return a row for each group of categories and state: the number of entries set, and how many may be wrong."""
    rows = []
    for promise in filling.promises:
        choice = promise.choice
        numbers = ["-"] * 5
        if choice.set:
            sure = choice.threshold if promise.state == PRESENT else 1 - choice.threshold
            sign = "from" if promise.state == PRESENT else "up to"
            numbers = [f"{sign} {_percent(sure)}", f"{choice.wrong:,} of {choice.checked:,}"]
            numbers += [f"{choice.expected_wrong:,.1f}", f"{choice.at_most_wrong:,}"]
            numbers += [_percent(1 - choice.at_most_wrong / choice.set)]
        rows.append([group_name(filling, promise), STATES[promise.state], f"{promise.unknown:,}", f"{choice.set:,}"])
        rows[-1] += numbers
    head = ["categories", "state", "unknown", "set", "probability", "wrong when tried", "expected wrong"]
    head += ["at most wrong", "right, at least"]
    title = f"Set at a precision of {100 * filling.precision:g} %"
    return from_text("decisions", title, head, rows, notes_of(filling), left=[1])


def notes_of(filling: Filling) -> list[str]:
    """Return what one must know of the promises."""
    needed = labels_needed(filling.precision)
    notes = [
        f"each row is a promise of its own that is kept, or not made, in {100 * CONFIDENCE:g} of 100 cases, if the "
        "unknown labels of its categories are like the given ones",
        "wrong when tried: among the hidden labels that did not calibrate, which give at most wrong too; expected "
        "wrong is by the probabilities, and so by the other half",
    ]
    if any(not promise.choice.set for promise in filling.promises):
        notes.append(
            f"nothing is set (-) where no threshold holds; that needs {needed} hidden labels above it, none of them "
            "wrong, or more labels and few wrong, in the half that does not calibrate"
        )
    lacking = [n for n, c in zip(filling.split.categories, filling.calibrations, strict=True) if not c.kind]
    if lacking:
        notes.append(f"left unknown, as none of their given labels was hidden: {_some(lacking)}")
    shared = list(dict.fromkeys(promise.columns for promise in filling.promises if len(promise.columns) > 1))
    if len(shared) > 1:  # else it is those that have no row of their own
        names = filling.split.categories
        notes += [f"{len(each)} together: {_some([names[column] for column in each], len(each))}" for each in shared]
    if filling.uneven:
        notes.append(
            "categories that share a promise were given unequal shares of their labels: hidden ones of those with more "
            "were left out, by chance, until all were represented alike"
        )
    if (effect := max((promise.choice.effect for promise in filling.promises), default=1.0)) >= SHOWN_EFFECT:
        notes.append(
            f"in rows of several categories up to {effect:.1f} of the hidden labels count as one, as those of one "
            "image come together and are wrong together"
        )
    if filling.unlike:
        notes.append(
            "unknown and hidden labels have different scores, so they are not alike and the promise may fail: "
            f"{_some(filling.unlike)}"
        )
    return notes


def group_name(filling: Filling, promise: Promise) -> str:
    """Return the category, or how many share the promise."""
    if len(promise.columns) == 1:
        return filling.split.categories[promise.columns[0]]
    every = len(promise.columns) == len(filling.split.categories)
    return f"{'all ' if every else ''}{counted(len(promise.columns), 'category', 'categories')} together"


def to_json(filling: Filling) -> dict[str, Any]:
    """Return plain data: what the two tables say."""
    categories = filling.split.categories
    calibrations = [
        {
            "category": name,
            "unknown": int((filling.split.labels_NC[:, column] == UNKNOWN).sum()),
            "hidden_present": filling.held_out[column][0],
            "hidden_absent": filling.held_out[column][1],
            "kind": filling.calibrations[column].kind or None,
            "shared": filling.calibrations[column].shared or None,
            "labels": filling.calibrations[column].labels,
            "expected": _number(filling.expected[column]),
            "found": _number(filling.found[column]),
        }
        for column, name in enumerate(categories)
    ]
    promises = [
        {
            "categories": [categories[column] for column in promise.columns],
            "state": STATES[promise.state],
            "unknown": promise.unknown,
            "set": promise.choice.set,
            "sureness": _number(promise.choice.threshold),
            "checked": promise.choice.checked,
            "wrong_when_tried": promise.choice.wrong,
            "expected_wrong": promise.choice.expected_wrong,
            "at_most_wrong": promise.choice.at_most_wrong,
            "labels_that_count_as_one": promise.choice.effect,
        }
        for promise in filling.promises
    ]
    unlike = list(filling.unlike)
    found = {"precision": filling.precision, "calibrations": calibrations, "promises": promises}
    return {**found, "unlike": unlike, "uneven": filling.uneven}


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
