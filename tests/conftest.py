"""One torch thread per test process: several processes with several threads each would fight for the cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="write the numbers that test_protocol_version compares")
