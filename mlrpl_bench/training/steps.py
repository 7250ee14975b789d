"""This module compares the steps of a training with those of the papers, and tells whether it led anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.models.method import Recipe
from mlrpl_bench.utils.tables import counted

PAPERS_STEPS = 20 * (82_081 // 16)
"""The papers' trainings on COCO make this many steps: 20 epochs of 82,081 images, 16 a step."""

PAPERS_RATE = 1e-5
"""This is the papers' highest learning rate."""

SHORT = 0.05
"""A training whose rate times steps is a smaller share of the papers' is short."""

LEAST_FALL = 0.05
"""A loss that falls by a smaller share from the first to the last epoch has hardly fallen."""

LEAST_GAIN = 0.05
"""A precision that covers a smaller share of the way from chance to 1 is at chance level."""

ADVICE = (
    "try more epochs (--epochs), fewer images a step (--batch) or a higher learning rate (--lr), and look whether "
    "labels and images belong together (data show)"
)


@dataclass(frozen=True)
class Length:
    """This class holds the length and the learning rate of a training.

    Attributes:
        rate: the recipe's highest learning rate.
        steps_per_epoch: the batches in an epoch; a short last one is left out.
        epochs: the number of epochs.
    """

    rate: float
    steps_per_epoch: int
    epochs: int

    @classmethod
    def from_recipe(cls, recipe: Recipe, images: int) -> Length:
        """Compute the length of a resolved recipe on so many training images.

        >>> Length.from_recipe(Recipe(epochs=20, batch=16), 82_081).steps
        102600
        """
        assert recipe.epochs and recipe.batch, "the recipe is not resolved"
        return cls(recipe.lr, images // recipe.batch, recipe.epochs)

    @property
    def steps(self) -> int:
        """Return the number of steps in all epochs together."""
        return self.steps_per_epoch * self.epochs

    def to_text(self) -> str:
        """Write the length for people.

        >>> Length(1e-5, 3, 2).to_text()
        "learning rate 1e-05, 3 steps an epoch, 6 in all (papers' on COCO: 102,600)"
        """
        steps = counted(self.steps_per_epoch, "step")
        return (
            f"learning rate {self.rate:g}, {steps} an epoch, {self.steps:,} in all (papers' on COCO: {PAPERS_STEPS:,})"
        )

    def shortness(self) -> str:
        """Say that the steps are too few for the rate; empty where they are not.

        Adam moves a weight by about the rate in each step, so rate times steps is about as far as a weight can go.

        >>> Length(1e-5, 2, 20).shortness()  # doctest: +ELLIPSIS
        "few steps for this learning rate: rate times steps, as far as a weight can move, is 0.04 % of the papers'; ..."
        >>> Length(1e-5, 312, 20).shortness()
        ''
        """
        share = self.rate * self.steps / (PAPERS_RATE * PAPERS_STEPS)
        if share >= SHORT:
            return ""
        return (
            f"few steps for this learning rate: rate times steps, as far as a weight can move, is {100 * share:.1g} % "
            "of the papers'; expect little to be learned, or choose a higher rate (--lr, tune), more epochs (--epochs) "
            "or a smaller batch (--batch)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the length as plain data."""
        return {"learning_rate": self.rate, "steps_per_epoch": self.steps_per_epoch, "steps": self.steps}


def chance(labels_NC: NDArray[np.int8]) -> float:
    """Return the average precision in [0, 1] to expect of random scores, without interpolation.

    It is the mean share of positives, and a little more where images are few, as a present label that happens to be
    ranked first counts for much. It is NaN without present labels.

    >>> round(chance(np.array([[PRESENT], [ABSENT]], dtype=np.int8)), 3)
    0.75
    """
    present_C, evaluated_C = _counts(labels_NC)
    if not len(present_C):
        return float("nan")
    harmonic_C = np.array([(1 / np.arange(1, count + 1)).sum() for count in evaluated_C])
    others_C = (present_C - 1) / np.maximum(evaluated_C - 1, 1)  # share of positives among the other places
    return float(((harmonic_C + others_C * (evaluated_C - harmonic_C)) / evaluated_C).mean())


def is_at_chance(precision: float, labels_NC: NDArray[np.int8]) -> bool:
    """Tell whether an average precision without interpolation is about what random scores have on these labels."""
    expected = chance(labels_NC)
    return precision - expected < LEAST_GAIN * (1 - expected)


def loss_at_both_ends(terms: Mapping[str, NDArray[np.floating]], epochs: int) -> tuple[float, float]:
    """Return the mean loss of the first and of the last epoch; of a single epoch, of its halves.

    Args:
        terms: [S] values at the steps by name, NaN where a term was not there.

    >>> loss_at_both_ends({"bce": np.array([4.0, 2.0, 1.0, 1.0])}, epochs=2)
    (3.0, 1.0)
    """
    total_S = np.nansum([np.asarray(term_S, dtype=np.float64) for term_S in terms.values()], axis=0)
    part = max(1, len(total_S) // max(2, epochs))
    return float(total_S[:part].mean()), float(total_S[-part:].mean())


def hardly_fell(first: float, last: float) -> bool:
    """Tell whether a loss is at the end about what it was at the beginning, or higher."""
    return first - last < LEAST_FALL * abs(first)


def went_nowhere(
    terms: Mapping[str, NDArray[np.floating]], epochs: int, precision: float, labels_NC: NDArray[np.int8]
) -> bool:
    """Tell whether the loss hardly fell and the precision on the test labels is at chance level."""
    return is_at_chance(precision, labels_NC) and bool(terms) and hardly_fell(*loss_at_both_ends(terms, epochs))


def note_of_cell(
    length: Length, terms: Mapping[str, NDArray[np.floating]], metrics: Mapping[str, Any], labels_NC: NDArray[np.int8]
) -> str | None:
    """Return the note on a trained cell that went nowhere, or whose loss stood still; None for any other."""
    if (value := _constant(terms)) is not None:
        return f"the loss was {value:.4g} at every step: nothing can be learned from it; look at the method's losses"
    if not went_nowhere(terms, length.epochs, metrics["average_precision"], labels_NC):
        return None
    first, last = loss_at_both_ends(terms, length.epochs)
    return (
        f"went nowhere: the mean loss went from {first:.4g} to {last:.4g} and mAP {100 * metrics['mAP']:.1f} is "
        f"at chance level (without interpolation {100 * metrics['average_precision']:.1f}, of random scores "
        f"{100 * chance(labels_NC):.1f}); {length.to_text()}; {ADVICE}"
    )


def _constant(terms: Mapping[str, NDArray[np.floating]]) -> float | None:
    """Return the loss where it is the same at each of several steps; None otherwise."""
    if not terms:
        return None
    total_S = np.nansum([np.asarray(term_S, dtype=np.float64) for term_S in terms.values()], axis=0)
    return float(total_S[0]) if len(total_S) > 1 and (total_S == total_S[0]).all() else None


def _counts(labels_NC: NDArray[np.int8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Count the present and the known labels of each category that has a present one."""
    present_C = (labels_NC == PRESENT).sum(axis=0)
    evaluated_C = present_C + (labels_NC == ABSENT).sum(axis=0)
    return present_C[present_C > 0], evaluated_C[present_C > 0]
