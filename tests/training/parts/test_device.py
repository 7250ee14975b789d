"""Peak memory is that of the work since it was last forgotten."""

import sys

import pytest
import torch

from mlrpl_bench.training.parts.device import (
    _product_seconds,
    bf16_slowdown,
    find_device,
    forget_peak_memory,
    make_fabric,
    peak_memory,
    threads,
)
from mlrpl_bench.utils.errors import UserError

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


@pytest.mark.parametrize(("name", "found"), [("cpu", ("cpu", 0)), ("cuda:1", ("cuda", 1)), ("cuda", ("cuda", 0))])
def test_a_device_is_found_by_name(name, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device(name) == found
    assert find_device("auto") == ("cuda", 0)


def test_without_a_gpu_the_device_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == ("cpu", 0)
    with pytest.raises(UserError, match="device cuda is not there; use --device cpu or auto"):
        find_device("cuda")


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:", "cpu:1", ""])
def test_a_device_that_does_not_exist_is_refused(name):
    with pytest.raises(UserError, match=f"no device '{name}'; there are: auto, cpu, cuda, cuda:1"):
        find_device(name)


def test_a_fabric_computes_on_the_device_in_the_precision(monkeypatch):
    allowed = []
    monkeypatch.setattr(
        "mlrpl_bench.training.parts.device._allow_deterministic_algorithms_only", lambda: allowed.append(1)
    )
    fabric = make_fabric("cpu", "bf16-mixed", deterministic=False)
    assert (fabric.device.type, allowed) == ("cpu", [])
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    make_fabric("cpu", "32-true", deterministic=True)
    assert allowed == [1]


def test_bf16_is_as_slow_as_its_products_of_matrices_beside_those_in_32_bits(monkeypatch):
    seconds = {torch.bfloat16: 0.5, torch.float32: 0.02}
    monkeypatch.setattr("mlrpl_bench.training.parts.device._product_seconds", seconds.__getitem__)
    assert bf16_slowdown() == 25.0


def test_the_seconds_of_a_product_are_those_of_the_fastest(monkeypatch):
    ticks = iter([0.0, 5.0, 10.0, 12.0, 20.0, 24.0, 30.0, 39.0, 40.0, 43.0])
    monkeypatch.setattr("mlrpl_bench.training.parts.device.time.perf_counter", lambda: next(ticks))
    assert _product_seconds(torch.bfloat16) == 2.0
