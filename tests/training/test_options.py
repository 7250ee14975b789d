"""The options that decide a setting: described once, checked, written as JSON, and named in files."""

import dataclasses
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrpl_bench.data.dataset import Preset
from mlrpl_bench.data.protocol import SCHEMES
from mlrpl_bench.records.cell import Setting
from mlrpl_bench.training import options as of_options
from mlrpl_bench.training.options import Options, check_options, check_values, variant
from mlrpl_bench.utils.errors import UserError

FIELDS = dataclasses.fields(Options)
PRESET = Preset(32, "small", epochs=2)

TEXT = st.text(max_size=12)
PATHS = st.none() | st.sampled_from([Path("a"), Path("/b/c d.npz"), Path("mäßig/x=1.tar.gz")])
MADE_UP = st.builds(
    Options,
    data_root=PATHS,
    evaluate_on=st.sampled_from(of_options.EVALUATE_ON),
    mask_scheme=st.sampled_from(list(SCHEMES)),
    image_backend=st.sampled_from(["reference", "fast", "prepared-raw"]),
    precision=st.sampled_from(of_options.PRECISIONS),
    on_bad_image=st.sampled_from(of_options.ON_BAD_IMAGE),
    compile=st.booleans(),
    mask_file=PATHS,
    preset=st.none() | st.sampled_from(["paper", "laptop"]),
    epochs=st.none() | st.integers(1, 9),
    batch=st.none() | st.integers(2, 40),
    image_size=st.none() | st.integers(16, 64),
    backbone=st.none() | st.sampled_from(["small", "resnet18", "none"]),
    weights=st.none() | TEXT,
    trained_stages=st.none() | st.integers(0, 3),
    feature_width=st.none() | st.integers(2, 9),
    attention_width=st.none() | st.integers(1, 9),
    lr_multiplier=st.none() | st.sampled_from([0.5, 1.0, 30.0]),
    data=st.dictionaries(TEXT, TEXT, max_size=3),
    device=st.sampled_from(["auto", "cpu"]),
    workers=st.none() | st.integers(0, 9),
    deterministic=st.booleans(),
)


def test_the_made_up_options_have_every_field():
    assert {field.name for field in FIELDS} == set(MADE_UP.wrapped_strategy.kwargs)


def test_without_options_everything_is_the_presets_and_the_papers():
    chosen = {name: value for name, value in vars(Options()).items() if value}
    assert chosen == {
        "precision": "32-true",
        "device": "auto",
        "evaluate_on": "test",
        "mask_scheme": "hcp",
        "on_bad_image": "error",
        "image_backend": "reference",
    }


def test_they_are_known_without_importing_what_takes_long():
    code = "import sys; import mlrpl_bench.training.options; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_they_are_given_by_name_only():
    with pytest.raises(TypeError):
        Options(Path("data"))  # type: ignore[misc]


# Described once


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_option_is_explained_in_a_sentence(field):
    assert len(field.metadata["doc"]) > 10
    assert "[" not in field.metadata["doc"]  # markup to the help


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_option_with_choices_or_a_range_is_held_to_them(field):
    valid = field.metadata
    wrong = {}
    if valid.get("choices"):
        wrong["nonsense"] = f"{of_options.flag(field.name)} nonsense is not valid; it is {valid['choices'][0]}"
    if valid.get("low") is not None:
        wrong[valid["low"] - 1] = f"must be at least {valid['low']}"
    if valid.get("high") is not None:
        wrong[valid["high"] + 1] = f"must be at most {valid['high']}"
    for value, line in wrong.items():
        with pytest.raises(UserError, match=re.escape(line)):
            check_values(Options(**{field.name: value}))
    for value in (valid.get("low"), valid.get("high"), *(valid.get("choices") or ())):
        if value is not None:
            check_values(Options(**{field.name: value}))
    is_number = any(kind in str(field.type) for kind in ("int", "float"))
    assert is_number == (valid.get("low") is not None) == (valid.get("high") is not None)


def test_the_mask_schemes_are_the_protocols():
    assert of_options.described()["mask_scheme"].metadata["choices"] == tuple(SCHEMES)
    assert of_options.valid_choices("mask_scheme") == "hcp, by_id, positives_only or single_positive"
    assert of_options.valid_choices("evaluate_on") == "test or val"


@pytest.mark.parametrize("name", ["epochs", "image_size", "batch", "workers"])
def test_numbers_that_nothing_can_have_are_refused(name):
    with pytest.raises(UserError, match="must be at most"):
        check_values(Options(**{name: 10**20}))


def test_a_factor_that_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"--lr nan must be at least 1e-06"):
        check_values(Options(lr_multiplier=float("nan")))


def test_all_is_checked_before_anything_is_loaded(tmp_path):
    check_options(Options(data_root=tmp_path, device="cpu"))
    for options, line in (
        (Options(data_root=tmp_path / "gone"), "gone is not a folder"),
        (Options(device="tpu"), "no device 'tpu'"),
        (Options(precision="8"), "--precision 8 is not valid; it is 32-true or bf16-mixed"),
    ):
        with pytest.raises(UserError, match=line):
            check_options(options)


def test_options_that_decide_a_field_of_the_setting_are_known_by_it():
    flags = of_options.flags_of_setting()
    fields = {field.name for field in dataclasses.fields(Setting)}
    assert {name: flag for name, flag in flags.items() if name in fields} == {
        "image_size": "--image-size",
        "batch": "--batch",
        "epochs": "--epochs",
        "backbone": "--backbone",
        "precision": "--precision",
        "trained_stages": "--trained-stages",
        "feature_width": "--feature-width",
        "attention_width": "--attention-width",
        "evaluate_on": "--evaluate-on",
        "mask_scheme": "--mask-scheme",
        "bad_images": "--on-bad-image",
        "transform": "--image-backend",
    }


# Plain data


@given(MADE_UP)
def test_they_are_the_same_after_json_and_after_a_pickle(options):
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert pickle.loads(pickle.dumps(options)) == options


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"epoch": 3}, "there is no option 'epoch'; there are: data_root, evaluate_on, "),
        ({"epochs": "3"}, "the option epochs is '3'; it must be int or none"),
        ({"epochs": True}, "the option epochs is True; it must be int or none"),
        ({"epochs": 2.0}, "the option epochs is 2.0; it must be int or none"),
        ({"compile": 1}, "the option compile is 1; it must be bool"),
        ({"precision": None}, "the option precision is None; it must be str"),
        ({"mask_file": 5}, "the option mask_file is 5; it must be str or none"),
        ({"data": ["a=b"]}, "the option data is ['a=b']; it must map names to texts"),
        ({"data": {"a": 1}}, "the option data is {'a': 1}; it must map names to texts"),
    ],
)
def test_json_of_something_else_is_refused_in_one_line(content, line):
    with pytest.raises(UserError) as refusal:
        Options.from_json(content)
    assert str(refusal.value).startswith(line) and "\n" not in str(refusal.value)


def test_an_option_that_json_does_not_name_has_its_default():
    assert Options.from_json({}) == Options()


# Names of files


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, ""),
        ({"epochs": 2}, ""),  # the preset's
        ({"epochs": 5, "evaluate_on": "val"}, "val-epochs=5"),
        ({"mask_scheme": "by_id", "image_backend": "fast"}, "by_id-fast"),
        ({"data": {"year": "2017"}}, "year=2017"),
        ({"weights": "/a/b c.pth"}, "weights=b_c"),
        ({"mask_file": Path("/a/half.npz"), "compile": True}, "compile-mask=half"),
        ({"device": "cpu", "workers": 3, "deterministic": True, "data_root": Path("a")}, ""),
        ({"preset": "laptop", "epochs": 2, "lr_multiplier": 30.0}, "preset=laptop-lr=30.0"),
        ({"trained_stages": 1, "lr_multiplier": 1.0}, ""),  # the preset's
        (
            {"trained_stages": 0, "feature_width": 8, "attention_width": 4},
            "trained_stages=0-feature_width=8-attention_width=4",
        ),
        ({"backbone": "x" * 200}, "backbone=" + "x" * 141),
    ],
)
def test_tables_of_another_setting_have_another_name(options, name):
    assert variant(Options(**options), PRESET) == name


@given(MADE_UP)
def test_the_order_of_the_values_in_names_of_files_is_fixed(o):
    # Written out once more: a name that changes would leave the old tables behind as if they were current.
    words = [
        word
        for word, usual in [
            (o.evaluate_on, "test"),
            (o.mask_scheme, "hcp"),
            (o.image_backend, "reference"),
            (o.precision, "32-true"),
            (o.on_bad_image, "error"),
        ]
        if word != usual
    ]
    words += ["compile"] * o.compile
    words += [] if o.mask_file is None else [f"mask={o.mask_file.stem}"]
    words += [] if o.preset is None else [f"preset={o.preset}"]
    for name in ("epochs", "batch", "image_size", "backbone"):
        if getattr(o, name) not in (None, getattr(PRESET, name)):
            words.append(f"{name}={getattr(o, name)}")
    words += [] if o.weights is None else [f"weights={Path(o.weights).stem}"]
    for name in ("trained_stages", "feature_width", "attention_width", "lr_multiplier"):
        if getattr(o, name) not in (None, getattr(PRESET, name)):
            words.append(f"{name.removesuffix('_multiplier')}={getattr(o, name)}")
    words += [f"{name}={value}" for name, value in sorted(o.data.items())]
    assert variant(o, PRESET) == re.sub(r"[^\w=.,-]", "_", "-".join(words))[:150]
