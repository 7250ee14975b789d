"""Lists what stands behind a table's rows: hyper-parameters, recipe, provenance, and every single record."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard.evidence import Evidence
from mlrpl_bench.leaderboard.report.page_data import unique
from mlrpl_bench.leaderboard.tables.given_labels import GivenLabels
from mlrpl_bench.leaderboard.tables.main import Leaderboard
from mlrpl_bench.records.cell import Cell

NONE = "–"
ORIGIN = "origin"

MOST_RECORDS = 5_000
"""This is the most records that a page lists singly; of more, it lists means per known ratio. A record is 300 bytes."""


def anchor(label: str, known_ratio: str = "") -> str:
    """Make the id of a row's details, or of its records at one known ratio.

    Labels may hold any character, ids may not.

    >>> anchor("sarb"), anchor("sarb", "0.1")
    ('row-sarb', 'row-sarb-at-0.1')
    """
    if not re.fullmatch(r"\w+", label, re.ASCII):
        slug = re.sub(r"\W+", "-", label, flags=re.ASCII).strip("-")
        label = f"{slug}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"
    return f"row-{label}" + (f"-at-{known_ratio}" if known_ratio else "")


def is_long(table: Leaderboard) -> bool:
    """Tell whether a table is made from more records than one page lists."""
    keys = {evidence.record.cell.key for by_seeds in table.cells.values() for evidence in by_seeds.values()}
    return len(keys) > MOST_RECORDS


def rows(
    table: Leaderboard,
    papers: Mapping[str, str],
    address: Callable[[str], str] = lambda key: f"#cell-{key[:8]}",
    is_short: bool = False,
) -> list[dict[str, Any]]:
    """List the details of every row, in the table's order.

    Args:
        papers: by method, the address of its paper.
        address: where a record is found, by its key.
        is_short: whether the means at each known ratio stand in the place of records.
    """
    taken: set[str] = set()

    def listed(found: Sequence[Evidence]) -> list[dict[str, Any]]:
        return [_mean_of(found)] if is_short else [_record(evidence, taken, address) for evidence in found]

    return [_row(table, label, papers, listed) for label in table.labels]


def of_record(evidence: Evidence) -> dict[str, Any]:
    """Word what stands behind a single record: its numbers, those of its categories, and as for a row the rest."""
    shown = _record(evidence, set(), lambda key: key)
    return {
        "numbers": {name: value for name, value in zip(RECORD_COLUMNS, shown["values"], strict=True) if name != ORIGIN},
        "categories": [_percent(value) for value in evidence.record.metrics["AP_C"].tolist()],
        **_behind([evidence]),
    }


def setting(table: Leaderboard) -> dict[str, str]:
    """Word what all cells of the table have in common; empty without cells."""
    for evidence in unique(table.cells.values()):
        return _words(evidence.record.cell.setting.to_json())
    return {}


def _row(
    table: Leaderboard,
    label: str,
    papers: Mapping[str, str],
    listed: Callable[[Sequence[Evidence]], list[dict[str, Any]]],
) -> dict[str, Any]:
    found = unique(table.cells.get((label, ratio), {}) for ratio in table.ratios)
    method = found[0].record.cell.method if found else label.split("[")[0]
    paper = papers.get(method, "")
    return {
        "id": anchor(label),
        "label": label,
        "method": method,
        "line": table.context.reference_rows.get(label, ""),
        "differs": table.context.differs.get(method, ""),
        "paper": paper if re.match(r"https?://", paper) else "",
        "missing": _missing(table, label),
        **_behind(found),
        "ratios": _by_ratio(found, label, table.context.given, listed),
    }


def _behind(found: Sequence[Evidence]) -> dict[str, list[dict[str, Any]]]:
    return {
        "hyperparameters": _variants(found, lambda cell: cell.hyperparameters, changed=True),
        "recipe": _variants(found, lambda cell: cell.recipe.to_json()),
        "provenance": _provenance(found),
    }


def _missing(table: Leaderboard, label: str) -> list[str]:
    """Say why columns of a row have no number."""
    statuses = {ratio: table.lookup.row(label, f"{ratio:g}", "mAP").status for ratio in table.ratios}
    return [
        f"{table.context.given.ratio_title(ratio)}: {status}"
        for ratio, status in statuses.items()
        if status != "measured"
    ]


def _by_ratio(
    found: Sequence[Evidence],
    label: str,
    given: GivenLabels,
    listed: Callable[[Sequence[Evidence]], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    groups: dict[float, list[Evidence]] = {}
    for evidence in found:
        groups.setdefault(evidence.record.cell.ratio, []).append(evidence)
    return [
        {"id": anchor(label, f"{ratio:g}"), "title": given.ratio_title(ratio), "records": listed(group)}
        for ratio, group in groups.items()
    ]


def _mean_of(found: Sequence[Evidence]) -> dict[str, Any]:
    """Word the means of some records in the place of a record, with the largest memory; it has no key."""
    contents = [evidence.record.content for evidence in found]
    costs, known, best = ([c.get(name) or {} for c in contents] for name in ("cost", "known_share", "best_metrics"))
    memory = [cost["peak_memory_bytes"] / 1e9 for cost in costs if cost.get("peak_memory_bytes") is not None]
    return {
        "id": "",
        "key": "",
        "href": "",
        "seed": f"mean of {len(found)}",
        "values": [
            *(_percent(_mean([e.record.metrics.get(name) for e in found])) for name in metrics.REPORTED),
            _percent(_mean([facts.get("mAP") for facts in best])),
            _percent(_mean([evidence.recovery for evidence in found])),
            " / ".join(_percent(_mean([facts.get(state) for facts in known])) for state in ("present", "absent")),
            _fixed(_mean([content.get("dropped_images") for content in contents]), 0),
            _fixed(_mean([cost.get("seconds") for cost in costs]), 0),
            _fixed(_mean([cost.get("images_per_second") for cost in costs]), 0),
            _fixed(max(memory, default=None), 2),
            _fixed(_mean([cost.get("cells_in_group") for cost in costs]), 1),
            "; ".join(dict.fromkeys(evidence.record.origin.to_text() for evidence in found)),
        ],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Average the numbers that are there; None where there are none."""
    numbers = [value for value in values if value is not None and value == value]
    return sum(numbers) / len(numbers) if numbers else None


def _record(evidence: Evidence, taken: set[str], address: Callable[[str], str]) -> dict[str, Any]:
    cell, content = evidence.record.cell, evidence.record.content
    cost, known, best = (content.get(name) or {} for name in ("cost", "known_share", "best_metrics"))
    key = cell.key[:8]
    is_new = key not in taken
    taken.add(key)
    best_epoch = content.get("best_epoch")
    return {
        "id": f"cell-{key}" if is_new else "",
        "key": key,
        "href": address(cell.key),
        "seed": f"{cell.seed}" if cell.seed == cell.mask_seed else f"{cell.seed}, mask {cell.mask_seed}",
        "values": [
            *(_percent(evidence.record.metrics.get(name)) for name in metrics.REPORTED),
            _percent(best.get("mAP")) + (f" (epoch {best_epoch + 1})" if isinstance(best_epoch, int) else ""),
            _percent(evidence.recovery),
            f"{_percent(known.get('present'))} / {_percent(known.get('absent'))}",
            f"{content.get('dropped_images', NONE)}",
            _fixed(cost.get("seconds"), 0),
            _fixed(cost.get("images_per_second"), 0),
            _fixed(None if (memory := cost.get("peak_memory_bytes")) is None else memory / 1e9, 2),
            f"{cost.get('cells_in_group', NONE)}",
            evidence.record.origin.to_text(),
        ],
    }


RECORD_COLUMNS = (
    *metrics.REPORTED,
    *("best epoch mAP", "recovery", "known present / absent", "images dropped an epoch"),
    *("seconds", "images/s", "peak GB", "cells in group", ORIGIN),
)


def _variants(
    found: Sequence[Evidence], values_of: Callable[[Cell], Mapping[str, Any]], changed: bool = False
) -> list[dict[str, Any]]:
    """Return values that cells share, each set once with where it holds; one set is the rule."""
    groups: dict[str, tuple[dict[str, str], set[str], list[str]]] = {}
    for evidence in found:
        cell = evidence.record.cell
        values = _words(values_of(cell))
        marked = {name.replace("_", " ") for name in cell.changed} if changed else set()
        groups.setdefault(json.dumps(values), (values, marked, []))[2].append(_where(evidence))
    return [
        {"values": values, "changed": sorted(marked), "where": ", ".join(where) if len(groups) > 1 else ""}
        for values, marked, where in groups.values()
    ]


def _provenance(found: Sequence[Evidence]) -> list[dict[str, Any]]:
    groups: dict[str, tuple[dict[str, str], list[str]]] = {}
    for evidence in found:
        content = evidence.record.content
        git, versions = content.get("git") or {}, content.get("versions") or {}
        values = {
            "commit": f"{git.get('commit') or 'unknown'}" + (" with uncommitted changes" if git.get("changed") else ""),
            "mlrpl-bench": f"{content.get('mlrpl_bench', NONE)}",
            "method file": f"sha256 {evidence.record.cell.source_digest[:16]}",
            "device": f"{content.get('device', NONE)}, {content.get('threads', NONE)} threads",
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or NONE,
        }
        groups.setdefault(json.dumps(values), (values, []))[1].append(_where(evidence))
    return [
        {"values": values, "changed": [], "where": ", ".join(where) if len(groups) > 1 else ""}
        for values, where in groups.values()
    ]


def _where(evidence: Evidence) -> str:
    return f"{100 * evidence.record.cell.ratio:g} % seed {evidence.record.cell.seed}"


def _words(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values in words, such as ``{"grad clip": "none"}``."""

    def word(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return ", ".join(map(word, value))
        if value is None or isinstance(value, bool):
            return {None: "none", True: "yes", False: "no"}[value]
        return f"{value:g}" if isinstance(value, float) else str(value)

    return {name.replace("_", " "): word(value) for name, value in values.items()}


def _percent(share: float | None) -> str:
    return _fixed(None if share is None else 100 * share, 1)


def _fixed(value: float | None, decimals: int) -> str:
    return NONE if value is None or value != value else f"{value:.{decimals}f}"
