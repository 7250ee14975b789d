"""On a Ray cluster of pretended nodes and GPUs a grid ends in the bytes of one process, whatever dies meanwhile."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.places import BENCH, ROOT
from tests.helpers.tiny_study import DATASET, METHOD, contents, write_plugin

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are pretended; cells are to be trained on the CPU"),
]

GRID = ("run", "plain", "--dataset=tiny", "--ratios=0.2,0.4,0.6,0.8", "--epochs=60", "--checkpoint-every=0.02")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    write_plugin(folder / "tiny_set.py", DATASET)
    write_plugin(folder / "plain.py", METHOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        yield folder


@pytest.fixture(scope="module")
def cluster(folder):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=2, num_gpus=2)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def started(folder: Path, results: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, str(BENCH), *GRID, f"--results-dir={results}", *options]
    plugins = ["--plugin=tiny_set.py", "--plugin=plain.py"]
    return subprocess.Popen(
        [*command, *plugins], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(process: subprocess.Popen) -> str:
    said = process.communicate(timeout=170)[0]
    assert process.returncode == 0, said
    return said


def arrays(folder: Path, results: str) -> dict[str, bytes]:
    """Scores and losses of all cells, by their path."""
    records = sorted((folder / results).glob("tiny/*/*/record.json"))
    return {
        f"{record.parent.relative_to(folder / results)}/{name}": contents(record.parent)[name]
        for record in records
        for name in ("scores.npz", "train_scores.npz", "steps.npz", "weights.safetensors")
    }


@pytest.fixture(scope="module")
def alone(folder):
    ended(started(folder, "alone"))
    found = arrays(folder, "alone")
    assert len(found) == 16
    return found


def wait_for_a_checkpoint(folder: Path, results: str) -> None:
    until = time.monotonic() + 120
    while not list((folder / results).glob("tiny/*/*/checkpoint.pt")):
        assert time.monotonic() < until, "no worker began"
        time.sleep(0.1)


def test_two_nodes_of_two_gpus_leave_the_bytes_of_one_process_though_one_is_lost(folder, cluster, alone):
    process = started(folder, "lost", "--launcher=ray", f"--ray-address={cluster.address}")
    wait_for_a_checkpoint(folder, "lost")
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    cluster.add_node(num_cpus=2, num_gpus=2)
    ended(process)
    assert arrays(folder, "lost") == alone


def test_a_driver_that_was_killed_is_started_again_and_goes_on(folder, cluster, alone):
    options = ("--launcher=ray", f"--ray-address={cluster.address}")
    process = started(folder, "killed", *options)
    wait_for_a_checkpoint(folder, "killed")
    process.kill()
    process.communicate()
    again = started(folder, "killed", *options)
    by_hand = started(folder, "killed")
    ended(again)
    ended(by_hand)
    assert arrays(folder, "killed") == alone


def test_an_address_that_nobody_answers_on_is_a_line(folder):
    process = started(folder, "nobody", "--launcher=ray", "--ray-address=127.0.0.1:1")
    said = process.communicate(timeout=170)[0]
    assert process.returncode == 2
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert line.startswith("error: no Ray cluster answers at --ray-address 127.0.0.1:1 (")
    assert "Traceback" not in said
