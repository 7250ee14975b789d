"""A strong view has a crop of its own and torchvision's RandAugment, and follows from (image, seed, epoch, row)."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from mlrpl_bench.data.choices import BACKENDS, PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.data.images import loader
from mlrpl_bench.data.images.cache_writer import prepare
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.loader import Reader
from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.utils.randomness import generator_at, seed_of
from tests.helpers.photographs import NUM_ROWS, SIDE

VIEW = ImageTransform(28)
STRONG, UNCHANGED = StrongView(), StrongView(operations=0)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8))


def pixels(image):
    return np.asarray(image).tobytes()


def own_crop(*place, image=IMAGE):
    return VIEW.train(image, np.random.default_rng(seed_of("augmentation", *place, "strong")))


def test_without_operations_it_is_a_training_view_with_a_crop_and_mirror_of_its_own():
    places = [(seed, epoch, row) for seed in (0, 1) for epoch in (0, 1) for row in range(5)]
    views = [UNCHANGED.of(IMAGE, VIEW, *place) for place in places]
    assert [pixels(view) for view in views] == [pixels(own_crop(*place)) for place in places]
    weak = [VIEW.train(IMAGE, np.random.default_rng(seed_of("augmentation", *place))) for place in places]
    assert sum(pixels(view) == pixels(other) for view, other in zip(views, weak, strict=True)) < 3
    assert len({pixels(view) for view in views}) > len(places) // 2


def test_it_is_then_changed_by_torchvisions_rand_augment_with_its_defaults():
    for row in range(12):
        seed = int(torch.randint(2**62, (), generator=generator_at("RandAugment", 3, 1, row, "strong")))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = v2.RandAugment()(own_crop(3, 1, row))
        assert pixels(STRONG.of(IMAGE, VIEW, 3, 1, row)) == pixels(expected)


def test_interpolation_operations_and_magnitude_are_rand_augments():
    others = (StrongView(interpolation="bilinear"), StrongView(operations=3), StrongView(magnitude=25))
    for other in others:
        rows = range(12)
        same = [pixels(STRONG.of(IMAGE, VIEW, 0, 0, n)) == pixels(other.of(IMAGE, VIEW, 0, 0, n)) for n in rows]
        assert not all(same)


def test_it_depends_on_seed_epoch_and_row_alone_and_leaves_the_global_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [pixels(STRONG.of(IMAGE, VIEW, 0, 0, row)) for row in range(4)]
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws from it
    torch.manual_seed(2)
    assert [pixels(STRONG.of(IMAGE, VIEW, 0, 0, row)) for row in (3, 2, 1, 0)] == first[::-1]
    assert len({*first, pixels(STRONG.of(IMAGE, VIEW, 1, 0, 0)), pixels(STRONG.of(IMAGE, VIEW, 0, 1, 0))}) == 6


@pytest.fixture(params=BACKENDS)
def reader_of(request, split, tmp_path):
    """Makes a reader of each image backend; and its view."""
    view = ImageTransform(28, backend=request.param)
    is_prepared = request.param in (PREPARED_JPEG, PREPARED_RAW)
    images = prepare(split, tmp_path / "cache", request.param, SIDE) if is_prepared else None
    return lambda workers=0: Reader(split.image_paths, view, workers, prepared=images), view, images


def test_every_backend_gives_it_beside_the_training_view_and_the_same_with_loader_processes(reader_of, split):
    reader, view, images = reader_of
    bare, both, apart = (
        list(reader(workers).training(0, 1, 3, 0, strong))
        for workers, strong in ((0, ()), (0, (STRONG, UNCHANGED)), (2, (STRONG, UNCHANGED)))
    )
    for one, two, three in zip(bare, both, apart, strict=True):
        assert one.strong_B3HW == () and len(two.strong_B3HW) == 2
        assert torch.equal(one.pixels_B3HW, two.pixels_B3HW) and torch.equal(one.index_B, two.index_B)
        for tensor, other in zip(two.strong_B3HW, three.strong_B3HW, strict=True):
            assert torch.equal(tensor, other) and tensor.shape == two.pixels_B3HW.shape
        for place, row in enumerate(two.index_B.tolist()):
            image = images[row] if images else decode(split.image_paths[row], view.decode_at_least)
            expected = STRONG.of(image, view, 0, 1, row)
            assert np.array_equal(two.strong_B3HW[0][place].permute(1, 2, 0), np.asarray(expected))


def test_an_image_is_decoded_once_for_all_its_views(split, monkeypatch):
    monkeypatch.setattr(loader, "KEEP_DECODED_BYTES", 0)
    decoded = []
    monkeypatch.setattr(loader, "decode", lambda path, *_: decoded.append(path) or decode(path))
    list(Reader(split.image_paths, VIEW).training(0, 0, 1, 0, [STRONG, UNCHANGED]))
    assert len(decoded) == NUM_ROWS
