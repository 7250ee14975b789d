"""The winner of each category, and how sure it is."""

import numpy as np
import pytest

from mlrpl_bench.evaluation import intervals
from mlrpl_bench.evaluation.influences import category_influences
from mlrpl_bench.evaluation.intervals import Measured
from mlrpl_bench.leaderboard.evidence import read_scores
from mlrpl_bench.leaderboard.tables.analyses import category_wins
from tests.helpers.simulated_cells import without
from tests.helpers.stored_scores import stored
from tests.helpers.tiny_study import refusal

RATIOS = (0.1, 0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Row a is better at cats, b at dogs, and they are alike at owls; nothing has a bat."""
    skills = {"a": [2, 0.5, 0.5, 0], "b": [0.5, 2, 0.5, 0]}
    return stored(tmp_path_factory.mktemp("records"), skills, own_noise=0.3)


@pytest.fixture(scope="module")
def found(made):
    return category_wins.analyse(made.cells, ["a", "b"], RATIOS, made.test)


def test_the_best_of_each_category_with_positives_is_found(found):
    best = found.frame[found.frame.mark == "best"].set_index("category")
    assert best.method.to_dict() | {"owl": ""} == {"cat": "a", "dog": "b", "owl": ""}
    assert best.is_sure.to_dict() == {"cat": True, "dog": True, "owl": False}


def test_wins_and_sure_wins_are_counted(found):
    counts = {label: [entry.text for entry in entries] for label, entries in found.tables[0].rows}
    assert counts in ({"a": ["2", "1", "0"], "b": ["1", "1", "1"]}, {"a": ["1", "1", "1"], "b": ["2", "1", "0"]})
    assert "of 3 categories with positives 2 have a sure winner" in found.tables[0].notes[0]
    assert [entries[-1].text for _, entries in found.tables[1].rows] == ["yes", "yes", "1 tied"]


def row_of(made, label, place):
    """A row's numbers in one category, percent, averaged over the ratios."""
    drawn_SN, precisions_S = [], []
    for seed in range(3):
        records = [made.cells[label, ratio][seed, seed].record for ratio in RATIOS]
        scores = [read_scores(record, "scores.npz", made.test) for record in records]
        drawn = [100 * category_influences(each, made.test.labels_NC)[:, place] for each in scores]
        drawn_SN.append(np.mean(drawn, axis=0))
        precisions_S.append(np.mean([100 * record.metrics["AP_C"][place] for record in records]))
    return Measured(np.array(drawn_SN), np.array(precisions_S))


def test_comparisons_learn_their_spread_from_all_and_are_corrected_over_all(made, tmp_path):
    third = stored(tmp_path, {"c": 0.4}, own_noise=0.3)
    made = made._replace(cells={**made.cells, **third.cells})
    found = category_wins.analyse(made.cells, ["a", "b", "c"], RATIOS, made.test)
    best = found.frame[found.frame.mark == "best"].set_index("category").method
    others = found.frame[found.frame.mark != "best"].set_index(["category", "method"])
    places = {name: place for place, name in enumerate(made.test.categories)}
    pairs = {of: (row_of(made, best[of[0]], places[of[0]]), row_of(made, of[1], places[of[0]])) for of in others.index}
    assert len(pairs) == 6
    spread = intervals.common_spread([(a.estimates_S - b.estimates_S).var(ddof=1) for a, b in pairs.values()], 2)
    expected = {of: intervals.paired(a, b, spread=spread) for of, (a, b) in pairs.items()}
    adjusted = intervals.holm_by_name({of: difference.p_value for of, difference in expected.items()})
    for of, difference in expected.items():
        ends = others.behind[of], others.low[of], others.high[of]
        assert ends == pytest.approx((difference.mean, difference.low, difference.high), abs=1e-4)
        assert others.p_adjusted[of] == pytest.approx(adjusted[of], rel=1e-3, abs=1e-12)


def test_a_category_with_few_positives_has_no_sure_winner(made, monkeypatch):
    monkeypatch.setattr(category_wins, "FEW_POSITIVES", 1000)
    found = category_wins.analyse(made.cells, ["a", "b"], RATIOS, made.test)
    assert not found.frame.is_sure.any()
    assert {entries[-1].text.split()[0] for _, entries in found.tables[1].rows} == {"few"}


def test_one_seed_is_a_caution_and_an_incomplete_row_is_left_out(made):
    cells = {key: {(0, 0): by_seeds[0, 0]} for key, by_seeds in made.cells.items()}
    found = category_wins.analyse(cells, ["a", "b"], RATIOS, made.test)
    assert intervals.ONE_SEED in found.tables[1].notes
    third = {**made.cells, ("c", 0.1): made.cells["a", 0.1]}
    notes = category_wins.analyse(third, ["a", "b", "c"], RATIOS, made.test).tables[1].notes
    assert "without a seed that has records at 10 and 50 %, so left out: c" in notes


def test_a_row_alone_is_refused(made):
    lacking = without(made.cells, "b", 0.1)
    assert "needs two rows" in refusal(lambda: category_wins.analyse(lacking, ["a", "b"], RATIOS, made.test))
    nothing = without(lacking, "a", 0.5)
    assert "no row has a seed" in refusal(lambda: category_wins.analyse(nothing, ["a", "b"], RATIOS, made.test))
