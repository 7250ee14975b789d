"""Every number of a record that can be computed again is, and one that was edited is named."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mlrpl_bench.data import masks
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.records.record import SHARES, Record, digest, read_record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools import recompute
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.files import sha256_of_file
from tests.helpers.tiny_study import DATASET, contents, method, write_plugin

WITH_OPTION = DATASET.replace(
    "    needs_root = False\n",
    """    needs_root = False

    @dataclass(frozen=True)
    class Options:
        side: int = parameter(32, "the side of a picture")
""",
).replace(
    "import numpy as np\n",
    """from dataclasses import dataclass

import numpy as np

from mlrpl_bench.models.hyperparameters import parameter
""",
)
"""As the tiny data set, with an option."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Records that training left, one of each kind of setting that decides labels and masks."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        datasets = load_datasets([write_plugin(folder / "tiny_set.py", WITH_OPTION)])
        plain, store = method(folder / "plain.py"), ResultStore(folder / "results")

        def train(seed: int = 0, mask_seed: int = 0, **options) -> Record:
            of = Study(datasets["tiny"], Options(device="cpu", **options))
            job = of.job(plain, 0.5, seed, mask_seed, {})
            for _ in sweep.run([job], of, store):
                pass
            return store.find(job.cell)

        mask_file, drawn = folder / "mask.npz", Study(datasets["tiny"], Options(device="cpu"))
        masks.write(mask_file, drawn.masks(0.5, 3), drawn.train, 0.5, 3)
        records = {
            "usual": train(),
            "one epoch": train(epochs=1),
            "validation": train(evaluate_on="val", epochs=1),
            "by id": train(mask_scheme="by_id", epochs=1),
            "skipping": train(on_bad_image="skip", epochs=1),
            "data option": train(data={"side": "31"}, epochs=1),
            "mask file": train(mask_file=mask_file, epochs=1),
        }
        yield SimpleNamespace(
            folder=folder, datasets=datasets.entries, records=records, mask_file=mask_file, train=train
        )


@pytest.fixture
def labels(trained):
    return recompute.Labels(trained.datasets, Options(mask_file=trained.mask_file))


def test_what_training_left_agrees_in_every_setting(trained, labels):
    before = contents(trained.folder / "results")
    found = recompute.check(list(trained.records.values()), labels)
    assert list(found.lines()) == []
    assert found.cells == len(trained.records) and found.holds()
    assert contents(trained.folder / "results") == before


def test_a_best_epoch_that_is_not_the_last_agrees_too(trained, labels):
    records = [trained.train(seed, epochs=4) for seed in range(1, 6)]
    early = [record for record in records if record.content["best_epoch"] < 3]
    assert early, "choose other seeds"
    assert list(recompute.check(records, labels).lines()) == []
    content = {**early[0].content, "best_metrics": {**early[0].content["best_metrics"], "CR": 0.123}}
    (line,) = recompute.check([replace(early[0], content=content)], labels).lines()
    assert "CF1 of the best epoch is " in line and "from its other metrics it is " in line


def edited(record: Record, *path, value=None) -> Record:
    """The record with another number at a place of its record.json, as it would be read."""
    content = json.loads((record.folder / "record.json").read_text())
    place = content
    for name in path[:-1]:
        place = place[name]
    assert place[path[-1]] != value
    place[path[-1]] = value
    stated = {**record.metrics, **({path[1]: value} if path[0] == "metrics" and len(path) == 2 else {})}
    if path[:2] == ("metrics", "AP_C"):
        stated["AP_C"] = np.array([float("nan") if x is None else x for x in content["metrics"]["AP_C"]])
    return replace(record, metrics=stated, content={**content, "sha256": digest(content)})


EDITS = {
    **{f"metrics {name}": (("metrics", name), 0.123, name) for name in SHARES},
    **{f"best {name}": (("best_metrics", name), 0.123, f"{name} of the best epoch") for name in SHARES},
    "AP of a category": (("metrics", "AP_C", 1), 0.123, "AP_C[1]"),
    "AP that is none": (("metrics", "AP_C", 3), 0.123, "AP_C[3]"),
    "best AP": (("best_metrics", "AP_C", 1), 0.123, "AP_C[1] of the best epoch"),
    "categories": (("metrics", "categories_without_positives"), 3, "categories_without_positives"),
    "known share": (("known_share", "present"), 0.123, "the known share of present labels"),
    "known share, none": (("known_share", "absent"), None, "the known share of absent labels"),
    "best_epoch": (("best_epoch",), 7, "best_epoch"),
    "dropped images": (("dropped_images",), 5, "dropped_images"),
    "speed": (("cost", "images_per_second"), 1.5, "images_per_second"),
    "a word": (("metrics", "OP"), "much", "OP"),
}
"""Where a record is edited, what is written there, and how the number is named."""


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_number_is_named_with_what_it_should_be(trained, labels, name):
    path, value, what = EDITS[name]
    record = trained.records["one epoch" if name.startswith("best ") else "usual"]  # of one epoch the last is the best
    found = recompute.check([edited(record, *path, value=value)], labels)
    (disagreements,) = found.disagreeing.values()
    assert what in [each.what for each in disagreements], list(found.lines())
    assert not found.holds()
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "what"),
    [("metrics mAP", "mAP"), ("metrics OP", "OF1"), ("metrics CR_top3", "CF1_top3"), ("best_epoch", "best_epoch")],
)
def test_without_labels_the_files_alone_are_looked_at(trained, name, what):
    path, value, _ = EDITS[name]
    found = recompute.check([edited(trained.records["usual"], *path, value=value)], recompute.Labels({}, Options()))
    line, reason = found.lines()
    assert f" {what} is " in line
    assert "1 of the cells, the first is " in reason and "tiny is not registered; name its file" in reason
    assert found.cells == 0


def copied(record: Record, folder) -> Record:
    """The record in a folder of its own."""
    return read_record(shutil.copytree(record.folder, folder / record.folder.name) / "record.json")


def rewrite(record: Record, name: str, arrays: dict[str, np.ndarray]) -> Record:
    """Other arrays in a record's file; size, hash and digest mended."""
    path = record.folder / name
    np.savez(path, **arrays)
    content = json.loads((record.folder / "record.json").read_text())
    content["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    (record.folder / "record.json").write_text(json.dumps({**content, "sha256": digest(content)}))
    return read_record(record.folder / "record.json")


def test_scores_that_were_changed_disagree_with_the_metrics(trained, labels, tmp_path):
    record = copied(trained.records["usual"], tmp_path)
    scores_NC = np.load(record.folder / "scores.npz")["scores"]
    (line,) = recompute.check([rewrite(record, "scores.npz", {"scores": -scores_NC})], labels).lines()
    assert "mAP is " in line and "from scores.npz it is " in line


def test_losses_that_were_changed_disagree_with_the_history(trained, labels, tmp_path):
    record = copied(trained.records["usual"], tmp_path)
    losses_S = np.load(record.folder / "steps.npz")["bce"]
    losses_S[4] += 1
    (line,) = recompute.check([rewrite(record, "steps.npz", {"bce": losses_S})], labels).lines()
    assert "loss.bce of epoch 1 in history.csv is " in line and "epoch 0" not in line


@pytest.mark.parametrize(
    ("name", "arrays", "what"),
    [
        ("scores.npz", {"scores": np.zeros((3, 4), np.float32)}, "the shape of scores.npz is (3, 4)"),
        ("train_scores.npz", {"scores": np.zeros((3, 4), np.float32)}, "the shape of train_scores.npz is (3, 4)"),
        ("scores.npz", {"other": np.zeros(3)}, "holds no scores"),
        ("scores.npz", {"scores": np.full((8, 4), np.nan, np.float32)}, "holds no scores"),
        ("steps.npz", {"bce": np.zeros(5, np.float32)}, "the number of steps in bce is 5"),
        ("steps.npz", {"bce": np.zeros((2, 3), np.float32)}, "holds no losses of steps"),
        ("steps.npz", {"bce": np.array(["a"] * 6)}, "holds no losses of steps"),
        ("steps.npz", {}, "holds no losses of steps"),
        ("examples.npz", {"rows": np.arange(8), "scores": np.zeros((8, 4))}, "examples.npz is something else"),
        ("examples.npz", {"rows": np.arange(8) + 8, "scores": np.zeros((8, 4))}, "examples.npz is something else"),
        ("examples.npz", {"rows": np.arange(8)}, "examples.npz is something else"),
    ],
)
def test_arrays_that_are_of_no_such_record_are_named_in_one_line(trained, labels, tmp_path, name, arrays, what):
    record = rewrite(copied(trained.records["usual"], tmp_path), name, arrays)
    found = recompute.check([record], labels)
    lines = list(found.lines())
    assert any(what in line for line in lines), lines
    assert not found.holds() and not any("\n" in line for line in lines)


@pytest.mark.parametrize(
    "text", ["", "epoch\n", "epoch,seconds\n0,1\n", "\x00", "epoch,test.mAP\nx,y\n", "a,b\n1,2,3\n", "a,b\n1\n"]
)
def test_a_history_that_is_none_is_named(trained, labels, tmp_path, text):
    record = copied(trained.records["usual"], tmp_path)
    (record.folder / "history.csv").write_text(text)
    (line,) = recompute.check([record], labels).lines()
    assert line.startswith("damaged: ") and "history.csv" in line


def test_a_data_set_with_other_labels_here_is_said_and_not_compared(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path))
    other = load_datasets([write_plugin(tmp_path / "tiny_set.py", DATASET.replace("number >> bit", "~number >> bit"))])
    found = recompute.check([trained.records["usual"]], recompute.Labels(other.entries, Options()))
    (line,) = found.lines()
    assert line.endswith("tiny has other images or labels here than when they were trained")
    assert found.holds() and found.cells == 0


def test_a_mask_file_that_is_not_named_is_asked_for_and_the_rest_is_computed(trained):
    record = trained.records["mask file"]
    found = recompute.check([record], recompute.Labels(trained.datasets, Options()))
    (line,) = found.lines()
    assert line.startswith("not held against their mask: 1 of the cells, the first is ")
    assert line.endswith(": name their mask with --mask-file") and found.cells == 1
    wrong = edited(record, "metrics", "OP", value=0.123)
    assert not recompute.check([wrong], recompute.Labels(trained.datasets, Options())).holds()


def test_a_data_set_is_built_once_for_all_its_records(trained, monkeypatch):
    built = []
    monkeypatch.setattr(recompute, "Study", lambda *given: built.append(given) or Study(*given))
    labels = recompute.Labels(trained.datasets, Options())
    recompute.check([trained.records["usual"], trained.records["one epoch"], trained.records["usual"]], labels)
    assert len(built) == 1


@pytest.mark.parametrize(
    ("fingerprint", "options"),
    [
        ("0f-1e", {}),
        ("0f-1e-side=48", {"side": "48"}),
        ("0f-1e-root=/a-b/c-side=4", {"root": "/a-b/c", "side": "4"}),
        ("made up", {}),
    ],
)
def test_a_fingerprint_names_the_data_sets_options(fingerprint, options):
    assert recompute._data_options(fingerprint) == options


def test_what_every_history_has_are_metrics():
    assert set(recompute.IN_HISTORY) <= metrics.evaluate([[1.0], [-1.0]], [[1], [-1]]).keys()
