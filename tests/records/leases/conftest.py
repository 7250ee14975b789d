"""What the tests of claims and of their owners share."""

import subprocess
import sys

import pytest


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "cell"


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
