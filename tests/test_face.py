"""The public interface is exactly what docs/api.md lists, and importing it costs nothing."""

import re
import subprocess
import sys

import pytest

import mlrpl_bench
from tests.helpers.places import ROOT

LISTED = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_interface_is_what_the_page_lists():
    assert sorted(LISTED) == dir(mlrpl_bench) == sorted(mlrpl_bench.__all__)


@pytest.mark.parametrize("name", mlrpl_bench.__all__)
def test_every_name_is_there_and_documented(name):
    found = getattr(mlrpl_bench, name)
    if callable(found):
        assert (found.__doc__ or "").strip()


@pytest.mark.parametrize("name", ["leaderboard", "records", "claims", "compare"])
@pytest.mark.parametrize("first", ["mlrpl_bench.records.store", "mlrpl_bench.leaderboard.claims.claims"])
def test_functions_are_not_hidden_by_folders_of_their_name(name, first):
    code = (
        f"import mlrpl_bench as mb; import {first}; import mlrpl_bench.api.actions.execute; print(callable(mb.{name}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("True\n", "")


def test_the_folders_modules_are_found_beside_the_functions():
    from mlrpl_bench.leaderboard import comparison
    from mlrpl_bench.records import store

    assert comparison.compare is not mlrpl_bench.compare and store.ResultStore


def test_importing_it_imports_nothing_that_takes_long():
    code = "import sys; import mlrpl_bench; print({'torch', 'numpy', 'pandas', 'rich', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_name_that_is_not_there_is_said_with_those_that_are():
    with pytest.raises(AttributeError, match=r"no attribute .Metod.; there are: .*Method"):
        mlrpl_bench.Metod  # noqa: B018
