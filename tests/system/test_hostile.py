"""Files that somebody made to do harm are refused in one line: nothing is run, expanded or read that was not asked for.

Also: names of categories and methods are never markup, and ``--plugin`` alone runs a user's code.
"""

from __future__ import annotations

import ast
import bz2
import hashlib
import io
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli import leaderboard_cache
from mlrpl_bench.cli.app import app
from mlrpl_bench.data import coco, masks, protocol, word_vectors
from mlrpl_bench.data.choices import PREPARED_RAW
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images import cache, cache_writer, decoding
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard.evidence import Collector
from mlrpl_bench.leaderboard.report import attention_picture, figures, page
from mlrpl_bench.models import backbones
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.records import record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools.inspection import contact_sheet, label_statistics, statistics_picture
from mlrpl_bench.training import checkpoint
from mlrpl_bench.utils.tables import Entry, Table, escape_latex, escape_markdown
from tests.helpers.made_up_table import leaderboard
from tests.helpers.places import ROOT
from tests.helpers.tiny_study import CATEGORIES, cell, finished, labels_NC, refusal

DATASETS = load_datasets()
SPLIT = Split(list(range(8)), [Path(str(row)) for row in range(8)], labels_NC(), CATEGORIES)
NAMES = ("dog", "cat")
MEMORY = 300 * 2**20
"""Bytes that refusing a bomb of `EXPANDED` may take at most; what Python and libraries do meanwhile counts, too."""
EXPANDED = 3 * 2**30


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))


class Bomb:
    """Unpickled, it makes the file `unpickled` in the current folder."""

    def __reduce__(self):
        return (open, ("unpickled", "w"))


# Readers of arrays and tensors by the kind of their files; each takes a path


def read_weights(path):
    backbones._load_into(torch.nn.Linear(2, 2), path, "linear")


def read_checkpoint(path):
    content = path.read_bytes()
    path.with_name(checkpoint.FILE).write_bytes(hashlib.sha256(content).digest() + content)
    checkpoint.read(path.parent, cell())


def read_prepared_words(path):
    kept = word_vectors._file_of(NAMES)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, kept)
    word_vectors.prepared(NAMES)


def read_prepared_images(path):
    folder, image = path.parent / "prepared", path.parent / "0.png"
    Image.new("RGB", (6, 6)).save(image)
    split = Split([0], [image], np.ones((1, 1), dtype=np.int8), ("a",))
    cache_writer.prepare(split, folder, PREPARED_RAW, 6)
    shutil.copy(path, folder / cache.PIXELS)
    cache.Prepared(folder, split, PREPARED_RAW, 6)


ARRAYS = {
    "mask": lambda path: masks.read(path, SPLIT, 0.5),
    "record": record.read_arrays,
    "word vectors": lambda path: word_vectors.prepare(NAMES, path.rename(path.with_suffix(".npy"))),
    "prepared words": read_prepared_words,
    "prepared images": read_prepared_images,
}
TENSORS = {"weights": read_weights, "checkpoint": read_checkpoint}
READERS = ARRAYS | TENSORS


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz", "torch"])
@pytest.mark.parametrize("name", READERS)
def test_nothing_is_unpickled(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    bomb = np.array([Bomb()], dtype=object)
    path = tmp_path / "bomb.pth"
    with path.open("wb") as file:
        if kind == "pickle":
            pickle.dump(Bomb(), file)
        elif kind == "npy":
            np.save(file, bomb, allow_pickle=True)
        elif kind == "npz":
            np.savez(file, known_NC=bomb, shape=bomb)
        else:
            torch.save({"version": 1, "state": Bomb()}, file)
    assert refusal(lambda: READERS[name](path))
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_weights_are_not_unpickled_whatever_they_are_called(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"w{suffix}").write_bytes(pickle.dumps(Bomb()))
    assert "must hold a state dict" in refusal(lambda: read_weights(tmp_path / f"w{suffix}"))
    assert not (tmp_path / "unpickled").exists()


def zip_bomb(path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of some megabytes of an entry that expands to `EXPANDED`: zeros, after the header of an array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (EXPANDED - 128,)})
    assert header.tell() == 128
    piece = bytes(2**24)
    if method == zipfile.ZIP_BZIP2:
        packed = bz2.compress(header.getvalue()) + bz2.compress(piece) * 3
    else:
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(header.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
        same = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)  # a piece that can stand there many times
        packed += same * (EXPANDED // len(piece))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("scores.npy", packed)
        (entry,) = archive.infolist()  # its line in the directory is written when the archive is closed
        entry.compress_type, entry.file_size = method, EXPANDED
    assert path.stat().st_size < 2**23
    return path


def peak_memory() -> int:
    resource = pytest.importorskip("resource", reason="Windows does not tell how much memory a process has used")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2], ids=["deflate", "bzip2"])
@pytest.mark.parametrize("name", READERS)
def test_a_zip_bomb_is_refused_before_it_takes_memory(tmp_path, name, method):
    path = zip_bomb(tmp_path / "bomb.pth", method)
    before = peak_memory()
    line = refusal(lambda: READERS[name](path))
    assert peak_memory() - before < MEMORY
    if name not in ("prepared images", "word vectors"):  # no archives, whatever is in them
        assert "zip bomb" in line or "size cannot be limited" in line or "Damaged" in line


def test_the_zip_bomb_is_one(tmp_path):
    with zipfile.ZipFile(zip_bomb(tmp_path / "bomb.npz")) as archive, archive.open("scores.npy") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert sum(len(file.read(2**20)) for _ in range(64)) == 2**26


@pytest.mark.parametrize("shape", [(10**13,), (2**62, 2**62), (-1, 10**13), (0, 10**30)])
@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_announces_more_than_there_is_is_refused(tmp_path, name, archived, shape):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    path = tmp_path / "a.npy"
    path.write_bytes(content.getvalue())
    if archived:
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("known_NC.npy", content.getvalue())
    assert refusal(lambda: ARRAYS[name](path))


def test_a_line_without_end_is_no_word_vector(tmp_path):
    with (tmp_path / "glove.txt").open("wb") as file:
        file.truncate(EXPANDED)  # a hole: it takes no room on the disk
    before = peak_memory()
    assert "line 1 has no end" in refusal(lambda: word_vectors.prepare(NAMES, tmp_path / "glove.txt"))
    assert peak_memory() - before < MEMORY


def test_caches_of_labels_and_evidence_are_made_anew_from_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "KEEP_ABOVE_BYTES", 0)
    source = tmp_path / "a.json"
    source.write_text("{}")
    assert coco.kept(source, lambda: SPLIT) is SPLIT
    (entry,) = (tmp_path / "cache" / "labels").iterdir()
    zip_bomb(entry)
    before = peak_memory()
    assert coco.kept(source, lambda: SPLIT) is SPLIT
    assert peak_memory() - before < MEMORY


# Paths

OUTSIDE = (
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b.jpg",
    "../b",
    "..\\..\\boot.ini",
    "C:\\boot.ini",
    "\\\\host\\share\\a",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_annotation_file_cannot_name_files_outside_its_folder(tmp_path, name):
    content = {
        "images": [{"id": 1, "file_name": name}],
        "annotations": [],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    for read in (
        lambda: coco.read(tmp_path / "a.json", tmp_path),
        lambda: coco.read_with_images(tmp_path / "a.json", [tmp_path]),
    ):
        assert "names an image outside" in refusal(read)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_list_cannot_name_files_outside_its_folder(tmp_path, name):
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for file in ("ImageSets/Main/trainval.txt", "train_list_500.txt"):
        (tmp_path / file).write_text(f"{name}\n")
    for dataset in ("voc2007", "vg200"):
        assert "names an image outside" in refusal(lambda: DATASETS[dataset].cls().load(tmp_path, "train"))  # noqa: B023


@pytest.mark.parametrize("name", [*OUTSIDE[:4], "..", "a\0b", "x" * 300, "\ud800"])
def test_a_record_cannot_name_files_outside_its_folder(tmp_path, name):
    path = ResultStore(tmp_path).write(finished(cell()), {}).folder / "record.json"
    content = json.loads(path.read_text())
    content["files"][name] = {"bytes": 1}
    path.write_text(json.dumps(content))
    assert "is not a whole record" in refusal(lambda: record.read_record(path))


# Pictures


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, their checksums right."""
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


@pytest.mark.parametrize("side", [40_000, 10_000])
def test_a_picture_of_too_many_pixels_is_refused_before_it_takes_memory(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(header(side, side), (b"IDAT", zlib.compress(bytes(2**22))), (b"IEND", b"")))
    before = peak_memory()
    assert "cannot be decoded" in refusal(lambda: decoding.decode(path))
    assert "decompression bomb" in refusal(lambda: decoding.decode(path))
    assert decoding.inspect(path).problem == decoding.BOMBS
    assert peak_memory() - before < MEMORY


def test_a_picture_with_an_endless_comment_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    comment = b"a\0\0" + zlib.compress(bytes(2**26))
    pixels = zlib.compress(bytes(4))
    path.write_bytes(png(header(1, 1), (b"zTXt", comment), (b"IDAT", pixels), (b"IEND", b"")))
    assert "cannot be decoded" in refusal(lambda: decoding.decode(path))


# Numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["scores.npz", "train_scores.npz"])
def test_scores_that_are_no_numbers_are_refused(tmp_path, name, value):
    mask_NC = protocol.known_mask((12, 4), 0.5)
    of = ResultStore(tmp_path).write(finished(cell(mask_hash=protocol.mask_hash(mask_NC))), {})
    scores_NC = record.read_arrays(of.folder / name)["scores"]
    scores_NC[3, 2] = value
    np.savez(of.folder / name, scores=scores_NC)
    train = Split(list(range(12)), [Path(str(row)) for row in range(12)], np.resize(labels_NC(), (12, 4)), CATEGORIES)
    collector = Collector(train, SPLIT, lambda ratio, seed: mask_NC)
    assert "no finite numbers" in refusal(lambda: collector.collect(of))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_metrics_of_what_is_no_number_are_refused(value):
    scores_NC = np.zeros((8, 4))
    scores_NC[0, 0] = value
    assert "NaN or infinite" in refusal(lambda: metrics.evaluate(scores_NC, labels_NC()))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "9" * 400])
def test_a_record_with_a_metric_that_is_no_share_is_refused(tmp_path, value):
    path = ResultStore(tmp_path).write(finished(cell()), {}).folder / "record.json"
    content = json.loads(path.read_text())
    content["metrics"]["mAP"] = "HERE"
    path.write_text(json.dumps(content).replace('"HERE"', value))
    assert "is no share" in refusal(lambda: record.read_record(path))


def test_a_mask_whose_ratio_is_no_number_stands_for_none(tmp_path):
    path = tmp_path / "m.npz"
    masks.write(path, protocol.known_mask((8, 4), 0.5), SPLIT, float("nan"), 0)
    assert "it cannot stand for a known ratio" in refusal(lambda: masks.read(path, SPLIT, 0.5))


# Texts

DEEP = ("[" * 200_000, '{"a":' * 200_000)


@pytest.mark.parametrize("text", DEEP, ids=["lists", "objects"])
def test_json_that_is_nested_without_end_is_refused(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    assert refusal(lambda: coco.read(path, tmp_path))
    assert refusal(lambda: record.read_record(path))
    for name in ("objects.json", "vg_category_200_labels_index.json"):
        (tmp_path / name).write_text(text)
    (tmp_path / "train_list_500.txt").write_text("1.jpg\n")
    for dataset in ("vg200", "vg200_rebuilt"):
        assert "not JSON" in refusal(lambda: DATASETS[dataset].cls().load(tmp_path, "train"))  # noqa: B023
    (tmp_path / cache.MANIFEST).write_text(text)
    assert "are damaged" in refusal(lambda: cache.Prepared(tmp_path, SPLIT, PREPARED_RAW, 6))


@pytest.mark.parametrize("text", DEEP, ids=["lists", "objects"])
def test_a_cache_of_json_that_is_nested_without_end_is_made_anew(tmp_path, text):
    question = leaderboard_cache.CacheKey(Request(dataset="d", results=(tmp_path,)))
    question._path().parent.mkdir(parents=True)
    question._path().write_text(text)
    assert question.find() is None
    image = tmp_path / "0.png"
    Image.new("RGB", (2, 2)).save(image)
    memory = decoding._memory_of([image])
    memory.parent.mkdir()
    memory.write_text(text)
    assert decoding.bad_rows([image], remember=True) == []


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
BOMBS_OF_XML = {
    "billion laughs": f'<!DOCTYPE a [<!ENTITY l0 "lol">{LAUGHS}]><annotation>&l11;</annotation>',
    "an entity of a file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "a type from elsewhere": '<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><annotation/>',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("bomb", BOMBS_OF_XML)
def test_entities_of_xml_are_never_expanded(tmp_path, bomb, encoding):
    declared = "" if encoding == "utf-8-sig" else f'<?xml version="1.0" encoding="{encoding}"?>'
    read_labels = sys.modules[DATASETS["voc2007"].cls.__module__].read_labels
    path = tmp_path / "a.xml"
    path.write_bytes((declared + BOMBS_OF_XML[bomb]).encode(encoding))
    line = refusal(lambda: read_labels(path, protocol.ABSENT))
    assert ("DOCTYPE" in line) == encoding.startswith("utf-8") and str(path) in line


def test_xml_that_is_nested_without_end_is_read_or_refused(tmp_path):
    read_labels = sys.modules[DATASETS["voc2007"].cls.__module__].read_labels
    path = tmp_path / "a.xml"
    path.write_text("<annotation>" + "<object>" * 100_000 + "</object>" * 100_000 + "</annotation>")
    assert "no category" in refusal(lambda: read_labels(path, protocol.ABSENT))


# Names

EVIL = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "a|b",
    "`code` ``` more",
    "[x](javascript:alert(1))",
    "![x](http://localhost/a.png)",
    "\\input{/etc/passwd}",
    "$\\frac$ and $$",
    "50%_&#{}~^\\",
    "two\nlines\r\nand\u2028more",
    "[5pt]",
    "*",
    "&lt;b&gt;",
    "~~gone~~",
    "\"quoted\" 'twice'",
)


class Tags(HTMLParser):
    """What a browser sees: tags with their attributes' names, and the text of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, frozenset[str]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, frozenset(name for name, _ in attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data


@pytest.mark.parametrize("name", EVIL)
def test_names_are_never_markup_on_the_page(tmp_path, name):
    method = "".join(c for c in name.replace("/", "|") if c.isprintable())  # it is a folder's name, too
    table = leaderboard(tmp_path, [method, "weak"], (name, *CATEGORIES[1:]))
    extra = Table("extra", name, (name,), [(name, [Entry(name)])], (name,), name)
    found = Tags(page.render(table, extras=[extra], pictures=[page.Picture(b"", name, name)], files=[method]))
    plain = Table("extra", "x", ("x",), [("x", [Entry("x")])], ("x",), "x")
    usual = leaderboard(tmp_path / "usual", ["plain", "weak"])
    wanted = Tags(page.render(usual, extras=[plain], pictures=[page.Picture(b"", "x", "x")], files=["x"]))
    assert sorted(found.tags, key=str) == sorted(wanted.tags, key=str)
    data = next(json.loads(script) for script in found.scripts if script.startswith("{"))
    assert name in data["categories"] and method in data["rows"]


@pytest.mark.parametrize("name", EVIL)
def test_names_are_never_markup_in_markdown(name):
    table = Table("t", name, (name, "b"), [(name, [Entry(name), Entry("1")])], (name,), name)
    heading, _, head, rule, row, _, note = table.markdown().splitlines()
    assert heading.startswith("## ") and note.startswith("- ") and rule == "| --- | ---: | ---: |"
    for line in (head, row):
        unescaped = line.replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 4
    bare = escape_markdown(name).replace("\\\\", "")
    for sign in "<>|*[]`":
        assert bare.count(sign) == bare.count(f"\\{sign}")


@pytest.mark.parametrize("name", EVIL)
def test_names_are_never_markup_in_latex(name):
    table = Table("t", name, (name,), [(name, [Entry(name)])], (name,), name)
    escaped = escape_latex(name)
    assert not set(escaped) & {"\n", "\r", "\u2028", "|\\"} and not escaped.startswith(("[", "*"))
    harmless = re.sub(r"\\text(backslash|asciitilde|asciicircum)\{\}", "", escaped)
    for sign in "%&#_{}":
        if not name.startswith(("[", "*")):  # these stand between braces of ours
            assert harmless.count(sign) == harmless.count(f"\\{sign}")
    assert "~" not in harmless and "^" not in harmless
    assert table.latex().count(r"\\") == 2


def test_names_are_drawn_as_they_are_in_pictures(tmp_path):
    names = ("two\nlines\r\nand\u2028more", "$\\frac$ and $$", "</script><img src=x>", "\x1b[31mred\x07")
    images = [tmp_path / f"{row}.png" for row in range(8)]
    for path in images:
        Image.new("RGB", (8, 8)).save(path)
    split = Split(list(range(8)), images, labels_NC(), names)
    random = np.random.default_rng(0)
    examples = {"rows": np.arange(2), "scores": random.normal(size=(2, 4)), "attention": random.random((2, 4, 3, 3))}
    statistics = label_statistics.measure({"train": split, "test": split})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, of characters that cannot be drawn
        contact_sheet.draw(split, names[0], 0.5)
        attention_picture.draw_examples({0: Image.open(images[0])}, {names[0]: examples}, names, split.labels_NC)
        statistics_picture.draw(statistics, "tiny")
        drawn = figures.draw_all(leaderboard(tmp_path / "results", ["plain", "weak"], names), ["plain"])
    shown = set(ElementTree.fromstring(drawn["categories.svg"]).itertext())
    assert shown >= {"two lines and more", "$\\frac$ and $$", "</script><img src=x>", " [31mred "}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex on this machine")
def test_tables_with_hostile_names_compile(tmp_path):
    tables = [Table("t", name, (name,), [(name, [Entry(name)])] * 2, (name,), name).latex() for name in EVIL]
    start = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}"
    (tmp_path / "t.tex").write_text(start + "".join(tables) + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_category_that_cannot_be_printed_is_refused(tmp_path, name):
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [],
        "categories": [{"id": 1, "name": name}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert "is not text" in refusal(lambda: coco.read(tmp_path / "a.json", tmp_path))


# Code

SOURCES = [
    ROOT / "bench.py",
    *(path for folder in ("mlrpl_bench", "datasets", "methods") for path in sorted((ROOT / folder).rglob("*.py"))),
]
NEVER_CALLED = frozenset((
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "runpy.run_module"),
    *("np.load", "numpy.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open"),
    *("pandas.read_pickle", "pd.read_pickle", "pandas.eval", "pd.eval", "joblib.load", "yaml.load"),
    *("importlib.import_module", "tarfile.open", "shutil.unpack_archive"),
))  # fmt: skip
RUNS_FILES = "importlib.util.spec_from_file_location"
NEVER_IMPORTED = frozenset((
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "runpy", "code"),
    *("codeop", "imp", "torch.hub", "torch.jit", "torch.package", "numpy.load", "os.system", "os.popen"),
))  # fmt: skip


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_called_that_runs_what_it_reads(path):
    for name, call in calls(path):
        options = {option.arg: ast.unparse(option.value) for option in call.keywords}
        assert name not in NEVER_CALLED and not name.endswith((".extractall", ".extract")), name
        assert options.get("allow_pickle", "False") == "False" and options.get("shell", "False") == "False", name
        if name == "torch.load":
            assert options.get("weights_only") == "True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_imported_that_runs_what_it_reads(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = {alias.name for alias in node.names} if isinstance(node, (ast.Import, ast.ImportFrom)) else set()
        if isinstance(node, ast.ImportFrom):
            assert "*" not in names
            names = {node.module, *(f"{node.module}.{name}" for name in names)}
        assert not names & NEVER_IMPORTED


def test_a_name_of_a_backbone_never_fetches_code_or_weights_from_elsewhere():
    for name in ("hf-hub:somebody/model", "hf_hub:somebody/model", "local-dir:/tmp/model", "somebody/model"):
        assert "no backbone" in refusal(lambda: backbones.build(name))  # noqa: B023


PLUGINS_ALONE = (
    *("plugins", "request.plugins", "list(training.plugins)"),
    "[path.resolve() for path in plugin or ()]",
)


def test_the_registry_alone_runs_files_and_only_bundled_ones_and_plugins():
    for word in (RUNS_FILES, "exec_module", "module_from_spec"):
        running = {path.name for path in SOURCES if word in path.read_text(encoding="utf-8")}
        assert running == {"registry.py"}
    for name, call in ((name, call) for path in SOURCES for name, call in calls(path)):
        if name in ("load_methods", "load_datasets") and call.args:
            assert ast.unparse(call.args[0]) in PLUGINS_ALONE


def with_plugin(group: Any, *before: str) -> list[tuple[str, ...]]:
    """The commands that have the option."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += with_plugin(command, *before, name)
        elif any("--plugin" in option.opts for option in command.params):
            found.append((*before, name))
    return found


@pytest.mark.parametrize("command", with_plugin(typer.main.get_command(app)), ids=" ".join)
def test_the_help_of_plugin_says_that_it_alone_runs_code(command):
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output
    plain = " ".join(shown.replace("│", " ").split())
    assert "Its code is run; nothing else that you name is." in plain
