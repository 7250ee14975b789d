"""Two trained methods of a tiny data set, for the whole module; and a request that nothing was trained for."""

from pathlib import Path
from typing import Any

import pytest

import mlrpl_bench as mb
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.training.options import Options
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The arguments that every function takes here; ``plain`` and ``other`` are trained at two ratios, two seeds."""
    folder: Path = tmp_path_factory.mktemp("notebook")
    plugins = [write_plugin(folder / "tiny_set.py", DATASET), write_plugin(folder / "plain.py", METHOD)]
    plugins.append(write_plugin(folder / "other.py", METHOD.replace('"plain"', '"other"')))
    common: dict[str, Any] = {"dataset": "tiny", "plugins": plugins, "results": folder / "results"}
    common |= {"epochs": 1, "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        mb.leaderboard(methods=["plain", "other"], ratios=[0.5, 0.9], seeds=2, **common)
        yield common


@pytest.fixture(scope="module")
def plugin_folder(tmp_path_factory):
    """A folder with the files of a data set and of a method, and the cache."""
    folder = tmp_path_factory.mktemp("working")
    write_plugin(folder / "tiny_set.py", DATASET)
    write_plugin(folder / "plain.py", METHOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def resolved(plugin_folder, tmp_path):
    """Three cells of a method, of which none is trained."""
    request = Request(
        "tiny",
        ("plain",),
        ratios=(0.2, 0.5, 0.9),
        options=Options(epochs=1, device="cpu"),
        plugins=(plugin_folder / "tiny_set.py", plugin_folder / "plain.py"),
        results=(tmp_path / "results",),
    )
    (tmp_path / "results").mkdir()
    return resolve(request, Quiet())
