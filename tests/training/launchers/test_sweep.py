"""Only what has no record is trained; what fails is remembered and does not stop the rest."""

import errno
import json
import os
import platform
import signal
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from mlrpl_bench.data.images.decoding import BadImage
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.records import matching, provenance, record
from mlrpl_bench.records.leases import lease, liveness
from mlrpl_bench.records.leases.claims import Lease
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.record import read_arrays
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training import checkpoint
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.launchers.events import Stored
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.trainer import EpochDone, Failed, Note, StepDone
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.signals import Interrupted
from tests.helpers.tiny_study import EXPLODING, METHOD, contents, finished, method, study, write_plugin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def of(folder):
    """A study of the tiny dataset."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        yield study(folder / "tiny_set.py")


@pytest.fixture(scope="module")
def plain(folder):
    return method(folder / "plain.py")


@pytest.fixture(scope="module")
def explodes(folder):
    return method(folder / "explodes.py", EXPLODING)


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture(scope="module")
def trained(of, plain, explodes, folder):
    """A sweep over three cells of which the first fails: its jobs, events and store."""
    jobs = [of.job(explodes, 0.5, 0, 0, {}), of.job(plain, 0.5, 0, 0, {}), of.job(plain, 1.0, 0, 0, {})]
    store = ResultStore(folder / "results")
    events = []
    for job, event in sweep.run(jobs, of, store):
        stored = store.find(job.cell) is not None or store.failure(job.cell) is not None
        events.append((jobs.index(job), event, stored))
    return jobs, events, store


def run(jobs, of, store, **options) -> list:
    return [event for _, event in sweep.run(jobs, of, store, **options) if isinstance(event, (Stored, Failed))]


def test_before_anything_is_trained_every_job_is_missing(of, plain, store):
    jobs = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.1, 0.5)]
    assert sweep.missing(jobs, store) == jobs


def test_only_jobs_without_a_record_are_missing(of, plain, store):
    jobs = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.1, 0.5, 0.9)]
    store.write(finished(jobs[1].cell), {})
    store.write_failure(jobs[2].cell, "it broke", "")
    assert sweep.missing(jobs, store) == [jobs[0], jobs[2]]


def test_a_cell_whose_record_is_damaged_is_missing(of, plain, store):
    job = of.job(plain, 0.5, 0, 0, {})
    (store.write(finished(job.cell), {}).folder / "record.json").write_text("{")
    assert sweep.missing([job], store) == [job]
    assert "cut short" in store.status(job.cell).reason
    with pytest.raises(UserError, match="cut short"):
        store.find(job.cell)


def test_a_cell_that_is_left_goes_on_from_its_checkpoint_to_the_same_scores(trained, of, plain, store):
    jobs, _, whole = trained
    events = sweep.run(jobs[1:], of, store, checkpoint_seconds=0)
    for job, event in events:
        if isinstance(event, StepDone) and (job, event.epoch, event.step) == (jobs[1], 1, 1):
            break
    next(events)  # the checkpoint is written when the next event is asked for
    events.close()
    assert "checkpoint.pt" in contents(store.folder(jobs[1].cell))
    notes = [event.text for _, event in sweep.run(jobs[1:], of, store) if isinstance(event, Note)]
    assert len(notes) == 1 and notes[0].startswith("goes on at epoch 2, step ")
    for job in jobs[1:]:
        found = contents(store.folder(job.cell))
        assert "checkpoint.pt" not in found
        assert found["scores.npz"] == contents(whole.folder(job.cell))["scores.npz"]
        assert found["steps.npz"] == contents(whole.folder(job.cell))["steps.npz"]


def test_a_damaged_checkpoint_is_named_moved_aside_and_the_cell_begins_anew(trained, of, store):
    jobs, _, whole = trained
    folder = store.folder(jobs[1].cell)
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"nothing")
    notes = [event.text for _, event in sweep.run([jobs[1]], of, store) if isinstance(event, Note)]
    assert len(notes) == 1 and "checkpoint.pt is damaged; moved to checkpoint.pt.unused-1" in notes[0]
    assert contents(folder)["scores.npz"] == contents(whole.folder(jobs[1].cell))["scores.npz"]
    assert contents(folder)["checkpoint.pt.unused-1"] == b"nothing"


def test_a_checkpoint_that_cannot_be_written_is_a_note_and_training_goes_on(trained, of, store, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("mlrpl_bench.training.checkpoint.write", broken)
    jobs, _, _ = trained
    events = [event for _, event in sweep.run([jobs[1]], of, store, checkpoint_seconds=0)]
    notes = {event.text for event in events if isinstance(event, Note)}
    assert notes == {"its checkpoint cannot be written (Input/output error); training goes on without"}
    assert isinstance(events[-1], Stored)


def test_a_request_to_stop_writes_checkpoints_first(trained, of, store):
    jobs, _, _ = trained
    with pytest.raises(Interrupted):
        for _, event in sweep.run([jobs[1]], of, store):
            if isinstance(event, StepDone):
                os.kill(os.getpid(), signal.SIGTERM)
    assert "checkpoint.pt" in contents(store.folder(jobs[1].cell))
    assert store.why_missing(jobs[1].cell) == "not run"


def test_a_cell_says_that_it_is_trained_while_it_is(of, plain, store):
    job = of.job(plain, 0.5, 0, 0, {})
    assert store.why_missing(job.cell) == "not run"
    events = sweep.run([job], of, store)
    next(events)
    assert store.why_missing(job.cell).startswith(f"still running (process {os.getpid()} on ")
    events.close()  # what Ctrl-C comes to
    assert store.why_missing(job.cell) == "not run"


def test_a_cell_whose_process_is_gone_was_interrupted(of, plain, store):
    job = of.job(plain, 0.5, 0, 0, {})
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert Owner().take(store.folder(job.cell))
    path = store.folder(job.cell) / "claim-1.jsonl"
    path.write_text(path.read_text().replace(str(os.getpid()), str(gone.pid)))
    assert store.why_missing(job.cell).startswith("interrupted")


def test_a_cell_that_fails_does_not_stop_the_others(trained):
    jobs, events, store = trained
    assert [(number, type(event)) for number, event, _ in events if isinstance(event, (Failed, Stored))] == [
        (0, Failed),
        (1, Stored),
        (2, Stored),
    ]
    assert [store.find(job.cell) is not None for job in jobs] == [False, True, True]


def test_a_loss_that_is_not_a_number_is_named_by_term_epoch_and_step(trained):
    jobs, _, store = trained
    assert store.failure(jobs[0].cell).startswith("NonFiniteLoss: loss term 'burst' is nan at epoch 1, step 2;")
    kept = contents(store.folder(jobs[0].cell))
    assert set(kept) == {"failed.json"}
    assert "Traceback" in json.loads(kept["failed.json"])["traceback"]


def test_a_cells_end_is_told_after_it_was_stored(trained):
    _, events, _ = trained
    for _, event, stored in events:
        assert stored == isinstance(event, (Stored, Failed))


def test_every_step_and_epoch_is_told(trained):
    _, events, _ = trained
    of_second = [event for number, event, _ in events if number == 1]
    assert [(e.epoch, e.step, e.steps_per_epoch) for e in of_second if isinstance(e, StepDone)] == [
        (epoch, step, 3) for epoch in (0, 1) for step in (1, 2, 3)
    ]
    assert [e.row["epoch"] for e in of_second if isinstance(e, EpochDone)] == [0, 1]


def test_a_record_says_where_it_comes_from_and_how_its_setting_differs(trained, of):
    jobs, _, store = trained
    content = store.find(jobs[1].cell).content
    assert content["deviations"] == of.deviations()
    assert {"git", "versions", "device", "threads"} <= content.keys()
    assert (content["launcher"], content["node"]) == ("by hand", platform.node())


def test_a_trained_cells_metrics_can_be_computed_again_from_its_scores(trained, of):
    jobs, _, store = trained
    record = store.find(jobs[1].cell)
    again = metrics.evaluate(read_arrays(record.folder / "scores.npz")["scores"], of.test.labels_NC)
    assert np.isnan(again["AP_C"]).tolist() == [False, False, False, True]
    assert again.keys() == record.metrics.keys()
    for name, value in again.items():
        np.testing.assert_array_equal(value, record.metrics[name], err_msg=name)


def test_scores_of_the_training_images_are_kept_too(trained):
    jobs, _, store = trained
    folder = store.folder(jobs[1].cell)
    assert read_arrays(folder / "train_scores.npz")["scores"].shape == (12, 4)
    assert read_arrays(folder / "scores.npz")["scores"].shape == (8, 4)


def test_the_same_cell_trained_again_gives_the_same_scores(trained, of, store):
    jobs, _, first = trained
    run([jobs[1]], of, store, keep_weights=False)
    names = ("scores.npz", "train_scores.npz", "steps.npz")
    for name in names:
        before, after = (read_arrays(one.folder(jobs[1].cell) / name) for one in (first, store))
        assert all(np.array_equal(before[key], after[key]) for key in before)


def test_weights_are_kept_only_if_they_are_asked_for(trained, of, store):
    jobs, _, first = trained
    run([jobs[1]], of, store, keep_weights=False)
    assert [(one.folder(jobs[1].cell) / "weights.safetensors").exists() for one in (first, store)] == [True, False]


def test_more_known_labels_are_another_cell_with_other_scores(trained):
    jobs, _, store = trained
    half, all_known = (read_arrays(store.folder(job.cell) / "scores.npz")["scores"] for job in jobs[1:])
    assert not np.array_equal(half, all_known)


def test_an_image_met_in_training_that_cannot_be_read_ends_the_run_and_fails_no_cell(
    tmp_path, monkeypatch, plain, store
):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    of = study(tmp_path / "tiny_set.py")
    lost = of.test.image_paths[5]
    whole = lost.read_bytes()
    lost.write_bytes(b"no picture")
    jobs = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.5, 1.0)]
    with pytest.raises(BadImage, match=rf"^image {lost} cannot be .*; replace the file .*--on-bad-image skip$"):
        run(jobs, of, store, group=1)
    assert not any(store.failure(job.cell) for job in jobs)
    lost.write_bytes(whole)
    assert [type(event) for event in run(jobs[:1], of, store)] == [Stored]


def test_what_breaks_outside_the_method_fails_one_cell_and_not_the_sweep(of, plain, store, monkeypatch):
    train = sweep.train

    def out_of_memory_once(jobs, workbench, *how):
        if jobs[0].cell.ratio == 0.1:
            raise MemoryError("tried to allocate 20 GiB")
        yield from train(jobs, workbench, *how)

    monkeypatch.setattr(sweep, "train", out_of_memory_once)
    jobs = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.1, 0.5)]
    assert [type(event) for event in run(jobs, of, store)] == [Failed, Stored]
    assert store.failure(jobs[0].cell) == "MemoryError: tried to allocate 20 GiB"


def test_weights_that_do_not_fit_are_refused_before_anything_is_trained(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    weights = write_plugin(tmp_path / "weights.pth", "none")
    with pytest.raises(UserError, match=r"weights\.pth cannot be read"):
        study(tmp_path / "tiny_set.py", weights=str(weights))
    assert not store.root.exists()


@pytest.fixture
def edited(of, store, tmp_path):
    """A method with a record, whose file a test may edit; the cells of before and after."""
    entry = method(tmp_path / "mine.py", METHOD.replace('"plain"', '"mine"'))
    before = of.job(entry, 0.5, 0, 0, {})
    store.write(finished(before.cell), {})

    def edit(old: str, new: str):
        text = entry.path.read_text()
        assert old in text
        entry.path.write_text(text.replace(old, new))
        return of.job(entry, 0.5, 0, 0, {})

    return entry, before, edit


def test_an_edited_method_is_a_new_cell_and_is_noticed(edited, store):
    _, before, edit = edited
    after = edit("mean((2, 3))", "amax((2, 3))")
    assert sweep.missing([before, after], store) == [after]
    assert matching.edited_since(after.cell, store.survey("tiny").records)
    assert not matching.edited_since(before.cell, store.survey("tiny").records)


def test_a_comment_or_a_docstring_is_no_new_cell(edited, store):
    _, _, edit = edited
    edit("One linear layer", "A single linear layer")
    after = edit("class Plain(Method):", "class Plain(Method):  # as simple as it gets")
    assert sweep.missing([after], store) == []
    assert not matching.edited_since(after.cell, store.survey("tiny").records)


def test_a_cell_that_differs_in_more_than_its_file_was_not_edited(edited, store):
    _, _, edit = edited
    after = edit("mean((2, 3))", "amax((2, 3))")
    for other in (replace(after.cell, seed=1), replace(after.cell, ratio=0.9), replace(after.cell, method="other")):
        assert not matching.edited_since(other, store.survey("tiny").records)


def rows(store, of, methods):
    """The records that may stand in a study's table."""
    return [
        record for record in store.survey("tiny").records if matching.reason_against(record.cell, of, methods) is None
    ]


def test_the_rows_of_a_setting_are_those_of_the_methods_as_they_are_now(edited, of, store):
    entry, _, edit = edited
    assert len(rows(store, of, {"mine": entry})) == 1
    edit("mean((2, 3))", "amax((2, 3))")
    assert rows(store, of, {"mine": entry}) == []


def test_the_rows_of_a_setting_are_of_methods_that_are_there(edited, of, store):
    assert rows(store, of, {}) == []


@pytest.mark.parametrize("change", [{"epochs": 3}, {"precision": "bf16-mixed"}, {"weights": "file:1"}, {"batch": 8}])
def test_records_of_another_setting_are_no_rows(edited, of, store, change):
    entry, before, _ = edited
    other = replace(before.cell, setting=replace(before.cell.setting, **change), seed=1)
    store.write(finished(other), {})
    (row,) = rows(store, of, {"mine": entry})
    assert row.cell.seed == 0


def test_records_of_another_recipe_are_no_rows(edited, of, store):
    entry, before, _ = edited
    store.write(finished(replace(before.cell, recipe=replace(before.cell.recipe, lr=1.0))), {})
    (row,) = rows(store, of, {"mine": entry})
    assert row.cell.key == before.cell.key


def test_cells_trained_side_by_side_leave_the_scores_of_cells_trained_alone(trained, of, store):
    jobs, _, alone = trained
    events = run(jobs, of, store, group=3)
    assert sorted(type(event).__name__ for event in events) == ["Failed", "Stored", "Stored"]
    for job in jobs[1:]:
        pair = [read_arrays(folder.folder(job.cell) / "scores.npz")["scores"] for folder in (store, alone)]
        assert np.array_equal(*pair)


@pytest.fixture
def roomy_for(monkeypatch):
    """Memory that has room for so many cells: a larger group fails in the part that all share. The sizes tried."""

    def limit(most: int) -> list[int]:
        tried, train = [], sweep.train

        def short_of_memory(jobs, workbench, *how):
            tried.append(len(jobs))
            for event in train(jobs, workbench, *how):
                yield event
                if len(jobs) > most and isinstance(event, StepDone) and (event.epoch, event.step) == (1, 1):
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

        monkeypatch.setattr(sweep, "train", short_of_memory)
        return tried

    return limit


def test_a_group_that_runs_out_of_memory_is_halved_and_nothing_is_lost(trained, of, plain, store, roomy_for):
    jobs, _, alone = trained
    tried = roomy_for(2)
    more = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.2, 0.3, 0.4)]
    events = [event for _, event in sweep.run([*jobs[1:], *more], of, store, group=5, checkpoint_seconds=0)]
    assert tried == [5, 1, 2, 2]
    assert [type(event) for event in events if isinstance(event, (Stored, Failed))] == [Stored] * 5
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes[0] == (
        "no memory left in a group of 5 (RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 9 bytes); tried again in one of at most 2"
    )
    assert [text.split(",")[0] for text in notes] == [notes[0].split(",")[0]] * 5 + ["goes on at epoch 2"] * 5
    for job in jobs[1:]:
        assert contents(store.folder(job.cell))["scores.npz"] == contents(alone.folder(job.cell))["scores.npz"]


def test_after_memory_ran_out_later_groups_are_small_too(of, plain, store, roomy_for):
    tried = roomy_for(2)
    jobs = [of.job(plain, ratio, seed, 0, {}) for seed in (0, 1) for ratio in (0.2, 0.3, 0.4, 0.5)]
    assert [type(event) for event in run(jobs, of, store, group=4)] == [Stored] * 8
    assert tried == [4, 2, 2, 2, 2]


def test_running_out_of_memory_alone_is_a_cells_failure(of, plain, store, roomy_for):
    tried = roomy_for(0)
    jobs = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.2, 0.3)]
    assert [type(event) for event in run(jobs, of, store, group=2)] == [Failed, Failed]
    assert tried == [2, 1, 1]
    assert all("can't allocate memory" in store.failure(job.cell) for job in jobs)


def test_a_cell_whose_own_step_finds_no_memory_is_tried_again_and_the_others_go_on(trained, of, store, monkeypatch):
    jobs, _, alone = trained
    plain = jobs[1].method_class
    losses, failed = plain.losses, []

    def once(self, batch, progress):
        if not failed:
            failed.append(self)
            raise MemoryError
        return losses(self, batch, progress)

    monkeypatch.setattr(plain, "losses", once)
    events = list(sweep.run(jobs[1:], of, store, group=2))
    assert [job for job, event in events if isinstance(event, Stored)] == [jobs[2], jobs[1]]
    assert [event.cells_in_group for _, event in events if isinstance(event, Stored)] == [2, 1]
    for job in jobs[1:]:
        assert contents(store.folder(job.cell))["scores.npz"] == contents(alone.folder(job.cell))["scores.npz"]


def test_cells_group_by_themselves_as_many_as_fit(of, plain, store, monkeypatch):
    jobs = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.2, 0.3, 0.4)]
    monkeypatch.setattr(
        "mlrpl_bench.training.launchers.memory.fitting", lambda found, workbench: 2 if len(found) == 3 else 9
    )
    assert [event.cells_in_group for event in run(jobs, of, store, group=None)] == [1, 2, 2]


def test_what_breaks_outside_the_methods_fails_every_cell_of_the_group(of, plain, store, monkeypatch):
    jobs = [of.job(plain, ratio, 0, 0, {}) for ratio in (0.1, 0.5)]
    monkeypatch.setattr(of.workbench, "training_batches", lambda *_: (_ for _ in ()).throw(MemoryError("all of it")))
    events = run(jobs, of, store, group=2)
    assert [event.reason for event in events] == ["MemoryError: all of it"] * 2


@pytest.fixture
def quick(monkeypatch):
    """Looks follow each other at once, and no heart beats by itself."""
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 3600.0)


@pytest.fixture
def three(of, plain):
    return [of.job(plain, ratio, 0, 0, {}) for ratio in (0.2, 0.3, 0.4)]


def die(store, jobs, group=1, number=1):
    """Leave the claims of a process that is gone, which trained so many cells side by side."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    owner = Owner()
    for job in jobs:
        owner.take(store.folder(job.cell))
        path = store.folder(job.cell) / f"claim-{number}.jsonl"
        path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone.pid}') + f"{group}\n")
    return gone.pid


def test_cells_of_others_are_left_to_them_and_waited_for(of, store, three, quick):
    other = Owner()
    other.take(store.folder(three[0].cell))
    told = []
    for job, event in sweep.run(three, of, store):
        told.append((three.index(job), event))
        if isinstance(event, sweep.Waiting):
            store.write(finished(job.cell), {})
            other.release(store.folder(job.cell))
    ends = [
        (number, type(event)) for number, event in told if not isinstance(event, (StepDone, EpochDone, sweep.Began))
    ]
    assert ends == [(1, Stored), (2, Stored), (0, sweep.Waiting), (0, sweep.FoundFinished)]
    (waiting,) = (event for _, event in told if isinstance(event, sweep.Waiting))
    assert waiting.cells == 1 and len(waiting.hosts) == 1


def test_a_failure_that_another_process_stores_meanwhile_is_told_and_not_tried_again(of, store, three, quick):
    store.write_failure(three[0].cell, "it broke", "")  # before: tried again
    other = Owner()
    other.take(store.folder(three[0].cell))
    events = []
    for _, event in sweep.run(three[:1], of, store):
        events.append(event)
        if isinstance(event, sweep.Waiting):
            store.write_failure(three[0].cell, "it broke", "")
            other.release(store.folder(three[0].cell))
    assert [type(event) for event in events] == [sweep.Waiting, Failed]
    assert events[-1].reason == "it broke"


def test_a_cell_that_failed_before_is_tried_again(of, store, three, quick):
    store.write_failure(three[0].cell, "it broke", "")
    assert [type(event) for event in run(three[:1], of, store)] == [Stored]


def test_what_another_process_stops_at_is_gone_on_with(of, store, three, quick):
    other = Owner()
    other.take(store.folder(three[0].cell))
    events = []
    for _, event in sweep.run(three[:1], of, store):
        events.append(event)
        if isinstance(event, sweep.Waiting):
            other.release(store.folder(three[0].cell))  # Ctrl-C
    assert isinstance(events[-1], Stored)


def test_a_cell_that_was_finished_between_look_and_claim_is_not_trained(of, store, three, quick, monkeypatch):
    take = Owner.take

    def late(self, folder):
        if store.find(three[0].cell) is None:
            store.write(finished(three[0].cell), {})
        return take(self, folder)

    monkeypatch.setattr(Owner, "take", late)
    assert [type(event) for _, event in sweep.run(three[:1], of, store)] == [sweep.FoundFinished]
    assert not list(store.folder(three[0].cell).glob("claim*"))


def test_a_checkpoint_that_came_between_look_and_claim_is_gone_on_from(trained, of, store, quick, monkeypatch):
    jobs, _, whole = trained
    first = ResultStore(store.root.parent / "first")
    events = sweep.run([jobs[1]], of, first, checkpoint_seconds=0)
    assert any(isinstance(event, StepDone) and (event.epoch, event.step) == (1, 1) for _, event in events)
    next(events)
    events.close()
    take = Owner.take

    def late(self, folder):
        taken = take(self, folder)
        if folder == store.folder(jobs[1].cell):
            first.folder(jobs[1].cell).joinpath("checkpoint.pt").rename(folder / "checkpoint.pt")
        return taken

    monkeypatch.setattr(Owner, "take", late)
    told = [event for _, event in sweep.run(jobs[1:], of, store, group=2)]
    assert [event.cells_in_group for event in told if isinstance(event, Stored)] == [1, 1]  # at different places
    assert [event.text[:18] for event in told if isinstance(event, Note)] == ["goes on at epoch 2"]
    for job in jobs[1:]:
        assert contents(store.folder(job.cell))["scores.npz"] == contents(whole.folder(job.cell))["scores.npz"]


def test_ctrl_c_is_heard_while_waiting(of, store, three, quick):
    Owner().take(store.folder(three[0].cell))
    with pytest.raises(Interrupted):
        for _, event in sweep.run(three[:1], of, store):
            assert isinstance(event, sweep.Waiting)
            os.kill(os.getpid(), signal.SIGTERM)
    assert store.why_missing(three[0].cell).startswith("still running")


@pytest.mark.parametrize(("heart_beats", "checkpoint_seconds"), [(True, 0), (False, 0), (False, 600)])
def test_a_cell_that_was_lost_is_dropped_and_nothing_of_it_is_written(
    of, store, three, quick, heart_beats, checkpoint_seconds, monkeypatch
):
    """With a heartbeat the loss is seen between two steps; without, before a checkpoint or the record is written."""
    owners, enter = [], Owner.__enter__
    monkeypatch.setattr(Owner, "__enter__", lambda self: owners.append(self) or enter(self))
    lost, kept = three[:2]
    folder, told = store.folder(lost.cell), []
    for job, event in sweep.run(three[:2], of, store, group=2, checkpoint_seconds=checkpoint_seconds):
        told.append((job, event))
        if isinstance(event, StepDone) and job is lost and (event.epoch, event.step) == (1, 1):
            (folder / "checkpoint.pt").unlink(missing_ok=True)
            (folder / "claim-2.jsonl").write_text('{"owner": "another", "pid": 1, "host": "there"}\n')
            if heart_beats:
                owners[0].beat()
        if isinstance(event, sweep.Waiting):
            assert set(contents(folder)) == {"claim-1.jsonl", "claim-2.jsonl"}
            store.write(finished(lost.cell), {})
    of_lost = [
        event for job, event in told if job is lost and not isinstance(event, (StepDone, EpochDone, sweep.Began))
    ]
    assert [type(event) for event in of_lost] == [Note, sweep.Waiting, sweep.FoundFinished]
    assert of_lost[0].text.startswith("another process took it over while this one stood still")
    assert [event.cells_in_group for _, event in told if isinstance(event, Stored)] == [2]
    assert store.find(kept.cell) is not None


@pytest.fixture
def eight(of, plain):
    return [of.job(plain, ratio, seed, 0, {}) for seed in (0, 1) for ratio in (0.2, 0.3, 0.4, 0.5)]


def sizes_and_note(jobs, of, store):
    events = [event for _, event in sweep.run(jobs, of, store, group=4)]
    (note,) = (event.text for event in events if isinstance(event, Note))
    return [event.cells_in_group for event in events if isinstance(event, Stored)], note


def test_after_the_kernel_killed_a_group_for_memory_groups_are_half_as_large(of, store, eight, quick, monkeypatch):
    monkeypatch.setattr(liveness, "kills", lambda path: 3)
    gone = die(store, eight[:4], group=4)
    monkeypatch.setattr(liveness, "kills", lambda path: 4)
    sizes, note = sizes_and_note(eight, of, store)
    assert sizes == [2] * 8
    assert note.startswith("the process that trained it with 3 others was killed, when memory ran out (process ")
    assert f"process {gone} on " in note and note.endswith("; from now on groups have at most 2")


def test_a_group_whose_machine_was_taken_away_goes_on_as_large_as_it_was(of, store, eight, quick, monkeypatch):
    monkeypatch.setattr(liveness, "kills", lambda path: 3)
    gone = die(store, eight[:4], group=4)
    sizes, note = sizes_and_note(eight, of, store)
    assert sizes == [4] * 8
    assert note.startswith(f"taken over from process {gone} on ") and note.endswith(", which is gone")


def test_after_the_second_death_of_a_group_groups_are_half_as_large(of, store, eight, quick, monkeypatch):
    monkeypatch.setattr(liveness, "kills", lambda path: 3)
    for number in (1, 2):
        die(store, eight[:4], group=4, number=number)
    sizes, note = sizes_and_note(eight, of, store)
    assert sizes == [2] * 8
    assert "was killed, and so was one before it, perhaps for lack of memory (process " in note


def test_a_group_that_twice_lost_its_machine_goes_on_as_large_as_it_was(of, store, eight, quick, monkeypatch):
    monkeypatch.setattr(liveness, "kills", lambda path: 3)
    for number in (1, 2):
        die(store, eight[:4], group=4, number=number)
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1.0)  # both fell silent, and no process of theirs can be seen
    monkeypatch.setattr(Lease, "is_of_gone_process", lambda claim: False)
    sizes, _ = sizes_and_note(eight, of, store)
    assert sizes == [4] * 8


def test_a_group_that_died_once_after_it_lost_its_machine_goes_on_as_large(of, store, eight, quick, monkeypatch):
    monkeypatch.setattr(liveness, "kills", lambda path: 3)
    die(store, eight[:4], group=4)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "LEASE_SECONDS", -1.0)
        patch.setattr(Lease, "is_of_gone_process", lambda claim: False)
        die(store, eight[:4], group=4, number=2)
    sizes, _ = sizes_and_note(eight, of, store)
    assert sizes == [4] * 8


def test_a_worker_ends_when_others_are_seen_to_train_all_that_is_left(of, store, three, quick):
    other = Owner()
    other.take(store.folder(three[0].cell))
    told = []
    worker = sweep.Worker("local", planned=2, waits=False)
    for job, event in sweep.run(three, of, store, worker=worker):
        told.append(event)
        if isinstance(event, sweep.Waiting):
            assert job == three[0]
            other.beat()
    assert [type(event) for event in told if isinstance(event, (Stored, sweep.Waiting))] == [
        *[Stored] * 2,
        sweep.Waiting,
    ]
    assert store.find(three[0].cell) is None and other.holds(store.folder(three[0].cell))


def test_a_worker_does_not_end_before_an_owner_that_stands_still_is_seen_to_live_or_to_be_gone(
    of, store, three, quick, monkeypatch
):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(Lease, "is_of_gone_process", lambda claim: False)  # as on another machine
    Owner().take(store.folder(three[0].cell))
    events = [e for _, e in sweep.run(three[:1], of, store, worker=sweep.Worker(waits=False))]
    assert isinstance(events[0], sweep.Waiting) and isinstance(events[-1], Stored)


def test_groups_are_sized_for_workers_that_are_still_to_come(of, store, eight):
    events = run(eight, of, store, group=4, worker=sweep.Worker(planned=4))
    assert [event.cells_in_group for event in events] == [2] * 4 + [1] * 4  # the others never came


@pytest.mark.parametrize(
    ("left", "wanted", "sizes"), [(4, 0, [4] * 4), (4, 2, [4] * 4), (4, 3, [2, 2, 1, 1]), (2, 2, [1, 1])]
)
def test_groups_are_divided_with_a_process_that_wants_three_of_their_cells_or_all(
    of, store, eight, left, wanted, sizes
):
    others_cells = eight[left - wanted : len(eight) - wanted]
    Owner().announce(store.root / "tiny", {job.cell.key for job in others_cells})
    events = run(eight[:left], of, store, group=4)
    assert [event.cells_in_group for event in events] == sizes


def test_a_cell_that_was_trained_alone_says_nothing_about_memory(of, store, three, quick):
    gone = die(store, three[:1])
    events = [event for _, event in sweep.run(three, of, store, group=3)]
    (note,) = (event.text for event in events if isinstance(event, Note))
    assert note.startswith(f"taken over from process {gone} on ") and note.endswith(", which is gone")
    assert [event.cells_in_group for event in events if isinstance(event, Stored)] == [3] * 3


@pytest.fixture
def with_leftovers(store, three):
    """Of three cells the first was finished by a process that was killed just after the record; others run."""
    for job in three[:2]:
        Owner().take(store.folder(job.cell))
        checkpoint.write(store.folder(job.cell), job.cell, {"epoch": 0, "step": 1})
    store.write(finished(three[0].cell), {})
    return three


def test_who_only_asks_what_is_missing_deletes_nothing(with_leftovers, store):
    before = contents(store.root)
    assert sweep.missing(with_leftovers, store) == with_leftovers[1:]
    assert contents(store.root) == before


def test_a_finished_cells_leftovers_are_deleted_and_a_running_ones_are_not(with_leftovers, store):
    finished_one, running, _ = with_leftovers
    of_running = contents(store.folder(running.cell))
    sweep.tidy([finished_one], store)
    assert not {"claim-1.jsonl", "checkpoint.pt"} & set(contents(store.folder(finished_one.cell)))
    assert store.find(finished_one.cell) is not None
    assert contents(store.folder(running.cell)) == of_running


@pytest.fixture
def read_only(monkeypatch):
    """No file can be changed: all that would fails as on a read-only file system, for root too."""

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for name in ("unlink", "rmdir", "rename", "replace", "link", "mkdir", "chmod"):
        monkeypatch.setattr(os, name, refuse)
    for name in ("unlink", "rmdir", "rename", "replace", "mkdir", "chmod"):
        monkeypatch.setattr(f"pathlib.Path.{name}", refuse)


def test_what_is_missing_in_a_read_only_folder_can_be_asked(with_leftovers, store, read_only):
    assert sweep.missing(with_leftovers, store) == with_leftovers[1:]


def test_leftovers_in_a_read_only_folder_stay_and_stop_nothing(with_leftovers, store, read_only):
    before = contents(store.root)
    sweep.tidy(with_leftovers[:1], store)
    assert contents(store.root) == before


def test_a_record_is_read_once_when_it_is_asked_whether_its_cell_is_missing(of, store, three, monkeypatch):
    for job in three:
        store.write(finished(job.cell), {})
    opened = count_opens_of_records(monkeypatch)
    assert sweep.missing(three, store) == []
    assert opened == [store.folder(job.cell) / "record.json" for job in three]


def count_opens_of_records(monkeypatch) -> list:
    """The path of each ``record.json`` that is read from now on."""
    opened, read = [], record.read_json
    monkeypatch.setattr(record, "read_json", lambda path: opened.append(path) or read(path))
    return opened


def test_an_end_that_is_told_brings_the_record_that_was_written(trained):
    jobs, events, store = trained
    ends = [event for _, event, _ in events if isinstance(event, Stored)]
    assert [event.cell for event in ends] == [job.cell for job in jobs[1:]]
    for event in ends:
        assert event.record.folder == store.folder(event.cell)
        assert event.record.content == store.find(event.cell).content
        assert event.record.metrics["mAP"] == event.metrics["mAP"]


def test_a_sweep_asks_git_once_for_all_its_cells(of, store, three, monkeypatch):
    asked, git_state = [], provenance.git_state
    monkeypatch.setattr(provenance, "git_state", lambda folder: asked.append(folder) or git_state(folder))
    assert len(run(three, of, store)) == 3
    assert len(asked) == 1
    assert all("git" in store.find(job.cell).content for job in three)


LOOKING = (
    METHOD.replace('"plain"', '"looks"')
    .replace(
        "    def forward(self, frozen_BDHW):",
        """        self.register_buffer("seen_C", torch.zeros(len(task.categories)))
        self.notes = []

    def passes(self, progress):
        return True

    def observe(self, batch):
        self.seen_C += (batch.labels_BC == 1).sum(0)
        self.notes.append(float(batch.frozen_BDHW.mean()))

    def end_pass(self, generator):
        with torch.no_grad():
            self.classifier.bias += 0.01 * self.seen_C + sum(self.notes)

    def get_extra_state(self):
        return torch.tensor(self.notes)

    def set_extra_state(self, state):
        self.notes = state.tolist()

    def attention(self, frozen_BDHW):
        return self.trained(frozen_BDHW)[:, :4]

    def forward(self, frozen_BDHW):""",
    )
    .replace("from torch import nn", "import torch\nfrom torch import nn")
)
"""Its passes change a buffer in place and what it keeps beside its tensors; both matter for its scores."""


@pytest.fixture(scope="module")
def looking(of, folder):
    """A cell of a method that looks at the training set before each epoch, and what it leaves when nothing happens."""
    job, store = of.job(method(folder / "looks.py", LOOKING), 0.5, 0, 0, {}), ResultStore(folder / "looking")
    (end,) = run([job], of, store)
    assert isinstance(end, Stored), end.reason
    return job, everything(store.find(job.cell))


def everything(record):
    names = ("scores", "train_scores", "steps", "examples")
    return {(name, key): array for name in names for key, array in read_arrays(record.folder / f"{name}.npz").items()}


@pytest.mark.parametrize(
    ("what", "number", "place"),
    [
        ("observe", 1, None),  # before the first epoch nothing was trained
        ("observe", 4, (0, 3)),
        ("observe", 5, (0, 3)),
        ("end_pass", 2, (0, 3)),
        ("logits_BC", 1, (0, 3)),
        ("logits_BC", 3, (1, 3)),
        ("logits_BC", 6, (1, 3)),  # of the training set
        ("attend", 1, (1, 3)),
    ],
)
def test_a_request_is_heard_while_images_are_looked_at_and_the_cell_goes_on_to_the_same_bits(
    of, store, looking, monkeypatch, what, number, place
):
    job, expected = looking
    monkeypatch.setattr(sweep, "PAUSE_SECONDS", 0.0)
    calls, act = [], getattr(CellRun, what)

    def asked(self, *given):
        calls.append(what)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return act(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(CellRun, what, asked)
        with pytest.raises(Interrupted):
            run([job], of, store, checkpoint_seconds=3600)
    assert len(calls) == number  # at once, not at the end
    state = checkpoint.read(store.folder(job.cell), job.cell)
    assert (None if state is None else (state["epoch"], state["step"])) == place
    assert [type(event) for event in run([job], of, store)] == [Stored]
    found = everything(store.find(job.cell))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=str(name))
