"""Word vectors for category names."""

import os
from pathlib import Path

import numpy as np
import pytest

from mlrpl_bench.data.word_vectors import hashed_vectors, prepare, prepared, vectors_hash
from mlrpl_bench.utils.errors import UserError


def test_there_is_one_float32_row_a_name():
    vectors_CE = hashed_vectors(["cat", "hot dog"], width=50)
    assert vectors_CE.shape == (2, 50)
    assert vectors_CE.dtype == np.float32


def test_a_name_has_the_same_vector_whatever_else_is_asked_for():
    alone, among = hashed_vectors(["dog"]), hashed_vectors(["cat", "dog", "hot dog"])
    assert (alone[0] == among[1]).all()


def test_the_values_do_not_change_between_versions_of_this_code():
    assert vectors_hash(hashed_vectors(["red seven", "cat"])).startswith("c8f3d455b226a1a0")


def test_a_name_of_two_words_is_their_mean():
    red_seven, red, seven = hashed_vectors(["red seven", "red", "seven"])
    np.testing.assert_allclose(red_seven, (red + seven) / 2, rtol=0, atol=1e-6)


def test_names_that_share_a_word_are_close_and_others_are_not():
    vectors_CE = hashed_vectors(["red seven", "red two", "blue six"])
    unit_CE = vectors_CE / np.linalg.norm(vectors_CE, axis=1, keepdims=True)
    assert unit_CE[0] @ unit_CE[1] == pytest.approx(0.5, abs=0.15)
    assert unit_CE[0] @ unit_CE[2] == pytest.approx(0.0, abs=0.15)


def test_a_word_is_about_as_long_as_a_real_word_vector():
    norms_C = np.linalg.norm(hashed_vectors(["cat", "dog", "bus", "tree"]), axis=1)
    assert np.all((norms_C > 5.4) & (norms_C < 6.6))


def test_case_hyphens_and_underscores_do_not_count():
    vectors_CE = hashed_vectors(["hot dog", "Hot-Dog", "hot_dog"])
    assert (vectors_CE == vectors_CE[0]).all()


def test_a_name_without_letters_still_has_a_vector_of_its_own():
    dash, dots = hashed_vectors(["--", "..."])
    assert np.isfinite(dash).all() and (dash != dots).any()


def test_the_hash_tells_values_and_shapes_apart_but_not_layouts():
    vectors_CE = hashed_vectors(["cat", "dog"], width=6)
    assert vectors_hash(vectors_CE) == vectors_hash(np.asfortranarray(vectors_CE))
    assert vectors_hash(vectors_CE) == vectors_hash(vectors_CE.astype(np.float64))
    others = [vectors_CE[::-1], vectors_CE.reshape(3, 4), vectors_CE + 1]
    assert len({vectors_hash(vectors_CE), *map(vectors_hash, others)}) == 4


# Real vectors

NAMES = ["cat", "hot dog", "diningtable"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def glove(tmp_path):
    words = ["the", "cat", "dog", "hot", "table", "dining", "."]
    rows = [
        " ".join([word, *(f"{number + place / 10:.4f}" for place in range(4))]) for number, word in enumerate(words)
    ]
    path = tmp_path / "glove.txt"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_names_words_are_averaged_and_kept_for_these_names(cache, glove):
    assert prepared(NAMES) is None
    reports = []
    prepare(NAMES, glove, lambda done, total: reports.append((done, total)))
    first_number_C = [1, (3 + 2) / 2, (5 + 4) / 2]  # of cat, hot dog, dining table
    expected_CE = np.array(first_number_C)[:, None] + np.arange(4) / 10
    np.testing.assert_allclose(prepared(NAMES), expected_CE, atol=1e-6)
    assert prepared(NAMES).dtype == np.float32
    assert reports[-1] == (glove.stat().st_size,) * 2
    assert prepared(NAMES[::-1]) is None and prepared(NAMES[:2]) is None


def test_an_array_has_its_rows_in_the_order_of_the_names(cache, tmp_path):
    vectors_CE = np.random.default_rng(0).normal(size=(3, 300))
    np.save(tmp_path / "vectors.npy", vectors_CE)
    prepare(NAMES, tmp_path / "vectors.npy")
    np.testing.assert_array_equal(prepared(NAMES), vectors_CE.astype(np.float32))


def test_words_that_are_missing_are_named(cache, glove):
    with pytest.raises(UserError, match=r"no vector for 2 of the 3 words .*: boat, zebra"):
        prepare(["cat", "zebra boat"], glove)
    assert prepared(["cat", "zebra boat"]) is None


def test_numbers_instead_of_names_have_no_words(cache, glove, tmp_path):
    numbered = [f"category {number}" for number in range(3)]
    glove.write_text(glove.read_text() + "".join(f"{word} 1 2 3 4\n" for word in ("category", "0", "1", "2")))
    with pytest.raises(UserError, match=r"\Athe categories have no names, only numbers.*; give an \.npy\Z"):
        prepare(numbered, glove)
    np.save(tmp_path / "vectors.npy", np.eye(3))
    prepare(numbered, tmp_path / "vectors.npy")
    np.testing.assert_array_equal(prepared(numbered), np.eye(3))


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.ones((2, 300)), "one row of floats"),
        (np.ones(3), "one row of floats"),
        (np.ones((3, 4), dtype=int), "one row of floats"),
        (np.zeros((3, 4)), "all zeros"),
        (np.full((3, 4), np.nan), "not finite"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(cache, tmp_path, array, problem):
    np.save(tmp_path / "vectors.npy", array)
    with pytest.raises(UserError, match=problem):
        prepare(NAMES, tmp_path / "vectors.npy")
    assert prepared(NAMES) is None


def test_damaged_files_are_named(cache, tmp_path, glove):
    with pytest.raises(UserError, match="there is no file of word vectors"):
        prepare(NAMES, tmp_path / "none.txt")
    (tmp_path / "bad.npy").write_text("no array")
    with pytest.raises(UserError, match=r"bad\.npy is no array"):
        prepare(NAMES, tmp_path / "bad.npy")
    glove.write_text(glove.read_text().replace("cat 1.0000", "cat one"))
    with pytest.raises(UserError, match="line 2: 'cat' is not followed by numbers"):
        prepare(NAMES, glove)
    glove.write_text(glove.read_text().replace("cat one ", "cat "))
    with pytest.raises(UserError, match="several lengths"):
        prepare(NAMES, glove)
    np.save(tmp_path / "good.npy", np.ones((3, 4)))
    kept = prepare(NAMES, tmp_path / "good.npy")
    kept.write_bytes(kept.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged"):
        prepared(NAMES)


def test_real_vectors_of_real_names_are_taken(cache):
    folder = os.environ.get("MLRPL_TEST_DATA")
    if not folder:
        pytest.skip("MLRPL_TEST_DATA is not set")
    vectors_CE = np.load(f"{folder}/word-vectors/coco80_glove300.npy")
    names = [f"category {number}" for number in range(80)]
    prepare(names, Path(folder) / "word-vectors" / "coco80_glove300.npy")
    np.testing.assert_array_equal(prepared(names), vectors_CE.astype(np.float32))
