"""Every reader of outside data either reads or refuses in one line, whatever the bytes; nothing else comes out.

A few hundred inputs for each reader in the everyday suite, the same ones every time; 10,000 others, in nine minutes of
a core, with ``pytest -m slow tests/system/test_fuzz.py`` (``-rA`` tells how many of each were read and refused).
Inputs are random bytes, files that were valid before a few edits (`edited`), and for JSON and arrays files that are
well-formed and hold odd values (`odd_json`, `odd_arrays`).
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as save_tensors

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli import leaderboard_cache
from mlrpl_bench.data import coco, masks, protocol, word_vectors
from mlrpl_bench.data.choices import PREPARED_RAW
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images import cache as prepared
from mlrpl_bench.data.images import cache_writer, decoding
from mlrpl_bench.leaderboard.evidence import Collector
from mlrpl_bench.leaderboard.report.curves import course
from mlrpl_bench.models import backbones
from mlrpl_bench.models.hyperparameters import make_instance
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.records import record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training import checkpoint
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import cache_folder
from mlrpl_bench.utils.tables import Entry, Table
from tests.helpers.tiny_study import CATEGORIES, cell, finished, labels_NC

EVERYDAY, SLOW = 200, 10_000
SECONDS_FOR_ONE = 20
"""More is taken for a hang."""

DATASETS = load_datasets()
TOKENS = (
    *(b"\0", b"\n", b"\r", b"\xff", b"\xef\xbb\xbf", b"nan", b"NaN", b"1e999", b"-1", b"9" * 400, b'"', b","),
    *(b"[", b"{", b"}", b"[" * 3000, b"..", b"/", b"../../etc/passwd", b"\\ud800", b"<object>", b"</object>"),
    *(b"<!DOCTYPE a>", b"&b;", b"&#0;", b"<a>" * 500, b"<?xml version='1.0' encoding='utf-16'?>", b"<name/>"),
    *(b"PK\x03\x04", b"\x93NUMPY", b"cos\n"),
)
ODD = (
    *(None, True, -1, 0, 0.5, 1.0, 7, 2**63, 10**400, 1e308, -1e308, math.nan, math.inf, "", "x", "1", "\ud800"),
    *("a\0b", "a\nb", "../../etc/passwd", "/etc/passwd", "C:\\x", ".", "\x1b[31m", "x" * 300, [], [None], ["a", 1]),
    *([[[]]], {}, {"id": 1}, {"name": "dog", "id": "1"}),
)
ODD_ARRAYS = (
    *(np.array(0.5), np.array("x"), np.zeros(0), np.zeros((0, 4)), np.zeros((2, 3, 4)), np.array(["a", "b"])),
    *(np.array([1j]), np.full((8, 4), np.nan, np.float32), np.full(6, np.inf), np.array([[True]])),
    *(np.array([2**62, 2**62]), np.array([-1, -8]), np.array([b"x"]), np.array(["2020-01-01"], dtype="M8[D]")),
    *(np.zeros(3, dtype=[("a", "i4")]), np.array([None]), np.zeros(6, dtype=np.uint8)),
    *(np.zeros((8, 4), dtype=np.int64), np.array(math.nan), np.full((8, 4), 1e300)),
)


class Reader(NamedTuple):
    """Something that reads: its inputs, and what is done with one, which may raise a UserError and nothing else."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], Any]


# Inputs


@st.composite
def edited(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid file after one to four edits: a bit flipped, cut short, a piece taken out, doubled or put in."""
    content = valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((1, 2, 7, 30, 200))))
        edit = draw(st.integers(0, 4))
        if edit == 0 and start < len(content):
            flipped = content[start] ^ (1 << draw(st.integers(0, 7)))
            content = content[:start] + bytes([flipped]) + content[start + 1 :]
        elif edit == 1:
            content = content[:start]
        elif edit == 2:
            content = content[:start] + content[end:]
        elif edit == 3:
            content = content[:end] + content[start:]
        else:
            content = content[:start] + draw(st.sampled_from(TOKENS)) + content[start:]
    return content


def any_bytes(valid: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(edited(valid), st.binary(max_size=100), edited(valid))


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container in a tree of JSON with each of its keys."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [place for key in keys for place in [(tree, key), *places(tree[key])]]


@st.composite
def odd_json(draw: st.DrawFn, valid: Any, mend: Callable[[Any], None] = lambda _: None) -> bytes:
    """JSON of which a value or two were replaced, taken away, doubled or moved, or a key was given another's name.

    Args:
        mend: makes a hash agree again, say, so that more than the hash is looked at.
    """
    tree = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 2))):
        found = places(tree)
        if not found:
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        other, its_key = found[draw(st.integers(0, len(found) - 1))]
        edit = draw(st.integers(0, 5))
        if edit <= 2:
            container[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif edit == 3:
            del container[key]
        elif edit == 4:
            container[key] = copy.deepcopy(other[its_key])
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif isinstance(key, str) and isinstance(its_key, str):
            return json.dumps(tree).replace(json.dumps(key) + ":", json.dumps(its_key) + ":", 1).encode()
    if draw(st.booleans()):
        mend(tree)
    return json.dumps(tree).encode()


def any_json(valid: Any, mend: Callable[[Any], None] = lambda _: None) -> st.SearchStrategy[bytes]:
    return st.one_of(odd_json(valid, mend), odd_json(valid, mend), any_bytes(json.dumps(valid).encode()))


@st.composite
def odd_arrays(draw: st.DrawFn, valid: dict[str, np.ndarray]) -> bytes:
    """A whole ``.npz``, one of its arrays replaced by an odd one, taken away, or an odd one added."""
    arrays = dict(valid)
    name = draw(st.sampled_from(sorted(valid)))
    edit = draw(st.integers(0, 4))
    if edit == 0:
        del arrays[name]
    arrays["more" if edit == 1 else name] = draw(st.sampled_from(ODD_ARRAYS))
    return npz(arrays)


def any_arrays(valid: dict[str, np.ndarray]) -> st.SearchStrategy[bytes]:
    return st.one_of(odd_arrays(valid), any_bytes(npz(valid)))


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def one_of_files(**inputs: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """A file's name and what becomes of it; the others stay whole."""
    return st.one_of(*(st.tuples(st.just(name), strategy) for name, strategy in inputs.items()))


class Files:
    """Valid files of which one at a time is damaged."""

    def __init__(self, valid: dict[Path, bytes]) -> None:
        self.valid, self.damaged = valid, Path()
        for path, content in valid.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def damage(self, path: Path, content: bytes) -> None:
        if self.damaged in self.valid:
            self._put(self.damaged, self.valid[self.damaged])
        self._put(path, content)
        self.damaged = path

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        path.unlink(missing_ok=True)  # who has mapped the one before must not see it change
        path.write_bytes(content)


# Readers: each is given a folder of its own

INSTANCES = {
    "images": [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)],
    "annotations": [{"id": 7, "image_id": 1, "category_id": 3}, {"id": 8, "image_id": 2, "category_id": 5}],
    "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}],
}


def coco_annotations(folder: Path) -> Reader:
    (folder / "1.jpg").touch()

    def read(content: bytes) -> None:
        (folder / "a.json").write_bytes(content)
        of_split = coco.read(folder / "a.json", folder)
        coco.read_with_images(folder / "a.json", [folder])
        of_split.fingerprint()

    return Reader(any_json(INSTANCES), read)


def own_images(folder: Path) -> Reader:
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    paths = {part: folder / "annotations" / f"instances_{part}.json" for part in ("train", "test")}
    files = Files({path: json.dumps(INSTANCES).encode() for path in paths.values()})

    def read(damage: tuple[str, bytes]) -> None:
        files.damage(paths[damage[0]], damage[1])
        DATASETS["coco_json"].cls().load(folder, "test")

    return Reader(one_of_files(train=any_json(INSTANCES), test=any_json(INSTANCES)), read)


VOC_XML = (
    b"<annotation><folder>VOC2007</folder><object><name>horse</name><difficult>0</difficult><part><name>head</name>"
    b"</part></object><object><name>person</name><difficult>1</difficult></object></annotation>"
)


def voc(folder: Path) -> Reader:
    paths = {"list": folder / "ImageSets/Main/trainval.txt", "xml": folder / "Annotations/000005.xml"}
    valid = {"list": b"000005\n000009\n", "xml": VOC_XML}
    files = Files({path: valid[name] for name, path in paths.items()})
    (folder / "Annotations/000009.xml").write_bytes(VOC_XML)
    entry = DATASETS["voc2007"]
    dataset = entry.cls(make_instance(entry.cls.Options, {"difficult": "ignore"}, "voc2007"))

    def read(damage: tuple[str, bytes]) -> None:
        files.damage(paths[damage[0]], damage[1])
        dataset.load(folder, "train")

    return Reader(one_of_files(**{name: any_bytes(content) for name, content in valid.items()}), read)


def vg200(folder: Path) -> Reader:
    paths = {
        "train": folder / "train_list_500.txt",
        "test": folder / "test_list_500.txt",
        "labels": folder / "vg_category_200_labels_index.json",
        "names": folder / "vg_category_200_names.txt",
    }
    labels = {"1.jpg": [0, 199], "2.jpg": [], "3.jpg": [7, 7]}
    names = "".join(f"name {number}\n" for number in range(200)).encode()
    valid = {"train": b"1.jpg\n2.jpg\n", "test": b"3.jpg", "labels": json.dumps(labels).encode(), "names": names}
    files = Files({path: valid[name] for name, path in paths.items()})
    inputs = {name: any_bytes(content) for name, content in valid.items()} | {"labels": any_json(labels)}

    def read(damage: tuple[str, bytes]) -> None:
        files.damage(paths[damage[0]], damage[1])
        for part in ("train", "test"):
            DATASETS["vg200"].cls().load(folder, part)

    return Reader(one_of_files(**inputs), read)


def vg200_rebuilt(folder: Path) -> Reader:
    module = sys.modules[DATASETS["vg200_rebuilt"].cls.__module__]
    objects = [
        {"image_id": number, "objects": [{"object_id": 1, "names": ["Dog", "a  cat"]}, {"names": ["sky"]}]}
        for number in (1, 2, 3)
    ]

    def read(content: bytes) -> None:
        (folder / "objects.json").write_bytes(content)
        module._rebuild.cache_clear()
        with mock.patch.multiple(module, TEST_IMAGES=1, CATEGORIES=2):
            DATASETS["vg200_rebuilt"].cls().load(folder, "train")

    return Reader(any_json(objects), read)


NAMES = ("dog", "traffic light")


def glove(folder: Path) -> Reader:
    text = b"the 0.1 0.2\ndog 1 2\ntraffic 0.5 -1e-3\nlight 3 4\n"

    def read(damage: tuple[str, bytes]) -> None:
        path = folder / f"vectors.{damage[0]}"
        path.write_bytes(damage[1])
        word_vectors.prepare(NAMES, path)

    vectors = any_bytes(npy(np.ones((2, 3), dtype=np.float32)))
    return Reader(one_of_files(txt=any_bytes(text), npy=st.one_of(vectors, odd_npy())), read)


def odd_npy() -> st.SearchStrategy[bytes]:
    return st.sampled_from([npy(array) for array in ODD_ARRAYS] + [npz({"array": np.ones((2, 3))})])


def prepared_words(_: Path) -> Reader:
    path = word_vectors._file_of(NAMES)
    path.parent.mkdir(parents=True)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert word_vectors.prepared(NAMES).shape[0] == len(NAMES)

    return Reader(st.one_of(any_bytes(npy(np.ones((2, 3), dtype=np.float32))), odd_npy()), read)


def state_key(content: Any) -> None:
    """The key that a changed cell would have."""
    if isinstance(content, dict) and isinstance(content.get("cell"), dict):
        values = {name: value for name, value in content["cell"].items() if name != "changed"}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        content["key"] = hashlib.sha256(text.encode()).hexdigest()


def records(folder: Path) -> Reader:
    of = cell(hyperparameters={"start": 5}, changed=("start",))
    whole = ResultStore(folder).write(finished(of), {"device": "cpu"})
    path = whole.folder / "record.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = record.read_record(path)
        assert found.cell.title.isprintable() and found.cell.key

    return Reader(any_json(whole.content, state_key), read)


def notes_of_cells(folder: Path) -> Reader:
    store, of = ResultStore(folder), cell()
    store.folder(of).mkdir(parents=True)
    notes = {"failed": {"reason": "why", "traceback": "..."}, "running": {"pid": 7, "host": "here"}}

    def read(damage: tuple[str, bytes]) -> None:
        for name in notes:
            (store.folder(of) / f"{name}.json").unlink(missing_ok=True)
        (store.folder(of) / f"{damage[0]}.json").write_bytes(damage[1])
        assert isinstance(store.why_missing(of), str)

    return Reader(one_of_files(**{name: any_json(note) for name, note in notes.items()}), read)


def histories_and_arrays(folder: Path) -> Reader:
    """The files beside a record, as evidence and as curves are made of them."""
    mask_NC = protocol.known_mask((12, 4), 0.5)
    of = cell(mask_hash=protocol.mask_hash(mask_NC))
    whole = ResultStore(folder).write(finished(of), {})
    bits_NC = np.array([[number >> bit & 1 for bit in range(4)] for number in range(12)])
    train_NC = np.where(bits_NC == 1, protocol.PRESENT, protocol.ABSENT).astype(np.int8)
    train = Split(list(range(12)), [Path(str(row)) for row in range(12)], train_NC, CATEGORIES)
    test = Split(list(range(8)), [Path(str(row)) for row in range(8)], labels_NC(), CATEGORIES)
    collector = Collector(train, test, lambda ratio, seed: mask_NC)
    evidence = collector.collect(whole)
    content = {path.name: path.read_bytes() for path in whole.folder.iterdir()}
    files = Files({whole.folder / name: content[name] for name in content})
    inputs = {
        name: any_arrays(record.read_arrays(whole.folder / name)) for name in content if name.endswith(".npz")
    } | {"history.csv": any_bytes(content["history.csv"])}
    of_curves = ("history.csv", "steps.npz")

    def read(damage: tuple[str, bytes]) -> None:
        files.damage(whole.folder / damage[0], damage[1])
        if damage[0] in of_curves:
            course([evidence])
        if damage[0] != "evidence.npz":
            (whole.folder / "evidence.npz").unlink(missing_ok=True)  # nothing is kept, so that the others are read
        if damage[0] == "examples.npz":
            record.read_arrays(whole.folder / damage[0])
        else:
            collector.collect(whole)

    return Reader(one_of_files(**inputs), read)


def mask_files(folder: Path) -> Reader:
    split = Split(list(range(8)), [Path(str(row)) for row in range(8)], labels_NC(), CATEGORIES)
    mask_NC = protocol.known_mask((8, 4), 0.5)
    masks.write(folder / "m.npz", mask_NC, split, 0.5, 0)
    ours = {name: array for name, array in np.load(folder / "m.npz").items()}

    def read(content: bytes) -> None:
        (folder / "m.npz").write_bytes(content)
        assert masks.read(folder / "m.npz", split, 0.5).dtype == bool

    theirs = npy(protocol.hide(split.labels_NC, mask_NC))
    return Reader(st.one_of(any_arrays(ours), any_bytes(theirs), odd_npy()), read)


def checkpoints(folder: Path) -> Reader:
    state = {"epoch": 3, "step": 7, "method": {"w": torch.arange(6.0)}, "history": [{"loss": 0.1}]}
    checkpoint.write(folder, cell(), state)
    whole = (folder / checkpoint.FILE).read_bytes()

    def read(damage: tuple[str, bytes]) -> None:
        digest = b"" if damage[0] == "whole" else hashlib.sha256(damage[1]).digest()
        (folder / checkpoint.FILE).write_bytes(digest + damage[1])
        assert checkpoint.position(folder) is None or min(checkpoint.position(folder)) >= 0
        found = checkpoint.read(folder, cell())
        assert found is not None and type(found["epoch"]) is int

    return Reader(one_of_files(whole=any_bytes(whole), rehashed=any_bytes(whole[checkpoint.DIGEST_BYTES :])), read)


def weights(folder: Path) -> Reader:
    model = torch.nn.Linear(2, 2)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, buffer)

    def read(damage: tuple[str, bytes]) -> None:
        path = folder / f"weights.{damage[0]}"
        path.write_bytes(damage[1])
        backbones._load_into(model, path, "linear")

    return Reader(one_of_files(pth=any_bytes(buffer.getvalue()), safetensors=any_bytes(save_tensors(state))), read)


def cached_labels(folder: Path) -> Reader:
    source = folder / "a.json"
    source.write_text(json.dumps(INSTANCES))
    split = coco.read(source, Path())
    (entry,) = (cache_folder() / "labels").iterdir()
    whole = {name: array for name, array in np.load(entry).items()}

    def read(content: bytes) -> None:
        entry.write_bytes(content)
        assert coco.kept(source, lambda: split).fingerprint() == split.fingerprint()

    return Reader(any_arrays(whole), read)


def remembered_leaderboards(folder: Path) -> Reader:
    question = leaderboard_cache.CacheKey(Request(dataset="d", ratios=(0.1,), results=(folder,)))
    table = Table("t", "T", ("10 %",), [("x", [Entry("1.0", "best", ("x", "0.1"), 1.0)])], ("a note",))
    question.remember(leaderboard_cache.CachedLeaderboard.from_table(table, {"x": 1}, []), question.state())
    whole = json.loads(question._path().read_bytes())

    def read(content: bytes) -> None:
        question._path().write_bytes(content)
        if (found := question.find()) is not None:
            assert found.table.markdown() and isinstance(found.json, str)

    return Reader(any_json(whole), read)


def pictures(folder: Path) -> Reader:
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(9, 7, 3), dtype=np.uint8))
    formats = {}
    for name in ("png", "jpeg", "gif", "tiff", "webp", "bmp"):
        image.save(folder / f"a.{name}")
        formats[name] = (folder / f"a.{name}").read_bytes()

    def read(damage: tuple[str, bytes]) -> None:
        path = folder / f"a.{damage[0]}"
        path.write_bytes(damage[1])
        decoding.inspect(path)  # never refuses, it reports
        assert decoding.decode(path, 4).mode == "RGB"

    return Reader(one_of_files(**{name: any_bytes(content) for name, content in formats.items()}), read)


def prepared_images(folder: Path) -> Reader:
    image = folder / "0.png"
    Image.fromarray(np.zeros((6, 6, 3), dtype=np.uint8)).save(image)
    gone = folder / "gone.png"
    labels = np.array([[1], [-1]], dtype=np.int8)
    split = Split([0, 1], [image, gone], labels, ("a",))
    cache = folder / "cache"
    cache_writer.prepare(split, cache, PREPARED_RAW, 6, skipped_rows={1: "missing"})
    files = Files({cache / name: (cache / name).read_bytes() for name in (prepared.MANIFEST, prepared.PIXELS)})

    def read(damage: tuple[str, bytes]) -> None:
        files.damage(cache / damage[0], damage[1])
        images = prepared.Prepared(cache, split, PREPARED_RAW, 6)
        for row in range(2):
            images[row]

    manifest = any_json(json.loads(files.valid[cache / prepared.MANIFEST]))
    pixels = any_bytes(files.valid[cache / prepared.PIXELS])
    return Reader(one_of_files(**{prepared.MANIFEST: manifest, prepared.PIXELS: pixels}), read)


READERS = {
    make.__name__: make
    for make in (
        *(coco_annotations, own_images, voc, vg200, vg200_rebuilt, glove, prepared_words, records, notes_of_cells),
        *(histories_and_arrays, mask_files, checkpoints, weights, cached_labels, remembered_leaderboards, pictures),
        prepared_images,
    )
}


# What is asked of all of them


@contextmanager
def soon(seconds: int = SECONDS_FOR_ONE) -> Iterator[None]:
    """What takes longer fails with a TimeoutError (where the system has alarms)."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"no answer after {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """Caches of our own, small data sets, and nothing that waits for a disk or looks through all code."""
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(coco, "KEEP_ABOVE_BYTES", 0)
    monkeypatch.setattr(leaderboard_cache.CacheKey, "state", lambda _: "the same")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def only_refuses(reader: Reader, inputs: int, derandomize: bool) -> tuple[int, int]:
    """Feeds a reader; how many inputs were read, and how many refused."""
    counts = {"read": 0, "refused": 0}

    @settings(
        max_examples=inputs,
        derandomize=derandomize,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs)
    def feed(content: Any) -> None:
        with soon(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of numbers that are none
            try:
                reader.read(content)
                counts["read"] += 1
            except UserError as error:
                assert str(error).strip() and len(str(error).splitlines()) == 1, repr(str(error))
                counts["refused"] += 1

    feed()
    return counts["read"], counts["refused"]


@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_or_refuses(name, surroundings):
    read, refused = only_refuses(READERS[name](surroundings), EVERYDAY, derandomize=True)
    assert read + refused >= EVERYDAY


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_or_refuses_ten_thousand_inputs(name, surroundings):
    start = time.perf_counter()
    read, refused = only_refuses(READERS[name](surroundings), SLOW, derandomize=False)
    print(f"{name}: {read:,} read, {refused:,} refused, {time.perf_counter() - start:.0f} s")
    assert read + refused >= SLOW
