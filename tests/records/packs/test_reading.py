"""Packs that somebody cut short or made to do harm are refused in one line, and nothing is written."""

import io
import json
import os
import shutil
import struct
import warnings
import zipfile

import pytest

from mlrpl_bench.records.packs import importing, manifest, reading
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.utils.errors import UserError
from tests.helpers.packs import changed, members_of, packed, rewritten, stored
from tests.helpers.tiny_study import contents, refusal


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return packed(stored(folder / "results"), folder / "a.zip").read_bytes()


@pytest.fixture
def pack(made, tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(made)
    return path


def refused(pack):
    """The line with which a pack is refused; what was there is as it was."""
    root = pack.parent / "in"
    said = refusal(lambda: importing.bring_in(pack, ResultStore(root)))
    assert not root.exists() and said.endswith("; nothing was imported")
    return said


def test_a_pack_cut_short_anywhere_is_refused(pack, made):
    for size in (0, 1, 22, len(made) // 3, len(made) // 2, len(made) - 1):
        pack.write_bytes(made[:size])
        assert "no pack" in refused(pack)


def test_a_changed_bit_anywhere_is_refused_or_changes_nothing(pack, made):
    unharmed = ResultStore(pack.parent / "unharmed")
    importing.bring_in(pack, unharmed)
    for place in range(7, len(made), len(made) // 40):
        content = bytearray(made)
        content[place] ^= 4
        pack.write_bytes(content)
        store = ResultStore(pack.parent / "in")
        try:
            importing.bring_in(pack, store)
        except UserError as error:
            assert str(error).endswith("; nothing was imported") and not store.root.exists()
        else:  # a date in the archive, say
            assert contents(store.root) == contents(unharmed.root)
            shutil.rmtree(store.root)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "tiny/plain/../../../up/record.json", "C:\\x", "tiny/x\n"])
def test_a_path_that_leads_elsewhere_is_refused(pack, name):
    rewritten(pack, {**members_of(pack), name: b"x"})
    assert "does not name" in refused(pack)
    assert not (pack.parent / "up").exists()


@pytest.mark.parametrize("place", ["..", "../..", "/tmp/x", "tiny/plain/..", "tiny", ""])
def test_a_place_that_leads_elsewhere_is_refused(pack, place):
    def move(members, _):
        for name in list(members):
            members[f"{place}/{name.rpartition('/')[2]}"] = members.pop(name)

    assert "holds the record of" in refused(changed(pack, move))


def test_a_link_a_folder_and_an_entry_with_a_password_are_refused(pack, made):
    members = members_of(pack)
    for mode, said in ((0o120777, "no plain file"), (0o010644, "no plain file")):
        with zipfile.ZipFile(pack, "w") as archive:
            for name, content in members.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = mode << 16 if name.endswith("scores.npz") else 0
                archive.writestr(entry, content)
        assert said in refused(pack)
    rewritten(pack, {**members, "folder/": b""})
    assert "no plain file" in refused(pack)
    locked = bytearray(made)
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        at = archive.start_dir + 8
    locked[at : at + 2] = struct.pack("<H", 1)
    pack.write_bytes(locked)
    assert "needs a password" in refused(pack)


def test_a_member_that_is_there_twice_is_refused(pack):
    members = members_of(pack)
    with warnings.catch_warnings(), zipfile.ZipFile(pack, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(next(iter(members)), b"other")
    assert "twice" in refused(pack)


def test_a_bomb_is_refused_before_it_expands(pack):
    members = members_of(pack)
    with zipfile.ZipFile(pack, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        with archive.open("tiny/plain/bomb", "w", force_zip64=True) as entry:
            for _ in range(1100):
                entry.write(bytes(2**20))
    assert "zip bomb" in refused(pack)


def test_a_member_that_states_a_size_and_expands_further_is_refused(pack, made):
    # the directory and the manifest agree on a size; the compressed bytes hold more
    name = next(name for name in members_of(pack) if name.endswith("record.json"))
    members = members_of(pack)
    content = members[name]

    class Long:
        def names(self):
            return list(members)

        def size(self, name):
            return len(members[name])

        def open(self, asked):
            return io.BytesIO(content + b" " * 2**21 if asked == name else members[asked])

    source = Long()
    stated = reading.read_manifest(pack, source)
    said = refusal(lambda: reading.unpack(pack, source, stated, pack.parent / "out"))
    assert "more bytes than are stated" in said
    assert max(path.stat().st_size for path in (pack.parent / "out").rglob("record.json")) <= len(content)


def test_a_way_of_compressing_without_a_limit_is_refused(pack):
    members = members_of(pack)
    with zipfile.ZipFile(pack, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "cannot be limited" in refused(pack)


def test_a_pack_without_manifest_or_a_member_is_refused(pack):
    members = members_of(pack)
    rewritten(pack, {name: content for name, content in members.items() if name != manifest.MANIFEST})
    assert "has no manifest.json" in refused(pack)
    rewritten(pack, {name: content for name, content in members.items() if not name.endswith("steps.npz")})
    assert "lacks tiny/plain" in refused(pack)


def test_what_is_no_pack_is_refused(tmp_path):
    (tmp_path / "text.zip").write_text("hello")
    assert "no pack" in refused(tmp_path / "text.zip")
    assert "is not there" in refused(tmp_path / "nothing.zip")
    (tmp_path / "empty").mkdir()
    assert "has no manifest.json" in refused(tmp_path / "empty")


@pytest.fixture
def unfolded(pack):
    folder = pack.parent / "pack"
    for name, content in members_of(pack).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_what_a_hub_adds_on_top_of_a_folder_is_never_read(unfolded):
    (unfolded / "README.md").write_text("about")
    (unfolded / ".git").mkdir()
    (unfolded / ".gitattributes").write_text("")
    store = ResultStore(unfolded.parent / "in")
    assert len(importing.bring_in(unfolded, store).imported) == 2
    assert not any(name.endswith(("README.md", ".gitattributes")) for name in contents(store.root))


def test_a_changed_byte_in_a_folder_is_refused(unfolded):
    path = next(unfolded.rglob("history.csv"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "history.csv is not what was packed (SHA-256 differs)" in refused(unfolded)


def test_links_and_strangers_in_a_folder_are_refused(unfolded):
    record = next(unfolded.rglob("record.json"))
    stranger = record.with_name("evidence.npz")
    stranger.write_text("")
    assert "does not name" in refused(unfolded)
    stranger.unlink()
    os.rename(record, unfolded.parent / "elsewhere")
    record.symlink_to(unfolded.parent / "elsewhere")
    assert "no plain file" in refused(unfolded)
    record.unlink()
    os.rename(unfolded / "tiny", unfolded.parent / "tiny")
    (unfolded / "tiny").symlink_to(unfolded.parent / "tiny")
    assert "is a link" in refused(unfolded)


def test_a_manifest_that_is_too_large_is_refused_unread(pack, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 100)
    assert "are the most" in refused(pack)


def test_a_manifest_of_thousands_of_levels_is_refused(pack):
    rewritten(pack, {**members_of(pack), manifest.MANIFEST: b"[" * 100_000})
    assert "no JSON" in refused(pack)
    rewritten(pack, {**members_of(pack), manifest.MANIFEST: json.dumps([1]).encode()})
    assert "no manifest" in refused(pack)
