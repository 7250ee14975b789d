"""Text that a stream's encoding lacks is printed as similar text of the same width, and never raises."""

import io
import sys

import pytest

from mlrpl_bench.cli.streams import SIMILAR, print_anything


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
