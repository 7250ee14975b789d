"""Workers are handed to SLURM as jobs that can be put into the queue again."""

import pickle
import sys

import pytest

from mlrpl_bench.launchers import submitit as launcher
from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import Placement
from tests.helpers.tiny_study import refusal


def echo(order, most):
    return {"code": 0, "line": "", "node": order["code"]}


def launch(folder, said=None, workers=2):
    order = WorkOrder({"options": {"device": "cpu"}}, "submitit", workers, "c0de", {}, {})
    placement = Placement("submitit", workers=workers, partition="gpu", time="1:30:00")
    return Launch(order, folder / "order.json", placement, None, echo, (said if said is not None else []).append)


def test_without_submitit_a_line_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    line = refusal(lambda: launcher.start(launch(tmp_path)))
    assert line.endswith("needs submitit; install it with pip install 'mlrpl-bench[slurm]'")


def test_a_job_can_be_pickled_and_does_the_order():
    worker = pickle.loads(pickle.dumps(launcher.Worker(echo, {"code": "c0de"})))
    assert worker()["node"] == "c0de"


def test_a_job_that_cannot_do_the_order_says_why_in_its_log_and_fails(capsys):
    worker = launcher.Worker(lambda order, most: {"code": 2, "line": "no data on n1", "node": "n1"}, {})
    with pytest.raises(SystemExit) as ended:
        worker()
    assert ended.value.code == 2 and capsys.readouterr().err == "error: no data on n1\n"


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit")


def test_each_worker_is_a_job(submitit, tmp_path):
    jobs = launcher.submit(launch(tmp_path), "local")
    assert [job.result()["node"] for job in jobs] == ["c0de"] * 2


def test_what_was_preempted_comes_again_as_the_same_work(submitit):
    worker = launcher.Worker(echo, {"code": "c0de"})
    again = worker.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.function is worker


def test_jobs_get_the_partition_the_time_and_a_gpu_each(submitit, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(submitit.AutoExecutor, "update_parameters", lambda self, **options: given.update(options))
    launcher.submit(launch(tmp_path, workers=1), "debug")
    assert given == {"name": "mlrpl-bench", "gpus_per_node": 0, "timeout_min": 90, "slurm_partition": "gpu"}


def test_without_slurm_nothing_is_trained_elsewhere_in_silence(submitit, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(lambda: launcher.start(launch(tmp_path))).startswith("SLURM takes no job from here (")
