"""The length of a training beside the papers', and whether it led anywhere."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.method import Recipe
from mlrpl_bench.training import steps
from mlrpl_bench.training.trainer import Note, train
from tests.helpers.tiny_study import method, study


def random_labels(images: int, shares: tuple[float, ...], seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((images, len(shares))) < np.array(shares)
    return np.where(drawn, PRESENT, ABSENT).astype(np.int8)


def test_the_papers_steps_are_those_of_coco():
    assert steps.PAPERS_STEPS == 102_600 == steps.Length.from_recipe(Recipe(epochs=20, batch=16), 82_081).steps


def test_a_short_last_batch_is_no_step():
    length = steps.Length.from_recipe(Recipe(lr=1e-3, epochs=3, batch=32), 100)
    assert length == steps.Length(1e-3, 3, 3)
    assert length.to_json() == {"learning_rate": 1e-3, "steps_per_epoch": 3, "steps": 9}


def test_a_training_is_short_below_a_twentieth_of_the_papers():
    twentieth = steps.PAPERS_STEPS // 20
    assert (
        steps.Length(steps.PAPERS_RATE, twentieth - 1, 1).shortness() and steps.Length(1e-6, twentieth, 9).shortness()
    )
    assert not steps.Length(steps.PAPERS_RATE, twentieth + 1, 1).shortness()
    assert not steps.Length(1e-4, twentieth // 9, 1).shortness(), "a higher rate makes up for fewer steps"


@pytest.mark.parametrize("images", [12, 200])
def test_chance_is_the_mean_precision_of_random_scores(images):
    labels_NC = random_labels(images, (0.1, 0.3, 0.5))
    labels_NC[:3, 1] = UNKNOWN
    random = np.random.default_rng(1)
    found = []
    for _ in range(600):
        scores_NC = random.random(labels_NC.shape)
        known_C = [labels_C != UNKNOWN for labels_C in labels_NC.T]
        found.append(np.mean([
            average_precision_score(labels_NC[known, c] == PRESENT, scores_NC[known, c])
            for c, known in enumerate(known_C) if (labels_NC[known, c] == PRESENT).any()
        ]))  # fmt: skip
    assert steps.chance(labels_NC) == pytest.approx(np.mean(found), abs=4 * np.std(found) / 600**0.5)


def test_labels_without_a_present_one_have_no_chance_level():
    nothing = np.full((4, 2), ABSENT, dtype=np.int8)
    assert np.isnan(steps.chance(nothing)) and not steps.is_at_chance(0.1, nothing)


FLAT, FALLING = np.full(10, 0.7), np.linspace(0.7, 0.1, 10)


@pytest.mark.parametrize(
    ("terms", "epochs", "precision", "nowhere"),
    [
        ({"bce": FLAT}, 5, 0.21, True),
        ({"bce": FLAT}, 1, 0.21, True),
        ({"bce": FALLING}, 5, 0.21, False),
        ({"bce": FALLING}, 1, 0.21, False),
        ({"bce": FLAT}, 5, 0.6, False),
        ({"bce": FLAT, "late": np.r_[np.full(5, np.nan), np.full(5, 0.3)]}, 5, 0.21, True),
        ({}, 5, 0.21, False),
    ],
)
def test_both_a_flat_loss_and_chance_level_are_nowhere(terms, epochs, precision, nowhere):
    assert steps.went_nowhere(terms, epochs, precision, random_labels(1000, (0.2, 0.2))) == nowhere


def test_the_note_names_rate_steps_and_what_to_try():
    metrics = {"average_precision": 0.21, "mAP": 0.22}
    nearly_flat = {"bce": np.linspace(0.7, 0.699999, 10)}
    labels_NC = random_labels(1000, (0.2, 0.2))
    note = steps.note_of_cell(steps.Length(1e-5, 2, 5), nearly_flat, metrics, labels_NC)
    compared = f"(without interpolation 21.0, of random scores {100 * steps.chance(labels_NC):.1f})"
    for part in (
        "from 0.7 to 0.7",
        "mAP 22.0",
        compared,
        "learning rate 1e-05",
        "10 in all",
        "102,600",
        "--epochs",
        "data show",
    ):
        assert part in note
    assert steps.note_of_cell(steps.Length(1e-5, 2, 5), {"bce": FALLING}, metrics, random_labels(99, (0.2,))) is None


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_loss_that_stands_still_is_named_whatever_the_precision(value):
    metrics = {"mAP": 0.9, "average_precision": 0.9}
    length, labels_NC = steps.Length(1e-5, 2, 5), random_labels(99, (0.2,))
    note = steps.note_of_cell(length, {"bce": np.full(10, value)}, metrics, labels_NC)
    assert note is not None and f"the loss was {value:.4g} at every step" in note
    assert steps.note_of_cell(length, {"bce": FALLING}, metrics, labels_NC) is None


@pytest.mark.parametrize("learns", [False, True])
def test_a_cell_that_goes_nowhere_ends_with_a_note(learns, tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    of = study(tmp_path / "set.py")
    job = of.job(method(tmp_path / "plain.py"), 0.9, 0, 0, {})
    monkeypatch.setattr(steps, "is_at_chance", lambda *_: True)
    monkeypatch.setattr(steps, "hardly_fell", lambda *_: not learns)
    events = list(train([job], of.workbench))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert [note.startswith("went nowhere: ") for note in notes] == [True] * (not learns)
