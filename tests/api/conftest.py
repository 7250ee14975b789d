"""Two trained methods of a tiny data set, for the whole module."""

from pathlib import Path
from typing import Any

import pytest

import mlrpl_bench as mb
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
