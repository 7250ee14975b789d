"""On a Ray cluster of pretended nodes and GPUs a grid ends in the bytes of one process, whatever dies meanwhile."""

import pytest
import torch

from tests.helpers import grid

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are pretended; cells are to be trained on the CPU"),
]


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


def on_cluster(folder, results, cluster):
    return grid.started(folder, results, "--launcher=ray", f"--ray-address={cluster.address}")


def test_two_nodes_of_two_gpus_leave_the_bytes_of_one_process_though_one_is_lost(folder, cluster, alone):
    process = on_cluster(folder, "lost", cluster)
    grid.wait_for_a_checkpoint(folder, "lost")
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    cluster.add_node(num_cpus=2, num_gpus=2)
    grid.ended(process)
    assert grid.arrays(folder, "lost") == alone


def test_a_driver_that_was_killed_is_started_again_twice_and_beside_a_process_started_by_hand(folder, cluster, alone):
    process = on_cluster(folder, "killed", cluster)
    grid.wait_for_a_checkpoint(folder, "killed")
    process.kill()
    process.communicate()
    again = [on_cluster(folder, "killed", cluster), on_cluster(folder, "killed", cluster)]
    again.append(grid.started(folder, "killed", "--device=cpu"))
    for process in again:
        grid.ended(process)
    assert grid.arrays(folder, "killed") == alone


def test_a_task_that_is_interrupted_writes_checkpoints_and_gives_its_cells_up(folder, cluster, alone):
    process = on_cluster(folder, "stopped", cluster)
    grid.wait_for_a_checkpoint(folder, "stopped")
    process.terminate()
    grid.ended(process, 143)
    assert not list((folder / "stopped").glob("tiny/*/*/claim-*.jsonl"))
    assert list((folder / "stopped").glob("tiny/*/*/checkpoint.pt"))
    grid.ended(on_cluster(folder, "stopped", cluster))
    assert grid.arrays(folder, "stopped") == alone


def test_an_address_that_nobody_answers_on_is_a_line(folder):
    process = grid.started(folder, "nobody", "--launcher=ray", "--ray-address=127.0.0.1:1")
    said = grid.ended(process, 2)
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert line.startswith("error: no Ray cluster answers at --ray-address 127.0.0.1:1 (")
    assert "Traceback" not in said
