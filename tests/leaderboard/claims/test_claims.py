"""The papers' claims against simulated cells whose truth is known."""

import json

import pytest

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.leaderboard.claims import heads
from mlrpl_bench.leaderboard.claims.claims import HEADER, judge, load, rows_needed
from mlrpl_bench.leaderboard.claims.published import facts
from mlrpl_bench.models.registry import load_methods
from tests.helpers import simulated_cells as simulated

RATIOS = simulated.RATIOS
AS_THE_PAPER_SAYS = {
    **{"kggr": 0.9, "ssgrl": 0.6, "ip_mixup": 0.6, "fm_mixup": 0.6, "ssgrl_x3": 0.6},
    **{"sr_st": 2.0, "logicmix": 1.8, "asl": 0.8, "csl": 0.8, "em_apl": 1.3, "an": 0.6},
    **{"partial_bce+cft": 1.4, "partial_bce+held": 0.7, "ssgrl+cft": 1.3, "ssgrl+held": 0.6},
    **{"sarb+cft": 1.9, "sarb+held": 1.2, "boostlu_ll_r": 1.3, "cam_ll_r": 0.6},
    **{"ilrb_fixed": 0.8, "plrb_fixed": 0.8, "ilrb": 1.0, "plrb": 1.0, "sarb_sam": 1.1, "sarb": 1.4},
}
FLUCTUATIONS = {"sarb": 0.01, "ilrb": 0.03}


@pytest.fixture(scope="module")
def cells():
    return simulated.cells(AS_THE_PAPER_SAYS, count=5, fluctuations=FLUCTUATIONS)


@pytest.fixture(scope="module")
def judged(cells):
    return judge(cells, "scenes", RATIOS, margin=2.0)


def answers(claims):
    return {verdict.claim.name: verdict.answer for verdict in claims.verdicts}


def verdict_of(claims, name):
    (found,) = (verdict for verdict in claims.verdicts if verdict.claim.name == name)
    return found


def test_every_claim_has_a_test_and_every_test_a_claim():
    assert [row["claim"] for row in facts("claim_tests.csv")] == [claim.name for claim in load()]


def test_the_rows_of_a_claim_agree_in_everything_but_ratio_and_data_set():
    fixed = ("statement", "method_a", "method_b", "metric", "source")
    said = {(row["claim"], *(row[name] for name in fixed)) for row in facts("claims.csv")}
    assert len(said) == len(load())
    places = [(row["claim"], row["known_ratio"], row["dataset"]) for row in facts("claims.csv")]
    assert len(set(places)) == len(places)
    assert not [row for row in facts("claims.csv") if ".txt" in row["source"]]


def test_published_differences_are_points():
    for claim in load():
        for ratio, of_ratio in claim.published.items():
            assert ratio in {*(f"{ratio:g}" for ratio in NINE_RATIOS), "avg"}
            assert all(0.1 <= abs(difference) < 10 for difference in of_ratio.values())
            assert set(of_ratio) <= {"coco", "vg200", "voc2007"}


def test_claims_are_of_methods_that_there_are():
    methods = load_methods()
    for row in rows_needed():
        methods[row.partition("[")[0]]  # refuses a method, or a step, that there is not


def test_evidence_of_the_rows_of_heads_and_trainings_is_asked_for_too():
    assert heads.rows_needed() <= rows_needed() and "sarb" in rows_needed()


WITHOUT_RECORDS = {"logicmix", *(row for row in AS_THE_PAPER_SAYS if "+" in row)}


def test_a_claim_of_a_row_without_records_is_open_and_disturbs_no_other():
    skills = {name: skill for name, skill in AS_THE_PAPER_SAYS.items() if name not in WITHOUT_RECORDS}
    found = judge(simulated.cells(skills, count=2), "scenes", RATIOS)
    of_missing = [v for v in found.verdicts if {v.claim.a, v.claim.b} & WITHOUT_RECORDS]
    assert len(of_missing) == 5
    assert {v.verdict.partition(" has no records")[0] for v in of_missing} == {
        f"cannot tell: {name}" for name in ("logicmix", "partial_bce+cft", "ssgrl+cft", "sarb+cft")
    }
    assert {v.claim.name for v in found.measured().verdicts} == {v.claim.name for v in found.verdicts} - {
        v.claim.name for v in of_missing
    }
    assert "ssgrl+cft - ssgrl+held, mAP" in found.to_markdown()


def test_a_claim_about_a_finishing_step_is_judged_beside_its_base_with_the_same_images_held_out(judged):
    verdict = verdict_of(judged, "cft-beats-ssgrl")
    (finding, _) = verdict.findings
    assert (finding.part.a, finding.part.b) == ("ssgrl+cft", "ssgrl+held")
    assert finding.answer == "holds" and "nothing chosen on test images" in verdict.claim.statement


def test_the_notes_say_what_each_control_is(judged):
    notes = [note for note in judged.notes() if note.startswith("beside ")]
    assert (
        "beside ssgrl_x3: a control, known labels count as often there and nothing is blended; no part of the verdict"
        in (notes)
    )
    assert any(note.startswith("beside partial_bce, ssgrl, sarb: ") for note in notes), "one line for all of a kind"
    assert {claim.control for claim in load() if not claim.control_is} == {""}


def test_every_claim_holds_where_everything_is_as_the_paper_says(judged):
    assert set(answers(judged).values()) == {"holds"}, answers(judged)


def test_no_claim_holds_where_everything_is_the_other_way_round():
    skills = {label: 2.0 - skill for label, skill in AS_THE_PAPER_SAYS.items()}
    cells = simulated.cells(skills, count=5, fluctuations={"sarb": 0.03, "ilrb": 0.01})
    assert set(answers(judge(cells, "scenes", RATIOS)).values()) == {"does not hold"}


def test_without_any_difference_it_can_mostly_not_be_told():
    cells = simulated.cells(dict.fromkeys(AS_THE_PAPER_SAYS, 1.0), count=3)
    found = list(answers(judge(cells, "scenes", RATIOS)).values())
    assert found.count("cannot tell") >= len(found) - 2


def test_every_ratio_means_every_one():
    weak = simulated.cells({**AS_THE_PAPER_SAYS, "kggr": 1.9}, count=5)
    cells = simulated.cells(AS_THE_PAPER_SAYS, count=5)
    found = judge({**cells, ("kggr", 0.5): weak["kggr", 0.5]}, "scenes", RATIOS)
    verdict = verdict_of(found, "sarb-beats-kggr")
    assert verdict.answer == "does not hold"
    assert [one.answer for one in verdict.findings if one.part.counts].count("does not hold") == 1
    assert [one.part.known_ratio for one in verdict.findings if one.part.counts] == ["avg of 3", "0.1", "0.5", "0.9"]


def test_mixup_must_be_below_sarb_and_about_equal_to_the_baseline(cells):
    above = simulated.cells({**AS_THE_PAPER_SAYS, "ip_mixup": 0.9}, count=5)
    found = judge({**cells, **{key: one for key, one in above.items() if key[0] == "ip_mixup"}}, "scenes", RATIOS)
    verdict = verdict_of(found, "ip-mixup-below-sarb")
    assert [one.answer for one in verdict.findings] == ["holds", "does not hold"]
    assert verdict.answer == "does not hold"


def test_the_control_stands_beside_and_takes_no_part(cells):
    strong = simulated.cells({"ssgrl_x3": 2.0}, count=5)
    found = judge({**cells, **strong}, "scenes", RATIOS, margin=2.0)
    for name in ("ilrb-helps", "plrb-helps", "sarb-beats-kggr"):
        verdict = verdict_of(found, name)
        assert (verdict.answer, verdict.findings[-1].answer) == ("holds", "does not hold")
    assert any("beside: ilrb - ssgrl_x3" in row[1] for row in found.rows())


def test_missing_cells_leave_their_claims_open_and_the_others_alone(cells):
    found = judge(simulated.without(cells, "plrb_fixed", 0.5), "scenes", RATIOS, margin=2.0)
    assert verdict_of(found, "learned-beta-helps").verdict == "cannot tell: plrb_fixed has no records at 50 %"
    assert list(answers(found).values()).count("holds") == len(load()) - 1


def test_no_cells_at_all_give_a_table_too():
    found = judge({}, "scenes", RATIOS)
    assert set(answers(found).values()) == {"cannot tell"}
    assert "sarb has no records at 10, 50 and 90 %" in found.to_markdown()
    json.dumps(found.to_json(), allow_nan=False)


def test_with_one_seed_no_claim_is_judged():
    found = judge(simulated.cells(AS_THE_PAPER_SAYS, count=1), "scenes", RATIOS)
    assert {verdict.verdict for verdict in found.verdicts} == {"cannot tell yet (needs at least 2 more seeds)"}


def test_seeds_that_were_left_out_are_noted(cells):
    found = judge(simulated.without(cells, "plrb_fixed", 0.5, (1, 1)), "scenes", RATIOS)
    assert "left out, seed 1: plrb_fixed has none at 50 %" in found.notes()


def test_a_claim_without_a_common_seed_says_what_is_missing_once(cells):
    found = judge(simulated.without(cells, "plrb_fixed", 0.5), "scenes", RATIOS)
    assert not [note for note in found.notes() if "plrb_fixed has none" in note]


def published_column(claims, name):
    verdict = verdict_of(claims, name)
    rows = claims.rows()
    start = next(place for place, row in enumerate(rows) if row[0] == verdict.claim.statement)
    return [row[2] for row in rows[start : start + len(verdict.findings) + 1]]


def test_published_differences_of_other_data_are_named(judged):
    assert published_column(judged, "ilrb-helps")[0] == "coco +3.2, vg200 +5.2, voc2007 +0.7"
    assert published_column(judged, "gain-grows-as-labels-fade")[0] == "coco +3.2"
    assert any("for reference only" in note for note in judged.notes())


def test_a_published_average_stands_alone_only_beside_the_nine_ratios():
    nine = judge({}, "coco", NINE_RATIOS)
    assert published_column(nine, "ilrb-helps")[0] == "+3.2"
    assert published_column(nine, "sarb-beats-kggr")[1:4] == ["+2.3", "+4.6", "-"]
    three = judge({}, "coco", RATIOS)
    assert published_column(three, "ilrb-helps")[0] == "coco +3.2, vg200 +5.2, voc2007 +0.7"
    assert published_column(three, "sarb-beats-kggr")[2] == "+4.6", "one ratio is one ratio"


def test_one_ratio_is_no_average(cells):
    found = judge(cells, "scenes", [0.5], margin=2.0)
    assert "avg" not in " ".join(cell for row in found.rows() for cell in row)
    assert len(verdict_of(found, "sarb-beats-kggr").findings) == 2, "the ratio and the control"


def test_rows_have_a_text_for_each_column_and_all_claims_are_there(judged):
    assert all(len(row) == len(HEADER) for row in judged.rows())
    assert [row[0] for row in judged.rows() if row[0]] == [claim.statement for claim in load()]


def test_markdown_and_json_say_the_same(judged):
    plain = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    text = judged.to_markdown()
    for claim in plain["claims"]:
        assert claim["statement"] in text and claim["verdict"] in text
    assert all(note in text for note in plain["notes"])
    assert plain["claims"][0]["findings"][0]["part"]["ratios"] == list(RATIOS)
