"""How many cells fit side by side follows from what a cell keeps and from the memory there is."""

from dataclasses import replace

import pytest
import torch

from mlrpl_bench.models.finishing import FinishingStep, derived
from mlrpl_bench.training.launchers import memory
from mlrpl_bench.training.run import CellRun
from tests.helpers import tiny_study
from tests.helpers.tiny_study import METHOD, method

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def jobs(study, tmp_path_factory):
    """Twelve cells of one method."""
    plain = method(tmp_path_factory.mktemp("memory") / "plain.py")
    return [study.job(plain, ratio / 20, 0, 0, {}) for ratio in range(1, 13)]


@pytest.fixture
def room_for(study, jobs, monkeypatch):
    """Sets the free memory so that a number of the cells fit."""
    once = memory._kept_features(study.workbench, 32, 4) + memory.need(jobs[0], study.workbench).passing

    def limit(cells: float) -> None:
        kept = memory.need(jobs[0], study.workbench).kept
        monkeypatch.setattr(memory, "free_bytes", lambda _: (once + cells * kept) / memory.USED_SHARE)

    return limit


@pytest.mark.parametrize(("room", "cells"), [(0.1, 1), (-5, 1), (1.5, 1), (2.5, 2), (8.5, 8), (100, 9)])
def test_as_many_cells_as_have_room_but_never_more_than_gain_something(room, cells, jobs, study, room_for):
    room_for(room)
    assert memory.fitting(jobs, study.workbench) == cells


def test_no_more_cells_fit_than_there_are(jobs, study, room_for):
    room_for(100)
    assert [memory.fitting(jobs[:n], study.workbench) for n in (1, 3)] == [1, 3]


def test_a_cell_keeps_what_it_trains_four_times(jobs, study):
    need = memory.need(jobs[0], study.workbench)
    built = jobs[0].method_class(
        study.workbench.backbone.for_one_method(),
        type("Task", (), {"categories": study.train.categories}),
        None,
    )
    trained = sum(parameter.nbytes for parameter in built.parameters() if parameter.requires_grad)
    buffers = sum(buffer.nbytes for buffer in built.buffers())
    scores = 2 * 4 * (12 + 8) * 4
    assert need.kept == 4 * trained + buffers + 12 * 4 + scores


def test_a_cell_that_averages_its_weights_keeps_them_once_more(jobs, study):
    plain, recipe = jobs[0], replace(jobs[0].cell.recipe, ema=2.0)
    averaging = replace(plain, cell=replace(plain.cell, recipe=recipe))
    without, beside = (memory.need(job, study.workbench) for job in (plain, averaging))
    run = CellRun(plain, study.workbench)
    trained = sum(parameter.nbytes for parameter in run.method.parameters() if parameter.requires_grad)
    assert (beside.kept - without.kept, beside.passing - without.passing) == (trained, 2 * trained)


def test_a_step_that_follows_may_gather_a_feature_of_every_known_entry(jobs, study, tmp_path):
    text = METHOD.replace("nn.Linear(backbone.channels", "PooledClassifier(backbone.channels").replace(
        ".mean((2, 3))", ""
    )
    text = text.replace("from torch import nn", "from mlrpl_bench.models.layers import PooledClassifier")
    plain = study.job(method(tmp_path / "pooled.py", text), 0.5, 0, 0, {})
    followed = replace(plain, method_class=derived(plain.method_class, finishing=FinishingStep))
    run = CellRun(followed, study.workbench)
    entries, width = int((run.refit.labels_NC != 0).sum()), study.workbench.backbone.channels
    kept = memory.need(followed, study.workbench).kept - memory.need(plain, study.workbench).kept
    assert entries > 0 and kept == 4 * entries * width


def test_a_pass_may_gather_a_feature_of_every_known_positive(study, jobs, tmp_path):
    text = METHOD.replace('"plain"', '"looks"') + "\n    def observe(self, batch):\n        pass\n"
    looks = method(tmp_path / "looks.py", text)
    kept = [memory.need(study.job(looks, ratio, 0, 0, {}), study.workbench).kept for ratio in (0.5, 1.0)]
    positives = int((study.train.labels_NC == 1).sum())
    feature = 4 * study.workbench.backbone.channels
    state = sum(tensor.nbytes for tensor in CellRun(jobs[0], study.workbench).method.state_dict().values())
    assert kept[1] - memory.need(jobs[0], study.workbench).kept == positives * feature + state  # held during a pass
    assert kept[0] < kept[1]


def test_what_a_step_holds_grows_with_the_batch(study, jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    larger = tiny_study.study(tmp_path / "tiny_set.py", batch=8)
    plain = method(tmp_path / "plain.py")
    passing = [
        memory.need(one.job(plain, 0.5, 0, 0, {}), one.workbench).passing - 2 * 3 * _trained_bytes(one)
        for one in (study, larger)
    ]
    assert 1.8 < passing[1] / passing[0] < 2.2


def _trained_bytes(study) -> int:
    backbone = study.workbench.backbone
    return sum(parameter.nbytes for parameter in backbone.trained.parameters())


def test_the_dearest_cell_of_a_mixed_group_counts(study, jobs, room_for, tmp_path):
    text = METHOD.replace('"plain"', '"wide"').replace(
        "        self.classifier",
        "        self.table = nn.Parameter(__import__('torch').zeros(10**6))\n        self.classifier",
    )
    wide = study.job(method(tmp_path / "wide.py", text), 0.5, 0, 0, {})
    room_for(9)
    assert memory.need(wide, study.workbench).kept > 16 * 10**6
    assert memory.fitting([*jobs, wide], study.workbench) < 9


def test_a_method_that_cannot_be_tried_does_not_stand_in_the_way(study, tmp_path, room_for):
    broken = method(tmp_path / "broken.py", METHOD.replace('"plain"', '"broken"').replace("mean((2, 3))", "mean(7)"))
    jobs = [study.job(broken, ratio, 0, 0, {}) for ratio in (0.1, 0.5)]
    assert memory.fitting(jobs, study.workbench) == 2


def test_where_memory_ends_in_the_trial_cells_are_trained_alone(study, jobs, monkeypatch):
    monkeypatch.setattr(memory, "CellRun", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert memory.fitting(jobs, study.workbench) == 1


def test_a_trial_leaves_the_stream_of_random_numbers_alone(study, jobs):
    state = torch.get_rng_state()
    memory.need(jobs[0], study.workbench)
    assert torch.equal(torch.get_rng_state(), state)


def test_there_is_memory_on_this_machine():
    assert 0 < memory.free_bytes(CPU) < 2**50


def test_a_containers_limit_counts_and_what_is_only_cached_is_free(tmp_path):
    for name, text in {
        "memory.max": "1000",
        "memory.current": "700",
        "memory.stat": "anon 5\ninactive_file 30",
    }.items():
        (tmp_path / name).write_text(text + "\n")
    assert memory._left_to_container(tmp_path) == 330
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left_to_container(tmp_path) == float("inf")


@pytest.mark.parametrize(
    ("reason", "ran_out"),
    [
        ("MemoryError: no message", True),
        ("_ArrayMemoryError: Unable to allocate 3 GiB", True),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: ...", True),
        ("OSError: [Errno 12] Cannot allocate memory", True),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", True),
        ("RuntimeError: shapes do not match", False),
        ("ValueError: losses() returned no terms", False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(reason, ran_out):
    assert memory.ran_out(reason) == ran_out
