"""Work is shared out to processes: every piece comes back with its result, and errors are passed on."""

import subprocess
import sys

import pytest

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.processes import in_parallel


def fail_at_three(number):
    if number == 3:
        raise UserError("three is bad")
    return -number


def end_the_process(_):
    import os

    os._exit(9)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_parallel_gives_every_piece_with_its_result_and_passes_errors_on(workers):
    assert dict(in_parallel(fail_at_three, [1, 2, 4], workers)) == {1: -1, 2: -2, 4: -4}
    with pytest.raises(UserError, match=r"\Athree is bad\Z"):
        list(in_parallel(fail_at_three, [1, 2, 3, 4], workers))


def test_a_worker_that_is_ended_from_outside_is_one_line():
    with pytest.raises(UserError, match="try fewer workers"):
        list(in_parallel(end_the_process, [1], 1))


def test_worker_processes_need_no_torch():
    code = "import sys, mlrpl_bench.data.images.decoding; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
