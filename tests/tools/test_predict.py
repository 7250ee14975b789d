"""A trained cell asked again: rebuilt, it says of an image what it said of it when it was trained."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW, REFERENCE
from mlrpl_bench.data.images import cache, cache_writer
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.records import matching
from mlrpl_bench.records.record import read_arrays, read_record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools import predict
from mlrpl_bench.tools.predict import Prediction, Predictor, Wanted, find_record
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.trainer import Failed
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import CATEGORIES, METHOD, method, study
from tests.helpers.tiny_study import cell as made_up_cell
from tests.helpers.tiny_study import record as made_up_record

# It learns from its hidden labels (a buffer made of them) and looks where the map is bright; its weights differ by
# hyper-parameter. So a wrong mask, wrong hyper-parameters or forgotten weights would show in the scores.
LOOKING = METHOD.replace('"plain"', '"looking"').replace(
    """        return self.classifier(self.trained(frozen_BDHW).mean((2, 3)))
""",
    """        return self.offset * self.hints_C + self.classifier(self.trained(frozen_BDHW).mean((2, 3)))

    def attention(self, frozen_BDHW):
        maps_BHW = self.trained(frozen_BDHW).square().mean(1)
        return maps_BHW[:, None].expand(-1, len(self.classifier.bias), -1, -1)
""",
)
LOOKING = LOOKING.replace(
    "    def __init__",
    """    @dataclass(frozen=True)
    class Hyperparameters:
        offset: float = parameter(0.5, "how much the frequency of a label counts")

    def __init__""",
).replace(
    "from torch import nn\n",
    """from dataclasses import dataclass

from torch import nn

from mlrpl_bench.models.hyperparameters import parameter
""",
)
LOOKING = LOOKING.replace(
    "        self.classifier =",
    """        self.offset = hyperparameters.offset
        self.hints_C = task.labels_NC.float().mean(0)
        self.classifier =""",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Cells of two methods, trained in about two seconds: what was asked for, and their records."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        of = study(folder / "tiny_set.py", epochs=1)
        looking, plain = method(folder / "looking.py", LOOKING), method(folder / "plain.py")
        wanted = [
            (looking, 0.5, 0, {}),
            (looking, 0.9, 1, {}),
            (looking, 0.9, 0, {}),
            (looking, 1.0, 0, {"offset": "3"}),
            (plain, 0.5, 0, {}),
        ]
        jobs = [of.job(entry, ratio, seed, seed, changed) for entry, ratio, seed, changed in wanted]
        store = ResultStore(folder / "results")
        assert not [event for _, event in sweep.run(jobs, of, store) if isinstance(event, Failed)]
        yield SimpleNamespace(
            folder=folder, study=of, looking=looking, plain=plain, store=store, records=store.survey("tiny").records
        )


def asked(trained, entry, **wanted):
    return find_record(trained.records, entry, trained.study, Wanted(**wanted))[0]


# What it says


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_a_test_image_gets_the_scores_and_maps_that_are_in_the_record(trained, ratio):
    record = asked(trained, trained.looking, ratio=ratio)
    ask = Predictor(record, trained.looking, trained.study)
    answers = [ask(path) for path in trained.study.test.image_paths]
    stored = read_arrays(record.folder / "scores.npz")["scores"]
    assert stored.std(axis=0).min() > 3e-4  # the images differ: an answer for another one would not pass
    np.testing.assert_allclose([answer.logits_C for answer in answers], stored, atol=1e-5)
    maps = read_arrays(record.folder / "examples.npz")["attention"]
    np.testing.assert_allclose([answer.attention_CHW for answer in answers], maps, atol=1e-5)


def test_changed_hyper_parameters_come_from_the_record(trained):
    (changed,) = (record for record in trained.records if record.cell.changed)
    record = asked(trained, trained.looking, cell=changed.cell.key[:12])
    answer = Predictor(record, trained.looking, trained.study)(trained.study.test.image_paths[5])
    np.testing.assert_allclose(answer.logits_C, read_arrays(record.folder / "scores.npz")["scores"][5], atol=1e-5)


def test_a_method_without_attention_gives_scores_alone(trained):
    ask = Predictor(asked(trained, trained.plain), trained.plain, trained.study)
    assert ask(trained.study.test.image_paths[3]).attention_CHW is None


def test_any_image_is_squared_by_the_test_view_and_kept_small_for_drawing(trained, tmp_path):
    path = tmp_path / "wide.png"
    Image.new("L", (1300, 40), 90).save(path)
    answer = Predictor(asked(trained, trained.plain), trained.plain, trained.study)(path)
    assert (answer.seen.mode, answer.seen.size) == ("RGB", (32, 32))
    assert max(answer.picture.size) == predict.THUMBNAIL


@pytest.mark.parametrize("backend", [REFERENCE, PREPARED_JPEG, PREPARED_RAW])
def test_an_image_is_seen_as_one_of_the_data_set_is(trained, tmp_path, backend):
    split, view = trained.study.test, ImageTransform(20, backend=backend)
    _, seen = predict._read(split.image_paths[6], view)
    if backend == REFERENCE:
        expected = view.test(Image.open(split.image_paths[6]).convert("RGB"))
    else:
        cache_writer.prepare(split, tmp_path, backend, view.enlarged)
        expected = view.test(cache.Prepared(tmp_path, split, backend, view.enlarged)[6])
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(expected))


def made_up(*logits) -> Prediction:
    image = Image.new("RGB", (8, 8))
    return Prediction(Path("a.png"), image, image, np.array(logits, dtype=np.float32), None)


def test_the_best_are_in_order_and_logit_zero_is_predicted():
    answer = made_up(-1, 2, 0, -3)
    assert answer.best(3) == [1, 2, 0]
    assert answer.best(3, only_predicted=True) == [1, 2]
    assert answer.best(9) == [1, 2, 0, 3]
    np.testing.assert_allclose(answer.probabilities_C, [0.2689, 0.8808, 0.5, 0.0474], atol=1e-4)


def test_an_answer_as_plain_data():
    plain = json.loads(json.dumps(made_up(-1, 2, 0, -3).to_json(CATEGORIES)))
    assert plain["image"] == "a.png"
    assert [row["category"] for row in plain["scores"]] == [CATEGORIES[column] for column in (1, 2, 0, 3)]
    assert plain["scores"][1] == {"category": "blue square", "logit": 0.0, "probability": 0.5, "predicted": True}


# Which record


@pytest.mark.parametrize(
    ("wanted", "ratio", "seed", "fitting"),
    [({}, 0.9, 0, 3), ({"seed": 1}, 0.9, 1, 1), ({"ratio": 0.5}, 0.5, 0, 1), ({"ratio": 0.9}, 0.9, 0, 2)],
)
def test_of_several_records_it_is_the_highest_ratio_and_the_lowest_seed(trained, wanted, ratio, seed, fitting):
    record, count = find_record(trained.records, trained.looking, trained.study, Wanted(**wanted))
    assert (record.cell.ratio, record.cell.seed, record.cell.changed, count) == (ratio, seed, (), fitting)


def refusal(trained, entry=None, records=None, of=None, **wanted) -> str:
    with pytest.raises(UserError) as refused:
        find_record(records or trained.records, entry or trained.looking, of or trained.study, Wanted(**wanted))
    return str(refused.value)


def test_no_record_of_the_ratio_or_seed_lists_those_there_are(trained):
    line = refusal(trained, ratio=0.3, seed=7)
    assert line.startswith("no record of looking with known ratio 0.3 with seed 7 at this setting; there are: ")
    for record in trained.records:
        assert (f"{record.cell.title} ({record.cell.key[:8]})" in line) == (record.cell.method == "looking")
    assert line.rpartition("name one by its key, such as --cell ")[2] in {r.cell.key[:8] for r in trained.records}


def test_a_method_that_was_never_trained_is_told_so(trained, tmp_path):
    entry = method(tmp_path / "other.py", METHOD.replace('"plain"', '"other"'))
    assert refusal(trained, entry) == (
        "no record of other at this setting; there is none of other at all, train it with: run other "
        "--dataset tiny, and the same options"
    )


@pytest.mark.parametrize("key", ["zzz", ""])
def test_a_key_that_no_record_has(trained, key):
    assert refusal(trained, cell=key).startswith(f"--cell {key}: no record has such a key; there are: looking")


def test_a_key_that_several_records_have(trained):
    cells = [made_up_cell(seed=seed) for seed in range(40)]
    records = [made_up_record(cell) for cell in cells]
    first = cells[0].key[0]
    assert sum(cell.key[0] == first for cell in cells) > 1
    line = refusal(trained, records=records, cell=first)
    assert line.startswith(f"--cell {first} is the beginning of ")
    assert cells[0].key[:5] in line


def test_a_key_of_another_method(trained):
    key = asked(trained, trained.plain).cell.key[:10]
    assert refusal(trained, cell=key) == f"--cell {key} is of plain (plain 50 % seed 0), not of looking"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epochs": 2}, "--epochs 1"),
        ({"epochs": 1, "batch": 3}, "--batch 4"),
        ({"epochs": 1, "precision": "bf16-mixed", "evaluate_on": "val"}, "--evaluate-on test; --precision 32-true"),
    ],
)
def test_a_key_of_another_setting_says_which_options_to_give(trained, options, reason):
    key = asked(trained, trained.looking, ratio=0.5).cell.key[:10]
    other = study(trained.folder / "tiny_set.py", **options)
    line = refusal(trained, of=other, cell=key)
    if "evaluate_on" not in options:
        assert line == f"--cell {key} (looking 50 % seed 0) was trained with {reason}; give the same"
    assert set(reason.split("; ")) <= set(line.partition("trained with ")[2].split("; "))
    assert f"trained with {reason.split('; ')[0]}" in refusal(trained, of=other)


def test_a_difference_that_no_option_names_is_told_by_the_field(trained):
    there = replace(trained.study.setting, word_vectors="others")
    (line,) = matching.options_to_give(there, trained.study)
    assert line == f"another word vectors (others, here {trained.study.setting.word_vectors})"
    from_file = SimpleNamespace(setting=replace(there, weights="file:1"), flags=trained.study.flags)
    assert matching.options_to_give(replace(there, weights="random"), from_file) == ["--weights random"]


def test_a_method_file_that_was_edited_since_is_told(trained, tmp_path):
    edited = method(tmp_path / "looking.py", LOOKING.replace("self.offset * self", "2 * self.offset * self"))
    key = asked(trained, trained.looking, ratio=0.5).cell.key[:10]
    assert refusal(trained, edited, cell=key) == (
        f"--cell {key} (looking 50 % seed 0) was trained before looking.py was edited; run looking to train it anew"
    )
    assert "trained before looking.py was edited" in refusal(trained, edited)


# Weights that cannot be used


def test_weights_that_were_not_kept(trained, tmp_path):
    job = trained.study.job(trained.plain, 0.9, 3, 3, {})
    store = ResultStore(tmp_path / "results")
    list(sweep.run([job], trained.study, store, keep_weights=False))
    (record,) = store.survey("tiny").records
    with pytest.raises(UserError, match=r"plain 90 % seed 3 .* --keep-weights none: there are no weights"):
        Predictor(record, trained.plain, trained.study)


def with_weights(trained, folder: Path, change) -> None:
    """Asks a copy of a record, its weights' file changed."""
    import shutil

    from mlrpl_bench.utils.files import sha256_of_file

    record = asked(trained, trained.plain)
    shutil.copytree(record.folder, folder)
    weights = folder / predict.WEIGHTS
    honest = change(weights)
    content = json.loads((folder / "record.json").read_text())
    content["files"][predict.WEIGHTS]["bytes"] = weights.stat().st_size
    if honest:
        content["files"][predict.WEIGHTS]["sha256"] = sha256_of_file(weights)
    (folder / "record.json").write_text(json.dumps(content))
    Predictor(read_record(folder / "record.json"), trained.plain, trained.study)


def test_weights_that_are_damaged(trained, tmp_path):
    def flip_a_bit(path: Path) -> bool:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return False

    with pytest.raises(UserError, match=r"weights.safetensors is damaged: it is not what its record says"):
        with_weights(trained, tmp_path / "copy", flip_a_bit)


@pytest.mark.parametrize("what", ["missing", "more", "shape"])
def test_weights_that_do_not_fit(trained, tmp_path, what):
    from safetensors.torch import load_file, save_file

    def change(path: Path) -> bool:
        state = load_file(path)
        if what == "missing":
            del state["classifier.bias"]
        else:
            state |= {"classifier.bias" if what == "shape" else "more": torch.zeros(7)}
        save_file(state, path)
        return True

    with pytest.raises(UserError, match=r"do not fit the method any more, code that it shares has changed \(.+\)"):
        with_weights(trained, tmp_path / "copy", change)


def test_a_mask_that_is_another_one_now(trained):
    record = asked(trained, trained.plain)
    other = replace(record, cell=replace(record.cell, mask_seed=5))
    with pytest.raises(UserError, match=r"plain 50 % seed 0 \(.+\) was trained under another mask; .* --mask-file"):
        Predictor(other, trained.plain, trained.study)


KEEPING = METHOD.replace('"plain"', '"keeping"').replace(
    "    def forward(self, frozen_BDHW):\n        return ",
    """        self.seen = {"steps": 0}

    def after_step(self):
        self.seen["steps"] += 1

    def get_extra_state(self):
        return self.seen

    def set_extra_state(self, state):
        self.seen = state

    def forward(self, frozen_BDHW):
        return self.seen["steps"] + """,
)
"""It keeps plain data beside its tensors, and its scores depend on it."""


def test_plain_data_that_a_method_keeps_is_restored_with_its_weights(trained, tmp_path):
    keeping, store = method(tmp_path / "keeping.py", KEEPING), ResultStore(tmp_path / "results")
    job = trained.study.job(keeping, 0.5, 0, 0, {})
    assert not [event for _, event in sweep.run([job], trained.study, store) if isinstance(event, Failed)]
    record = store.find(job.cell)
    ask = Predictor(record, keeping, trained.study)
    assert ask.run.method.seen == {"steps": 3}
    answers = [ask(path).logits_C for path in trained.study.test.image_paths]
    np.testing.assert_allclose(answers, read_arrays(record.folder / "scores.npz")["scores"], atol=1e-5)


@pytest.mark.parametrize("content", [None, b"", b"no image", "half"])
def test_an_image_that_cannot_be_read(trained, tmp_path, content):
    path = tmp_path / "image.png"
    if content == "half":
        whole = trained.study.test.image_paths[5].read_bytes()
        content = whole[: len(whole) // 2]
    if content is not None:
        path.write_bytes(content)
    ask = Predictor(asked(trained, trained.plain), trained.plain, trained.study)
    with pytest.raises(UserError, match=r"image .*image.png (cannot be decoded|does not exist)"):
        ask(path)
