"""This module makes a dataset's card: its statistics as tables, on a terminal or as Markdown for a README."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlrpl_bench.tools.inspection.label_statistics import FEW, KnownCounts, SplitCounts, Statistics
from mlrpl_bench.utils.tables import Table, from_text

SHOWN = 10
"""This many categories at either end, and pairs, are shown."""

NAMES = ("split", "category", "fewest known", "pair")
"""These columns hold words."""

KNOWN_EXPLAINED = (
    "% present, % absent: share of the present and of the absent labels that is known",
    "fewest known: known positives of the category with the fewest",
    f"below {FEW}: categories with fewer known positives",
    "no label, no present: images without any known label, and without a known present label",
)


GIVEN_EXPLAINED = (
    "some labels are unknown, since nobody gave them: ratio and shares are of the given labels, and images of a "
    "category are those that are known to have it",
    "% given: share of the training images of which the category's label was given",
)


def print_card(statistics: Statistics, name: str, about: str) -> None:
    """Print a dataset's card under its name; `about` is what its file says of it, or empty."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line, style in ((name, "bold"), (about, "")):
        if line:
            console.print(Text(line, style), soft_wrap=True)
    for table in _tables(statistics):
        print()
        table.print()


def markdown(statistics: Statistics, name: str, about: str = "", every_category: bool = False) -> str:
    """Return the card as Markdown; with `every_category`, also the known positives of each category at each ratio."""
    tables = _tables(statistics)
    if every_category:
        tables.append(_every_category(statistics))
    head = [f"# {name}", *([about] if about else [])]
    return "\n\n".join([*head, *(table.markdown(padded=True).rstrip("\n") for table in tables)])


def _tables(statistics: Statistics) -> list[Table]:
    order = statistics.by_frequency()
    frequent = f"Most frequent of {len(order)} categories, and known positives at some ratios"
    return [
        _splits(statistics.splits),
        _categories(frequent, statistics, order[:SHOWN]),
        _categories("Rarest categories", statistics, order[::-1][:SHOWN]),
        _known(statistics),
        _pairs(statistics),
    ]


def _splits(splits: dict[str, SplitCounts]) -> Table:
    rows = []
    for name, counts in splits.items():
        facts = counts.to_json()
        per_image = facts["labels per image"]
        mean = "-" if per_image["mean"] is None else f"{per_image['mean']:.2f}"
        numbers = (per_image["min"], per_image["max"], facts["images without labels"], facts["unknown labels"])
        rows.append([name, f"{facts['images']:,}", f"{facts['labels']:,}", mean, *(f"{n:,}" for n in numbers)])
    head = ["split", "images", "labels", "per image", "fewest", "most", "without any", "unknown labels"]
    if any(counts.unknown for counts in splits.values()):
        return _table("Images", head, rows, ["labels, and what follows of them: those that were given as present"])
    return _table("Images", head[:-1], [row[:-1] for row in rows])


def _categories(title: str, statistics: Statistics, columns: Sequence[int]) -> Table:
    """Make the table of categories: images in each split, and known positives at three ratios."""
    known = [statistics.known[at] for at in sorted({0, len(statistics.known) // 2, len(statistics.known) - 1})]
    some_unknown = statistics.train.unknown > 0
    head = [
        "category",
        *statistics.splits,
        "% of given" if some_unknown else "% of train",
        *["% given"] * some_unknown,
        *(f"at {counts.ratio:g}" for counts in known),
    ]
    images = max(len(statistics.train.labels_N), 1)
    of_C = np.maximum(statistics.train.known_C, 1)  # without unknown labels that is the number of images
    rows = []
    for column in columns:
        numbers = [counts.positives_C[column] for counts in statistics.splits.values()]
        share = f"{100 * statistics.train.positives_C[column] / of_C[column]:.2g}"
        rows.append([
            statistics.categories[column],
            *(f"{number:,}" for number in numbers),
            share,
            *[f"{100 * statistics.train.known_C[column] / images:.3g}"] * some_unknown,
            *(f"{counts.positives_C[column]:,}" for counts in known),
        ])  # fmt: skip
    return _table(title, head, rows)


def _every_category(statistics: Statistics) -> Table:
    title = f"Known positives of every category at every ratio, mask seed {statistics.mask_seed}"
    head = ["category", "train", *(f"at {counts.ratio:g}" for counts in statistics.known)]
    counted = [statistics.train.positives_C, *(counts.positives_C for counts in statistics.known)]
    order = statistics.by_frequency()
    return _table(title, head, [[statistics.categories[c], *(f"{of_C[c]:,}" for of_C in counted)] for c in order])


def _known(statistics: Statistics) -> Table:
    head = ["ratio", "% present", "% absent", "fewest known", f"below {FEW}", "no label", "no present"]
    rows = [_known_row(counts, statistics.categories) for counts in statistics.known]
    explained = (*KNOWN_EXPLAINED, *GIVEN_EXPLAINED) if statistics.train.unknown else KNOWN_EXPLAINED
    return _table(f"Known training labels, mask seed {statistics.mask_seed}", head, rows, explained)


def _known_row(counts: KnownCounts, categories: Sequence[str]) -> list[str]:
    column = int(counts.positives_C.argmin())
    few = int((counts.positives_C < FEW).sum())
    return [
        f"{counts.ratio:g}",
        f"{100 * counts.present_share:.2f}",
        f"{100 * counts.absent_share:.2f}",
        f"{counts.positives_C[column]:,} {categories[column]}",
        f"{few} of {len(categories)}",
        f"{counts.images_without_any:,}",
        f"{counts.images_without_present:,}",
    ]


def _pairs(statistics: Statistics) -> Table:
    rows = [
        [
            f"{statistics.categories[pair.first]} + {statistics.categories[pair.second]}",
            f"{pair.images:,}",
            f"{100 * pair.overlap:.1f}",
            f"{pair.times_chance:.1f}",
        ]
        for pair in statistics.pairs(SHOWN)
    ]
    notes = [] if rows else ["none, or too rarely to say"]
    return _table("Categories that occur together", ["pair", "both", "% of either", "times chance"], rows, notes)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> Table:
    """Print a table with numbers to the right and names to the left."""
    left = [place for place, column in enumerate(head) if column in NAMES]
    return from_text("card", title, head, rows, notes, left=left)
