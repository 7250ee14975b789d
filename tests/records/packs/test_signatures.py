"""Who signed a record is told by OpenSSH and by the keys that the user trusts; nothing is fetched."""

import shutil
import subprocess

import pytest

from mlrpl_bench.records.packs import signatures
from mlrpl_bench.records.packs.importing import bring_in
from mlrpl_bench.records.store import ResultStore
from tests.helpers.packs import changed, packed, redigested, stored
from tests.helpers.tiny_study import refusal

pytestmark = pytest.mark.skipif(shutil.which(signatures.PROGRAM) is None, reason="needs OpenSSH")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with the keys of two people."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("jane", "john"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name, "-C", ""], check=True)
    return folder


def signed(store, keys, name="jane", namespace="mlrpl-bench.plain"):
    for record in store.survey("tiny").records:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", keys / name, "-n", namespace, record.folder / "record.json"]
        subprocess.run(command, check=True, capture_output=True)
    return store


def trusting(keys, name, options=""):
    path = keys / f"trusted-{name}"
    path.write_text(f"{name}@example.org {options} {(keys / f'{name}.pub').read_text()}")
    return path


@pytest.fixture
def store(tmp_path):
    return stored(tmp_path / "results")


@pytest.fixture
def there(tmp_path):
    return ResultStore(tmp_path / "in")


def statuses(store):
    return [(record.origin.status, record.origin.signed_by) for record in store.survey("tiny").records]


@pytest.mark.parametrize("options", ["", 'namespaces="mlrpl-bench.plain"', 'namespaces="mlrpl-bench.*"'])
def test_a_trusted_key_signs_for_the_methods_that_it_may_speak_for(store, keys, there, tmp_path, options):
    pack = packed(signed(store, keys), tmp_path / "a.zip")
    bring_in(pack, there, trusting(keys, "jane", options))
    assert statuses(there) == [("signed", "jane@example.org")] * 2


@pytest.mark.parametrize(("name", "options"), [("john", ""), ("jane", 'namespaces="mlrpl-bench.other"')])
def test_another_key_and_a_key_for_another_method_sign_nothing(store, keys, there, tmp_path, name, options):
    pack = packed(signed(store, keys), tmp_path / "a.zip")
    found = bring_in(pack, there, trusting(keys, name, options))
    assert found.signed == {} and statuses(there) == [("submitted", "")] * 2


def test_without_trusted_keys_a_signature_counts_nothing_and_travels_on(store, keys, there, tmp_path):
    pack = packed(signed(store, keys), tmp_path / "a.zip")
    bring_in(pack, there)
    assert statuses(there) == [("submitted", "")] * 2
    assert packed(there, tmp_path / "b.zip").read_bytes() == pack.read_bytes()
    bring_in(pack, there, trusting(keys, "jane"))  # the keys came later
    assert statuses(there) == [("signed", "jane@example.org")] * 2


def test_a_record_signed_by_nobody_is_submitted(store, keys, there, tmp_path):
    found = bring_in(packed(store, tmp_path / "a.zip"), there, trusting(keys, "jane"))
    assert found.signed == {} and statuses(there) == [("submitted", "")] * 2


@pytest.mark.parametrize("spoil", ["of another record", "for another method", "no signature"])
def test_a_signature_that_is_not_of_its_record_is_refused(store, keys, there, tmp_path, spoil):
    signed(store, keys, namespace="mlrpl-bench.other" if spoil == "for another method" else "mlrpl-bench.plain")

    def change(members, _):
        first, second = sorted(name for name in members if name.endswith(".sig"))
        if spoil == "of another record":
            members[first] = members[second]
        elif spoil == "no signature":
            members[first] = b"\x00"

    pack = changed(packed(store, tmp_path / "a.zip"), change)
    line = refusal(lambda: bring_in(pack, there, trusting(keys, "jane")))
    assert "is not one of its record" in line and not there.root.exists()


def test_a_signature_of_other_bytes_signs_no_record_that_is_here_already(store, keys, there, tmp_path):
    bring_in(packed(store, tmp_path / "a.zip"), there)
    again = ResultStore(tmp_path / "again")
    shutil.copytree(store.root, again.root)
    for record in again.survey("tiny").records:  # the same scores, and another story of where they come from
        path = record.folder / "record.json"
        path.write_text(path.read_text().replace('"node": "here"', '"node": "there"'))
        redigested(path)
    bring_in(packed(signed(again, keys), tmp_path / "b.zip"), there, trusting(keys, "jane"))
    assert statuses(there) == [("submitted", "")] * 2


def test_a_machine_without_openssh_is_told(store, keys, there, tmp_path, monkeypatch):
    pack = packed(signed(store, keys), tmp_path / "a.zip")
    monkeypatch.setattr(signatures, "PROGRAM", "no-such-program")
    assert "install OpenSSH" in refusal(lambda: bring_in(pack, there, trusting(keys, "jane")))


@pytest.mark.parametrize("content", ["", "garbage\n", "# jane@example.org ssh-ed25519 AAAA\n", "ssh-ed25519\n"])
def test_a_file_without_a_key_is_refused(content, tmp_path, there):
    keys = tmp_path / "keys"
    keys.write_text(content)
    assert "holds no key; give a file as ssh-keygen reads it" in refusal(lambda: signatures.check_trusted_keys(keys))


def test_trusted_keys_that_are_not_there_are_refused_first(tmp_path, there):
    assert "cannot be read" in refusal(lambda: bring_in(tmp_path / "no.zip", there, tmp_path / "no-keys"))
