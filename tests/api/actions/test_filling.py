"""Filling in by a record: which record answers, what is refused, and what comes back."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import mlrpl_bench as mb
from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from tests.helpers.partly_labelled import COMPLETE, DATASET
from tests.helpers.tiny_study import METHOD, finished, refusal, write_plugin

PROVENANCE = {"mlrpl_bench": "0", "git": {}, "versions": {}, "device": "d"}


def scores_of(labels_NC, strength=4.0, seed=0):
    """As a method might give them: higher where the label is present; unknown ones are in between."""
    return (strength * labels_NC + np.random.default_rng(seed).normal(size=labels_NC.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Records that nobody trained: of ``plain`` at three known ratios, with scores that tell the truth fairly well."""
    folder: Path = tmp_path_factory.mktemp("notebook")
    plugins = [write_plugin(folder / "partly.py", DATASET), write_plugin(folder / "plain.py", METHOD)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        study = Study(load_datasets(plugins)["partly"], Options(device="cpu"))
        entry, store = load_methods(plugins)["plain"], ResultStore(folder / "results")
        cells = {}
        for ratio, seed in ((0.3, 0), (0.6, 0), (0.6, 1), (1.0, 0)):
            cell = study.job(entry, ratio, seed, seed, {}).cell
            scores_NC = scores_of(study.train.labels_NC, seed=seed)
            store.write(finished(cell, train_scores_NC=scores_NC), PROVENANCE)
            cells[ratio, seed] = cell
        common = {"dataset": "partly", "plugins": plugins, "results": folder / "results", "device": "cpu"}
        yield SimpleNamespace(folder=folder, study=study, cells=cells, common=common, store=store, entry=entry)


def fill(world, method="plain", **changes):
    return mb.fill(method, **{**world.common, **changes})


def test_the_highest_ratio_below_one_and_the_lowest_seed_answer(world):
    filled = fill(world)
    assert filled.title == "plain 60 % seed 0 on partly" and filled.fitting == 3
    assert fill(world, seed=1).title == "plain 60 % seed 1 on partly"
    assert fill(world, ratio=0.3).key == world.cells[0.3, 0].key
    assert fill(world, cell=world.cells[0.3, 0].key[:10]).key == world.cells[0.3, 0].key


def test_a_table_is_written_back_as_it_came(world, tmp_path):
    train, test = world.study.train, world.study.test
    values, rows = {PRESENT: "1", UNKNOWN: "", -1: "0"}, []
    for name, split in (("train", train), ("test", test)):
        for path, labels_C in zip(split.ids, split.labels_NC.tolist(), strict=True):
            rows.append([str(path), name, *(values[label] for label in labels_C), "kept"])
    frame = pd.DataFrame(rows, columns=["image", "split", *train.categories, "note"])
    frame.to_csv(tmp_path / "labels.tsv", sep="\t", index=False)
    data = {"file": str(tmp_path / "labels.tsv"), "ignore": "note"}
    root = train.image_paths[0].parents[1]
    options = {"data_root": root, "data": data, "backbone": "small", "device": "cpu"}
    study = Study(load_datasets()["table"], Options(**options))
    scores_NC = scores_of(study.train.labels_NC)
    world.store.write(finished(study.job(world.entry, 0.6, 0, 0, {}).cell, train_scores_NC=scores_NC), PROVENANCE)
    filled = fill(world, **{"dataset": "table", "precision": 0.8, **options})
    path, *_ = filled.write(tmp_path / "out")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert path.name == "filled.tsv" and table.note.tolist() == frame.note.tolist()
    assert list(table)[-3:] == [f"probability of {name}" for name in train.categories]
    changed = table[list(frame)] != frame
    assert changed.to_numpy().sum() == np.count_nonzero(filled.filling.decisions_NC) > 0
    assert (frame.to_numpy()[changed.to_numpy()] == "").all()


def test_the_frame_has_every_unknown_entry_with_probability_and_decision(world):
    frame = fill(world, precision=0.8).frame()
    assert list(frame.columns) == ["image", "category", "probability", "decision"]
    assert len(frame) == (world.study.train.labels_NC == UNKNOWN).sum()
    assert frame.probability.between(0, 1).all()


def test_more_is_promised_of_a_lower_precision(world):
    promised = [fill(world, precision=precision).promises()["set"].sum() for precision in (0.6, 0.99)]
    assert promised[0] > promised[1]


def test_it_writes_only_when_asked(world, tmp_path):
    filled = fill(world, precision=0.8)
    assert not list(tmp_path.iterdir())
    written = filled.write(tmp_path / "out")
    assert all(path.is_file() for path in written) and len(written) == 5
    table = pd.read_csv(written[0])
    assert table.split.value_counts().to_dict() == {"train": 600, "test": 8}
    assert table.image[0] == "train/0.png"
    assert (
        table["red square"].isna().sum()
        == (filled.filling.decisions_NC[:, 0] == 0).sum() - (world.study.train.labels_NC[:, 0] != UNKNOWN).sum()
    )


def test_only_hidden_labels_calibrate(world):
    mask_NC = world.study.masks(0.6, 0)
    hidden_NC = (world.study.train.labels_NC != UNKNOWN) & ~mask_NC
    found = fill(world).filling
    assert [sum(counts) for counts in found.held_out] == hidden_NC.sum(axis=0).tolist()


@pytest.mark.parametrize("precision", [0.5, 1.0, 0.0, -1, float("nan"), 95])
def test_what_is_no_precision_is_refused(world, precision):
    assert "must be above 0.5 and below 1" in refusal(lambda: fill(world, precision=precision))


def test_a_record_that_saw_every_given_label_is_refused(world):
    assert "train it with a part of them hidden, such as --ratios 0.9" in refusal(lambda: fill(world, ratio=1.0))


def test_where_there_is_no_other_record_it_is_refused_too(world, tmp_path):
    cell = world.cells[1.0, 0]
    scores_NC = scores_of(world.study.train.labels_NC)
    ResultStore(tmp_path).write(finished(cell, train_scores_NC=scores_NC), PROVENANCE)
    assert "--ratios 0.9" in refusal(lambda: fill(world, results=tmp_path))


def test_without_a_record_it_says_how_to_get_one(world, tmp_path):
    assert "there is none of plain at all, train it with: run plain" in refusal(lambda: fill(world, results=tmp_path))
    assert "no record of plain with known ratio 0.7" in refusal(lambda: fill(world, ratio=0.7))


def test_complete_labels_are_refused_before_a_record_is_looked_for(world, tmp_path):
    plugins = [write_plugin(tmp_path / "partly.py", COMPLETE), *world.common["plugins"][1:]]
    line = refusal(lambda: fill(world, plugins=plugins, results=tmp_path / "none"))
    assert "there is nothing to fill" in line


@pytest.mark.parametrize("scheme", ["positives_only", "single_positive"])
def test_masks_that_hide_unequally_are_refused(world, scheme):
    assert "tell nothing about others" in refusal(lambda: fill(world, mask_scheme=scheme))


def test_a_record_of_other_arithmetic_says_which_option_to_give(world):
    line = refusal(lambda: fill(world, trained_precision="bf16-mixed"))
    assert "trained with --trained-precision 32-true" in line


def test_too_few_hidden_labels_are_refused_with_the_number(world):
    cell = world.study.job(world.entry, 0.99, 5, 5, {}).cell
    scores_NC = scores_of(world.study.train.labels_NC)
    folder = world.folder / "few"
    ResultStore(folder).write(finished(cell, train_scores_NC=scores_NC), PROVENANCE)
    line = refusal(lambda: fill(world, results=folder))
    assert "about 20 of each are needed" in line and line.startswith(f"{cell.title} ({cell.key[:8]}): ")


@pytest.mark.parametrize("shape", [(600, 4), (12, 3)])
def test_scores_of_other_images_are_refused(world, shape):
    cell = world.study.job(world.entry, 0.5, 7, 7, {}).cell
    folder = world.folder / f"other{shape[0]}"
    ResultStore(folder).write(finished(cell, train_scores_NC=np.zeros(shape, dtype=np.float32)), PROVENANCE)
    assert f"scores of shape {shape}" in refusal(lambda: fill(world, results=folder))


def test_unlike_scores_of_unknown_labels_are_named(world):
    """The made-up scores of unknown labels lie between those of the two states, so the two kinds are not alike."""
    assert set(fill(world).filling.unlike) == set(world.study.train.categories)
