"""A dataset's card: its statistics as Markdown tables, to read on a terminal or to paste into a README."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from mlrpl_bench.tools.inspection.label_statistics import FEW, KnownCounts, SplitCounts, Statistics
from mlrpl_bench.utils.tables import escape_markdown

SHOWN = 10
"""Categories at either end, and pairs."""

NAMES = ("split", "category", "fewest known", "pair")
"""Columns of words."""

KNOWN_EXPLAINED = f"""\
% present, % absent: share of the present and of the absent labels that is known. fewest known: known positives
of the category with the fewest. below {FEW}: categories with fewer known positives. no label, no present: images
without any known label, and without a known present label."""


GIVEN_EXPLAINED = """\
Some labels are unknown, since nobody gave them: ratio and shares are of the given labels, and images of a category
are those that are known to have it. % given: share of the training images of which the category's label was given."""


def print_card(statistics: Statistics, name: str, about: str) -> None:
    """Print a dataset's card under its name; `about` is what its file says of it, or empty."""
    console = Console(highlight=False)
    for line in markdown(statistics, name, about).splitlines():
        console.print(Text(line, style="bold" if line.startswith("#") else ""), soft_wrap=True)


def markdown(statistics: Statistics, name: str, about: str = "", every_category: bool = False) -> str:
    """The card; with `every_category`, also the known positives of each category at each ratio."""
    order = statistics.by_frequency()
    sections = {
        "Images": _splits(statistics.splits),
        f"Most frequent of {len(order)} categories, and known positives at some ratios": _categories(
            statistics, order[:SHOWN]
        ),
        "Rarest categories": _categories(statistics, order[::-1][:SHOWN]),
        f"Known training labels, mask seed {statistics.mask_seed}": _known(statistics),
        "Categories that occur together": _pairs(statistics),
    }
    if every_category:
        title = f"Known positives of every category at every ratio, mask seed {statistics.mask_seed}"
        sections[title] = _every_category(statistics)
    head = [f"# {name}", *([about] if about else [])]
    return "\n\n".join([*head, *(f"## {title}\n\n{table}" for title, table in sections.items())])


def _splits(splits: dict[str, SplitCounts]) -> str:
    rows = []
    for name, counts in splits.items():
        facts = counts.to_json()
        per_image = facts["labels per image"]
        mean = "-" if per_image["mean"] is None else f"{per_image['mean']:.2f}"
        numbers = (per_image["min"], per_image["max"], facts["images without labels"], facts["unknown labels"])
        rows.append([name, f"{facts['images']:,}", f"{facts['labels']:,}", mean, *(f"{n:,}" for n in numbers)])
    head = ["split", "images", "labels", "per image", "fewest", "most", "without any", "unknown labels"]
    if not any(counts.unknown for counts in splits.values()):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return _table(head, rows)


def _categories(statistics: Statistics, columns: Sequence[int]) -> str:
    """Images with a category in each split, and its known positives at three ratios."""
    known = [statistics.known[at] for at in sorted({0, len(statistics.known) // 2, len(statistics.known) - 1})]
    some_unknown = statistics.train.unknown > 0
    head = [
        "category",
        *statistics.splits,
        "% of train",
        *["% given"] * some_unknown,
        *(f"at {counts.ratio:g}" for counts in known),
    ]
    images = max(len(statistics.train.labels_N), 1)
    rows = []
    for column in columns:
        numbers = [counts.positives_C[column] for counts in statistics.splits.values()]
        share = f"{100 * statistics.train.positives_C[column] / images:.2g}"
        rows.append([
            statistics.categories[column],
            *(f"{number:,}" for number in numbers),
            share,
            *[f"{100 * statistics.train.known_C[column] / images:.3g}"] * some_unknown,
            *(f"{counts.positives_C[column]:,}" for counts in known),
        ])  # fmt: skip
    return _table(head, rows)


def _every_category(statistics: Statistics) -> str:
    head = ["category", "train", *(f"at {counts.ratio:g}" for counts in statistics.known)]
    counted = [statistics.train.positives_C, *(counts.positives_C for counts in statistics.known)]
    order = statistics.by_frequency()
    return _table(head, [[statistics.categories[c], *(f"{of_C[c]:,}" for of_C in counted)] for c in order])


def _known(statistics: Statistics) -> str:
    head = ["ratio", "% present", "% absent", "fewest known", f"below {FEW}", "no label", "no present"]
    table = _table(head, [_known_row(counts, statistics.categories) for counts in statistics.known])
    return f"{table}\n\n{KNOWN_EXPLAINED}" + (f"\n{GIVEN_EXPLAINED}" if statistics.train.unknown else "")


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


def _pairs(statistics: Statistics) -> str:
    rows = [
        [
            f"{statistics.categories[pair.first]} + {statistics.categories[pair.second]}",
            f"{pair.images:,}",
            f"{100 * pair.overlap:.1f}",
            f"{pair.times_chance:.1f}",
        ]
        for pair in statistics.pairs(SHOWN)
    ]
    if not rows:
        return "none, or too rarely to say"
    return _table(["pair", "both", "% of either", "times chance"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is aligned: numbers to the right, names to the left."""
    rows = [[escape_markdown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    named = [title in NAMES for title in head]

    def line(cells: Sequence[str]) -> str:
        columns = zip(cells, widths, named, strict=True)
        padded = (cell.ljust(width) if left else cell.rjust(width) for cell, width, left in columns)
        return f"| {' | '.join(padded)} |"

    rule = (f"{'-' * (width + 1)}{'-' if left else ':'}" for width, left in zip(widths, named, strict=True))
    return "\n".join([line(head), f"|{'|'.join(rule)}|", *map(line, rows)])
