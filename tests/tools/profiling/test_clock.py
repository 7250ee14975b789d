"""All time belongs to the part that is on."""

import time

import pytest
import torch

from mlrpl_bench.tools.profiling.clock import Clock


def test_a_clock_gives_all_time_to_the_part_that_is_on():
    clock = Clock(torch.device("cpu"))
    begin = time.perf_counter()
    for step in range(2):
        clock.start(step, "outer")
        clock.enter("inner")
        time.sleep(0.02)
        clock.leave()
        clock.switch("last")
        time.sleep(0.01)
    first, second = clock.stop()
    total = time.perf_counter() - begin
    for parts in (first, second):
        assert parts["inner"] >= 0.02 and parts["last"] >= 0.01 and parts["outer"] < 0.02
    assert sum(first.values()) + sum(second.values()) == pytest.approx(total, rel=0.2)
