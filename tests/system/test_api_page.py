"""The example of docs/api.md runs as it is printed, on a smaller data set of the same name."""

import functools
import re
import sys

import matplotlib
import pytest

import mlrpl_bench as mb
from mlrpl_bench.models import registry
from tests.helpers.places import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_an_example_and_a_request():
    assert len(BLOCKS) == 2


@pytest.fixture
def few_scenes(tmp_path, monkeypatch):
    """Whoever loads scenes gets a few of each split."""
    load = registry._entries_of

    def load_smaller(path):
        entries = load(path)
        for entry in entries:
            if entry.name == "scenes":
                module = sys.modules[entry.cls.__module__]
                images = (("train", 64), ("test", 96), ("iconic", 128))
                module.SceneRecipe = functools.partial(module.SceneRecipe, images=images)
        return entries

    monkeypatch.setattr(registry, "_entries_of", load_smaller)
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("block", BLOCKS, ids=["example", "request"])
def test_a_block_runs(block, few_scenes, tmp_path, monkeypatch, capsys):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, "docs/api.md", "exec"), names)
    if "by_ratio" in names:
        assert names["by_ratio"].shape == (2, 3) and names["by_ratio"].notna().all(axis=None)
        assert (tmp_path / "map-by-ratio.png").stat().st_size > 5_000
        assert len(mb.records("results")) == 5  # four cells and the upper bound
