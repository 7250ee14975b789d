"""What a person reads after a check."""

from mlrpl_bench.tools.inspection import checking, findings_text
from tests.helpers.made_up_labels import Folder, draw, fill, truncate


def text(root, quick: bool = False) -> list[str]:
    return [line.plain for line in findings_text.lines(checking.check(Folder(), root, quick, workers=0), "mine")]


def test_a_whole_folder(tmp_path):
    assert text(fill(tmp_path)) == [
        f"mine in {tmp_path}",
        "train: 6 images (expected 6), 3 categories, 6 decoded",
        "test: 4 images (expected 4), 3 categories, 4 decoded",
        "ok, a run would succeed",
    ]


def test_a_sample_makes_no_promise(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "SAMPLE", 2)
    lines = text(fill(tmp_path), quick=True)
    assert lines[1].endswith("2 decoded as a sample") and lines[-1] == "ok, as far as the sample goes"


def test_what_is_missing_stands_beside_the_expected_tree_and_what_is_there(tmp_path):
    draw(tmp_path / "other.jpg")
    lines = text(tmp_path)
    assert f"  error: train and test: no file {tmp_path / 'labels.txt'}; download it" in lines
    assert lines[lines.index("expected files:") + 1 :][:3] == ["  ROOT/", "    train*.jpg", "    test*.jpg"]
    assert f"in {tmp_path} there is: other.jpg" in lines and lines[-1] == "a run would fail"


def test_the_tree_is_shown_where_most_images_are_missing_and_not_for_a_few(tmp_path):
    root = fill(tmp_path)
    for row in range(4):
        assert "expected files:" not in text(root)
        (root / f"train{row}.jpg").unlink()
        assert f"      {root / f'train{row}.jpg'}" in text(root)
    assert "expected files:" in text(root)


def test_damaged_files_are_named_the_first_ones_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr(findings_text, "SHOWN", 2)
    root = fill(tmp_path)
    for row in range(3):
        truncate(root / f"train{row}.jpg")
    draw(root / "test0.jpg", "L")
    lines = text(root)
    at = lines.index("  error: 3 images: truncated, cannot be decoded")
    assert lines[at + 1].startswith(f"      {root / 'train0.jpg'} (") and "expected files:" not in lines
    assert "  note: 1 image: grey, can be used" in lines and f"      {root / 'test0.jpg'}" in lines


def test_paths_are_not_broken_into_lines_nor_read_as_markup(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    root = fill(tmp_path / ("[bold]long" * 9))
    truncate(root / "train0.jpg")
    findings_text.print_findings(checking.check(Folder(), root, workers=0), "mine")
    assert str(root / "train0.jpg") in capsys.readouterr().out


def test_where_weights_must_be_fetched_nothing_more_is_promised(tmp_path):
    findings = checking.check(Folder(), fill(tmp_path), workers=0)
    findings.needs_network = True
    assert findings_text.lines(findings, "mine")[-1].plain == "ok, a run would succeed, if it can fetch the weights"
