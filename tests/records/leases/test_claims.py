"""A claim is a file that is whole from the start, and the highest number is in force."""

import json
import os

import pytest

from mlrpl_bench.records.leases import claims, liveness
from mlrpl_bench.records.leases.claims import in_force
from mlrpl_bench.records.leases.lease import Owner
from tests.helpers.claims import elsewhere, owned_by


def test_a_number_of_another_machine_says_nothing(folder, gone):
    elsewhere(folder)
    path = folder / "claim-1.jsonl"
    path.write_text(path.read_text().replace('"pid": 1', f'"pid": {gone}'))
    assert not in_force(folder).is_of_gone_process()
    assert Owner().take(folder) is None


def test_the_highest_number_is_in_force_and_other_files_are_no_claims(folder):
    for number in (2, 10, 9):
        elsewhere(folder, number)
    for name in ("claim-11.json", "claim-.jsonl", ".claim-12.jsonl.x", "claim-012.jsonl"):
        (folder / name).write_text("{}")
    assert in_force(folder).number == 10


def test_a_link_that_was_made_although_the_answer_says_otherwise_counts(folder, monkeypatch):
    link = os.link

    def asked_twice(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", asked_twice)
    assert Owner().take(folder)


def test_the_folder_may_vanish_while_a_claim_is_made(folder, monkeypatch):
    make, left = claims._create_in_folder, [1, 2]

    def vanishing(path, content):
        if left:
            left.pop()
            path.parent.rmdir()
        return make(path, content)

    monkeypatch.setattr(claims, "_create_in_folder", vanishing)
    assert Owner().take(folder)


@pytest.mark.parametrize(
    ("then", "now", "died_of_it"),
    [({"/proc/vmstat": 3}, 4, True), ({"/proc/vmstat": 3}, 3, False), ({"/etc/passwd": 3}, 4, False), (None, 4, False)],
)
def test_a_kill_for_memory_is_one_that_the_kernel_counted(folder, gone, monkeypatch, then, now, died_of_it):
    """Claims without counts, as earlier versions made them, are read too."""
    owned_by(gone, folder)
    path = folder / "claim-1.jsonl"
    facts = json.loads(path.read_text()) | ({} if then is None else {"kills": then})
    path.write_text(json.dumps(facts) + "\n")
    monkeypatch.setattr(liveness, "kills", lambda path: now)
    assert in_force(folder).out_of_memory is died_of_it
    path.write_text(json.dumps(facts | {"place": "another machine"}) + "\n")
    assert not in_force(folder).out_of_memory


def test_all_claims_are_found_upwards(folder):
    assert claims.all_in(folder) == []
    for number in (10, 9, 2):
        elsewhere(folder, number)
    assert [claim.number for claim in claims.all_in(folder)] == [2, 9, 10]


def test_a_name_that_is_taken_is_not_written_again(folder):
    path = claims.path_of(folder, 1)
    assert claims.create(path, b"first") and not claims.create(path, b"second")
    assert path.read_bytes() == b"first" and list(folder.iterdir()) == [path]
