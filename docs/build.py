"""Builds the documentation site into build/docs/html: executes the examples, makes the pages, checks the links.

    pip install -e '.[docs]'
    python -m docs.build

A warning of Sphinx, a link that leads nowhere within the site, or an example that fails makes the exit code 1. Examples
that did not change since the last build are not executed again; after the package changed --fresh executes all.
With --external links to other hosts are tried too, which needs a network.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from docs.links import hosts, lost_links

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
GALLERY = DOCS / "gallery"
OUT = DOCS.parent / "build" / "docs"

FAILED = re.compile(r"([^\s/]+\.py) (?:unexpectedly )?failed to execute")
"""How sphinx-gallery words a failure."""

NEEDED = ("sphinx", "furo", "myst_parser", "sphinx_gallery")


def main(arguments: list[str] | None = None) -> int:
    """Build the site; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.build", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="where html/ and what is kept between builds go")
    parser.add_argument("--no-examples", action="store_true", help="show the examples without executing them")
    parser.add_argument("--fresh", action="store_true", help="execute all examples anew")
    parser.add_argument("--external", action="store_true", help="also try links to other hosts")
    given = parser.parse_args(arguments)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return _complain(f"{', '.join(missing)} not found; pip install -e '.[docs]'", 2)
    begin = time.monotonic()
    if given.fresh:
        shutil.rmtree(GALLERY, ignore_errors=True)
    _remove_pages_of_examples_that_are_gone()
    if problem := _sphinx("html", given):
        return _complain(problem, 1)
    site = given.out / "html"
    if lost := lost_links(site):
        return _complain(f"links lead nowhere, {len(lost)} in all: {'; '.join(lost[:5])}", 1)
    if given.external and (problem := _sphinx("linkcheck", given)):
        return _complain(problem, 1)
    minutes = (time.monotonic() - begin) / 60
    pages = [path for path in site.rglob("*.html") if "_modules" not in path.parts]
    tried = "tried" if given.external else "not tried"
    print(f"{len(pages)} pages in {site}, 0 warnings, no lost link within, {minutes:.1f} minutes")
    print(f"links to {len(hosts(site))} other hosts were {tried}")
    return 0


def _remove_pages_of_examples_that_are_gone() -> None:
    there = {path.stem for path in EXAMPLES.glob("step_*.py")}
    for path in GALLERY.glob("step_*"):
        if path.name.partition(".")[0] not in there:
            path.unlink()


def _sphinx(builder: str, given: argparse.Namespace) -> str:
    """Let Sphinx build; return what is wrong in one line, "" where nothing is."""
    given.out.mkdir(parents=True, exist_ok=True)
    log = given.out / f"{builder}-warnings.txt"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "sphinx", "-b", builder, "-q", "-E", "--fail-on-warning", "--keep-going"]
    command += ["-w", str(log), "-d", str(given.out / "doctrees")]
    command += ["-D", "plot_gallery=0"] if given.no_examples or builder != "html" else []
    code = subprocess.run([*command, str(DOCS), str(given.out / builder)]).returncode
    if code == 0:
        return ""
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    if failed := FAILED.findall(text):
        return f"the example {failed[0]} failed; run it by itself: python examples/{failed[0]}"
    return f"Sphinx ended with exit code {code}; what it said is above and in {log}"


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
