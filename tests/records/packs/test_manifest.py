"""A manifest is read only as it was written, of this version."""

import json

import pytest

from mlrpl_bench.data.protocol import VERSION
from mlrpl_bench.records.packs.manifest import Manifest, _digest
from tests.helpers.tiny_study import refusal

FACTS = {"bytes": 3, "sha256": "a" * 64}
FITTING = Manifest("float16", {"tiny/plain/0.5-s0-01234567": {"record.json": FACTS}})


def read(change):
    content = json.loads(json.dumps(FITTING.to_json()))
    change(content)
    content["sha256"] = _digest({name: value for name, value in content.items() if name != "sha256"})
    return Manifest.read("a.zip", json.dumps(content).encode())


def test_a_manifest_is_read_back():
    assert read(lambda content: None) == FITTING
    assert list(FITTING.members()) == [("tiny/plain/0.5-s0-01234567/record.json", FACTS)]


def test_its_digest_covers_every_byte_of_every_file():
    other = Manifest("float16", {"tiny/plain/0.5-s0-01234567": {"record.json": {**FACTS, "sha256": "b" * 64}}})
    assert other.sha256 != FITTING.sha256


def test_one_that_was_changed_afterwards_is_refused():
    content = json.dumps({**FITTING.to_json(), "scores": "float32"}).encode()
    assert "SHA-256 differs" in refusal(lambda: Manifest.read("a.zip", content))


def records(content):
    return content["records"]["tiny/plain/0.5-s0-01234567"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(protocol_version=VERSION + 1), f"of protocol version {VERSION + 1} and this is"),
        (lambda c: c.update(version=2), "of version 2 of packs"),
        (lambda c: c.update(format="zip"), "its format is 'zip'"),
        (lambda c: c.pop("scores"), "no manifest"),
        (lambda c: c.update(scores="float8"), "its scores are 'float8'"),
        (lambda c: c.update(records={}), "names no record"),
        (lambda c: c.update(records=[1]), "no manifest"),
        (lambda c: c.update(records={"a": 3}), "no manifest"),
        (lambda c: records(c).update({"record.json": []}), "does not state"),
        (lambda c: records(c)["record.json"].update(bytes="3"), "the bytes of"),
        (lambda c: records(c)["record.json"].update(sha256=None), "the sha256 of"),
        (lambda c: records(c).update({"origin.json": FACTS}), "belongs to no record"),
        (lambda c: records(c).update({"../up": FACTS}), "belongs to no record"),
        (lambda c: records(c).update({"checkpoint.pt": FACTS}), "belongs to no record"),
    ],
)
def test_what_is_none_is_refused(change, said):
    assert said in refusal(lambda: read(change))


@pytest.mark.parametrize("name", ["version", "protocol_version"])
def test_another_version_is_said_plainly_and_once(name):
    line = refusal(lambda: read(lambda content: content.update({name: 99})))
    assert line.startswith("a.zip is of ") and "BadPack" not in line and line.count("nothing was imported") == 1
