"""Tables as Markdown, LaTeX, CSV and text; names are whatever users give."""

import csv
import io
import shutil
import subprocess

import pytest

from mlrpl_bench.leaderboard.measurements import BEST, TIED
from mlrpl_bench.utils.tables import Entry, Table, escape_latex, escape_markdown, pipe_table

TABLE = Table(
    "some",
    "Some table",
    ("10 %", "a_b"),
    [("x", [Entry("60.9 ± 0.5", BEST), Entry("1.0", TIED)]), ("y[k=1, z=2]", [Entry("-"), Entry("failed")])],
    ("a note with 5 % & more",),
)


def test_markdown_has_heading_table_and_notes_and_the_best_is_bold():
    assert TABLE.markdown(3).split("\n") == [
        "### Some table",
        "",
        "| method | 10 % | a_b |",
        "| --- | ---: | ---: |",
        "| x | **60.9 ± 0.5** | ≈ 1.0 |",
        r"| y\[k=1, z=2\] | - | failed |",
        "",
        "- a note with 5 % & more",
        "",
    ]


def test_latex_uses_booktabs_and_marks_the_best_and_what_ties():
    text = TABLE.latex()
    for part in (
        r"\toprule", r"\midrule", r"\bottomrule", r"\textbf{60.9 $\pm$ 0.5}", r"\underline{1.0}", r"10 \% & a\_b",
        r"\begin{tabular}{lrr}", r"a note with 5 \% \& more",
    ):  # fmt: skip
        assert part in text
    assert text.count(r"\\") == 3


def test_json_has_texts_numbers_and_marks():
    rows = [("x", [Entry("60.9", BEST, value=60.91234567), Entry("failed")])]
    assert Table("some", "Some table", ("10 %", "b"), rows, ("a note",), corner="row").to_json() == {
        "title": "Some table",
        "corner": "row",
        "columns": ["10 %", "b"],
        "rows": [
            {
                "label": "x",
                "entries": [
                    {"text": "60.9", "value": 60.9123, "mark": BEST},
                    {"text": "failed", "value": None, "mark": ""},
                ],
            }
        ],
        "notes": ["a note"],
    }


def test_csv_has_labels_with_commas():
    rows = list(csv.reader(io.StringIO(TABLE.csv())))
    assert rows == [["method", "10 %", "a_b"], ["x", "60.9 ± 0.5", "1.0"], ["y[k=1, z=2]", "-", "failed"]]


def test_the_printed_table_shows_labels_as_they_are(capsys):
    TABLE.print()
    printed = capsys.readouterr().out
    for text in ("Some table", "y[k=1, z=2]", "60.9 ± 0.5", "≈ 1.0", "- a note with 5 %"):
        assert text in printed


def test_latex_puts_columns_that_do_not_fit_below():
    wide = Table("w", "W", tuple(f"c{n}" for n in range(30)), [("x", [Entry(str(n)) for n in range(30)])])
    text = wide.latex()
    assert text.count(r"\begin{tabular}{l" + 13 * "r" + "}") == 2 and text.count(r"\begin{tabular}{lrrrr}") == 1
    assert "x & 26 & 27 & 28 & 29" in text and "method & c13 & " in text


def test_latex_breaks_sentences():
    sentences = Table("s", "S", ("a",), [("x", [Entry("long")])], wraps=True)
    assert r"\begin{tabular}{p{0.425\linewidth}p{0.425\linewidth}}" in sentences.latex()


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("<script>", r"\<script\>"),
        ("partial_bce_norm", "partial_bce_norm"),
        ("_hidden_", r"\_hidden\_"),
        ("*x* [y](z)", r"\*x\* \[y\](z)"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_shows_names_as_they_are(text, escaped):
    assert escape_markdown(text) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 5 %", r"a\_b \& 5 \%"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("x^2~", r"x\textasciicircum{}2\textasciitilde{}"),
        ("a <= b", "a $<$= b"),
    ],
)
def test_latex_sets_names_as_they_are(text, escaped):
    assert escape_latex(text) == escaped


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex on this machine")
def test_latex_compiles(tmp_path):
    hostile = Table("h", r"\evil{} & _ ^ ~ # $ %", (r"5 % \x",), [("a_b{}[k=1]", [Entry("1 – 2", BEST)])], ("≈ ±",))
    body = TABLE.latex() + hostile.latex() + Table("s", "S", ("a",), [("x", [Entry("long")])], wraps=True).latex()
    head = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}"
    (tmp_path / "t.tex").write_text(head + body + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_padded_pipe_table_is_aligned_in_its_source():
    text = pipe_table(["name", "n"], [["a", "1,000"], ["longer", "2"]], [True, False], padded=True)
    assert text.splitlines() == ["| name   |     n |", "| ------ | ----: |", "| a      | 1,000 |", "| longer |     2 |"]
