"""This module prints what a check found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mlrpl_bench.tools.inspection.checking import CheckResult, SplitFindings
from mlrpl_bench.utils.tables import counted

SHOWN = 10
"""This many files of each kind are named; the others are counted."""


def print_findings(findings: CheckResult, name: str, console: Console | None = None) -> None:
    """Print what was found of the dataset with this name, the verdict last."""
    console = console or Console(highlight=False)
    for line in lines(findings, name):
        console.print(line, soft_wrap=True)


def lines(findings: CheckResult, name: str) -> list[Text]:
    """Return the lines of the report; paths are whole, however long."""
    text = [Text(f"{name} in {findings.root}", style="bold")]
    problems: dict[str, list[str]] = {}  # what is wrong with the file of both splits is said once
    for split in findings.splits:
        problems.setdefault(split.problem, []).append(split.name)
    problems.pop("", None)
    text += [_line("error", f"{' and '.join(names)}: {problem}", "red") for problem, names in problems.items()]
    for split in findings.splits:
        text += [] if split.problem else _split(split, findings.quick)
    text += [_line("error", obstacle, "red") for obstacle in findings.obstacles]
    text += [_line("warning", warning, "yellow") for warning in findings.warnings]
    if any(split.problem or 2 * len(split.missing) > split.images for split in findings.splits):
        text += _expected(findings)
    text += [Text(line) for line in (findings.training, findings.trained) if line]
    return [*text, _verdict(findings)]


def _split(split: SplitFindings, quick: bool) -> list[Text]:
    sampled = quick and split.inspected < split.images
    decoded = f"{split.inspected:,} decoded{' as a sample' if sampled else ''}"
    images, categories = counted(split.images, "image"), counted(split.categories, "category", "categories")
    text = [Text(f"{split.name}: {images}{_of(split.expected)}, {categories}, {decoded}")]
    if not split.images:
        text.append(_line("error", f"{split.name} has no images", "red"))
    text += _listed("error", "missing", [str(path) for path in split.missing], "red")
    for kind, files in sorted(split.broken.items()):
        text += _listed("error", f"{kind}, cannot be decoded", _with_reasons(files), "red")
    for kind, files in sorted(split.unusual.items()):
        text += _listed("note", f"{kind}, can be used", _with_reasons(files), "yellow", shown=3)
    return text


def _of(expected: int | None) -> str:
    return "" if expected is None else f" (expected {expected:,})"


def _with_reasons(files: Sequence[tuple[Path, str]]) -> list[str]:
    return [f"{path} ({reason})" if reason else str(path) for path, reason in files]


def _listed(word: str, what: str, names: Sequence[str], style: str, shown: int = SHOWN) -> list[Text]:
    """Return a line with the count, and the first of the names."""
    if not names:
        return []
    rest = [Text(f"      and {len(names) - shown:,} more; --json lists all")] if len(names) > shown else []
    head = _line(word, f"{counted(len(names), 'image')}: {what}", style)
    return [head, *(Text(f"      {name}") for name in names[:shown]), *rest]


def _expected(findings: CheckResult) -> list[Text]:
    """Return the tree that should be there, and what is there."""
    text = []
    if findings.expected_files:
        text.append(Text("expected files:", style="bold"))
        text += [Text(f"  {line}") for line in findings.expected_files.strip("\n").splitlines()]
    if findings.there:
        more = f" and {len(findings.there) - 20} more" if len(findings.there) > 20 else ""
        text.append(Text(f"in {findings.root} there is: {', '.join(findings.there[:20])}{more}"))
    else:
        text.append(Text(f"in {findings.root} there is nothing"))
    return text


def _verdict(findings: CheckResult) -> Text:
    if not findings.ok:
        return Text("a run would fail", style="bold red")
    sampled = findings.quick and any(split.inspected < split.images for split in findings.splits)
    fetching = ", if it can fetch the weights" if findings.needs_network else ""
    verdict = "ok, as far as the sample goes" if sampled else "ok, a run would succeed"
    return Text(verdict + fetching, style="bold green")


def _line(word: str, message: str, style: str) -> Text:
    return Text.assemble("  ", (word, style), f": {message}")
