"""What the commands under ``data`` refuse before they begin."""

import os

import pytest


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["stats", "mine", "--root", "gone"], "--root gone is not a folder"),
        (["stats", "mine", "--root", "."], "put them there"),
        (["stats", "tiny", "--output", "card.pdf"], "name it something.png"),
        (["show", "tiny", "--output", "gone/a.png"], "there is no folder gone"),
        (["show", "tiny", "--ratio", "1.5"], "known ratio 1.5 is outside"),
        (["show", "tiny", "--split", "val"], "no split 'val'"),
        (["show", "tiny", "--images", "0"], "--images"),
        (["show", "tiny", "--mask-seed", "-1"], "--mask-seed -1 must be between 0 and 4294967295"),
        (["stats", "tiny", "--mask-seed", 2**32], "--mask-seed 4294967296 must be between 0 and 4294967295"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(ask, arguments, part):
    answer = ask(*arguments)
    assert answer.code == 2 and part in answer.err
    assert len(answer.err.strip().splitlines()) == 1 and answer.err.startswith("error: ")


@pytest.mark.parametrize("command", ["stats", "show"])
def test_a_picture_that_could_not_be_written_is_refused_before_anything_is_loaded(ask, monkeypatch, command):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    answer = ask(command, "gone")
    assert (answer.code, answer.out) == (2, "")
    assert "cannot be written: . is read-only; name another place with --output" in answer.err


def test_a_dataset_without_categories_is_refused(ask, root):
    answer = ask("stats", "mine", "--root", root, "--set-data", "categories=0")
    assert answer.code == 2 and "empty" in answer.err
