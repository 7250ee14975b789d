"""A cache of prepared images gives what the originals' first resize gives, survives a kill, and is never mistaken."""

import errno
import json
import pickle
import re
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images import cache, decoding
from mlrpl_bench.data.images.cache import (
    KINDS,
    PREPARED_JPEG,
    PREPARED_RAW,
    Prepared,
    prepare,
    refuse_to_fill_the_disk,
    size_of,
)
from mlrpl_bench.data.images.loader import Reader, decode
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.utils.errors import UserError

NUM_ROWS, SIDE = 11, 32
BICUBIC = Image.Resampling.BICUBIC
Usage = namedtuple("Usage", "total used free")

both_kinds = pytest.mark.parametrize("kind", KINDS)


def photograph(width, height, seed):
    coarse = np.random.default_rng(seed).integers(256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), BICUBIC)


def split_of(folder, num_rows=NUM_ROWS):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{row}.png" for row in range(num_rows)]
    for row, path in enumerate(paths):
        size = (SIDE, SIDE) if row == 3 else (60 + row, 50 - row)
        photograph(*size, seed=row).save(path)
    labels_NC = np.tile(np.array([[1, -1]], np.int8), (num_rows, 1))
    return Split(list(range(num_rows)), paths, labels_NC, ("cat", "dog"))


@pytest.fixture
def split(tmp_path):
    return split_of(tmp_path / "originals")


@pytest.fixture(autouse=True)
def pieces_of_two_rows(monkeypatch):
    monkeypatch.setattr(cache, "FILES_PER_PIECE", 2)


def enlarged(path):
    return np.asarray(decode(path).resize((SIDE, SIDE), BICUBIC))


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def count_decodes(monkeypatch, fail_at=None):
    """The files that are decoded from now on; at the `fail_at`-th the process is as good as killed."""
    decoded = []

    def spy(path, *_):
        if len(decoded) == fail_at:
            raise KeyboardInterrupt
        decoded.append(path)
        return decode(path)

    monkeypatch.setattr(cache, "decode", spy)
    monkeypatch.setattr(cache, "size_of", lambda *_: 1)  # which decodes a sample
    return decoded


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
def test_workers_write_the_same_files(split, tmp_path, kind):
    for workers in (0, 2):
        prepare(split, tmp_path / str(workers), kind, SIDE, workers=workers)
    assert files_of(tmp_path / "0") == files_of(tmp_path / "2")


@both_kinds
def test_a_finished_cache_holds_its_files_and_nothing_else(split, tmp_path, kind):
    prepare(split, tmp_path / "cache", kind, SIDE)
    rows = ["pixels_NHW3.npy"] if kind == PREPARED_RAW else [f"0000/{row:07d}.jpg" for row in range(NUM_ROWS)]
    assert sorted(files_of(tmp_path / "cache")) == sorted(["manifest.json", *rows])


@both_kinds
@pytest.mark.parametrize("workers", [0, 2])
def test_progress_is_told_in_rows(split, tmp_path, kind, workers):
    told = []
    prepare(split, tmp_path / "cache", kind, SIDE, lambda *told_now: told.append(told_now), workers)
    assert told[0] == (0, NUM_ROWS) and told[-1] == (NUM_ROWS, NUM_ROWS) and told == sorted(told)
    assert len(told) == 7


@both_kinds
def test_what_is_prepared_is_not_prepared_again(split, tmp_path, kind, monkeypatch):
    prepare(split, tmp_path / "cache", kind, SIDE)
    decoded = count_decodes(monkeypatch)
    prepare(split, tmp_path / "cache", kind, SIDE)
    assert decoded == []


@pytest.mark.parametrize(("kind", "kept"), [(PREPARED_JPEG, 5), (PREPARED_RAW, 4)])
def test_after_a_kill_what_was_written_stays(split, tmp_path, kind, kept, monkeypatch):
    prepare(split, tmp_path / "whole", kind, SIDE)
    folder = tmp_path / "cache"
    count_decodes(monkeypatch, fail_at=5)
    with pytest.raises(KeyboardInterrupt):
        prepare(split, folder, kind, SIDE)
    with pytest.raises(UserError, match="is unfinished; prepare the images first"):
        Prepared(folder, split, kind, SIDE)
    decoded, told = count_decodes(monkeypatch), []
    prepare(split, folder, kind, SIDE, lambda *told_now: told.append(told_now))
    assert decoded == list(split.image_paths[kept:])  # raw pixels are written in pieces, here of two rows
    assert told[0] == (kept, NUM_ROWS) and told[-1] == (NUM_ROWS, NUM_ROWS)
    assert files_of(folder) == files_of(tmp_path / "whole")


@both_kinds
def test_a_kill_before_the_manifest_leaves_nothing_to_do_but_the_manifest(split, tmp_path, kind, monkeypatch):
    write = cache.write_atomically

    def kill_at_manifest(path, content):
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(cache, "write_atomically", kill_at_manifest)
    with pytest.raises(KeyboardInterrupt):
        prepare(split, tmp_path / "cache", kind, SIDE)
    monkeypatch.setattr(cache, "write_atomically", write)
    decoded = count_decodes(monkeypatch)
    assert len(prepare(split, tmp_path / "cache", kind, SIDE)) == NUM_ROWS
    assert decoded == []


def test_raw_pixels_that_vanished_with_their_notes_left_are_written_anew(split, tmp_path, monkeypatch):
    count_decodes(monkeypatch, fail_at=5)
    with pytest.raises(KeyboardInterrupt):
        prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)
    (tmp_path / "cache" / "pixels_NHW3.npy").unlink()
    assert len(count_decodes(monkeypatch)) == 0
    images = prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)
    assert np.array_equal(np.asarray(images[0]), enlarged(split.image_paths[0]))


def test_an_original_that_cannot_be_decoded_is_named(split, tmp_path):
    split.image_paths[6].write_bytes(b"no image")
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"\Aimage .*6\.png cannot be decoded[^\n]*\Z"):
            prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE, workers=workers)


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


def test_the_size_is_known_beforehand(split, tmp_path):
    for kind in KINDS:
        prepare(split, tmp_path / kind, kind, SIDE)
    raw = (tmp_path / PREPARED_RAW / "pixels_NHW3.npy").stat().st_size
    assert size_of(split, PREPARED_RAW, SIDE) == raw
    jpeg = sum(path.stat().st_size for path in (tmp_path / PREPARED_JPEG / "0000").iterdir())
    assert size_of(split, PREPARED_JPEG, SIDE) == jpeg  # every image is in the sample


def test_the_size_of_jpegs_is_estimated_from_those_that_can_be_decoded(split, monkeypatch):
    estimate = size_of(split, PREPARED_JPEG, SIDE)
    monkeypatch.setattr(cache, "SAMPLED_FOR_SIZE", 3)
    assert 0.5 < size_of(split, PREPARED_JPEG, SIDE) / estimate < 2
    split.image_paths[0].unlink()
    assert 0.5 < size_of(split, PREPARED_JPEG, SIDE) / estimate < 2
    for path in split.image_paths[1:]:
        path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        size_of(split, PREPARED_JPEG, SIDE)


@both_kinds
def test_a_disk_that_would_be_filled_is_refused_before_anything_is_written(split, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Usage(0, 0, size_of(split, kind, SIDE) - 1))
    with pytest.raises(UserError, match=r"\Athe prepared images need about [^\n]* GB and [^\n]* are free[^\n]*\Z"):
        prepare(split, tmp_path / "deep" / "cache", kind, SIDE)
    assert not (tmp_path / "deep").exists()


def test_only_what_is_missing_must_fit_on_the_disk(split, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        count_decodes(patch, fail_at=8)
        with pytest.raises(KeyboardInterrupt):
            prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Usage(0, 0, size_of(split, PREPARED_RAW, SIDE) // 2))
    assert len(prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)) == NUM_ROWS


@pytest.mark.parametrize(("code", "line"), [(errno.ENOSPC, "is full; free some"), (errno.EROFS, "cannot be written")])
def test_a_disk_that_fails_while_it_is_written_is_named(split, tmp_path, monkeypatch, code, line):
    def fail(*_):
        raise OSError(code, "of the system")

    monkeypatch.setattr(cache, "write_atomically", fail)
    with pytest.raises(UserError, match=rf"\A[^\n]*{re.escape(str(tmp_path / 'cache'))}[^\n]*{line}[^\n]*\Z"):
        prepare(split, tmp_path / "cache", PREPARED_JPEG, SIDE)


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
    assert images.left_out == reasons and told[0] == (3, NUM_ROWS) and told[-1] == (NUM_ROWS, NUM_ROWS)
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
    prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE, left_out={1: "missing"})
    path = tmp_path / "cache" / cache.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=rf"\A[^\n]*{said}[^\n]*\Z"):
        Prepared(tmp_path / "cache", split, PREPARED_RAW, SIDE)[1]


HOLD = """
import sys, time
from pathlib import Path
from mlrpl_bench.data.images.cache import _claimed

folder = Path(sys.argv[1])
folder.mkdir(parents=True)
with _claimed(folder):
    print("held", flush=True)
    time.sleep(60)
"""


@both_kinds
def test_a_second_process_is_refused_while_the_first_one_lives_and_no_longer(split, tmp_path, kind):
    folder = tmp_path / "cache"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout.readline() == "held\n"
            with pytest.raises(UserError, match=r"\Aanother process is preparing .*cache; wait for it[^\n]*\Z"):
                prepare(split, folder, kind, SIDE)
            assert [path.name for path in folder.iterdir()] == ["owner.lock"]
        finally:
            owner.kill()  # it has no time to clean up
    assert len(prepare(split, folder, kind, SIDE)) == NUM_ROWS
    assert not (folder / "owner.lock").exists()


def test_splits_must_fit_on_the_disk_together(split, tmp_path, monkeypatch):
    parts = [(split, tmp_path / "one"), (split, tmp_path / "two")]
    size = size_of(split, PREPARED_RAW, SIDE)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Usage(0, 0, 2 * size - 1))
    for part in parts:
        refuse_to_fill_the_disk([part], PREPARED_RAW, SIDE)
    with pytest.raises(UserError, match=r"are free on the disk of .*--image-size\Z"):
        refuse_to_fill_the_disk(parts, PREPARED_RAW, SIDE)
    prepare(split, tmp_path / "one", PREPARED_RAW, SIDE)
    refuse_to_fill_the_disk(parts, PREPARED_RAW, SIDE)  # one is done


def test_a_missing_original_has_its_place_in_the_name_of_the_folder(split):
    view = ImageTransform(28, backend=PREPARED_RAW)
    whole = cache.prepared_folder(split, view)
    split.image_paths[2].unlink()
    assert cache.prepared_folder(split, view) != whole


def test_both_kinds_are_prepared_without_the_originals_comment(split, tmp_path):
    photograph(60, 50, 0).save(split.image_paths[0], "jpeg", comment="taken by the sea")
    prepare(split, tmp_path / "cache", PREPARED_JPEG, SIDE)
    assert b"by the sea" not in (tmp_path / "cache" / "0000" / "0000000.jpg").read_bytes()


def test_prepared_images_are_no_business_of_how_many_files_a_worker_takes(split, tmp_path):
    assert decoding.FILES_PER_PIECE == 16
    assert cache.VERSION == 1, "the notes of unfinished raw caches count pieces: another number, another version"
