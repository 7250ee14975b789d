"""The implementations of the transforms: the same draws for all, and how far their pixels are from the reference's.

The reference's own chain is tested in test_loader.py.
"""

import numpy as np
import pytest
from PIL import Image, ImageOps

from mlrpl_bench.data.choices import BACKENDS, FAST, PREPARED_JPEG, PREPARED_RAW, REDUCED, REFERENCE
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.transforms import ImageTransform, PixelFormat

SIZE, ENLARGED = 56, 64
BICUBIC = Image.Resampling.BICUBIC


def photograph(width, height, seed=0):
    """Smooth noise: neighbouring pixels are alike, as in photographs."""
    coarse = np.random.default_rng(seed).integers(256, size=(height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), BICUBIC)


def pixels(image):
    return np.asarray(image).astype(int)


def both(image, seed, backend):
    """The training view of a backend, and the reference's for the same address."""
    return (
        pixels(ImageTransform(SIZE, backend=name).train(image, np.random.default_rng(seed)))
        for name in (backend, REFERENCE)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_backends_make_the_same_draws_and_leave_the_generator_alike(backend):
    for seed in range(20):
        random, reference_random = np.random.default_rng(seed), np.random.default_rng(seed)
        drawn = ImageTransform(SIZE, backend=backend).draw(random)
        assert drawn == ImageTransform(SIZE).draw(reference_random)
        assert random.integers(2**60) == reference_random.integers(2**60)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_view_draws_nothing_beside_the_crop(backend):
    random, other = np.random.default_rng(3), np.random.default_rng(3)
    view = ImageTransform(SIZE, backend=backend)
    view.train(photograph(ENLARGED, ENLARGED), random)
    view.draw(other)
    assert random.integers(2**60) == other.integers(2**60)


@pytest.mark.parametrize("size", [(160, 120), (96, 128), (64, 64), (48, 40)], ids=str)
def test_fast_is_close_to_the_reference(size):
    differences = [np.abs(np.subtract(*both(photograph(*size, seed), seed, FAST))).mean() for seed in range(30)]
    assert np.mean(differences) < 3
    assert max(differences) < 8


def test_fast_with_another_crop_or_mirror_would_not_be_close():
    image, view = photograph(160, 120), ImageTransform(SIZE, backend=FAST)
    one, other = (pixels(view.train(image, np.random.default_rng(seed))) for seed in (0, 1))
    assert np.abs(one - other).mean() > 15


def test_fast_is_one_resize_of_the_box_in_the_original_image():
    image, view = photograph(160, 120), ImageTransform(SIZE, backend=FAST)
    for seed in range(10):
        side, left, top, mirrored = view.draw(np.random.default_rng(seed))
        box = (left * 2.5, top * 1.875, (left + side) * 2.5, (top + side) * 1.875)
        expected = image.resize((SIZE, SIZE), BICUBIC, box=box)
        expected = ImageOps.mirror(expected) if mirrored else expected
        assert np.array_equal(pixels(view.train(image, np.random.default_rng(seed))), pixels(expected))


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (641, 479), (65537, 1)], ids=str)
def test_the_fast_views_box_never_leaves_an_image_of_any_size(size):
    image = Image.new("RGB", size, (10, 20, 30))
    for seed in range(40):
        assert (
            pixels(ImageTransform(SIZE, backend=FAST).train(image, np.random.default_rng(seed))) == (10, 20, 30)
        ).all()


def test_from_raw_prepared_images_the_training_view_is_the_references_bit_by_bit():
    view = ImageTransform(SIZE, backend=PREPARED_RAW)
    for seed in range(20):
        image = photograph(160, 120, seed)
        prepared = image.resize((view.enlarged, view.enlarged), BICUBIC)
        _, reference = both(image, seed, REFERENCE)
        assert np.array_equal(pixels(view.train(prepared, np.random.default_rng(seed))), reference)


def test_from_jpeg_prepared_images_crop_and_resize_are_fused():
    image = photograph(ENLARGED, ENLARGED)
    differences = [np.abs(np.subtract(*both(image, seed, PREPARED_JPEG))).mean() for seed in range(20)]
    assert max(differences) < 1  # the same crop, but pixels beside the crop help to interpolate its edges


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_test_view_is_one_resize_of_what_it_is_given(backend):
    image = photograph(160, 120)
    expected = image.resize((SIZE, SIZE), BICUBIC)
    assert np.array_equal(pixels(ImageTransform(SIZE, backend=backend).test(image)), pixels(expected))


def test_fast_asks_for_the_pixels_that_the_smallest_crop_needs_and_reduced_for_those_of_the_whole_image():
    at_least = {backend: ImageTransform(448, backend=backend).decode_at_least for backend in BACKENDS}
    assert at_least == {REFERENCE: None, FAST: 896, REDUCED: 448, PREPARED_JPEG: None, PREPARED_RAW: None}
    assert ImageTransform(448, crop_sides=(1.0, 0.875), backend=FAST).decode_at_least == 512


def test_prepared_images_for_448_pixels_have_512():
    assert ImageTransform(448).enlarged == 512
    are_prepared = [backend for backend in BACKENDS if ImageTransform(448, backend=backend).is_prepared]
    assert are_prepared == [PREPARED_JPEG, PREPARED_RAW]


def test_an_unknown_backend_is_refused():
    with pytest.raises(AssertionError, match="no backend 'quick', only reference, fast"):
        ImageTransform(SIZE, backend="quick")


def test_reduced_cuts_a_picture_of_odd_size_where_the_full_one_would_be_cut(tmp_path):
    photograph(8 * 15, 8 * 15).crop((0, 0, 115, 113)).save(tmp_path / "a.jpg", quality=95)
    view = ImageTransform(SIZE, backend=REDUCED)
    small = decode(tmp_path / "a.jpg", view.decode_at_least)
    assert small.size == (58, 57)
    for seed in range(10):
        side, left, top, mirrored = view.draw(np.random.default_rng(seed))
        in_full_size = (left * 115 / 64, top * 113 / 64, (left + side) * 115 / 64, (top + side) * 113 / 64)
        expected = small.resize((SIZE, SIZE), BICUBIC, box=tuple(edge / 2 for edge in in_full_size))
        expected = ImageOps.mirror(expected) if mirrored else expected
        assert np.array_equal(pixels(view.train(small, np.random.default_rng(seed))), pixels(expected))
    assert np.array_equal(pixels(view.test(small)), pixels(small.resize((SIZE, SIZE), BICUBIC, box=(0, 0, 57.5, 56.5))))


def test_reduced_moves_no_edge_of_the_picture(tmp_path):
    ramp_HW = np.tile(np.arange(113) * 2, (113, 1)).astype(np.uint8)
    Image.fromarray(ramp_HW).convert("RGB").save(tmp_path / "a.jpg", quality=100)
    view = ImageTransform(SIZE, backend=REDUCED)
    small, whole = decode(tmp_path / "a.jpg", view.decode_at_least), decode(tmp_path / "a.jpg")
    assert small.width == 57
    for seed in range(10):
        views = [pixels(view.train(image, np.random.default_rng(seed))) for image in (small, whole)]
        assert abs((views[0] - views[1])[:, 3:-3].mean()) < 0.25  # a pixel too wide is 0.5 on average, 2 at the edge


@pytest.mark.parametrize("backend", [REFERENCE, FAST, REDUCED])
def test_a_backbone_that_was_trained_bilinear_sees_bilinear_images(backend):
    image = photograph(90, 70)
    view = ImageTransform(SIZE, backend=backend, pixels=PixelFormat(interpolation="bilinear"))
    assert np.array_equal(pixels(view.test(image)), pixels(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    views = [
        pixels(each.train(image, np.random.default_rng(3))) for each in (view, ImageTransform(SIZE, backend=backend))
    ]
    assert not np.array_equal(*views)
