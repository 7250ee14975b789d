"""This module counts the given labels of a data set, and writes what a table must say where some were not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT

FEW_POSITIVES = 5
"""An average precision over fewer images that have the category hangs on single images, and is marked."""

ALL_GIVEN = "all given"


class GivenLabels(NamedTuple):
    """The labels of the images that are trained and evaluated on.

    Attributes:
        train_entries, train_unknown: training labels, and those of them that nobody gave.
        test_entries, test_unknown: likewise of the images that are evaluated on.
        positives: of each category the evaluated images that are known to have it.
        negatives: of each category the evaluated images that are known not to have it.
        own_validation: whether the data set has validation images, so that none are held out for ``--evaluate-on val``.
    """

    train_entries: int = 0
    train_unknown: int = 0
    test_entries: int = 0
    test_unknown: int = 0
    positives: Mapping[str, int] = {}
    negatives: Mapping[str, int] = {}
    own_validation: bool = False

    @classmethod
    def from_splits(cls, train: Split, test: Split, own_validation: bool = False) -> GivenLabels:
        """Count the labels of both splits."""
        counts = {state: (test.labels_NC == state).sum(axis=0).tolist() for state in (PRESENT, ABSENT)}
        return cls(
            train.labels_NC.size,
            train.num_unknown,
            test.labels_NC.size,
            test.num_unknown,
            dict(zip(test.categories, counts[PRESENT], strict=True)),
            dict(zip(test.categories, counts[ABSENT], strict=True)),
            own_validation,
        )

    def ratio_title(self, ratio: float) -> str:
        """Return ``10 %`` for 0.1; ``all given`` for 1 where some training labels are unknown.

        >>> GivenLabels().ratio_title(1.0), GivenLabels(100, 40).ratio_title(1.0), GivenLabels(100, 40).ratio_title(0.1)
        ('100 %', 'all given', '10 %')
        """
        return ALL_GIVEN if ratio == 1 and self.train_unknown else f"{100 * ratio:g} %"

    def share_of_labels(self, ratio: float) -> str:
        """Return in words what a ratio leaves known: ``10 % of the labels known``, ``all given labels known``."""
        if not self.train_unknown:
            return f"{self.ratio_title(ratio)} of the labels known"
        return f"{ALL_GIVEN} labels known" if ratio == 1 else f"{self.ratio_title(ratio)} of the given labels known"

    def labels_evaluated(self, evaluate_on: str) -> str:
        """Return the labels that numbers rest on, in words: ``complete test labels``, or ``given test labels``."""
        words = {"test": "test labels", "val": "labels of a tenth of the training images, held out"}[evaluate_on]
        if evaluate_on == "val" and self.own_validation:
            words = "labels of the data set's validation images"
        return f"{'given' if self.test_unknown else 'complete'} {words}"

    def notes(self) -> list[str]:
        """Return the lines that a table needs where labels are unknown; none for complete labels."""
        lines = []
        if self.train_unknown:
            lines.append(
                f"{self.train_unknown:,} of {self.train_entries:,} training labels are unknown at every ratio, since "
                f"nobody gave them; ratios are shares of the other {self.train_entries - self.train_unknown:,}"
            )
        if self.test_unknown:
            lines.append(
                f"{self.test_unknown:,} of the {self.test_entries:,} labels of the images evaluated on are unknown and "
                "not evaluated"
            )
            measured = [count for count in self.positives.values() if count]
            few = sum(count < FEW_POSITIVES for count in measured)
            if few or len(measured) < len(self.positives):
                lines.append(
                    f"mAP is the mean over {len(measured)} of {len(self.positives)} categories; {few} of them "
                    f"rest{'s' * (few == 1)} on fewer than {FEW_POSITIVES} images that are known to have the category"
                )
        return lines

    def category_title(self, name: str) -> str:
        """Return a category's name, with a mark where its average precision says little.

        >>> given = GivenLabels(positives={"cat": 5, "dog": 4, "owl": 9}, negatives={"cat": 7, "dog": 7, "owl": 0})
        >>> [given.category_title(name) for name in ("cat", "dog", "owl", "bat")]
        ['cat', 'dog (4 positives)', 'owl (no negatives)', 'bat']
        """
        positives, negatives = self.positives.get(name, FEW_POSITIVES), self.negatives.get(name, 1)
        if positives < FEW_POSITIVES:
            return f"{name} ({positives or 'no'} positive{'s' * (positives != 1)})"
        return name if negatives else f"{name} (no negatives)"

    def category_note(self) -> str:
        """Return what the marks of `category_title` mean, or nothing where there are none."""
        marked = [name for name in self.positives if self.category_title(name) != name]
        if not marked:
            return ""
        return (
            f"in brackets: a category with fewer than {FEW_POSITIVES} evaluated images that are known to have it hangs "
            "on single images; one without any that is known to lack it has 100 whatever is scored"
        )
