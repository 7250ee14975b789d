"""Freed memory is used again without the system's help, until it is given back; the user's own choice stands."""

import os
import subprocess
import sys

import pytest

from mlrpl_bench.training.parts import host_memory
from tests.helpers.places import ROOT

pytestmark = pytest.mark.skipif(host_memory._glibc() is None, reason="only glibc can be told")

SCRIPT = """
import resource
from pathlib import Path
import torch
from mlrpl_bench.training.parts import host_memory, device

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

def step():
    larger = torch.ones(2**24)  # 64 MB
    return 2 * larger

{before}
for _ in range(8):  # the heap grows by some blocks at first, as small ones are put between them
    step()
start = faults()
for _ in range(4):
    step()
made, kept = faults() - start, resident()
host_memory.give_back()
print(made, kept - resident())
"""


def run(before, **environment):
    """The page faults of four steps with two blocks of 64 MB each after some, and the MB that are given back then."""
    of_user = {name: value for name, value in os.environ.items() if name not in host_memory.CHOICES_OF_THE_USER}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        **{"env": of_user | environment, "cwd": ROOT, "check": True, "capture_output": True, "text": True},
    )
    faults, given_back = done.stdout.split()
    return int(faults), float(given_back)


def test_kept_memory_is_used_again_and_can_be_given_back():
    faults, given_back = run("assert host_memory.keep_freed()")
    assert faults < 50 and given_back > 120
    by_itself, _ = run("")
    assert by_itself > 200  # 131,072, and 256 where a page has 2 MB


def test_a_fabric_on_a_cpu_keeps_memory():
    faults, _ = run("device.make_fabric('cpu', '32-true', deterministic=False)")
    assert faults < 50


@pytest.mark.parametrize("name", host_memory.CHOICES_OF_THE_USER)
def test_what_the_user_chose_stands(name, monkeypatch):
    for other in host_memory.CHOICES_OF_THE_USER:
        monkeypatch.delenv(other, raising=False)
    assert host_memory.keep_freed()
    monkeypatch.setenv(name, "1")
    assert not host_memory.keep_freed()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert not host_memory.keep_freed()
    host_memory.give_back()
