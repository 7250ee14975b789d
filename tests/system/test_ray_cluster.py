"""On a Ray cluster of pretended nodes and GPUs a grid ends in the bytes of one process, whatever dies meanwhile."""

import os
import shutil

import pytest
import torch

from mlrpl_bench.launchers import ray as launcher
from mlrpl_bench.launchers.order import FOLDER
from tests.helpers import grid
from tests.helpers.command import call
from tests.helpers.places import ROOT

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are pretended; cells are to be trained on the CPU"),
]

OTHER_CODE, OTHER_LIBRARY, NOBODYS = "T4", "A10G", "H100"
"""Kinds of GPU by which a task is sent to a node with other code, to one with another library, and to none."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in grid.write_files(folder).items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def cluster(folder):
    """Two nodes of two GPUs, and a head without."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=2, num_gpus=2)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def alone(folder):
    return grid.trained_alone(folder)


def on_cluster(folder, results, cluster, workers=2):
    return grid.started(folder, results, "--launcher=ray", f"--ray-address={cluster.address}", f"--workers={workers}")


def test_two_nodes_of_two_gpus_leave_the_bytes_of_one_process_though_one_is_lost(folder, cluster, alone):
    with grid.slowly(folder):
        process = on_cluster(folder, "lost", cluster)
        grid.wait_for_a_checkpoint(folder, "lost")
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(num_cpus=2, num_gpus=2)
    said = grid.ended(process)
    assert "ended before its work was done (" in said
    assert grid.arrays(folder, "lost") == alone
    assert grid.launchers_of(folder, "lost") == {"ray"}


def test_a_driver_that_was_killed_is_started_again_twice(folder, cluster, alone):
    with grid.slowly(folder):
        process = on_cluster(folder, "killed", cluster)
        grid.wait_for_a_checkpoint(folder, "killed")
        process.kill()
        process.communicate()
    for process in [on_cluster(folder, "killed", cluster, workers=1) for _ in range(2)]:
        grid.ended(process)
    assert grid.arrays(folder, "killed") == alone


def test_ray_submitit_and_a_process_started_by_hand_divide_the_cells(folder, cluster, alone):
    pytest.importorskip("submitit")
    grid.ended(grid.started(folder, "mixed", "--device=cpu", "--group=1", "--launcher=print", "--workers=3"))
    (path,) = (folder / "mixed" / "tiny" / FOLDER).glob("*.json")
    address = f"--ray-address={cluster.address}"
    with grid.slowly(folder):
        (job,) = grid.submitted(path, workers=1)
        commands = [
            grid.started(folder, "mixed", "--group=1", "--launcher=ray", "--workers=1", address),
            grid.started(folder, "mixed", "--group=1", "--device=cpu"),
        ]
        grid.wait_for_owners(folder, "mixed", {"ray", "submitit", "by hand"})
    for process in commands:
        grid.ended(process)
    assert job.result()["code"] == 0
    assert grid.arrays(folder, "mixed") == alone
    assert grid.launchers_of(folder, "mixed") >= {"ray", "submitit", "by hand"}


def test_a_task_that_is_interrupted_writes_checkpoints_and_gives_its_cells_up(folder, cluster):
    with grid.slowly(folder, seconds=3):
        process = on_cluster(folder, "stopped", cluster)
        grid.wait_for_a_checkpoint(folder, "stopped")
        process.terminate()
        grid.ended(process, 143)
    assert grid.owners(folder, "stopped") == []
    assert list((folder / "stopped").glob("tiny/*/*/checkpoint.pt"))


@pytest.fixture
def refused(folder, monkeypatch):
    """Give the command in this process: it trains nothing and ends with exit code 2; its last line comes back."""
    monkeypatch.chdir(folder)

    def refused(*options):
        answer = call(*grid.GRID, "--plugin=tiny_set.py", "--plugin=plain.py", "--results-dir=refused", *options)
        assert answer.code == 2, answer.err
        assert not list((folder / "refused").glob("tiny/*/*/record.json"))
        return answer.err.strip().splitlines()[-1]

    return refused


def test_an_address_that_nobody_answers_on_is_a_line(refused):
    line = refused("--launcher=ray", "--ray-address=127.0.0.1:1")
    assert line.startswith("error: no Ray cluster answers at --ray-address 127.0.0.1:1 (")


def test_gpus_that_no_node_has_or_gets_are_a_line(refused, cluster, monkeypatch):
    monkeypatch.setattr(launcher, "PATIENCE_SECONDS", 1.0)
    line = refused("--launcher=ray", f"--ray-address={cluster.address}", f"--accelerator={NOBODYS}")
    assert " the Ray cluster had no node with 1 GPU (H100) and 1 CPU for a worker; add one, or ask for " in line


@pytest.fixture(scope="module")
def other_nodes(folder, cluster):
    """A node whose package has another file, and a node with another NumPy as far as its metadata go."""
    code, library = folder / "code", folder / "library"
    for name in ("mlrpl_bench", "methods", "datasets"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "mlrpl_bench" / "api" / "request.py").open("a") as file:
        file.write("# edited\n")
    (library / "numpy-0.1.dist-info").mkdir(parents=True)
    (library / "numpy-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    for first, kind in ((code, OTHER_CODE), (library, OTHER_LIBRARY)):
        path = os.pathsep.join([str(first), os.environ["PYTHONPATH"]])
        kinds = {f"accelerator_type:{kind}": 1.0}
        cluster.add_node(num_cpus=1, num_gpus=1, resources=kinds, env_vars={"PYTHONPATH": path})
    cluster.wait_for_nodes()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OTHER_CODE, "is not the code that the command was given with (digest "),
        (OTHER_LIBRARY, "has numpy 0.1 and the command was given with "),
    ],
)
def test_a_node_with_other_code_or_another_library_trains_nothing(refused, cluster, other_nodes, kind, words):
    line = refused("--launcher=ray", f"--ray-address={cluster.address}", f"--accelerator={kind}")
    assert line.startswith("error: Ray task 1 on ") and words in line
