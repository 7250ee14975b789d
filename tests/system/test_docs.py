"""The documentation site has every page and every public name, its links lead somewhere, and its examples run."""

import re
import shutil
import subprocess
import sys

import pytest

import mlrpl_bench
from docs import build, links
from tests.helpers.places import ROOT

DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"
STEPS = sorted(EXAMPLES.glob("*.py"))
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages_in_the_contents() -> list[str]:
    """What index.md lists, without titles."""
    lines = "\n".join(TOCTREE.findall((DOCS / "index.md").read_text(encoding="utf-8"))).splitlines()
    entries = [line for line in lines if line and not line.startswith(":")]
    return [re.sub(r"^.*<(.+)>$", r"\1", entry) for entry in entries]


def text_of(step) -> str:
    return step.read_text(encoding="utf-8")


def test_every_page_is_in_the_contents_once():
    files = [path for suffix in ("md", "rst") for path in DOCS.rglob(f"*.{suffix}") if "gallery" not in path.parts]
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in files} - {"index"}
    assert sorted(pages_in_the_contents()) == sorted({*pages, "gallery/index"})


def test_every_public_name_is_in_the_reference():
    text = "".join(text_of(path) for path in (DOCS / "reference").glob("*.rst"))
    described = re.findall(r"^\.\. \w+:: mlrpl_bench\.(\w+)$", text, re.MULTILINE)
    assert sorted(described) == sorted(mlrpl_bench.__all__)


@pytest.mark.parametrize("step", STEPS, ids=lambda path: path.stem)
def test_an_example_compiles_and_begins_with_its_title(step):
    compile(text_of(step), str(step), "exec")
    title, underline = text_of(step).removeprefix('"""\n').splitlines()[:2]
    assert title and underline == "=" * len(title)
    assert step.stem.startswith("step_")  # what conf.py has executed


def test_there_are_six_examples_in_order():
    assert [step.stem.split("_")[1] for step in STEPS] == list("123456")


@pytest.mark.parametrize("file", links.OUTSIDE)
def test_a_file_outside_of_the_folder_has_a_page_that_includes_it(file):
    page = text_of(DOCS / links.OUTSIDE[file])
    assert (ROOT / file).is_file() and f"{{include}} ../{file}\n" in page


@pytest.mark.parametrize(
    ("written", "on_the_site"),
    [
        ("[so](../README.md#eight-words)", "[so](index.md#eight-words)"),
        ("[b](../benchmarks/README.md)", "[b](benchmarks.md)"),
        ("![c](docs/reference.svg)", "![c](reference.svg)"),
        ("[d](usage.md#files)", "[d](usage.md#files)"),
        ("[e](https://example.org/docs/README.md)", "[e](https://example.org/docs/README.md)"),
    ],
)
def test_links_to_files_of_the_checkout_become_links_to_pages(written, on_the_site):
    assert links.to_pages(written) == on_the_site


def test_links_that_lead_nowhere_are_found_and_others_are_not(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.html").write_text(
        '<h1 id="top">x</h1><a href="#top"></a><a href="#none"></a><a href="deep/b.html#there"></a>'
        '<a href="deep/b.html#gone"></a><img src="lost.png"><a href="https://example.org/x"></a>'
    )
    (tmp_path / "deep" / "b.html").write_text('<p id="there"><a href="../a.html"></a><a href="c.html"></a></p>')
    expected = ["a.html: #none", "a.html: deep/b.html#gone", "a.html: lost.png", "deep/b.html: c.html"]
    assert links.lost_links(tmp_path) == expected
    assert links.hosts(tmp_path) == ["example.org"]


def test_a_build_without_sphinx_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build, "NEEDED", ("no_such_library",))
    assert build.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: no_such_library not found; pip install -e '.[docs]'\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def as_if_built(monkeypatch, tmp_path):
    """A build in which a function that is given the folder takes the place of Sphinx; the gallery is a folder too."""
    monkeypatch.setattr(build, "NEEDED", ())
    monkeypatch.setattr(build, "GALLERY", tmp_path / "gallery")

    def build_with(make):
        monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], make(tmp_path)))
        return build.main(["--out", str(tmp_path)])

    return build_with


def test_a_build_with_a_lost_link_fails_and_names_it(as_if_built, capsys):
    def make(out):
        (out / "html").mkdir()
        (out / "html" / "a.html").write_text('<a href="gone.html">')
        return 0

    assert as_if_built(make) == 1
    assert capsys.readouterr().err == "error: links lead nowhere, 1 in all: a.html: gone.html\n"


def test_a_build_in_which_sphinx_fails_says_where_to_look(as_if_built, capsys, tmp_path):
    assert as_if_built(lambda out: 2) == 1
    log = tmp_path / "html-warnings.txt"
    assert capsys.readouterr().err == f"error: Sphinx ended with exit code 2; what it said is above and in {log}\n"


def test_pages_of_an_example_that_is_gone_are_removed_and_others_stay(as_if_built, tmp_path):
    (tmp_path / "gallery").mkdir()
    names = ["index.rst", "step_1_first_table.rst", "step_1_gone.py.md5", "step_1_gone.rst"]
    for name in names:
        (tmp_path / "gallery" / name).touch()
    assert as_if_built(lambda out: 2) == 1
    assert sorted(path.name for path in (tmp_path / "gallery").iterdir()) == names[:2]


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS, ids=lambda path: path.stem)
def test_an_example_runs_as_a_script_in_any_folder(step, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    done = subprocess.run([sys.executable, step], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of what the site is made of, in which no example was executed yet."""
    for name in build.NEEDED:
        pytest.importorskip(name, reason="pip install -e '.[docs]'")
    for name in ("docs", "examples", "results/reference"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("gallery", "__pycache__"))
    for name in (*links.OUTSIDE, "CITATION.cff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def built(checkout):
    return subprocess.run([sys.executable, "-m", "docs.build"], cwd=checkout, capture_output=True, text=True)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_or_a_lost_link(checkout):
    done = built(checkout)
    assert done.returncode == 0, done.stderr
    assert "0 warnings, no lost link" in done.stdout
    assert len(list((checkout / "docs" / "gallery").glob("step_*.py.md5"))) == len(STEPS)  # written when executed


@pytest.mark.slow
def test_an_example_that_fails_stops_the_build_and_is_named(checkout):
    broken = checkout / "examples" / "step_1_first_table.py"
    broken.write_text('"""\nBroken\n======\n"""\n\nraise ValueError("by design")\n', encoding="utf-8")
    done = built(checkout)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the example step_1_first_table.py failed")
    assert not (checkout / "build" / "docs" / "html" / "index.html").exists()
