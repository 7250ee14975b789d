"""Heads beside trainings: the differences are those of the rows, and what is missing is named."""

import json
import math
import statistics

import pytest

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.evaluation import intervals
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.claims import heads
from mlrpl_bench.models.registry import load_methods
from tests.helpers import simulated_cells as simulated

RATIOS = simulated.RATIOS
SKILLS = {
    **{"ssgrl": 0.6, "ssgrl_asl": 0.8, "ilrb": 1.0},
    **{"ml_decoder": 0.9, "ml_decoder_asl": 1.5, "ml_decoder_ilrb": 1.2, "q2l": 0.9, "q2l_asl": 0.9},
}
BLENDED = [("ml_decoder_ilrb", "ml_decoder"), ("ilrb", "ssgrl")]
GRAPH, DECODER, LEARNED = "graph", "fixed queries", "learned queries"
GAIN, GAIN_OF_HEAD = "asymmetric - cross-entropy", "fixed queries - graph"


@pytest.fixture(scope="module")
def cells():
    return simulated.cells(SKILLS, count=3)


@pytest.fixture(scope="module")
def found(cells):
    return heads.compare(cells, "scenes", RATIOS)


def of_seeds(cells, label):
    return pairing.values(pairing.by_seeds(cells, label, RATIOS, simulated.seeds(3)), pairing.METRICS["mAP"])


def mean(cells, label):
    return of_seeds(cells, label).mean()


def test_every_head_has_every_training_and_every_row_can_be_trained():
    places, methods = heads.load(), load_methods()
    assert len({(place.head, place.training) for place in places}) == len(places)
    assert len(places) == len({place.head for place in places}) * len({place.training for place in places})
    assert all(place.row or place.remark for place in places), "an empty place says why"
    for row in heads.rows_needed():
        name, *changed = heads.as_arguments(row).split(" --set ")
        values = dict(value.split("=") for value in changed)
        assert values.items() <= vars(methods[name].hyperparameters(values)).items()


def test_a_place_shows_its_row(found, cells):
    assert found.numbers[GRAPH, "blended"].mean == pytest.approx(mean(cells, "ilrb"))
    entries = dict(found.table().rows)[GRAPH]
    deviation = statistics.stdev(of_seeds(cells, "ilrb"))
    assert found.numbers[GRAPH, "blended"].deviation == pytest.approx(deviation)
    assert entries[2].text == f"{mean(cells, 'ilrb'):.1f} ± {deviation:.1f}"


def test_plain_and_blended_on_a_graph_and_on_a_decoder_are_all_there(found, cells):
    both = found.numbers[GAIN_OF_HEAD, "blended - cross-entropy"]
    gains = [mean(cells, blended) - mean(cells, plain) for blended, plain in BLENDED]
    assert both.mean == pytest.approx(gains[0] - gains[1])


def test_differences_are_those_that_two_rows_have_when_compared(found, cells):
    def measured(label):
        return pairing.measured(pairing.by_seeds(cells, label, RATIOS, simulated.seeds(3)), "mAP")

    for place, a, b in [
        ((GRAPH, GAIN), "ssgrl_asl", "ssgrl"),
        ((DECODER, GAIN), "ml_decoder_asl", "ml_decoder"),
        ((GAIN_OF_HEAD, "cross-entropy"), "ml_decoder", "ssgrl"),
        (("learned queries - graph", "asymmetric"), "q2l_asl", "ssgrl_asl"),
    ]:
        number, expected = found.numbers[place], intervals.paired(measured(a), measured(b), 0.95)
        assert (number.mean, number.low, number.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_where_both_meet_stands_how_much_more_the_training_gains_on_that_head(found):
    both = found.numbers[GAIN_OF_HEAD, GAIN]
    gains = [found.numbers[head, GAIN].mean for head in (DECODER, GRAPH)]
    assert both.mean == pytest.approx(gains[0] - gains[1])
    assert both.mean > 0 and both.low < both.mean < both.high


def test_a_place_that_no_method_fills_is_empty_and_so_are_its_differences(found):
    for column in ("blended", "blended - cross-entropy"):
        assert math.isnan(found.numbers[LEARNED, column].mean)
        assert math.isnan(found.numbers["learned queries - graph", column].mean)
    assert dict(found.table().rows)[LEARNED][2].text == "-"
    (note,) = (note for note in found.notes() if note.startswith(f"{LEARNED}, from left to right: q2l ("))
    assert note.endswith("), - (nothing is blended on this decoder's features here)")


def test_missing_rows_are_named_with_the_command_that_trains_them(cells):
    left = {key: of for key, of in cells.items() if key[0] not in ("ssgrl_asl", "q2l")}
    found = heads.compare(left, "scenes", RATIOS)
    (note,) = (note for note in found.notes() if note.startswith("without records at 10, 50 and 90 %"))
    assert "ssgrl_asl (run ssgrl_asl), q2l (run q2l)" in note
    assert math.isnan(found.numbers[GRAPH, GAIN].mean) and not math.isnan(found.numbers[DECODER, GAIN].mean)


def test_differences_are_over_the_seeds_that_the_rows_share(cells):
    found = heads.compare(simulated.without(cells, "ml_decoder_asl", 0.5, (2, 2)), "scenes", RATIOS)
    seeds = {
        place: found.numbers[place].seeds for place in [(DECODER, "cross-entropy"), (DECODER, GAIN), (GRAPH, GAIN)]
    }
    assert list(seeds.values()) == [3, 2, 3]


def test_with_one_seed_the_notes_say_what_the_intervals_do_not_cover():
    found = heads.compare(simulated.cells({"ssgrl": 1.0, "ml_decoder": 1.2}, count=1), "scenes", RATIOS)
    cautions = {number.caution for number in found.numbers.values()} - {""}
    assert len(cautions) == 1 and cautions <= set(found.notes())
    assert " ± " not in dict(found.table().rows)[GRAPH][0].text


def test_one_head_alone_compares_no_heads(cells):
    graph = {key: of for key, of in cells.items() if key[0] in ("ssgrl", "ilrb")}
    assert heads.compare(graph, "scenes", RATIOS).heads_measured == 1
    assert heads.compare(cells, "scenes", RATIOS).heads_measured == 3
    assert heads.compare({}, "scenes", NINE_RATIOS).heads_measured == 0


def test_as_text_and_as_json_the_same_is_said(found):
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    table = found.table()
    assert plain["numbers"].keys() == dict(table.rows).keys()
    assert all(list(by_column) == list(table.columns) for by_column in plain["numbers"].values())
    assert plain["numbers"][GRAPH]["blended"]["seeds"] == 3 and plain["numbers"][LEARNED]["blended"]["mean"] is None
    assert plain["rows"]["graph"]["asymmetric"] == "ssgrl_asl" and plain["rows"][LEARNED]["blended"] is None
    assert table.csv().splitlines()[0] == f"head,{','.join(table.columns)}"
    assert all(note in plain["notes"] for note in table.notes)
