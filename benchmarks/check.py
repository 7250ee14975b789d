"""Fails where a benchmark's ratio became worse: ``python -m benchmarks.check [NAME ...]``.

Run by hand and at night, not by the tests. A file ``results/NAME.json`` takes part if it has two keys: ``ratios``, by
name, the lower the better, and ``command``, what follows ``python`` to measure them again (``--json PATH`` is added).
A ratio may grow by a third, and one below 1, a gain, to where half of the gain is lost; ``limits`` in the file may say
less for some of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORSE = 4 / 3
"""A ratio may grow to so many times what is recorded."""
NOISE = 0.1
"""By so much a ratio below 1 may grow, however small its gain."""


def limit_of(recorded: float) -> float:
    """What a ratio may grow to: a third more, or where half of a gain is lost.

    >>> limit_of(1.2), limit_of(0.6), limit_of(0.96)
    (1.6, 0.8, 1.06)
    """
    by_a_third = WORSE * recorded
    return by_a_third if recorded >= 1 else min(by_a_third, recorded + max(NOISE, (1 - recorded) / 2))


def problems(
    recorded: Mapping[str, float], measured: Mapping[str, float], limits: Mapping[str, float] | None = None
) -> list[str]:
    """One line for each ratio that is above its limit, or is measured no more.

    Args:
        limits: by name, in place of `limit_of`.

    >>> problems({"metrics over argsort": 1.2}, {"metrics over argsort": 1.8})
    ['metrics over argsort: 1.80, recorded 1.20: worse by 50 %']
    """
    lines = []
    for name, before in recorded.items():
        now, limit = measured.get(name), (limits or {}).get(name, limit_of(before))
        if now is None:
            lines.append(f"{name}: recorded {before:.2f}, but not measured any more")
        elif not now <= limit:  # NaN is worse too
            lines.append(f"{name}: {now:.2f}, recorded {before:.2f}: worse by {100 * (now / before - 1):.0f} %")
    return lines


def recorded_in(folder: Path) -> dict[str, dict[str, Any]]:
    """By name, the results that take part."""
    contents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: content for name, content in contents.items() if {"ratios", "command"} <= set(content)}


def measured_again(command: Sequence[str]) -> dict[str, float]:
    """The ratios now; none where the benchmark fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run([sys.executable, *command, "--json", str(report)], cwd=ROOT, stdout=subprocess.DEVNULL)
        found: dict[str, float] = json.loads(report.read_text())["ratios"] if done.returncode == 0 else {}
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="results to check; without any, all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of recorded results")
    options = parser.parse_args(arguments)
    recorded = recorded_in(options.results)
    unknown = sorted(set(options.names) - set(recorded))
    if unknown:
        parser.error(f"no recorded ratios of {', '.join(unknown)}; there are: {', '.join(recorded) or 'none'}")
    failed = False
    for name in options.names or recorded:
        facts = recorded[name]
        lines = problems(facts["ratios"], measured_again(facts["command"]), facts.get("limits"))
        failed = failed or bool(lines)
        print("\n".join(f"{name}: {line}" for line in lines) or f"{name}: as recorded", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
