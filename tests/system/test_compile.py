"""Compiled parts give the numbers of the plain ones but for rounding; a cell says that it was compiled."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.method import Task
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import train
from tests.helpers.tiny_study import study


@pytest.fixture
def plain(tmp_path, monkeypatch) -> Study:
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    return study(tmp_path / "tiny_set.py")


@pytest.fixture
def compiled(plain) -> Study:
    return Study(plain.entry, replace(plain.options, compile=True))


def test_a_compiled_cell_has_another_key_and_says_so(plain, compiled):
    assert (plain.setting.precision, compiled.setting.precision) == ("32-true", "32-true+compile")
    assert "precision 32-true+compile (papers: 32-true)" in compiled.deviations()
    assert not Options().compile


def test_the_frozen_part_and_a_methods_parts_are_compiled_and_nothing_is_without_the_option(
    plain, compiled, monkeypatch
):
    asked: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: asked.append(module))
    entry = load_methods()["ssgrl"]
    CellRun(plain.job(entry, 0.5, 0, 0, {}), plain.workbench)
    assert asked == []
    run = CellRun(compiled.job(entry, 0.5, 0, 0, {}), compiled.workbench)
    network = run.method.network
    expected = [
        run.workbench.backbone.frozen.module,
        run.method.trained,
        network.trunk,
        network.decoupling,
        network.head,
    ]
    assert len(asked) == len(expected) and all(one is other for one, other in zip(asked, expected, strict=True))


def test_every_method_names_modules_that_it_has():
    torch.manual_seed(0)
    task = Task(("a", "b", "c"), torch.tensor([[1, -1, 0], [0, 1, 1]], dtype=torch.int8), 0.5, torch.randn(3, 7))
    for name, entry in load_methods().entries.items():
        backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), 6, feature_width=5, attention_width=4)
        method = entry.cls(backbone, task, entry.hyperparameters())
        parts = list(method.parts_to_compile())
        assert any(part is method.trained for part in parts), name
        assert all(any(part is own for own in method.modules()) for part in parts), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssgrl", "sarb"])
def test_a_cell_that_is_really_compiled_has_nearly_the_same_scores(plain, compiled, name):
    scores = []
    for of in (plain, compiled):
        *_, done = train([of.job(load_methods()[name], 0.5, 0, 0, {})], of.workbench)
        assert isinstance(done, Finished), done
        scores.append(done.scores_NC)
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-3)
