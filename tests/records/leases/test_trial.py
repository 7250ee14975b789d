"""A folder in which leases cannot be kept is refused with the reason and what to do; the trial leaves nothing."""

import errno
import os
from pathlib import Path

import pytest

from mlrpl_bench.records.leases.trial import refuse_unfit
from tests.helpers.tiny_study import refusal


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_folder_of_a_file_system_will_do_and_is_left_as_it_was(tmp_path):
    refuse_unfit(tmp_path / "results" / "tiny")
    assert list((tmp_path / "results" / "tiny").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_mount_without_hard_links_is_refused(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", failing(number))
    assert refusal(lambda: refuse_unfit(tmp_path)) == (
        f"--results-dir: {tmp_path} is refused, as no hard link can be made there ({os.strerror(number)}); a mounted "
        "bucket, for one, cannot hold the leases of training; train in a local folder or one on a shared POSIX file "
        "system, and copy the records afterwards"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_mount_that_cannot_append_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", failing(errno.EOPNOTSUPP))
    line = f"--results-dir: {tmp_path} is refused, as nothing can be appended to a file there (Operation not supported)"
    assert refusal(lambda: refuse_unfit(tmp_path)).startswith(line)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_mount_that_forgets_what_was_appended_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda descriptor, content: len(content))
    assert "as what is appended to a file is not found there" in refusal(lambda: refuse_unfit(tmp_path))


def test_a_full_disk_is_no_mounted_bucket(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.ENOSPC))
    line = f"{tmp_path} cannot be written (No space left on device); make room, or name another --results-dir"
    assert refusal(lambda: refuse_unfit(tmp_path)) == line


def test_a_disk_that_is_full_when_the_first_file_is_written_keeps_nothing_of_it(tmp_path, monkeypatch):
    def fill(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    assert refusal(lambda: refuse_unfit(tmp_path)).endswith("; make room, or name another --results-dir")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_to_be_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", failing(errno.EACCES))
    line = f"{tmp_path} cannot be written (Permission denied); allow it, or name another --results-dir"
    assert refusal(lambda: refuse_unfit(tmp_path)) == line
