"""The views are plain chains of Pillow calls, and an image looks the same whoever reads it, and whenever."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mlrpl_bench.data.images import loader
from mlrpl_bench.data.images.decoding import BadImage, decode
from mlrpl_bench.data.images.loader import Reader, normalise, row_order
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import seed_of

SIZE, ENLARGED = 28, 32
VIEW = ImageTransform(SIZE)
NUM_ROWS, BATCH = 11, 4
BICUBIC = Image.Resampling.BICUBIC

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


class Draws:
    """Stands in for a random generator: the crop's side, left, top and the mirror, as told."""

    def __init__(self, side, left, top, mirror):
        self.side, self.corner, self.mirror = side, (left, top), mirror

    def integers(self, high, size=None):
        drawn = np.array(self.side if size is None else self.corner)
        assert (drawn < high).all(), f"{drawn} cannot be drawn below {high}"
        return drawn

    def random(self):
        return self.mirror


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def same(a, b):
    return a.size == b.size and np.array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{row}.png" for row in range(NUM_ROWS)]
    for row, path in enumerate(paths):
        noise(20 + row, 50 - 2 * row, seed=row).save(path)
    return paths


@pytest.fixture(scope="module", params=[0, 1, 3], ids="{} workers".format)
def reader(request, paths):
    return Reader(paths, VIEW, workers=request.param)


def seen(batches):
    """Row to pixels."""
    return {
        row: pixels_3HW
        for batch in batches
        for row, pixels_3HW in zip(batch.index_B.tolist(), batch.pixels_B3HW, strict=True)
    }


def as_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("image", [noise(45, 31), noise(20, 20), noise(ENLARGED, ENLARGED)], ids=lambda i: str(i.size))
@pytest.mark.parametrize("mirror", [0.49, 0.5])
@pytest.mark.parametrize(("drawn", "side"), list(enumerate((32, 28, 24, 20, 16))))
def test_the_training_view_resizes_crops_resizes_and_mirrors(image, drawn, side, mirror):
    left, top = (ENLARGED - side), (ENLARGED - side) // 2
    expected = image.resize((ENLARGED, ENLARGED), BICUBIC)
    expected = expected.crop((left, top, left + side, top + side))
    expected = expected.resize((SIZE, SIZE), BICUBIC)
    if mirror < 0.5:
        expected = ImageOps.mirror(expected)
    assert same(VIEW.train(image, Draws(drawn, left, top, mirror)), expected)


def test_the_test_view_is_the_whole_image_resized():
    image = noise(45, 31)
    assert same(VIEW.test(image), image.resize((SIZE, SIZE), BICUBIC))


@pytest.mark.parametrize(("drawn", "side"), list(enumerate((512, 448, 384, 320, 256))))
def test_for_448_pixels_the_papers_sides_are_cut_out_of_512(drawn, side, monkeypatch):
    boxes, crop = [], Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", lambda image, box: boxes.append((image.size, box)) or crop(image, box))
    last = 512 - side
    ImageTransform(448).train(noise(64, 48), Draws(drawn, last, last, 0.9))
    assert boxes == [((512, 512), (last, last, 512, 512))]


@pytest.mark.parametrize(("flip", "low", "high"), [(True, 160, 240), (False, 0, 0)])
def test_half_of_the_images_are_mirrored_if_any(flip, low, high):
    image = noise(8, 8)
    view = ImageTransform(7, crop_sides=(1.0,), flip=flip)
    straight = view.train(image, Draws(0, 0, 0, 0.9))
    num_mirrored = sum(not same(view.train(image, np.random.default_rng(seed)), straight) for seed in range(400))
    assert low <= num_mirrored <= high


def test_switching_mirroring_off_leaves_the_crops_as_they_were():
    image = noise(45, 31)
    for seed in range(10):
        straight, either = (
            ImageTransform(SIZE, flip=flip).train(image, np.random.default_rng(seed)) for flip in (False, True)
        )
        assert same(straight, either) or same(straight, ImageOps.mirror(either))


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (5, 0)])
def test_what_an_image_looks_like_follows_from_seed_epoch_and_row(reader, paths, seed, epoch):
    for row, pixels_3HW in seen(reader.training(seed, epoch, BATCH)).items():
        random = np.random.default_rng(seed_of("augmentation", seed, epoch, row))
        assert torch.equal(pixels_3HW, as_tensor(VIEW.train(decode(paths[row]), random)))


def test_epochs_can_be_asked_for_in_any_order(reader):
    later, earlier, again = (list(reader.training(0, epoch, BATCH)) for epoch in (1, 0, 1))
    assert not torch.equal(later[0].index_B, earlier[0].index_B)
    for one, other in zip(later, again, strict=True):
        assert torch.equal(one.index_B, other.index_B) and torch.equal(one.pixels_B3HW, other.pixels_B3HW)


def test_an_image_looks_different_in_another_epoch_and_seed(reader):
    first, next_epoch, next_seed = (seen(reader.training(*address, 1)) for address in ((0, 0), (0, 1), (1, 0)))
    assert not any(torch.equal(first[row], next_epoch[row]) for row in first)
    assert not any(torch.equal(first[row], next_seed[row]) for row in first)


def test_a_training_epoch_has_the_rows_in_their_order_without_the_last_short_batch(reader):
    batches = list(reader.training(0, 2, BATCH))
    assert [len(batch.index_B) for batch in batches] == [BATCH, BATCH]
    assert torch.equal(torch.cat([batch.index_B for batch in batches]), row_order(NUM_ROWS, 0, 2)[: 2 * BATCH])
    assert reader.steps_per_epoch(BATCH) == len(batches)


def test_in_order_every_row_comes_once_in_the_test_view(reader, paths):
    batches = list(reader.in_order(BATCH))
    assert [batch.index_B.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    expected_B3HW = torch.stack([as_tensor(VIEW.test(decode(path))) for path in paths])
    assert torch.equal(torch.cat([batch.pixels_B3HW for batch in batches]), expected_B3HW)


def test_an_epoch_that_was_left_halfway_does_not_disturb_the_next(reader):
    abandoned = reader.training(0, 0, 1)
    next(abandoned)
    abandoned.close()
    assert [row for batch in reader.in_order(BATCH) for row in batch.index_B.tolist()] == list(range(NUM_ROWS))


def test_reading_leaves_torchs_global_random_state_as_it_was(reader):
    before = torch.get_rng_state()
    list(reader.in_order(BATCH))
    list(reader.training(0, 0, BATCH))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_images_file_is_read_once_while_there_is_room(tmp_path):
    noise(20, 20).save(tmp_path / "a.png")
    reader = Reader([tmp_path / "a.png"], VIEW)
    before = seen(reader.in_order(1))
    (tmp_path / "a.png").unlink()
    assert torch.equal(seen(reader.in_order(1))[0], before[0])


def test_without_room_files_are_read_again_with_the_same_outcome(paths, monkeypatch):
    roomy = seen(Reader(paths, VIEW).training(0, 0, 1))
    monkeypatch.setattr(loader, "KEEP_DECODED_BYTES", 3 * 20 * 50)  # for the first image alone
    decoded = []
    monkeypatch.setattr(loader, "decode", lambda path, *_: decoded.append(path) or decode(path))
    reader = Reader(paths, VIEW)
    list(reader.in_order(1))
    assert all(torch.equal(pixels, roomy[row]) for row, pixels in seen(reader.training(0, 0, 1)).items())
    assert sorted(map(decoded.count, paths)) == [1] + [2] * (NUM_ROWS - 1)


def test_the_row_order_is_a_permutation_that_follows_from_seed_and_epoch():
    orders = {address: row_order(50, *address) for address in ((0, 0), (0, 1), (1, 0))}
    torch.manual_seed(1)
    assert all(torch.equal(row_order(50, *address), order) for address, order in orders.items())
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders.values())
    assert len({tuple(order.tolist()) for order in orders.values()}) == 3


def truncated(path):
    noise(60, 60).save(path, format="jpeg")
    path.write_bytes(path.read_bytes()[:3000])


def no_image(path):
    path.write_text("once upon a time")


def empty(path):
    path.touch()


def folder(path):
    path.mkdir()


@pytest.mark.parametrize("spoil", [truncated, no_image, empty], ids=lambda spoil: spoil.__name__)
def test_a_file_that_cannot_be_decoded_is_named(tmp_path, spoil):
    path = tmp_path / "0001.jpg"
    spoil(path)
    with pytest.raises(UserError, match=r"^image .*0001\.jpg cannot be decoded \(.+\); replace the file$"):
        decode(path)


@pytest.mark.parametrize("spoil", [lambda path: None, folder], ids=["nothing", "folder"])
def test_a_file_that_is_not_there_is_named(tmp_path, spoil):
    spoil(tmp_path / "0001.jpg")
    with pytest.raises(UserError, match=r"^image .*0001\.jpg does not exist; check the data folder$"):
        decode(tmp_path / "0001.jpg")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reader_says_in_one_line_which_file_is_broken(tmp_path, workers):
    path = tmp_path / "0001.jpg"
    truncated(path)
    with pytest.raises(BadImage, match=r"\Aimage .*0001\.jpg cannot be decoded [^\n]*\Z"):
        list(Reader([path], VIEW, workers).in_order(1))


def test_an_image_is_decoded_as_small_as_its_view_allows(tmp_path, monkeypatch):
    noise(300, 200).save(tmp_path / "0001.jpg")
    view, asked = ImageTransform(28, backend="fast"), []
    monkeypatch.setattr(loader, "decode", lambda *given: asked.append(given) or decode(*given))
    list(Reader([tmp_path / "0001.jpg"], view).in_order(1))
    assert asked == [(tmp_path / "0001.jpg", view.decode_at_least)] and view.decode_at_least is not None


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("P", "png"), ("1", "png"), ("LA", "png"), ("RGBA", "png"), ("CMYK", "jpg")]
)
def test_grey_palette_and_cmyk_images_become_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"image.{suffix}"
    noise(20, 10).convert(mode).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
        expected = stored.convert("RGB")
    decoded = decode(path)
    assert decoded.mode == "RGB" and same(decoded, expected)


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation_of_imagenet():
    pixels_B3HW = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected_BHW3 = (pixels_B3HW.permute(0, 2, 3, 1).numpy() / 255 - mean) / deviation
    normalised_B3HW = normalise(pixels_B3HW)
    assert normalised_B3HW.dtype == torch.float32
    assert np.allclose(normalised_B3HW.permute(0, 2, 3, 1).numpy(), expected_BHW3, atol=1e-6)
