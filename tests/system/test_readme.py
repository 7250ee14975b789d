"""README and the documents keep what they promise: links lead somewhere, commands parse, the shown method works."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import typer

from mlrpl_bench.cli.app import app
from mlrpl_bench.models.hyperparameters import parse_assignments, recipe_changes
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records import store
from mlrpl_bench.tools.conformance import checks
from mlrpl_bench.training.launchers import memory, sweep
from tests.helpers.places import ROOT

README = ROOT / "README.md"
USAGE = ROOT / "docs" / "usage.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
GUIDES = [README, USAGE, ROOT / "docs" / "adding-a-method.md"]
"""For users: every option in them must be one of the command line."""

MOST_LINES = 150
WIDTH = 120
LINES_OF_A_METHOD = 15
YOURS = "my_"
"""How the names of a reader's own methods and data sets begin."""
WORDS = {"Cell", "Setting", "Known ratio", "Mask", "Record", "Row", "Upper bound", "Group"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
INLINE = re.compile(r"`([^`\n]+)`")
METHODS, DATASETS = load_methods(), load_datasets()


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose_of(text: str) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", text)


def anchor(heading: str) -> str:
    """The name under which a forge shows a heading.

    >>> anchor("What is run, and what is only read")
    'what-is-run-and-what-is-only-read'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands_in(text: str) -> list[str]:
    """What follows ``python bench.py`` in blocks and in inline code; comments and other commands are left out."""
    lines = [line for line in text.splitlines() if line.startswith("    ") or line.startswith("python ")]
    shown = [part.strip() for line in [*lines, *INLINE.findall(prose_of(text))] for part in line.split("&&")]
    found = [part.removeprefix("python bench.py ") for part in shown if part.startswith("python bench.py ")]
    return [command for command in found if not command.startswith("COMMAND ")]


def leaf_of(words: list[str]):
    """The command that the first words name, and the other words."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"no command {' '.join(words[:1])!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command) -> set[str]:
    """Every option of a command and of those below it."""
    own = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    return own.union(*(options_of(other) for other in getattr(command, "commands", {}).values()))


def method_shown() -> str:
    (block,) = [code for language, code in FENCE.findall(README.read_text(encoding="utf-8")) if language == "python"]
    return block


ALL_COMMANDS = [
    pytest.param(command, id=f"{name_of(path)}: {command}")
    for path in DOCUMENTS
    for command in commands_in(path.read_text(encoding="utf-8"))
]


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_prose_of_readme_is_no_wider_than_a_screen():
    lines = prose_of(README.read_text(encoding="utf-8")).splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []


def test_readme_explains_eight_words():
    glossary = README.read_text(encoding="utf-8").split("## Eight words")[1].split("\n## ")[0]
    assert set(re.findall(r"^- \*\*(.+?)\*\*:", glossary, re.MULTILINE)) == WORDS


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(path):
    lost = []
    for link in LINK.findall(prose_of(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        headings = (
            re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if target.is_file() else []
        )
        if not target.exists() or (heading and heading not in map(anchor, headings)):
            lost.append(link)
    assert lost == []


def test_links_are_seen():
    assert LINK.findall("see [a](b.md#c) and ![picture](d.svg)") == ["b.md#c", "d.svg"]


def test_commands_are_seen_in_blocks_and_in_lines_but_not_placeholders():
    text = "run `python bench.py list cells`, or `python bench.py COMMAND -v`:\n\n    a && python bench.py run x  # y\n"
    assert commands_in(text) == ["run x  # y", "list cells"]


def test_the_documents_show_commands():
    assert len(ALL_COMMANDS) > 30


@pytest.mark.parametrize("shown", ALL_COMMANDS)
def test_every_command_shown_is_accepted_by_the_command_line(shown):
    command, words = leaf_of(shlex.split(shown.partition(" > ")[0], comments=True))
    given = command.make_context(command.name, words).params  # raises where an option or an argument is wrong
    if (name := given.get("method")) is not None and not name.startswith(YOURS):
        _, others = recipe_changes(parse_assignments(given.get("set_") or []), name)
        METHODS[name].hyperparameters(others)
    if (name := given.get("dataset")) is not None and not name.startswith(YOURS):
        assert name in DATASETS


@pytest.mark.parametrize("shown", ["rum sarb", "run sarb --sets 1", "run", "data chek coco", "compare sarb"])
def test_a_command_that_is_wrong_is_not_accepted(shown):
    with pytest.raises(Exception, match=r"no command|No such option|Missing (argument|parameter)"):
        test_every_command_shown_is_accepted_by_the_command_line(shown)


@pytest.mark.parametrize("path", GUIDES, ids=name_of)
def test_every_option_named_is_one_of_the_command_line(path):
    there = options_of(typer.main.get_command(app)) | {"--help"}
    named = {option for code in INLINE.findall(path.read_text(encoding="utf-8")) for option in OPTION.findall(code)}
    assert named and named <= there


@pytest.mark.parametrize("name", ["run", "leaderboard"])
def test_usage_describes_every_option(name):
    command, _ = leaf_of([name])
    assert options_of(command) <= set(OPTION.findall(USAGE.read_text(encoding="utf-8")))


def test_usage_names_every_file_of_a_cell():
    files = re.findall(r"^    (\S+\.\w+) ", store.__doc__, re.MULTILINE)
    text = USAGE.read_text(encoding="utf-8")
    assert len(files) > 8 and [file for file in files if f"    {file} " not in text] == []


def test_usage_states_the_numbers_that_are_in_force():
    text = " ".join(USAGE.read_text(encoding="utf-8").split())
    assert f"at most {memory.MOST_CELLS['cpu']} on a CPU, {memory.MOST_CELLS['cuda']} on a GPU" in text
    assert sweep.CHECKPOINT_SECONDS == 600 and "at most ten minutes" in text
    assert all(f"| {code}" in text for code in (0, 1, 2, f"{128 + signal.SIGINT}, {128 + signal.SIGTERM}"))


@pytest.mark.parametrize(("marker", "expected"), [("main-command", "bench.py leaderboard"), ("test-command", "pytest")])
def test_the_job_finds_the_commands_that_readme_marks(marker, expected):
    function = re.search(r"^command_of\(\) \{.*?^\}", (ROOT / ".ci" / "run").read_text(), re.MULTILINE | re.DOTALL)
    script = f"{function[0]}\ncommand_of {marker}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pip install -e ") and done.stdout.rstrip().endswith(expected)


def test_the_method_in_readme_is_short_and_passes_the_checks_that_every_method_must(tmp_path):
    code = method_shown()
    assert len(code.splitlines()) <= LINES_OF_A_METHOD
    path = tmp_path / "my_idea.py"
    path.write_text(code, encoding="utf-8")
    results = list(checks.run(load_methods([path])["my_idea"]))
    assert len(results) > 5
    assert [problem for _, problem in results if problem] == []


@pytest.fixture(scope="module")
def picture():
    """The module that draws README's picture."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import reference_figure
    finally:
        sys.path.pop(0)
    return reference_figure


def test_the_picture_belongs_to_the_committed_table(picture):
    drawn, committed = picture.draw(), picture.PICTURE.read_bytes()
    digest = re.search(rb"SHA-256 (\w{64})", committed)
    assert digest is not None and digest[1] in drawn, "run python docs/reference_figure.py"
    if f"Matplotlib v{matplotlib.__version__}," in committed.decode():  # another version draws other bytes
        assert drawn == committed


def test_the_picture_shows_other_numbers_for_another_table(picture, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(picture.TABLE.read_text(encoding="utf-8").replace("kggr,81.", "kggr,41."), encoding="utf-8")
    assert picture.draw(table) == picture.draw(table) != picture.draw()


def test_the_pictures_text_is_text_on_a_ground_of_its_own(picture):
    drawn = picture.draw().decode()
    assert all(re.search(rf"<text[^>]*>{method}</text>", drawn) for method in picture.METHODS)
    assert "fill: #ffffff" in drawn
