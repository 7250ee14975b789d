"""What the system says of processes: which are gone, and how many it killed for lack of memory."""

import os
from pathlib import Path

from mlrpl_bench.records.leases import liveness


def test_a_process_that_runs_is_not_gone_and_one_that_ended_is(gone):
    assert not liveness.is_gone(os.getpid())
    assert liveness.is_gone(gone)


def test_an_id_that_no_process_can_have_says_nothing():
    assert not liveness.is_gone(2**80)


def test_kills_are_counted_where_the_system_counts_them(tmp_path):
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 7\noom_kill 5\noom_group_kill 0\n")
    assert liveness.kills(events) == 5
    assert liveness.kills(tmp_path / "none") is None


def test_the_counts_are_of_files_in_which_the_system_counts():
    counts = liveness.kill_counts()
    assert all(liveness.COUNTER.fullmatch(name) and liveness.kills(Path(name)) is not None for name in counts)
