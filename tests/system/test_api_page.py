"""The example of docs/api.md runs as it is printed."""

import re

import matplotlib
import pytest

import mlrpl_bench as mb
from tests.helpers.places import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_an_example_and_a_request():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["example", "request"])
def test_a_block_runs(block, tmp_path, monkeypatch, capsys):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, "docs/api.md", "exec"), names)
    if "by_ratio" in names:
        assert names["by_ratio"].shape == (2, 3) and names["by_ratio"].notna().all(axis=None)
        assert (tmp_path / "map-by-ratio.png").stat().st_size > 5_000
        assert len(mb.records("results")) == 5  # four cells and the upper bound
