"""The same key gives the same scores, whatever else is different about the process that trains.

What is held elsewhere: trained twice, and in a group as alone (test_sweep, test_trainer, test_conformance); loader
workers and torch's global state (test_trainer); a cell's key whatever PYTHONHASHSEED is (test_cell).
"""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.models.layers.prototypes import Prototypes
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import train
from tests.helpers.places import ROOT
from tests.helpers.tiny_study import study

EPOCHS = 7
"""SARB has prototypes from its sixth on."""


def trained(of: Study, name: str) -> Finished:
    (*_, last) = train([of.job(load_methods()[name], 0.5, 0, 0, {})], of.workbench)
    assert isinstance(last, Finished)
    return last


def digest_of_sarb(folder: str) -> str:
    """Of everything that SARB's cell has in numbers."""
    last = trained(study(Path(folder) / "tiny_set.py", epochs=EPOCHS), "sarb")
    arrays = [last.scores_NC, last.train_scores_NC, *(last.steps[term] for term in sorted(last.steps))]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def digest_of_prototypes() -> str:
    """Of the centres of so many features that several threads would share the work."""
    prototypes = Prototypes(2, 8, 64, num_samples=6000)
    generator = torch.Generator().manual_seed(0)
    features_BCD = torch.randn(6000, 2, 64, generator=generator)
    prototypes.observe(features_BCD, torch.full((6000, 2), PRESENT))
    prototypes.cluster(generator)
    return hashlib.sha256(prototypes.centres_CKD.numpy().tobytes()).hexdigest()


def two_digests_of_prototypes() -> str:
    return f"{digest_of_prototypes()} {digest_of_prototypes()}"


def in_a_process(call: str, **environment: str) -> subprocess.Popen:
    """A process that prints what a function of this file returns."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from tests.system import test_determinism; print(test_determinism.{call})"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen) -> str:
    out, complaints = process.communicate()
    assert process.returncode == 0, complaints
    return out.strip()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def usual_algorithms_afterwards(monkeypatch):
    """What --deterministic changes is of the whole process."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


def test_scores_do_not_depend_on_the_order_of_sets_in_a_process(cache, tmp_path):
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # else it is drawn for each process
    process = in_a_process(f"digest_of_sarb({str(tmp_path)!r})", PYTHONHASHSEED=other)
    assert answer(process) == digest_of_sarb(str(tmp_path))


def test_prototypes_do_not_depend_on_the_run_nor_on_the_number_of_threads():
    process = in_a_process("two_digests_of_prototypes()", OMP_NUM_THREADS="4")
    expected = digest_of_prototypes()
    assert answer(process) == f"{expected} {expected}"


def test_scores_do_not_depend_on_what_the_process_did_before(cache, tmp_path):
    before = trained(study(tmp_path / "set.py", epochs=EPOCHS), "sarb")
    of = study(tmp_path / "set.py", epochs=EPOCHS)
    trained(of, "ssgrl")
    torch.rand(7), np.random.rand(7), random.random()
    after = trained(of, "sarb")
    np.testing.assert_array_equal(before.scores_NC, after.scores_NC)
    np.testing.assert_array_equal(before.train_scores_NC, after.train_scores_NC)


def test_deterministic_algorithms_are_enforced_recorded_and_change_nothing_on_a_cpu(
    cache, tmp_path, usual_algorithms_afterwards
):
    usual = study(tmp_path / "set.py", epochs=EPOCHS)
    before = trained(usual, "sarb")
    of, store = study(tmp_path / "set.py", epochs=EPOCHS, deterministic=True), ResultStore(tmp_path / "results")
    job = of.job(load_methods()["sarb"], 0.5, 0, 0, {})
    assert of.setting == usual.setting
    (last,) = [event for _, event in sweep.run([job], of, store) if isinstance(event, Finished)]
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert store.find(job.cell).content["deterministic"] is True
    np.testing.assert_array_equal(before.scores_NC, last.scores_NC)


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(load_methods()))
def test_on_a_gpu_deterministic_algorithms_give_the_same_bits_twice(name, cache, tmp_path, usual_algorithms_afterwards):
    runs = [
        trained(study(tmp_path / "set.py", epochs=EPOCHS, device="cuda", deterministic=True), name) for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0].scores_NC, runs[1].scores_NC)
    np.testing.assert_array_equal(runs[0].train_scores_NC, runs[1].train_scores_NC)
