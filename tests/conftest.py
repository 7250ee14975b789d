"""One torch thread per test process: several processes with several threads each would fight for the cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
# Tests that ask for several threads: those that wait for the others leave them the cores. Read when torch is loaded.
os.environ["OMP_WAIT_POLICY"] = "passive"

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="write the numbers that test_protocol_version compares")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """A folder with the records of two methods; whoever changes anything takes `command.copy_of` it."""
    from tests.helpers import command  # late, as most test modules call no command

    return command.train_in(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def world(trained_once, tmp_path_factory):
    """A copy of these for a test module."""
    from tests.helpers import command

    return command.copy_of(trained_once, tmp_path_factory.mktemp("somewhere"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for a test module."""
    return tmp_path_factory.mktemp("module")


@pytest.fixture(scope="module")
def study(folder):
    """A study of the tiny data set, with the cache in the module's folder."""
    from tests.helpers import tiny_study

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        yield tiny_study.study(folder / "tiny_set.py")
