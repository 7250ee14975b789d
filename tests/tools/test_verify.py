"""A changed bit is found, a cell trained again is the same, and what is not the same is told with its size."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mlrpl_bench.records.cell import Finished
from mlrpl_bench.records.provenance import provenance
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools import verify as verifying
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Failed
from tests.helpers.spoilt_records import flip_a_bit, rewrite
from tests.helpers.tiny_study import METHOD, cell, contents, finished, make_of_another_version, method, refusal, study


class World(NamedTuple):
    study: Study
    methods: dict
    store: ResultStore

    def train(self, ratio=0.5, **changed) -> Record:
        job = self.study.job(self.methods["plain"], ratio, 0, 0, changed)
        for _ in sweep.run([job], self.study, self.store):
            pass
        return self.store.find(job.cell)

    def verify(self, record: Record) -> verifying.Recheck:
        return verifying.verify(record, verifying.rebuild(record, self.methods, self.study), self.study)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    return World(
        study(tmp_path / "set.py"), {"plain": method(tmp_path / "plain.py")}, ResultStore(tmp_path / "results")
    )


class TestFiles:
    @pytest.fixture
    def records(self, world):
        jobs = [world.study.job(world.methods["plain"], ratio, 0, 0, {}) for ratio in (0.5, 0.9)]
        return [world.store.write(finished(job.cell), {}) for job in jobs]

    def test_whole_records_are_counted_with_their_bytes_and_left(self, world, records):
        before, told = contents(world.store.root), []
        found = verifying.check_files(world.store, ["tiny"], lambda *progress: told.append(progress))
        named = [facts["bytes"] for record in records for facts in record.content["files"].values()]
        assert (found.cells, found.bytes_read, found.damages, found.excluded_folders) == (2, sum(named), [], {})
        assert told == [("checking files", 1, 2), ("checking files", 2, 2)]
        assert contents(world.store.root) == before

    @pytest.mark.parametrize("name", ["scores.npz", "train_scores.npz", "weights.safetensors", "history.csv"])
    def test_a_changed_bit_in_a_file_of_the_same_size_is_found_and_the_folder_moved(self, world, records, name):
        flip_a_bit(records[0].folder / name)
        before = contents(records[0].folder)
        found = verifying.check_files(world.store, ["tiny"])
        (damage,) = found.damages
        assert damage.folder == records[0].folder and found.cells == 2
        assert damage.reason == f"{records[0].folder / name} is not what its record says (SHA-256 differs)"
        assert contents(damage.moved_to) == before and not records[0].folder.exists()
        assert records[1].folder.exists()
        assert verifying.check_files(world.store, ["tiny"]).damages == []

    @pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"{"), lambda path: path.write_bytes(b"")])
    def test_a_record_that_cannot_be_understood_is_moved_too(self, world, records, spoil):
        spoil(records[0].folder / "record.json")
        (damage,) = verifying.check_files(world.store, ["tiny"]).damages
        assert damage.moved_to.is_dir() and "cut short or no JSON" in damage.reason

    def test_what_may_not_be_read_is_named_and_not_moved(self, world, records, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(verifying, "sha256_of_file", refuse)
        found = verifying.check_files(world.store, ["tiny"])
        assert [damage.moved_to for damage in found.damages] == [None, None]
        assert "cannot be read (Permission denied)" in found.damages[0].reason

    def test_another_folders_records_are_named_and_not_moved(self, world, records, tmp_path):
        flip_a_bit(records[0].folder / "scores.npz")
        before = contents(world.store.root)
        here = ResultStore(tmp_path / "mine", [world.store.root])
        (damage,) = verifying.check_files(here, ["tiny"]).damages
        assert damage.folder == records[0].folder and damage.moved_to is None
        assert "not moved" in damage.to_text()
        assert contents(world.store.root) == before

    def test_records_of_another_protocol_version_are_named_and_neither_read_nor_moved(self, world, records):
        other = make_of_another_version(records[0].folder)
        flip_a_bit(other / "scores.npz")
        before = contents(world.store.root)
        found = verifying.check_files(world.store, ["tiny"])
        assert (found.cells, found.damages) == (1, [])
        ((reason, folders),) = found.excluded_folders.items()
        assert reason.startswith("of protocol version") and folders == [other]
        assert contents(world.store.root) == before


class TestACellTrainedAgain:
    def test_is_the_same_to_the_bit_and_nothing_is_written(self, world):
        record = world.train()
        before = contents(world.store.root)
        verdict = world.verify(record)
        assert verdict.to_text() == "bit-identical" and verdict.holds()
        assert contents(world.store.root) == before

    def test_is_evaluated_after_the_same_epochs(self, world, monkeypatch):
        job = world.study.job(world.methods["plain"], 0.5, 0, 0, {})
        for _ in sweep.run([job], world.study, world.store, evaluate_every=2):
            pass
        record = world.store.find(job.cell)
        first, second = (line.split(",") for line in (record.folder / "history.csv").read_text().splitlines()[1:])
        assert "" in first and "" not in second and record.content["best_epoch"] == 1
        trained, asked = verifying.train, []
        monkeypatch.setattr(verifying, "train", lambda *of, **how: asked.append(how) or trained(*of, **how))
        assert world.verify(record).to_text() == "bit-identical"
        assert asked == [{"evaluated": {1}}]

    def test_is_the_same_with_hyper_parameters_of_its_own(self, world, tmp_path):
        entry = world.methods["plain"]
        changed = METHOD.replace(
            "@register", "@dataclass(frozen=True)\nclass Options:\n    width: int = 3\n\n\n@register"
        )
        changed = changed.replace("from torch import nn", "from dataclasses import dataclass\n\nfrom torch import nn")
        changed = changed.replace("(Method):\n", "(Method):\n    Hyperparameters = Options\n\n")
        world.methods["plain"] = method(tmp_path / "wide.py", changed)
        record = world.train(width="5")
        assert record.cell.hyperparameters == {"width": 5} and world.verify(record).to_text() == "bit-identical"
        world.methods["plain"] = entry
        assert "edited" in refusal(lambda: verifying.rebuild(record, world.methods, world.study))

    @pytest.mark.parametrize("name", ["scores", "train_scores"])
    def test_a_record_with_other_scores_is_told_with_the_largest_difference(self, world, name):
        record = world.train()
        with np.load(record.folder / f"{name}.npz") as file:
            scores_NC = file["scores"].copy()
        scores_NC[3, 1] += 0.25
        verdict = world.verify(rewrite(record, f"{name}.npz", {"scores": scores_NC}))
        assert verdict.differing == [{"scores": "test scores", "train_scores": "training scores"}[name]]
        assert verdict.largest == pytest.approx(0.25, rel=1e-5) and verdict.points == 0
        assert not verdict.holds()

    def test_a_record_with_other_losses_or_metrics_is_told(self, world):
        record = world.train()
        with np.load(record.folder / "steps.npz") as file:
            steps = {term: values + 1 for term, values in file.items()}
        record = rewrite(record, "steps.npz", steps)
        content = {**record.content, "metrics": {**record.content["metrics"], "mAP": record.metrics["mAP"] - 0.01}}
        record = dataclasses.replace(
            record, content=content, metrics={**record.metrics, "mAP": record.metrics["mAP"] - 0.01}
        )
        verdict = world.verify(record)
        assert verdict.differing == ["losses of the steps", "metrics"]
        assert verdict.points == pytest.approx(1.0)
        assert not verdict.holds() and not verdict.holds(0.5) and verdict.holds(1.5)

    def test_a_damaged_record_is_no_comparison(self, world):
        record = world.train()
        flip_a_bit(record.folder / "steps.npz")
        verdict = world.verify(record)
        assert verdict.to_text().startswith("damaged: ") and not verdict.holds(100)
        assert record.folder.exists()

    def test_one_that_fails_now_says_why(self, world, monkeypatch):
        record = world.train()
        failed = Failed(record.cell, "RuntimeError: burnt", "")
        monkeypatch.setattr(verifying, "train", lambda *_, **__: iter([failed]))
        verdict = world.verify(record)
        assert verdict.to_text() == "fails now: RuntimeError: burnt" and not verdict.holds(100)

    def test_what_is_different_here_is_told_where_it_is_not_the_same(self, world):
        record = world.train()
        here = provenance(torch.device("cpu"))
        here = {**here, "threads": 64, "versions": {**here["versions"], "numpy": "0.1"}}
        again = finished(record.cell, seed=1)
        verdict = verifying.compare(record, again, here)
        facts = " ".join(verdict.elsewhere)
        assert "threads 1, here 64" in facts and ", here 0.1" in facts and "torch" not in facts

    def test_that_it_went_on_with_another_number_of_threads_is_told_as_what_cannot_be_repeated(self, world):
        job = world.study.job(world.methods["plain"], 0.5, 0, 0, {})
        record = world.store.write(finished(job.cell, threads=(2, 1)), provenance(torch.device("cpu")))
        assert record.content["thread_counts"] == [2, 1]
        verdict = verifying.compare(record, finished(job.cell, seed=1), {})
        assert "it was trained with 2 and then 1 threads, which cannot be repeated exactly" in verdict.to_text()
        assert "cannot be repeated" in verdict.to_json(0.0)["unrepeatable"] and not verdict.holds()
        assert verifying.compare(record, finished(job.cell), {}).to_text() == "bit-identical"

    @pytest.mark.parametrize("counts", [[1], None, 7, []])
    def test_one_number_of_threads_or_none_that_is_known_can_be_repeated(self, world, counts):
        job = world.study.job(world.methods["plain"], 0.5, 0, 0, {})
        record = world.store.write(finished(job.cell), provenance(torch.device("cpu")))
        record = dataclasses.replace(record, content={**record.content, "thread_counts": counts})
        assert verifying.compare(record, finished(job.cell, seed=1), {}).unrepeatable == ""

    def test_another_number_of_images_is_no_crash(self, world):
        record = world.train()
        again = finished(record.cell, scores_NC=np.zeros((3, 4), dtype=np.float32))
        assert verifying.compare(record, again, {}).largest == float("inf")


class TestACellThatCannotBeTrainedHere:
    @pytest.fixture
    def record(self, world):
        return world.store.write(finished(world.study.job(world.methods["plain"], 0.5, 0, 0, {}).cell), {})

    def test_its_method_is_not_registered(self, world, record):
        line = refusal(lambda: verifying.rebuild(record, {}, world.study))
        assert (
            line == f"plain 50 % seed 0 ({record.cell.key[:8]}) is of a method that is not registered; name its file "
            "with --plugin"
        )

    def test_its_methods_file_was_edited(self, world, record, tmp_path):
        entry = method(tmp_path / "plain.py", METHOD.replace("mean((2, 3))", "amax((2, 3))"))
        line = refusal(lambda: verifying.rebuild(record, {"plain": entry}, world.study))
        assert "trained before plain.py was edited" in line

    def test_its_setting_is_another(self, world, record, tmp_path):
        line = refusal(lambda: verifying.rebuild(record, world.methods, study(tmp_path / "set.py", epochs=5)))
        assert "was trained with --epochs 2; give the same" in line

    def test_its_mask_was_another(self, world, record):
        record = dataclasses.replace(record, cell=dataclasses.replace(record.cell, mask_hash="other"))
        assert "under another mask" in refusal(lambda: verifying.rebuild(record, world.methods, world.study))


class TestWhichCells:
    @pytest.fixture
    def records(self, world):
        entry = world.methods["plain"]
        cells = [world.study.job(entry, ratio, seed, seed, {}).cell for ratio in (0.2, 0.5, 0.9) for seed in range(7)]
        return [world.store.write(finished(cell), {}, keep_weights=False) for cell in cells]

    @pytest.mark.parametrize("percent", [0.1, 10, 50, 100])
    def test_a_share_is_at_least_one_and_follows_from_its_seed(self, records, percent):
        keys = lambda found: [record.cell.key for record in found]  # noqa: E731
        drawn = verifying.share(records, percent, 0)
        assert len(drawn) == {0.1: 1, 10: 3, 50: 11, 100: 21}[percent]
        assert keys(drawn) == keys(verifying.share(records[::-1], percent, 0))
        if percent < 100:
            assert keys(drawn) != keys(verifying.share(records, percent, 1))

    def test_a_record_is_found_by_the_beginning_of_its_key_and_by_its_folder(self, world, records):
        wanted = records[4]
        for text in (wanted.cell.key, wanted.cell.key[:12], str(wanted.folder)):
            assert verifying.find(world.store, ["tiny"], text).cell.key == wanted.cell.key

    @pytest.mark.parametrize("text", ["nothing", "", "results/tiny"])
    def test_what_names_no_record_is_refused(self, world, records, text):
        assert f"no record has a key that begins with {text!r}" in refusal(
            lambda: verifying.find(world.store, ["tiny"], text)
        )

    def test_what_names_several_is_refused(self, world, records):
        firsts = [record.cell.key[0] for record in records]
        shared = next(first for first in firsts if firsts.count(first) > 1)
        assert f"is the beginning of {firsts.count(shared)} keys" in refusal(
            lambda: verifying.find(world.store, ["tiny"], shared)
        )

    def test_that_records_are_damaged_is_said_where_none_is_found(self, world, records):
        (records[0].folder / "scores.npz").unlink()
        line = refusal(lambda: verifying.find(world.store, ["tiny"], records[0].cell.key))
        assert "; 1 cannot be used: " in line and "scores.npz is missing" in line

    def test_only_those_of_the_setting_are_chosen_from(self, world, records, tmp_path):
        assert len(verifying.records_of_setting(world.store, world.study, world.methods)) == 21
        other = study(tmp_path / "set.py", epochs=5)
        assert "epochs 2 instead of 5" in refusal(
            lambda: verifying.records_of_setting(world.store, other, world.methods)
        )

    def test_that_all_are_of_another_protocol_version_is_said(self, world):
        make_of_another_version(world.store.write(finished(cell()), {}).folder)
        line = refusal(lambda: verifying.records_of_setting(world.store, world.study, world.methods))
        assert "to verify: of protocol version" in line


def test_the_events_of_training_are_told(world):
    record, told = world.train(), []
    job = verifying.rebuild(record, world.methods, world.study)
    verifying.verify(record, job, world.study, lambda *event: told.append(event))
    assert {event[:2] for event in told} == {("plain 50 % seed 0", 2)}
    assert isinstance(told[-1][2], Finished)
