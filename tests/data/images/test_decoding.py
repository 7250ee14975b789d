"""Every file is either decoded as Pillow alone would, or named with what is wrong; looking through many is the same."""

import errno

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data.images import decoding
from mlrpl_bench.data.images.decoding import FATAL, BadImage, FileFacts, bad_rows, decode, extent, inspect, inspect_all
from mlrpl_bench.utils.errors import UserError


def noise(width=60, height=40, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def smooth(width, height):
    return noise(8, 6).resize((width, height), Image.Resampling.BICUBIC)


def save(path, image=None, **options):
    (image or noise()).save(path, **options)
    return path


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def grey_16_bit():
    return Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 20)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif", "tif", "ppm"])
def test_a_decoded_image_is_pillows_in_rgb(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}")
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    decoded = decode(path)
    path.unlink()  # nothing is read later
    assert decoded.mode == "RGB" and np.array_equal(np.asarray(decoded.resize(decoded.size)), expected)


@pytest.mark.parametrize("suffix", ["tif", "mpo", "gif", "webp"])
def test_of_several_pictures_in_a_file_the_first_is_decoded(tmp_path, suffix):
    first = noise(seed=1)
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[noise(seed=2)])
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        expected = np.asarray(stored.convert("RGB"))
    decoded = decode(tmp_path / f"a.{suffix}")
    assert np.array_equal(np.asarray(decoded.crop((0, 0, 60, 40))), expected)


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 320), (200, 160)), ((399, 250), (399, 250)), ((800, 640), (100, 80))]
)
def test_a_large_jpeg_may_be_decoded_smaller_but_not_below_what_is_asked_for(tmp_path, size, expected):
    path = save(tmp_path / "a.jpg", smooth(*size), quality=95)
    at_least = 80 if size == (800, 640) else 130
    decoded = decode(path, at_least)
    assert decoded.size == expected
    difference = np.asarray(decoded.resize((60, 40))).astype(int) - np.asarray(decode(path).resize((60, 40)))
    assert np.abs(difference).mean() < 3
    assert decode(path).size == size


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_extent_of_a_picture_that_was_decoded_smaller_is_in_parts_of_a_pixel(tmp_path, mode):
    path = save(tmp_path / "a.jpg", smooth(401, 321).convert(mode), quality=95)
    assert decode(path, 60).size == (101, 81) and extent(decode(path, 60)) == (100.25, 80.25)
    assert extent(decode(path, 300)) == extent(decode(path)) == (401, 321)


def test_files_that_are_no_jpeg_are_decoded_whole(tmp_path):
    path = save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(decode(path, 4)), np.asarray(decode(path)))
    assert extent(decode(path, 4)) == (60, 40)


@pytest.mark.parametrize("limit", [2399, 1000], ids=["warned of by Pillow", "refused by Pillow"])
def test_a_decompression_bomb_is_named_and_not_decoded(tmp_path, monkeypatch, limit):
    path = save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=r"^image .*a\.png cannot be decoded \(.*2400 pixels.*\); replace the file$"):
        decode(path)
    facts = inspect(path)
    assert facts.problem == "decompression bomb" and "2400 pixels" in facts.reason and facts.is_fatal
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2400)
    assert decode(path).size == (60, 40) and inspect(path).problem is None


SPECIMENS = {
    "plain.jpg": (lambda path: save(path), FileFacts("RGB", (60, 40), None)),
    "plain.JPEG": (lambda path: save(path), FileFacts("RGB", (60, 40), None)),
    "plain.png": (lambda path: save(path), FileFacts("RGB", (60, 40), None)),
    "grey.jpg": (lambda path: save(path, noise().convert("L")), FileFacts("L", (60, 40), "grey")),
    "bits.png": (lambda path: save(path, noise().convert("1")), FileFacts("1", (60, 40), "grey")),
    "cmyk.jpg": (lambda path: save(path, noise().convert("CMYK")), FileFacts("CMYK", (60, 40), "CMYK")),
    "palette.png": (lambda path: save(path, noise().convert("P")), FileFacts("P", (60, 40), "palette")),
    "sixteen.png": (lambda path: save(path, grey_16_bit()), FileFacts("I;16", (60, 40), "16-bit")),
    "sixteen.tif": (lambda path: save(path, grey_16_bit()), FileFacts("I;16", (60, 40), "16-bit")),
    "clear.png": (lambda path: save(path, noise().convert("RGBA")), FileFacts("RGBA", (60, 40), "other colours")),
    "png.jpg": (lambda path: save(path, format="png"), FileFacts("RGB", (60, 40), "mislabelled", "its content is PNG")),
    "jpg.png": (
        lambda path: save(path, format="jpeg"),
        FileFacts("RGB", (60, 40), "mislabelled", "its content is JPEG"),
    ),
    "two.jpg": (
        lambda path: noise().save(path, format="mpo", save_all=True, append_images=[noise()]),
        FileFacts("RGB", (60, 40), None),
    ),
    "no ending": (lambda path: save(path, format="png"), FileFacts("RGB", (60, 40), None)),
    "truncated.jpg": (lambda path: cut(save(path), 0.6), FileFacts("RGB", (60, 40), "truncated")),
    "truncated.png": (lambda path: cut(save(path), 0.6), FileFacts("RGB", (60, 40), "truncated")),
    "beheaded.jpg": (lambda path: cut(save(path), 0.002), FileFacts("", (0, 0), "unreadable")),
    "empty.jpg": (lambda path: path.touch(), FileFacts("", (0, 0), "unreadable")),
    "text.jpg": (lambda path: path.write_text("once upon a time"), FileFacts("", (0, 0), "unreadable")),
    "folder.jpg": (lambda path: path.mkdir(), FileFacts("", (0, 0), "missing")),
    "floating.tif": (lambda path: save(path, noise().convert("F")), FileFacts("F", (60, 40), "floating-point")),
    "missing.jpg": (lambda path: None, FileFacts("", (0, 0), "missing")),
}


@pytest.mark.parametrize("name", SPECIMENS)
def test_what_a_file_is_is_found_out(tmp_path, name):
    make, expected = SPECIMENS[name]
    make(tmp_path / name)
    facts = inspect(tmp_path / name)
    assert facts[:3] == expected[:3]
    assert (facts.reason == expected.reason) or (facts.problem in FATAL - {"missing"} and facts.reason)


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_problem_is_called_fatal_exactly_where_decoding_fails(tmp_path, name):
    SPECIMENS[name][0](tmp_path / name)
    if inspect(tmp_path / name).is_fatal:
        with pytest.raises(UserError, match=name):
            decode(tmp_path / name)
    else:
        assert decode(tmp_path / name).mode == "RGB"


def test_every_fatal_problem_is_among_the_specimens_or_a_bomb():
    assert {facts.problem for _, facts in SPECIMENS.values()} & FATAL == FATAL - {"decompression bomb"}


@pytest.fixture(scope="module")
def specimens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specimens")
    for name, (make, _) in SPECIMENS.items():
        make(folder / name)
    return [folder / name for name in SPECIMENS]


@pytest.mark.parametrize("workers", [0, 2])
def test_many_files_are_inspected_in_their_order(specimens, workers, monkeypatch):
    monkeypatch.setattr(decoding, "FILES_PER_PIECE", 4)
    told = []
    facts = inspect_all(specimens, workers, lambda done, total: told.append((done, total)))
    assert facts == [inspect(path) for path in specimens]
    assert sorted(told) == told and told[-1] == (len(specimens), len(specimens)) and len(told) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_those_that_cannot_be_decoded_each_with_the_reason(specimens, workers):
    expected = {row for row, (_, facts) in enumerate(SPECIMENS.values()) if facts.problem in FATAL}
    found = bad_rows(specimens, workers)
    assert [row for row, _ in found] == sorted(expected)
    for row, reason in found:
        assert reason and "/" not in reason  # it goes into records, where paths of this machine have no place
        assert inspect(specimens[row]).reason in (reason, "" if reason == "missing" else reason)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names = []
    monkeypatch.setattr(decoding, "decode", lambda path: names.append(path.name) or decode(path))
    return names


def test_only_new_and_changed_files_are_decoded_again(tmp_path, monkeypatch, decoded):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    paths = [tmp_path / "data" / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths[:4]):
        save(path, noise(seed=number))
    cut(paths[1], 0.5)
    told = []
    bad = bad_rows(paths, 0, lambda *progress: told.append(progress), remember=True)
    assert [row for row, _ in bad] == [1, 4] and bad[1] == (4, "missing") and told[-1] == (4, 4)
    assert decoded == ["0.png", "1.png", "2.png", "3.png"]  # nothing was asked of the missing one
    decoded.clear()
    told.clear()
    assert bad_rows(paths, 0, lambda *progress: told.append(progress), remember=True) == bad
    assert bad_rows(paths[1:3], remember=True) == [(0, bad[0][1])] and decoded == told == []
    save(paths[1], noise(seed=9))
    cut(paths[3], 0.5)
    save(paths[4])
    assert [row for row, _ in bad_rows(paths, remember=True)] == [3]
    assert decoded == ["1.png", "3.png", "4.png"]


def test_what_was_decoded_before_an_interruption_stays(tmp_path, monkeypatch, decoded):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "KEEP_EVERY", 2)
    paths = [save(tmp_path / f"{number}.png") for number in range(5)]

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "FILES_PER_PIECE", 1)
    with pytest.raises(KeyboardInterrupt):
        bad_rows(paths, 0, interrupt, remember=True)
    decoded.clear()
    bad_rows(paths, remember=True)
    assert decoded == ["2.png", "3.png", "4.png"]


def test_a_damaged_memory_is_made_anew(tmp_path, monkeypatch, decoded):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    path = save(tmp_path / "a.png")
    for content in ("", "[1]", "{"):
        bad_rows([path], remember=True)
        (memory,) = (tmp_path / "cache" / "decoded").iterdir()
        memory.write_text(content)
    assert bad_rows([path], remember=True) == [] and decoded == ["a.png"] * 4


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_what_the_system_refuses_is_no_fault_of_the_image(tmp_path, monkeypatch, code):
    path = save(tmp_path / "a.png")

    def refuse(*_):
        raise OSError(code, "of the system", str(path))

    monkeypatch.setattr(decoding.Image, "open", refuse)
    for read in (decode, lambda path: bad_rows([path])):
        with pytest.raises(UserError, match=r"^image .*a\.png cannot be read \(.*of the system") as refusal:
            read(path)
        assert not isinstance(refusal.value, BadImage)
    assert inspect(path).problem == "unreadable"


def test_no_files_are_no_facts_and_no_bad_rows():
    assert inspect_all([], 2) == [] == bad_rows([])


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    ramp_HW = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp_HW).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "deep.png"))[..., 0], ramp_HW >> 8)


def test_floating_point_pixels_have_no_range_and_are_refused(tmp_path):
    Image.fromarray(np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)).save(tmp_path / "deep.tif")
    with pytest.raises(BadImage, match=r"deep\.tif cannot be decoded \(its pixels are floating-point numbers"):
        decode(tmp_path / "deep.tif")
    facts = inspect(tmp_path / "deep.tif")
    assert facts.is_fatal and facts.mode == "F" and facts.problem == "floating-point"
