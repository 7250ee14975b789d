"""Analyses as a notebook asks for them."""

import numpy as np
import pandas as pd
import pytest

import mlrpl_bench as mb
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from tests.helpers.tiny_study import DATASET, METHOD, finished, refusal, write_plugin


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Arguments that name records of two rows with two seeds at one ratio."""
    folder = tmp_path_factory.mktemp("analysing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        plugins = [write_plugin(folder / "set.py", DATASET)]
        plugins += [write_plugin(folder / f"{n}.py", METHOD.replace('"plain"', f'"{n}"')) for n in ("good", "bad")]
        methods, study = load_methods(plugins[1:]), Study(load_datasets(plugins[:1])["tiny"], Options(device="cpu"))
        store = ResultStore(folder / "results")
        for name, skill in {"good": 2.0, "bad": 0.2}.items():
            for seed in range(2):
                scores_NC = skill * study.test.labels_NC + np.random.default_rng(seed).normal(size=(8, 4))
                scores_NC = scores_NC.astype(np.float32)
                measured = metrics.evaluate(scores_NC, study.test.labels_NC)
                cell = study.job(methods[name], 0.5, seed, seed, {}).cell
                store.write(finished(cell, scores_NC=scores_NC, metrics=measured, best_metrics=measured), {})
        yield {"results": store.root, "plugins": plugins, "ratios": 0.5}


@pytest.mark.parametrize("kind", ["ensembles", "cost", "categories"])
def test_an_analysis_of_a_data_set_has_a_frame_and_tables(asked, kind):
    steps = []
    found = mb.analyse(kind, "tiny", rows=["bad", "good"], **asked, progress=lambda *step: steps.append(step))
    assert isinstance(found.frame, pd.DataFrame) and len(found.frame) and found.tables
    assert found.name == kind and bool(found.figures) == (kind == "cost") and steps
    assert not list(asked["results"].rglob("analysis-*"))


def test_rows_are_all_unless_some_are_named(asked):
    assert set(mb.analyse("cost", "tiny", **asked).frame.method) == {"good", "bad"}
    assert set(mb.analyse("cost", "tiny", rows="good", **asked).frame.method) == {"good"}


def test_ranks_are_over_data_sets(asked):
    found = mb.analyse("ranks", **asked)
    assert list(found.frame[found.frame.kind == "row"].method) == ["bad", "good"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"kind": "rank"}, "no analysis 'rank'; there are: ensembles, ranks, cost, categories"),
        ({"kind": "ensembles"}, "the one whose second seed is the yardstick first"),
        ({"kind": "cost", "rows": ["good", "good"]}, "a row is named twice"),
        ({"kind": "cost", "rows": ["good", "goood"]}, "no records of 'goood'; did you mean 'good'?"),
        ({"kind": "ranks", "epochs": 3, "mask_seed": 0}, "leave out epochs, mask_seed"),
        ({"kind": "ranks", "rows": ["x"]}, "no records of 'x'"),
    ],
)
def test_bad_input_is_one_line(asked, arguments, line):
    given = {**asked, "dataset": "tiny", **arguments}
    assert line in refusal(lambda: mb.analyse(**given))
