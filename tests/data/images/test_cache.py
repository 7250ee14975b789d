"""A cache of prepared images gives what the originals' first resize gives, survives a kill, and is never mistaken."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.data.images import cache
from mlrpl_bench.data.images.cache import KINDS, Prepared
from mlrpl_bench.data.images.cache_writer import prepare
from mlrpl_bench.data.images.loader import Reader
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.utils.errors import UserError
from tests.helpers.photographs import BICUBIC, NUM_ROWS, SIDE, enlarged, photograph

pytestmark = pytest.mark.usefixtures("pieces_of_two_rows")

both_kinds = pytest.mark.parametrize("kind", KINDS)


def test_raw_images_are_the_originals_resized_bit_by_bit(split, tmp_path):
    images = prepare(split, tmp_path / "raw", PREPARED_RAW, SIDE)
    assert len(images) == NUM_ROWS
    for row, path in enumerate(split.image_paths):
        assert images[row].mode == "RGB" and np.array_equal(np.asarray(images[row]), enlarged(path))


def test_jpeg_images_are_close_to_the_originals_resized(split, tmp_path):
    images = prepare(split, tmp_path / "jpeg", PREPARED_JPEG, SIDE)
    for row, path in enumerate(split.image_paths):
        difference = np.asarray(images[row]).astype(int) - enlarged(path)
        assert 0 < np.abs(difference).mean() < 8  # colours that change within 4 pixels: JPEG halves their resolution


@pytest.mark.parametrize("workers", [0, 1])
def test_from_raw_a_reader_gives_the_references_training_pixels(split, tmp_path, workers):
    images = prepare(split, tmp_path / "raw", PREPARED_RAW, SIDE)
    reader = Reader(split.image_paths, ImageTransform(28, backend=PREPARED_RAW), workers, prepared=images)
    reference = Reader(split.image_paths, ImageTransform(28))
    for one, other in zip(reader.training(0, 1, 3), reference.training(0, 1, 3), strict=True):
        assert torch.equal(one.pixels_B3HW, other.pixels_B3HW) and torch.equal(one.index_B, other.index_B)


def test_from_raw_the_test_view_is_resized_from_the_prepared_square(split, tmp_path):
    images = prepare(split, tmp_path / "raw", PREPARED_RAW, SIDE)
    (one,) = Reader(split.image_paths, ImageTransform(28, backend=PREPARED_RAW), prepared=images).in_order(NUM_ROWS)
    (other,) = Reader(split.image_paths, ImageTransform(28)).in_order(NUM_ROWS)
    twice = [Image.fromarray(enlarged(path)).resize((28, 28), BICUBIC) for path in split.image_paths]
    assert np.array_equal(one.pixels_B3HW.permute(0, 2, 3, 1), np.stack(twice))
    assert not torch.equal(one.pixels_B3HW, other.pixels_B3HW)


@both_kinds
def test_a_reader_takes_no_originals(split, tmp_path, kind):
    images = prepare(split, tmp_path / "cache", kind, SIDE)
    for path in split.image_paths:
        path.unlink()
    batches = Reader(split.image_paths, ImageTransform(28, backend=kind), prepared=images).in_order(4)
    assert [row for batch in batches for row in batch.index_B.tolist()] == list(range(NUM_ROWS))


def test_a_reader_refuses_prepared_images_of_another_view_or_split(split, tmp_path):
    images = prepare(split, tmp_path / "raw", PREPARED_RAW, SIDE)
    for view in (
        ImageTransform(28),
        ImageTransform(28, backend=PREPARED_JPEG),
        ImageTransform(56, backend=PREPARED_RAW),
    ):
        with pytest.raises(AssertionError):
            Reader(split.image_paths, view, prepared=images)
    with pytest.raises(AssertionError):
        Reader(split.image_paths[1:], ImageTransform(28, backend=PREPARED_RAW), prepared=images)
    with pytest.raises(AssertionError):
        Reader(split.image_paths, ImageTransform(28, backend=PREPARED_RAW))


def test_pickled_prepared_raw_images_carry_no_pixels(split, tmp_path):
    images = prepare(split, tmp_path / "raw", PREPARED_RAW, SIDE)
    images[0]
    pickled = pickle.dumps(images)
    assert len(pickled) < 1000
    assert np.array_equal(np.asarray(pickle.loads(pickled)[4]), np.asarray(images[4]))


@both_kinds
@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("version", 0, "version"),
        ("fingerprint", "f" * 64, "split or dataset"),
        ("side", 64, "side"),
        ("rows", 7, "rows"),
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", "unfinished.json"])
def test_a_cache_of_something_else_is_refused(split, tmp_path, kind, field, value, what, name):
    folder = tmp_path / "cache"
    prepare(split, folder, kind, SIDE)
    facts = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    (folder / name).write_text(json.dumps({**facts, field: value}))
    line = rf"\Athe prepared images in .*cache are of another {what} \({value}, wanted [^\n]*\Z"
    with pytest.raises(UserError, match=line):
        prepare(split, folder, kind, SIDE)


def test_a_cache_of_the_other_kind_is_refused(split, tmp_path):
    prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)
    with pytest.raises(UserError, match=r"are of another kind \(prepared-raw, wanted prepared-jpeg95\)"):
        Prepared(tmp_path / "cache", split, PREPARED_JPEG, SIDE)


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "ki', b"[1]", b"\xff\xfe\x00"], ids=repr)
def test_a_damaged_manifest_is_refused(split, tmp_path, content):
    prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)
    (tmp_path / "cache" / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"\Athe prepared images in .*cache are damaged \(manifest\.json[^\n]*\Z"):
        prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)


def test_a_cache_that_is_not_there_is_named(split, tmp_path):
    with pytest.raises(UserError, match="cache does not exist; prepare the images first"):
        Prepared(tmp_path / "cache", split, PREPARED_RAW, SIDE)


@pytest.mark.parametrize(
    "spoil", [lambda c: c[:-1], lambda c: c[:5], lambda c: b"", lambda c: c.replace(b"|u1", b"|i1")]
)
def test_a_damaged_raw_file_is_refused(split, tmp_path, spoil):
    prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)
    path = tmp_path / "cache" / "pixels_NHW3.npy"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=r"cache are damaged \("):
        Prepared(tmp_path / "cache", split, PREPARED_RAW, SIDE)


def test_a_damaged_or_replaced_jpeg_is_named_when_it_is_read(split, tmp_path):
    images = prepare(split, tmp_path / "cache", PREPARED_JPEG, SIDE)
    paths = sorted((tmp_path / "cache" / "0000").iterdir())
    paths[2].write_bytes(paths[2].read_bytes()[:100])
    paths[3].unlink()
    photograph(40, 40, 0).save(paths[4])
    for row in (2, 3, 4):
        with pytest.raises(UserError, match=rf"cache are damaged \(.*{row}.*\); delete the folder and prepare them"):
            images[row]


@both_kinds
@pytest.mark.parametrize("workers", [0, 2])
def test_rows_that_are_left_out_are_in_the_manifest_and_refused_when_read(split, tmp_path, kind, workers):
    whole = prepare(split, tmp_path / "whole", kind, SIDE)
    split.image_paths[6].write_bytes(b"no image")
    for row in (4, 5):  # a whole piece
        split.image_paths[row].unlink()
    reasons, told = {4: "missing", 5: "missing", 6: "it is no image"}, []
    report = lambda *progress: told.append(progress)  # noqa: E731
    prepare(split, tmp_path / "cache", kind, SIDE, report, workers, reasons)
    images = Prepared(tmp_path / "cache", split, kind, SIDE)
    assert images.skipped_rows == reasons and told[0] == (3, NUM_ROWS) and told[-1] == (NUM_ROWS, NUM_ROWS)
    for row in range(NUM_ROWS):
        if row in reasons:
            line = (
                rf"\Aimage .*{row}\.png was left out .*\({reasons[row]}\); use --on-bad-image skip, or mend it[^\n]*\Z"
            )
            with pytest.raises(UserError, match=line):
                pickle.loads(pickle.dumps(images))[row]
        else:
            assert np.array_equal(np.asarray(images[row]), np.asarray(whole[row]))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"version": "a\nb"}, r"of another version \(a b, wanted 1\)"), ({"left_out": [[1, "a\nb"]]}, r"\(a b\)")],
)
def test_a_manifest_with_line_breaks_is_refused_in_one_line(split, tmp_path, change, said):
    prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE, skipped_rows={1: "missing"})
    path = tmp_path / "cache" / cache.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=rf"\A[^\n]*{said}[^\n]*\Z"):
        Prepared(tmp_path / "cache", split, PREPARED_RAW, SIDE)[1]


def test_a_missing_original_has_its_place_in_the_name_of_the_folder(split):
    view = ImageTransform(28, backend=PREPARED_RAW)
    whole = cache.prepared_folder(split, view)
    split.image_paths[2].unlink()
    assert cache.prepared_folder(split, view) != whole
