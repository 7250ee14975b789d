"""Ensembles from stored scores, beside single rows."""

import json
import shutil
from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard.evidence import read_scores
from mlrpl_bench.leaderboard.tables.analyses import ensembles
from tests.helpers.simulated_cells import without
from tests.helpers.stored_scores import stored
from tests.helpers.tiny_study import refusal

RATIOS = (0.1, 0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Row b has much more skill than a, and c has the same."""
    return stored(tmp_path_factory.mktemp("records"), {"a": 0.5, "b": 2.0, "c": 0.5}, own_noise=1.0)


@pytest.fixture(scope="module")
def found(made):
    return ensembles.analyse(made.cells, ["a", "b", "c"], RATIOS, made.test)


def slow_mAP(made, members):
    """mAP in percent of the mean of the members' probabilities."""
    scores = [
        read_scores(made.cells[label, ratio][seed, seed].record, "scores.npz", made.test)
        for label, ratio, seed in members
    ]
    mean_NC = np.mean([expit(each.astype(np.float64)) for each in scores], axis=0)
    return 100 * metrics.evaluate(mean_NC, made.test.labels_NC, surely_logits=True)["mAP"]


def of_row(found, name, known_ratio):
    frame = found.frame
    ((_, row),) = frame[(frame.kind == "row") & (frame.name == name) & (frame.known_ratio == known_ratio)].iterrows()
    return row


@pytest.mark.parametrize("ratio", RATIOS)
def test_two_seeds_are_the_mean_over_all_pairs_of_seeds(made, found, ratio):
    slowly = np.mean([slow_mAP(made, [("a", ratio, s), ("a", ratio, t)]) for s, t in combinations(range(3), 2)])
    assert of_row(found, "a x 2", f"{ratio:g}").mAP == pytest.approx(slowly)


def test_all_seeds_are_one_ensemble(made, found):
    row = of_row(found, "b x 3", "0.1")
    assert row.mAP == pytest.approx(slow_mAP(made, [("b", 0.1, seed) for seed in range(3)])) and row.seeds == 1


def test_two_rows_are_averaged_with_different_seeds(made, found):
    slowly = [slow_mAP(made, [("a", 0.5, s), ("b", 0.5, t)]) for s in range(3) for t in range(3) if s != t]
    assert of_row(found, "a + b", "0.5").mAP == pytest.approx(np.mean(slowly))


def test_the_average_is_over_the_known_ratios(found):
    by_ratio = [of_row(found, "a x 2", ratio).mAP for ratio in ("0.1", "0.5")]
    assert of_row(found, "a x 2", "avg of 2").mAP == pytest.approx(np.mean(by_ratio))


def test_a_difference_is_that_of_the_rows_and_its_verdict_follows_the_corrected_p(found):
    frame = found.frame[(found.frame.kind == "difference") & (found.frame.known_ratio == "avg of 2")]
    asked = list(zip(frame.name, frame.less, strict=True))
    assert asked[:5] == [("a x 2", "a"), ("b", "a"), ("b", "a x 2"), ("a + b", "a x 2"), ("b x 2", "a x 2")]
    for _, row in frame.iterrows():
        means = [of_row(found, name, "avg of 2").mAP for name in (row["name"], row.less)]
        assert row.difference == pytest.approx(means[0] - means[1])
        assert row.low < row.difference < row.high and row.p_value <= row.p_adjusted and row.seeds == 3
    verdicts = dict(zip(asked, [entries[-1].text for _, entries in found.tables[1].rows], strict=True))
    assert verdicts["b", "a x 2"] == verdicts["b", "a"] == "b is better"
    assert verdicts["c", "a"] == "cannot be told apart"


def test_two_seeds_say_that_nothing_is_known_of_other_pairs(made):
    cells = {
        key: {seeds: one for seeds, one in by_seeds.items() if seeds[0] < 2} for key, by_seeds in made.cells.items()
    }
    found = ensembles.analyse(cells, ["a", "b"], [0.1], made.test)
    text = found.markdown()
    assert "two seeds have one pair" in text and "(these trained models)" in text
    of_pair = found.frame[(found.frame.name == "a x 2") & (found.frame.kind == "row")]
    assert of_pair.seeds.tolist() == [1] and of_pair.known_ratio.tolist() == ["0.1"]


def test_masks_of_their_own_are_a_caution_that_one_mask_does_without(made, tmp_path):
    assert "seen more labels than one" in ensembles.analyse(made.cells, ["a", "b"], RATIOS, made.test).markdown()
    one_mask = stored(tmp_path, {"a": 0.5}, seeds=[(0, 0), (1, 0), (2, 0)], ratios=[0.1])
    text = ensembles.analyse(one_mask.cells, ["a"], [0.1], one_mask.test).markdown()
    assert "seen more labels" not in text and "one mask" in text


def test_seeds_that_not_all_rows_have_are_named(made):
    cells = without(made.cells, "b", 0.1, (2, 2))
    found = ensembles.analyse(cells, ["a", "b"], RATIOS, made.test)
    assert "left out, seed 2: b has none at 10 %" in found.tables[0].notes


def test_the_result_is_written_as_text_table_and_plain_data(found, tmp_path):
    files = found.write(tmp_path / "new")
    assert [path.name for path in files] == [f"analysis-ensembles.{ending}" for ending in ("md", "csv", "json")]
    assert files[0].read_text(encoding="utf-8").startswith("## Ensembles\n")
    assert len(files[1].read_text(encoding="utf-8").splitlines()) == 1 + len(found.frame)
    content = json.loads(files[2].read_text(encoding="utf-8"))
    assert content["rows"][0]["difference"] is None and content["rows"][0]["name"] == "a" and content["notes"]


def test_one_seed_or_a_row_without_a_ratio_is_refused(made):
    alone = {key: {(0, 0): by_seeds[0, 0]} for key, by_seeds in made.cells.items()}
    assert "train with --seeds 2" in refusal(lambda: ensembles.analyse(alone, ["a"], [0.1], made.test))
    lacking = without(made.cells, "b", 0.5)
    assert "b has no records at 50 %" in refusal(lambda: ensembles.analyse(lacking, ["a", "b"], RATIOS, made.test))


def test_scores_that_are_gone_are_named(tmp_path):
    made = stored(tmp_path, {"a": 0.5}, ratios=[0.1])
    shutil.rmtree(made.cells["a", 0.1][1, 1].record.folder)
    assert "scores.npz" in refusal(lambda: ensembles.analyse(made.cells, ["a"], [0.1], made.test))
