"""Of all the processes that want a cell one gets it, it stays theirs while they live, and no longer."""

import multiprocessing
import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from mlrpl_bench.records.leases import claims, lease
from mlrpl_bench.records.leases.claims import PRESENT_FOLDER, in_force, sweep_away
from mlrpl_bench.records.leases.lease import BEAT_SECONDS, LEASE_SECONDS, Owner, Taken
from tests.helpers.claims import elsewhere, owned_by
from tests.helpers.clock import Clock
from tests.helpers.tiny_study import contents, refusal


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def watch(clock, folder):
    """Look at the cell every second for so many seconds; whether it may be taken at the end."""

    def watch(observer: Owner, seconds: float) -> bool:
        for _ in range(int(seconds)):
            observer.may_take(folder)
            clock.now += 1
        return observer.may_take(folder)

    return watch


def beat_of(folder, number=1):
    with (folder / f"claim-{number}.jsonl").open("ab") as file:
        file.write(b"1\n")


def test_a_cell_that_nobody_owns_can_be_taken_once(folder):
    first, second = Owner(), Owner()
    assert first.may_take(folder) and not folder.exists()  # a look leaves nothing
    assert first.take(folder) == Taken(before=None)
    assert not second.may_take(folder) and second.take(folder) is None
    assert first.holds(folder) and not second.holds(folder)


def test_a_claim_says_whose_it_is(folder):
    Owner().take(folder)
    claim = in_force(folder)
    assert (claim.number, claim.facts["pid"], claim.group) == (1, os.getpid(), 1)
    assert claim.who == f"process {os.getpid()} on {claim.host}"
    assert not claim.is_of_gone_process()


def test_the_heartbeat_tells_how_many_cells_are_trained_side_by_side(folder):
    owner = Owner()
    folders = [folder / str(number) for number in range(3)]
    assert all(owner.take(each) for each in folders)
    owner.beat()
    assert [in_force(each).group for each in folders] == [3, 3, 3]
    owner.release(folders[0])
    owner.beat()
    assert [in_force(each).group for each in folders[1:]] == [2, 2]


def test_in_a_context_the_heart_beats_and_at_the_end_all_is_released(folder, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    with Owner() as owner:
        owner.take(folder)
        before = in_force(folder)
        until = time.monotonic() + 60
        while in_force(folder) == before and time.monotonic() < until:
            time.sleep(0.01)
        assert in_force(folder) != before
    assert not folder.exists()


def test_what_is_released_can_be_taken_and_other_files_stay(folder):
    first, second = Owner(), Owner()
    first.take(folder)
    (folder / "checkpoint.pt").write_bytes(b"half-way")
    first.release(folder)
    assert contents(folder) == {"checkpoint.pt": b"half-way"}
    assert second.take(folder) == Taken(before=None)


def test_releasing_what_is_not_ours_changes_nothing(folder):
    first, second = Owner(), Owner()
    first.take(folder)
    second.release(folder)
    assert first.holds(folder)


def test_the_claim_of_a_process_that_is_gone_is_taken_over_at_once(folder, gone):
    owned_by(gone, folder, beats=b"4\n4\n")
    taken = Owner().take(folder)
    assert (taken.before.facts["pid"], taken.before.group) == (gone, 4)
    assert in_force(folder).number == 2


def test_a_killed_process_that_its_parent_has_not_asked_for_is_gone_too(folder):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owned_by(process.pid, folder)
    owner = Owner()
    assert not owner.may_take(folder)
    process.kill()
    until = time.monotonic() + 60
    while not owner.may_take(folder) and time.monotonic() < until:
        time.sleep(0.01)
    assert owner.take(folder)
    process.communicate()


def test_a_heartbeat_that_stands_still_is_a_claim_that_can_be_taken(folder, clock, watch):
    elsewhere(folder)
    observer = Owner(clock)
    assert not watch(observer, LEASE_SECONDS - 1)
    assert watch(observer, 1)
    assert observer.take(folder) and in_force(folder).number == 2


def test_a_heartbeat_that_moves_is_a_claim_that_stays(folder, clock, watch):
    elsewhere(folder)
    observer = Owner(clock)
    for _ in range(5):
        assert not watch(observer, LEASE_SECONDS - 1)
        beat_of(folder)
    assert not watch(observer, 1)


def test_what_time_passed_before_the_first_look_or_without_looking_does_not_count(folder, clock, watch):
    elsewhere(folder)
    os.utime(folder / "claim-1.jsonl", (0, 0))  # nor the file's own time
    clock.now += 10 * LEASE_SECONDS
    observer = Owner(clock)
    assert not observer.may_take(folder)
    clock.now += 10 * LEASE_SECONDS  # the observer was suspended, and so may the owner have been
    assert not observer.may_take(folder)
    assert not watch(observer, LEASE_SECONDS - BEAT_SECONDS - 1)
    assert watch(observer, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b"3\n", b"\xff\xfe\n", b'{"pid": "x"}\nx\n'])
def test_a_damaged_claim_is_one_whose_heart_does_not_beat(folder, clock, watch, content):
    folder.mkdir(parents=True)
    (folder / "claim-1.jsonl").write_bytes(content)
    observer = Owner(clock)
    assert observer.take(folder) is None
    assert in_force(folder).group == 1 and in_force(folder).who.endswith("on an unknown machine")
    assert watch(observer, LEASE_SECONDS)
    assert observer.take(folder)


def test_an_owner_whose_claim_was_taken_over_notices_and_touches_nothing_of_it(folder, clock, watch):
    suspended, other = Owner(), Owner(clock)
    suspended.take(folder)
    assert watch(other, LEASE_SECONDS) and other.take(folder)
    before = contents(folder)
    assert not suspended.has_lost(folder)  # nobody has looked yet
    suspended.beat()
    assert suspended.has_lost(folder) and not suspended.holds(folder)
    suspended.release(folder)
    assert contents(folder) == before and other.holds(folder)


def test_a_lost_claim_is_noticed_at_the_moment_of_asking(folder, clock, watch):
    suspended, other = Owner(), Owner(clock)
    suspended.take(folder)
    assert watch(other, LEASE_SECONDS) and other.take(folder)
    assert not suspended.holds(folder)  # without any beat


def test_a_suspended_owner_does_not_bring_back_a_claim_that_is_gone(folder):
    owner = Owner()
    owner.take(folder)
    sweep_away(folder)
    owner.beat()
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):  # even if it had looked just before
        claims.append(folder / "claim-1.jsonl", b"1\n")


def test_a_claim_that_moved_at_the_last_moment_is_not_taken_over(folder, gone, monkeypatch):
    owned_by(gone, folder)
    create = claims.create

    def late(path, content):
        beat_of(folder)
        return create(path, content)

    monkeypatch.setattr(claims, "create", late)
    assert Owner().take(folder) is None
    assert in_force(folder).number == 1


def test_a_cell_that_was_released_and_claimed_anew_meanwhile_is_not_taken_over(folder, gone, monkeypatch):
    """The observer wants number 2 above a dead 1; before it comes to that, all is swept away and there is a new 1."""
    owned_by(gone, folder)
    other, create = Owner(), claims.create

    def late(path, content):
        monkeypatch.undo()
        sweep_away(folder)
        assert other.take(folder)
        return create(path, content)

    monkeypatch.setattr(claims, "create", late)
    assert Owner().take(folder) is None
    assert other.holds(folder)


def test_a_low_number_that_was_free_by_chance_is_no_claim_in_force(folder, monkeypatch):
    create = claims.create

    def late(path, content):
        elsewhere(folder, number=2)
        return create(path, content)

    monkeypatch.setattr(claims, "create", late)
    owner = Owner()
    assert owner.take(folder) is None and not owner.holds(folder)
    assert in_force(folder).facts["owner"] == "far away"


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [(28, "No space left on device", "make room"), (30, "Read-only file system", "allow it")],
)
def test_a_folder_that_cannot_be_written_to_is_named(folder, monkeypatch, number, reason, advice):
    def refuse(*_, **__):
        raise OSError(number, reason)

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    line = refusal(lambda: Owner().take(folder))
    assert line == f"{folder} cannot be written ({reason}); {advice}, or name another --results-dir"


def test_a_beat_that_finds_no_room_loses_nothing(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    owner = Owner()
    owner.take(folder)
    monkeypatch.setattr(claims, "append", full)
    owner.beat()
    assert owner.holds(folder)


def racing(number: int, act) -> list:
    """What so many threads answer that do something in the same moment."""
    barrier, answers = threading.Barrier(number), []

    def run() -> None:
        barrier.wait()
        answers.append(act())

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("taken_over", [False, True])
def test_of_many_threads_that_want_a_cell_one_gets_it(tmp_path, gone, taken_over, rounds):
    for number in range(rounds):
        folder = tmp_path / str(number)
        if taken_over:
            owned_by(gone, folder)
        answers = racing(8, lambda folder=folder: Owner().take(folder))
        assert sum(answer is not None for answer in answers) == 1


def _take_all(folders, barrier, wins) -> None:
    owner = Owner()
    for folder in folders:
        barrier.wait()
        if owner.take(folder) is not None:
            wins.put((str(folder), owner.id))
    barrier.wait()  # nobody is gone before all have tried


@pytest.mark.parametrize("rounds", [20, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("taken_over", [False, True])
def test_of_many_processes_that_want_a_cell_one_gets_it(tmp_path, gone, taken_over, rounds):
    folders = [tmp_path / str(number) for number in range(rounds)]
    for folder in folders if taken_over else ():
        owned_by(gone, folder)
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(6), context.SimpleQueue()
    processes = [context.Process(target=_take_all, args=(folders, barrier, wins)) for _ in range(6)]
    for process in processes:
        process.start()
    won = sorted(wins.get() for _ in folders)
    for process in processes:
        process.join()
    assert wins.empty()
    assert [folder for folder, _ in won] == sorted(map(str, folders))
    number = 2 if taken_over else 1
    by_folder = dict(won)
    for folder in folders:
        assert (in_force(folder).number, in_force(folder).owner) == (number, by_folder[str(folder)])


def test_while_owners_come_and_go_never_two_hold_a_cell(folder):
    """Threads take and release one cell again and again; each looks, in its turn, whether it is alone."""
    inside, most, turns = [], [], []
    until = time.monotonic() + 60

    def come_and_go() -> None:
        owner = Owner()
        mine = 0
        while mine < 10 and time.monotonic() < until:
            if owner.take(folder) is None:
                time.sleep(0.001)
                continue
            inside.append(owner)
            most.append(len(inside))
            inside.remove(owner)
            owner.release(folder)
            mine += 1
        turns.append(mine)

    racing(4, come_and_go)
    assert turns == [10] * 4 and set(most) == {1}
    assert not folder.exists()


def test_a_second_death_of_a_group_is_told_to_whoever_takes_over(folder, gone):
    owned_by(gone, folder, 1, beats=b"4\n")
    assert not Owner().take(folder).died_before
    sweep_away(folder)
    owned_by(gone, folder, 1, beats=b"4\n")
    owned_by(gone, folder, 2, beats=b"4\n")
    assert Owner().take(folder).died_before


def test_a_claim_says_which_launcher_process_group_and_machine(folder):
    Owner(launcher="local").take(folder)
    claim = in_force(folder)
    assert claim.facts["launcher"] == "local" and claim.facts["process_group"] == os.getpgrp()
    assert claim.who == f"process {os.getpid()} on {platform.node()}, started by local"
    sweep_away(folder)
    Owner().take(folder)
    assert in_force(folder).who == f"process {os.getpid()} on {platform.node()}"


def test_a_death_together_with_its_machine_is_no_death_before(folder, gone, clock):
    owned_by(gone, folder, 1, beats=b"4\n")
    path = folder / "claim-1.jsonl"
    path.write_text(path.read_text().replace('"place"', '"place_of"'))  # as on another machine
    observer = Owner(clock)
    for _ in range(14):
        observer.may_take(folder)
        clock.now += 5
    assert observer.take(folder)
    claim = folder / "claim-2.jsonl"
    claim.write_text(claim.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone}') + "4\n")
    assert not Owner().take(folder).died_before


def test_a_process_that_wants_other_cells_does_not_count(tmp_path):
    own, alike, other, silent = (Owner() for _ in range(4))
    for owner, wanted in ((own, {"a", "b"}), (alike, {"b", "c"}), (other, {"d"}), (silent, None)):
        owner.announce(tmp_path / "set", wanted)
    counts = [own.processes(tmp_path / "set", wanted) for wanted in ({"a", "b"}, {"a"}, {"d"}, None)]
    assert counts == [3, 2, 3, 4]  # who does not tell may want any
    assert [own.processes(tmp_path / "set", {"a", "b"}, at_least) for at_least in (1, 2)] == [3, 2]
    with alike:  # releases at its end
        pass
    assert len(os.listdir(tmp_path / "set" / PRESENT_FOLDER)) == 3


def test_twenty_workers_spend_under_two_percent_of_their_time_on_leases(tmp_path):
    """Between two heartbeats a worker adds a line to each of its cells, and looks once at all cells and workers."""
    owners = [Owner() for _ in range(20)]
    cells = [tmp_path / "set" / "method" / f"cell-{number}" for number in range(20 * 9)]
    for number, owner in enumerate(owners):
        owner.announce(tmp_path / "set", [cell.name for cell in cells])
        assert all(owner.take(cell) for cell in cells[9 * number : 9 * number + 9])
    start = time.process_time()
    for owner in owners:
        owner.beat()
        assert owner.processes(tmp_path / "set", [cell.name for cell in cells]) == 20
        assert not any(owner.may_take(cell) for cell in cells)
    assert time.process_time() - start < 0.02 * len(owners) * BEAT_SECONDS
