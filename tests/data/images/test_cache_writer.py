"""A cache of prepared images survives a kill, fits on the disk, and is written by one process at a time."""

import errno
import re
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.data.images import cache, cache_writer, decoding
from mlrpl_bench.data.images.cache import KINDS, Prepared
from mlrpl_bench.data.images.cache_writer import prepare, refuse_to_fill_the_disk, size_of
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.utils.errors import UserError
from tests.helpers.photographs import NUM_ROWS, SIDE, enlarged, photograph

pytestmark = pytest.mark.usefixtures("pieces_of_two_rows")

Usage = namedtuple("Usage", "total used free")


both_kinds = pytest.mark.parametrize("kind", KINDS)


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

    monkeypatch.setattr(cache_writer, "decode", spy)
    monkeypatch.setattr(cache_writer, "size_of", lambda *_: 1)  # which decodes a sample
    return decoded


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
    write = cache_writer.write_atomically

    def kill_at_manifest(path, content):
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(cache_writer, "write_atomically", kill_at_manifest)
    with pytest.raises(KeyboardInterrupt):
        prepare(split, tmp_path / "cache", kind, SIDE)
    monkeypatch.setattr(cache_writer, "write_atomically", write)
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


def test_the_size_is_known_beforehand(split, tmp_path):
    for kind in KINDS:
        prepare(split, tmp_path / kind, kind, SIDE)
    raw = (tmp_path / PREPARED_RAW / "pixels_NHW3.npy").stat().st_size
    assert size_of(split, PREPARED_RAW, SIDE) == raw
    jpeg = sum(path.stat().st_size for path in (tmp_path / PREPARED_JPEG / "0000").iterdir())
    assert size_of(split, PREPARED_JPEG, SIDE) == jpeg  # every image is in the sample


def test_the_size_of_jpegs_is_estimated_from_those_that_can_be_decoded(split, monkeypatch):
    estimate = size_of(split, PREPARED_JPEG, SIDE)
    monkeypatch.setattr(cache_writer, "SAMPLED_FOR_SIZE", 3)
    assert 0.5 < size_of(split, PREPARED_JPEG, SIDE) / estimate < 2
    split.image_paths[0].unlink()
    assert 0.5 < size_of(split, PREPARED_JPEG, SIDE) / estimate < 2
    for path in split.image_paths[1:]:
        path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        size_of(split, PREPARED_JPEG, SIDE)


@both_kinds
def test_a_disk_that_would_be_filled_is_refused_before_anything_is_written(split, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(cache_writer.shutil, "disk_usage", lambda path: Usage(0, 0, size_of(split, kind, SIDE) - 1))
    with pytest.raises(UserError, match=r"\Athe prepared images need about [^\n]* GB and [^\n]* are free[^\n]*\Z"):
        prepare(split, tmp_path / "deep" / "cache", kind, SIDE)
    assert not (tmp_path / "deep").exists()


def test_only_what_is_missing_must_fit_on_the_disk(split, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        count_decodes(patch, fail_at=8)
        with pytest.raises(KeyboardInterrupt):
            prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)
    monkeypatch.setattr(
        cache_writer.shutil, "disk_usage", lambda path: Usage(0, 0, size_of(split, PREPARED_RAW, SIDE) // 2)
    )
    assert len(prepare(split, tmp_path / "cache", PREPARED_RAW, SIDE)) == NUM_ROWS


@pytest.mark.parametrize(("code", "line"), [(errno.ENOSPC, "is full; free some"), (errno.EROFS, "cannot be written")])
def test_a_disk_that_fails_while_it_is_written_is_named(split, tmp_path, monkeypatch, code, line):
    def fail(*_):
        raise OSError(code, "of the system")

    monkeypatch.setattr(cache_writer, "write_atomically", fail)
    with pytest.raises(UserError, match=rf"\A[^\n]*{re.escape(str(tmp_path / 'cache'))}[^\n]*{line}[^\n]*\Z"):
        prepare(split, tmp_path / "cache", PREPARED_JPEG, SIDE)


HOLD = """
import sys, time
from pathlib import Path
from mlrpl_bench.data.images.cache_writer import _claimed

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
    monkeypatch.setattr(cache_writer.shutil, "disk_usage", lambda path: Usage(0, 0, 2 * size - 1))
    for part in parts:
        refuse_to_fill_the_disk([part], PREPARED_RAW, SIDE)
    with pytest.raises(UserError, match=r"are free on the disk of .*--image-size\Z"):
        refuse_to_fill_the_disk(parts, PREPARED_RAW, SIDE)
    prepare(split, tmp_path / "one", PREPARED_RAW, SIDE)
    refuse_to_fill_the_disk(parts, PREPARED_RAW, SIDE)  # one is done


def test_both_kinds_are_prepared_without_the_originals_comment(split, tmp_path):
    photograph(60, 50, 0).save(split.image_paths[0], "jpeg", comment="taken by the sea")
    prepare(split, tmp_path / "cache", PREPARED_JPEG, SIDE)
    assert b"by the sea" not in (tmp_path / "cache" / "0000" / "0000000.jpg").read_bytes()


def test_prepared_images_are_no_business_of_how_many_files_a_worker_takes(split, tmp_path):
    assert decoding.FILES_PER_PIECE == 16
    assert cache.VERSION == 1, "the notes of unfinished raw caches count pieces: another number, another version"
