"""Callbacks for progress fit together."""

import functools

from mlrpl_bench.utils import progress


def test_a_report_of_one_thing_counts():
    heard = []

    def report(what: str, done: int, total: int) -> None:
        heard.append((what, done, total))

    count: progress.Count = functools.partial(report, "reading")
    count(1, 2)
    assert heard == [("reading", 1, 2)]


def test_the_silent_report_says_nothing(capsys):
    report: progress.Report = progress.silent
    report("reading", 1, 2)
    assert capsys.readouterr() == ("", "")
