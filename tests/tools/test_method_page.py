"""The page of methods says of each method what its file says, and how much a step costs."""

import re

import pytest

from mlrpl_bench.models.registry import Registry, load_methods
from mlrpl_bench.tools import method_page
from mlrpl_bench.utils.tables import escape_markdown
from tests.helpers.places import ROOT
from tests.helpers.tiny_study import EXPLODING, METHOD, study, write_plugin


def registry(folder) -> Registry:
    plain, other = write_plugin(folder / "plain.py", METHOD), write_plugin(folder / "other.py", EXPLODING)
    return load_methods([plain, other], folder=folder / "none")


def test_every_method_is_on_the_page_with_its_facts():
    methods = load_methods()
    page = method_page.page(methods, {}, "ssgrl", "here")
    for entry in (methods[name] for name in methods):
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{entry.name}` |"))
        assert all(escape_markdown(fact) in line for fact in (entry.idea, entry.paper, entry.published, entry.differs))


def test_the_page_in_docs_is_todays_but_for_costs_and_where_they_were_measured():
    def rows(page):
        return re.sub(r"\| \d+\.\d \|", "| - |", page[page.index("\n## ") :]).splitlines()

    written = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert rows(written) == rows(method_page.page(load_methods(), {}, "ssgrl", "here"))
    assert "| - |" not in written, "a row without a cost: run python bench.py list methods --markdown"


def test_steps_are_on_the_page_with_their_notation():
    methods = load_methods()
    page = method_page.page(methods, {}, "ssgrl", "here")
    assert "as in `ssgrl+cft`" in page and set(methods.steps) == {"calibrated", "cft", "held"}
    for name, step in methods.steps.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `METHOD+{name}` |"))
        assert all(escape_markdown(fact) in line for fact in (step.idea, step.paper, step.differs))


def test_what_a_file_says_is_never_markup(tmp_path):
    hostile = "a|b <script>alert(1)</script> `c` [x](javascript:alert(1)) two\\nlines"
    text = METHOD.replace('differs="shorter"', f'differs="{hostile}", idea="{hostile}"')
    methods = load_methods([write_plugin(tmp_path / "plain.py", text)], folder=tmp_path / "none")
    (line,) = (line for line in method_page.page(methods, {}, "plain", "here").splitlines() if line.startswith("| `"))
    assert line.replace("\\|", "").count("|") == 7
    assert "<script" not in line.replace("\\<", "") and "\\[x\\]" in line and "\\`c\\`" in line
    assert line.endswith(" two lines |")


def test_every_method_says_its_idea_and_how_it_differs():
    methods = load_methods()
    silent = [name for name in methods if not methods[name].idea or not methods[name].differs]
    assert silent == []


def test_how_a_row_differs_can_be_read_without_another_row():
    methods = load_methods()
    leaning = [name for name in methods if any(re.match(rf"as {other}\b", methods[name].differs) for other in methods)]
    assert leaning == []


@pytest.mark.parametrize("name", ["asl", "csl", "splc", "hill", "pu_mlc", "cap", "ml_decoder", "q2l", "q2l_asl"])
def test_what_the_official_training_has_and_the_row_leaves_out_is_said(name):
    words = load_methods()[name].differs
    assert "no averaged weights" in words
    if name in ("asl", "csl", "splc", "hill"):
        assert "last stage trained instead of all" in words and "no cutout or RandAugment" in words


def test_rows_whose_authors_read_f1_at_another_threshold_say_so():
    for name in ("em", "em_apl"):
        assert "F1 at a threshold of 0.75" in load_methods()[name].differs


def test_a_row_without_a_loss_or_a_change_does_not_claim_it():
    methods = load_methods()
    for name in ("ilrb", "ilrb_fixed", "plrb", "plrb_fixed", "plrb_no_contrastive"):
        assert "attention weights" not in methods[name].differs
    assert "share of changed entries" not in methods["boostlu_an"].differs


def test_a_cost_is_shown_with_one_decimal_and_a_missing_one_as_a_dash(tmp_path):
    methods = registry(tmp_path)
    names = list(methods)
    page = method_page.page(methods, {names[0]: 2.345}, names[0], "here")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert "| 2.3 |" in lines[0] and "| - |" in lines[1]


def test_the_reference_costs_about_as_much_as_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    methods = load_methods([write_plugin(tmp_path / "plain.py", METHOD)], folder=tmp_path / "none")
    (name,) = methods
    told = []
    costs = method_page.step_costs(study(tmp_path / "set.py"), methods, name, lambda *event: told.append(event))
    assert 0.2 < costs[name] < 5
    assert told[-1][1:] == (1, 1)
