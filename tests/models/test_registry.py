"""A file is registered by lying in the folder; what is wrong with one file is said and stays with it."""

import os
import textwrap
from pathlib import Path

import pytest

from mlrpl_bench.data.dataset import Dataset
from mlrpl_bench.models.parts.source_digest import source_digest
from mlrpl_bench.models.registry import (
    bundled_folder,
    chosen_methods,
    describe_failure,
    load_datasets,
    load_methods,
)
from mlrpl_bench.utils.errors import UserError
from tests.helpers.places import ROOT

METHOD = """
from dataclasses import dataclass
from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.method import Method
from mlrpl_bench.models.registry import register_method

@register_method("{name}", paper="https://example.org/{name}", published="ROW", differs="shorter", default=True)
class Mine(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        width: int = parameter(8, "of the features", low=1)
"""

DATASET = """
from mlrpl_bench.data.dataset import Dataset, Preset
from mlrpl_bench.models.registry import register_dataset

@register_dataset("{name}", preset=Preset(image_size=32, backbone="small", epochs=2))
class Mine(Dataset):
    def load(self, root, split): ...
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "methods").mkdir()
    return tmp_path / "methods"


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def family(wide: str = "width=99") -> str:
    """The text of a method's file with a second name, ``wide``, for the same class."""
    return METHOD.format(name="ours").replace("class Mine", f'@register_method("wide", {wide})\nclass Mine')


def test_a_file_in_the_folder_is_found_with_what_it_says_of_itself(folder):
    path = write(folder / "one.py", METHOD.format(name="ours"))
    entry = load_methods(folder=folder)["ours"]
    assert (entry.name, entry.path, entry.cls.__name__) == ("ours", path, "Mine")
    assert (entry.paper, entry.published, entry.differs, entry.default) == (
        "https://example.org/ours",
        "ROW",
        "shorter",
        True,
    )


def test_a_dataset_is_found_with_its_preset(folder):
    write(folder / "one.py", DATASET.format(name="shapes"))
    entry = load_datasets(folder=folder)["shapes"]
    assert issubclass(entry.cls, Dataset)
    assert (entry.preset.image_size, entry.preset.epochs) == (32, 2)
    assert entry.preset_called(None) == entry.preset and not entry.presets


def test_a_dataset_has_other_presets_by_name(folder):
    text = DATASET.format(name="shapes").replace("epochs=2)", 'epochs=2), presets={"big": Preset(64, "small")}')
    write(folder / "one.py", text)
    entry = load_datasets(folder=folder)["shapes"]
    assert (entry.preset_called("big").image_size, entry.preset_called(None).image_size) == (64, 32)
    with pytest.raises(UserError, match="--preset huge: shapes has no such preset; there are: big"):
        entry.preset_called("huge")


def test_names_are_listed_in_order_of_the_alphabet(folder):
    for name in ("b", "c", "a"):
        write(folder / f"file_{name}.py", METHOD.format(name=name))
    assert list(load_methods(folder=folder)) == ["a", "b", "c"]


def test_files_that_start_with_an_underscore_and_other_files_are_left_alone(folder):
    write(folder / "_draft.py", "raise RuntimeError")
    write(folder / "notes.txt", "none")
    registry = load_methods(folder=folder)
    assert (list(registry), registry.failures) == ([], {})


def test_loading_again_gives_the_same_class(folder):
    write(folder / "one.py", METHOD.format(name="ours"))
    assert load_methods(folder=folder)["ours"].cls is load_methods(folder=folder)["ours"].cls


def test_files_of_one_name_in_two_folders_do_not_meet(folder, tmp_path):
    write(folder / "one.py", METHOD.format(name="ours"))
    plugin = write(tmp_path / "one.py", METHOD.format(name="theirs"))
    registry = load_methods([plugin], folder)
    assert registry["ours"].cls is not registry["theirs"].cls


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:", "SyntaxError"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line, line 1)"),
        (DATASET.format(name="shapes"), "something else than a method"),
    ],
)
def test_a_broken_file_is_reported_and_the_others_load(folder, text, reason):
    broken = write(folder / "broken.py", text)
    write(folder / "whole.py", METHOD.format(name="ours"))
    registry = load_methods(folder=folder)
    assert list(registry) == ["ours"]
    line = describe_failure(broken, registry.failures[broken])
    assert str(broken) in line
    assert reason in line
    assert "\n" not in line


def test_what_a_broken_file_registered_before_it_broke_is_not_kept(folder):
    write(folder / "broken.py", METHOD.format(name="half") + "\nraise RuntimeError")
    write(folder / "whole.py", METHOD.format(name="ours"))
    assert list(load_methods(folder=folder)) == ["ours"]


def test_a_broken_file_is_named_where_a_name_is_missing(folder):
    write(folder / "broken.py", "import no_such_package")
    with pytest.raises(UserError, match=r"no method 'broken'.*broken\.py could not be loaded"):
        load_methods(folder=folder)["broken"]


def test_two_files_with_one_name_are_refused_and_both_named(folder):
    write(folder / "one.py", METHOD.format(name="ours"))
    write(folder / "two.py", METHOD.format(name="ours"))
    with pytest.raises(UserError, match=r"two methods are called 'ours': .*one\.py and .*two\.py"):
        load_methods(folder=folder)


def test_a_plugin_cannot_take_the_name_of_what_is_there(folder, tmp_path):
    write(folder / "one.py", METHOD.format(name="ours"))
    plugin = write(tmp_path / "mine.py", METHOD.format(name="ours"))
    with pytest.raises(UserError, match=r"two methods are called 'ours': .*one\.py and .*mine\.py"):
        load_methods([plugin], folder)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "a|b", "<b>", "`a`", "a\\nb", "[a](b)", "7a"])
@pytest.mark.parametrize(("load", "text"), [(load_methods, METHOD), (load_datasets, DATASET)])
def test_a_name_that_is_no_identifier_is_refused(folder, tmp_path, load, text, name):
    plugin = write(tmp_path / "mine.py", text.replace("https://example.org/{name}", "").format(name=name))
    with pytest.raises(UserError, match=r"\A[^\n]*mine\.py registers [^\n]* name is letters, digits and underscores\Z"):
        load([plugin], folder)


def test_an_unknown_name_suggests_the_closest_and_lists_all(folder):
    write(folder / "one.py", METHOD.format(name="ssgrl"))
    write(folder / "two.py", METHOD.format(name="partial_bce"))
    with pytest.raises(UserError) as refusal:
        load_methods(folder=folder)["ssgr"]
    assert str(refusal.value) == "no method 'ssgr'; did you mean 'ssgrl'? there are: partial_bce, ssgrl"


def test_an_unknown_name_in_an_empty_folder_says_that_there_is_none(folder):
    with pytest.raises(UserError, match="no dataset 'coco'; there are: none"):
        load_datasets(folder=folder)["coco"]


def test_a_plugin_from_anywhere_is_found_beside_the_folders_own(folder, tmp_path):
    write(folder / "one.py", METHOD.format(name="ours"))
    plugin = write(tmp_path / "a file.py", METHOD.format(name="theirs"))
    registry = load_methods([plugin], folder)
    assert list(registry) == ["ours", "theirs"]
    assert registry["theirs"].path == plugin


def test_one_plugin_may_bring_a_method_and_a_dataset(folder, tmp_path):
    plugin = write(tmp_path / "both.py", METHOD.format(name="ours") + DATASET.format(name="shapes"))
    assert list(load_methods([plugin], folder)) == ["ours"]
    assert list(load_datasets([plugin], folder)) == ["shapes"]


def test_a_plugin_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.py: there is no such file"):
        load_methods([tmp_path / "nowhere.py"], folder)


def test_a_broken_plugin_is_refused_with_its_error(folder, tmp_path):
    plugin = write(tmp_path / "mine.py", "1 / 0")
    with pytest.raises(UserError, match=r"--plugin: .*mine\.py could not be loaded \(ZeroDivisionError"):
        load_methods([plugin], folder)


def test_an_ablation_is_the_same_class_with_other_hyper_parameters(folder):
    write(folder / "one.py", family())
    registry = load_methods(folder=folder)
    assert registry["wide"].cls is registry["ours"].cls
    assert registry["wide"].hyperparameters().width == 99
    assert registry["ours"].hyperparameters().width == 8


def test_an_ablation_has_its_familys_paper_and_differences_but_not_its_published_row(folder):
    write(folder / "one.py", family())
    wide = load_methods(folder=folder)["wide"]
    assert (wide.paper, wide.differs) == ("https://example.org/ours", "shorter")
    assert (wide.published, wide.default) == ("", False)


def test_an_ablations_own_paper_is_kept(folder):
    write(folder / "one.py", family('paper="https://example.org/wide"'))
    assert load_methods(folder=folder)["wide"].paper == "https://example.org/wide"


def test_another_class_in_the_file_does_not_get_the_paper(folder):
    other = '\n@register_method("other")\nclass Other(Method): ...\n'
    write(folder / "one.py", METHOD.format(name="ours") + other)
    assert load_methods(folder=folder)["other"].paper == ""


def test_what_the_user_sets_wins_over_what_the_name_sets(folder):
    write(folder / "one.py", family())
    assert load_methods(folder=folder)["wide"].hyperparameters({"width": "5"}).width == 5


def test_a_wrong_value_is_refused_under_the_methods_name(folder):
    write(folder / "one.py", METHOD.format(name="ours"))
    with pytest.raises(UserError, match="ours: width=0 is not valid"):
        load_methods(folder=folder)["ours"].hyperparameters({"width": 0})


def test_an_entrys_digest_is_its_files(folder):
    path = write(folder / "one.py", METHOD.format(name="ours"))
    assert load_methods(folder=folder)["ours"].source_digest() == source_digest(path)


@pytest.fixture
def three(folder):
    """Three methods: one basic, one with published numbers, one that is both."""
    names = {"basic": "default=True", "shown": 'published="ROW"', "both": 'default=True, published="B"'}
    for name, facts in names.items():
        write(
            folder / f"{name}.py",
            METHOD.format(name=name).replace('published="ROW", differs="shorter", default=True', facts),
        )
    return load_methods(folder=folder)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (None, ["basic", "both"]),
        (["all"], ["basic", "both", "shown"]),
        (["paper"], ["both", "shown"]),
        (["shown", "all"], ["shown", "basic", "both"]),
        (["basic", "paper"], ["basic", "both", "shown"]),
        (["shown"], ["shown"]),
        (["shown", "basic"], ["shown", "basic"]),
        (["shown", "shown", "shown"], ["shown"]),
        ([], []),
    ],
)
def test_methods_are_chosen_by_name_or_kind(three, asked, names):
    assert [entry.name for entry in chosen_methods(three, asked)] == names


@pytest.mark.parametrize("asked", [[""], ["shown", ""], ["shown", "shwn"], ["all", "shwn"]])
def test_a_method_that_is_not_there_is_refused(three, asked):
    with pytest.raises(UserError, match="no method"):
        chosen_methods(three, asked)


def test_every_file_of_the_project_loads():
    for load, kind in ((load_methods, "methods"), (load_datasets, "datasets")):
        registry = load()
        assert registry.failures == {}
        assert registry.files() == set((ROOT / kind).glob("[!_]*.py"))


@pytest.mark.parametrize("name", ["methods", "datasets"])
def test_in_a_checkout_the_folders_lie_beside_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundled_folder(name) == ROOT / name


def test_a_folder_inside_the_package_is_taken_before_one_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mlrpl_bench.utils.files.PACKAGE", tmp_path / "mlrpl_bench")
    os.makedirs(tmp_path / "mlrpl_bench" / "datasets")
    os.makedirs(tmp_path / "datasets")
    assert bundled_folder("datasets") == tmp_path / "mlrpl_bench" / "datasets"


def test_an_installation_without_the_folders_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("mlrpl_bench.utils.files.PACKAGE", tmp_path / "mlrpl_bench")
    with pytest.raises(UserError, match=r"no folder methods/ .* the installation is incomplete"):
        load_methods()


def test_an_alias_names_a_method_at_a_ratio_and_is_no_entry(folder):
    from mlrpl_bench.models.registry import Alias

    lines = "from mlrpl_bench.models.registry import register_alias\nregister_alias('top', 'ours', ratio=1.0)\n"
    write(folder / "ours.py", METHOD.format(name="ours"))
    write(folder / "top.py", lines)
    methods = load_methods(folder=folder)
    assert methods.aliases == {"top": Alias("top", "ours", 1.0, folder / "top.py")}
    assert "top" not in methods
    assert not methods.failures
    with pytest.raises(UserError, match="'top' stands for ours at known ratio 1"):
        methods["top"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("register_alias('ours', 'ours', ratio=1.0)", "two methods are called 'ours'"),
        ("register_alias('top', 'nobody', ratio=1.0)", "an alias of 'nobody', and there is no such method"),
    ],
)
def test_an_alias_takes_no_name_that_is_there_and_stands_for_a_method_that_is(folder, line, problem):
    write(folder / "ours.py", METHOD.format(name="ours"))
    write(folder / "zzz.py", f"from mlrpl_bench.models.registry import register_alias\n{line}\n")
    with pytest.raises(UserError, match=problem):
        load_methods(folder=folder)


def test_a_plugin_that_registers_nothing_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="registers nothing"):
        load_methods([write(tmp_path / "empty.py", "x = 1")], folder=folder)


def test_a_broken_file_is_reported_with_its_line(folder):
    path = write(folder / "broken.py", "x = 1\n\nnothing_of_this_name\n")
    assert "line 3" in describe_failure(path, load_methods(folder=folder).failures[path])


def test_a_plugin_that_ends_the_program_is_named_with_the_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import sys\n\nsys.exit('bye')\n")
    with pytest.raises(UserError) as refusal:
        load_methods([path])
    line = str(refusal.value)
    assert f"{path} could not be loaded" in line and "it calls sys.exit('bye') while it is loaded, line 3" in line
    assert "\n" not in line


def test_a_bundled_file_that_ends_the_program_leaves_the_others(tmp_path):
    (tmp_path / "ends.py").write_text("raise SystemExit")
    (tmp_path / "plain.py").write_text(METHOD.format(name="plain"))
    methods = load_methods(folder=tmp_path)
    assert list(methods) == ["plain"] and [path.name for path in methods.failures] == ["ends.py"]


def test_a_folder_as_a_plugin_is_told_to_be_one(tmp_path):
    with pytest.raises(UserError, match=r"--plugin .* is a folder; name each of its \.py files with a --plugin of its"):
        load_methods([tmp_path])


def test_a_hyper_parameter_that_is_called_like_the_factor_on_the_rate_is_refused(folder):
    path = write(folder / "mine.py", METHOD.format(name="mine").replace("width: int", "lr: int"))
    with pytest.raises(UserError, match=f"{path}: mine has a hyper-parameter 'lr', which is the factor on any method"):
        load_methods(folder=folder)


VARIANT = """
from mlrpl_bench.models.registry import register_variant

register_variant("{name}", "{method}", idea="averaged", differs="averaged too", ema=2.0)
"""

STEP = """
from dataclasses import dataclass
from mlrpl_bench.models.finishing import FinishingStep
from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.registry import register_step

@register_step("{name}", idea="refits", paper="https://example.org/step", differs="less")
@register_step("{name}_twice", rounds=2)
class Mine(FinishingStep):
    @dataclass(frozen=True)
    class Hyperparameters:
        {field}: int = parameter(1, "how often", low=1)
"""


@pytest.fixture
def with_step(folder):
    write(folder / "plain.py", METHOD.format(name="plain"))
    write(folder / "step.py", STEP.format(name="step", field="rounds"))
    return folder


def test_a_variant_is_the_method_under_another_recipe_and_of_the_same_code(with_step):
    before = load_methods(folder=with_step)["plain"].source_digest()
    path = write(with_step / "variants.py", VARIANT.format(name="averaged", method="plain"))
    methods = load_methods(folder=with_step)
    plain, averaged = methods["plain"], methods["averaged"]
    assert (averaged.cls.recipe.ema, plain.cls.recipe.ema) == (2.0, None)
    assert issubclass(averaged.cls, plain.cls) and averaged.cls.__module__ == plain.cls.__module__
    assert averaged.source_digest() == plain.source_digest() == before
    assert (averaged.published, averaged.default, averaged.differs) == ("", False, "averaged too")
    assert list(methods) == ["averaged", "plain"] and path in methods.files()


def test_a_variant_of_nothing_is_refused_unless_a_file_is_broken(folder):
    write(folder / "variants.py", VARIANT.format(name="averaged", method="plain"))
    with pytest.raises(UserError, match=r"variants\.py: 'averaged' is a variant of 'plain', and there is no such"):
        load_methods(folder=folder)
    write(folder / "plain.py", "nothing_of_this_name")
    assert list(load_methods(folder=folder)) == []


def test_a_method_with_a_step_is_made_of_both_and_not_listed(with_step):
    methods = load_methods(folder=with_step)
    both = methods["plain+step"]
    assert methods.entries.get("plain+step") is both and "plain+step" in methods
    assert list(methods) == ["plain"] and chosen_methods(methods, ["plain+step"]) == [both]
    assert (both.name, both.published, both.default) == ("plain+step", "", False)
    assert both.differs == "shorter; less" and both.idea.endswith("Then: refits")
    assert vars(both.hyperparameters({"width": "9", "rounds": "3"})) == {"width": 9, "rounds": 3}
    assert methods["plain+step_twice"].hyperparameters().rounds == 2
    assert both.cls.finishing is both.step.cls and methods["plain"].cls.finishing is None
    assert with_step / "step.py" in methods.files()


def test_editing_either_file_makes_another_method(with_step):
    digest = lambda: load_methods(folder=with_step)["plain+step"].source_digest()  # noqa: E731
    digests = [digest()]
    for file in ("plain.py", "step.py"):
        path = with_step / file
        path.write_text(path.read_text() + "\nMORE = 1\n")
        digests.append(digest())
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plain+stp", "no step 'stp' that follows a method, as 'plain+stp' asks for; there are: step, step_twice"),
        ("plan+step", "no method 'plan'; did you mean 'plain'"),
        ("plain+step+step", "asks for two steps; one step follows a method"),
        ("plain+", "no step ''"),
    ],
)
def test_a_method_or_a_step_that_there_is_not_is_said(with_step, name, said):
    methods = load_methods(folder=with_step)
    assert name not in methods and methods.entries.get(name) is None
    with pytest.raises(UserError) as error:
        methods[name]
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_step_whose_hyper_parameter_the_method_has_too_is_refused(with_step):
    write(with_step / "other.py", STEP.format(name="other", field="width").replace("rounds=2", "width=2"))
    with pytest.raises(UserError, match=r"plain\+other: the method and the step both have a hyper-parameter 'width'"):
        load_methods(folder=with_step)["plain+other"]
