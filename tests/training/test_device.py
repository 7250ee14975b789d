"""Peak memory is that of the work since it was last forgotten."""

import sys

import pytest
import torch

from mlrpl_bench.training.device import forget_peak_memory, peak_memory, threads

CPU = torch.device("cpu")


def test_a_peak_is_remembered_after_the_memory_is_free_again():
    before = peak_memory(CPU)
    torch.ones(64 * 2**20).sum()  # 256 MiB
    assert peak_memory(CPU) >= before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget")
def test_a_forgotten_peak_makes_room_for_the_next():
    torch.ones(128 * 2**20).sum()  # 512 MiB
    before = peak_memory(CPU)
    forget_peak_memory(CPU)
    assert peak_memory(CPU) <= before


@pytest.mark.parametrize(("number", "used"), [(3, 3), (None, 1), (0, 1), (10**9, 1), ("3", 1)])
def test_torch_works_with_a_number_of_threads_for_a_while(number, used):
    with threads(number):
        assert torch.get_num_threads() == used
    assert torch.get_num_threads() == 1  # the tests' own
