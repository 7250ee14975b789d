"""Word vectors for category names."""

import numpy as np
import pytest

from mlrpl_bench.words import hashed_vectors, vectors_hash


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
