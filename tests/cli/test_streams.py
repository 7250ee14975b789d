"""Text that a stream's encoding lacks is printed as similar text of the same width, and never raises."""

import io
import math
import sys

import pytest

from mlrpl_bench.cli.streams import SIMILAR, json_lines, print_anything, say, write_json
from tests.helpers.command import logged


@pytest.fixture
def printed(monkeypatch):
    """What a stream of an encoding gets of a text."""

    def printed(text, encoding):
        content = io.BytesIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(content, encoding=encoding, errors="strict"))
        print_anything()
        print(text, end="", flush=True)
        return content.getvalue().decode(encoding)

    return printed


def test_signs_of_tables_become_similar_ones_of_the_same_width(printed):
    text = "60.9 ± 0.5 | ≈ 61.2 – 63.0 …"
    assert printed(text, "ascii") == "60.9 ~ 0.5 | = 61.2 - 63.0 ."
    assert len(printed(text, "ascii")) == len(text)


def test_each_sign_has_one_ascii_character_and_none_is_the_mark_of_what_is_not_compared():
    assert all(len(sign) == len(plain) == 1 and plain.isascii() and plain != "?" for sign, plain in SIMILAR.items())
    assert SIMILAR["±"] != SIMILAR["≈"]


@pytest.mark.parametrize("text", ["狗", "Füße", "\udcff.png"])
def test_other_letters_become_question_marks(printed, text):
    assert printed(text, "ascii") == "".join(letter if letter.isascii() else "?" for letter in text)


def test_what_can_be_written_is_written_as_it_is(printed):
    assert printed("60.9 ± 0.5, 狗", "utf-8") == "60.9 ± 0.5, 狗"
    assert printed("\udcff.png", "utf-8") == "?.png"


def test_a_stream_that_cannot_be_changed_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_anything()
    print("±")
    assert sys.stdout.getvalue() == "±\n"


@pytest.fixture
def objects(capsys):
    """The objects that were written to standard error, without their times."""
    return lambda: logged(capsys.readouterr().err)


def test_every_line_becomes_an_object_whoever_prints_it(objects):
    with json_lines(wanted=True):
        say("wrote", "wrote a.csv", path="a.csv")
        say("error", "error: no such file", exit_code=2)
        print("from a library, in", end=" ", file=sys.stderr)
        print("two parts\n\nand more", file=sys.stderr)
        write_json("epoch", loss=math.nan, rates=(0.5, math.inf))
        print("no end", end="", file=sys.stderr)
    assert objects() == [
        {"event": "wrote", "text": "wrote a.csv", "path": "a.csv"},
        {"event": "error", "text": "no such file", "exit_code": 2},
        {"event": "text", "text": "from a library, in two parts"},
        {"event": "text", "text": "and more"},
        {"event": "epoch", "loss": None, "rates": [0.5, None]},
        {"event": "text", "text": "no end"},
    ]


def test_an_unexpected_error_is_an_object_and_the_stream_is_given_back(objects):
    before = sys.stderr
    with pytest.raises(SystemExit) as end, json_lines(wanted=True):
        raise ZeroDivisionError("by nought")
    assert end.value.code == 1 and sys.stderr is before
    (error,) = objects()
    assert (error["event"], error["text"], error["exit_code"]) == ("error", "ZeroDivisionError: by nought", 1)
    assert error["traceback"].startswith("Traceback (most recent call last)")


def test_without_json_lines_are_as_they_are_for_people(capsys):
    with json_lines(wanted=False):
        say("wrote", "wrote a.csv", path="a.csv")
        say("error", "error: no such file", exit_code=2)
    assert capsys.readouterr().err == "wrote a.csv\nerror: no such file\n"
